"""CHGNet's network for inference: energies and their derivatives with respect to bonds and angles.

The derivatives are written out by hand, for four reasons: only those that forces and stresses need
are computed; a message's first linear layer is split, so that it runs once per atom and bond rather
than once per message; sums over messages and their transposes share one index; and nothing is kept
for a second derivative.

References
----------
Deng et al., Nature Machine Intelligence 5, 1031 (2023), for the architecture.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from matloop.evaluators.mlip.chgnet_graph import Graph, Incidence
from matloop.evaluators.mlip.chgnet_layers import (
    WIDTH,
    AngleMessage,
    Gate,
    Hidden,
    RadialBasis,
    Readout,
    collect_rows,
    first_layers,
    fourier_basis,
    read_rows,
)

LAYERS = 4
"""Convolutions over atoms; those over bonds are one fewer, and of angles two fewer matter."""

_FIRST_BOND, _FIRST_ANGLE, _FEATURES = (
    slice(0, 2 * WIDTH),
    slice(2 * WIDTH, 4 * WIDTH),
    slice(4 * WIDTH, 5 * WIDTH),
)  # what is linear in the angular basis


@dataclass(frozen=True)
class Derivatives:
    """Energies, and their derivatives with respect to the geometry.

    Attributes
    ----------
    site_energies
        Energy of each atom without its element's reference (eV), shape (n,).
    lengths
        dE/d(length) of each bond (eV/Å), shape (b,).
    angles
        dE/d(angle) of each unordered angle (eV), shape (a,).
    """

    site_energies: Tensor
    lengths: Tensor
    angles: Tensor


@dataclass(frozen=True)
class _Inputs:
    """What the network reads, or the derivatives with respect to it."""

    from_radial: Tensor
    short_weight: Tensor
    bond: Tensor
    from_angular: Tensor


@dataclass(frozen=True)
class _Trace:
    """What the way back needs of the way there, layer by layer."""

    weight: Tensor
    atoms: list[tuple[Any, ...]] = field(default_factory=list)
    bonds: list[tuple[Any, ...]] = field(default_factory=list)
    angles: list[tuple[Any, ...]] = field(default_factory=list)


class Network:
    """CHGNet with 64 features and layer norms, as in its versions 0.3.0 and r2SCAN.

    Parameters
    ----------
    weights
        State of CHGNet's own module.
    atom_cutoff, bond_cutoff
        Longest bonds, and longest bonds that form angles (Å).
    envelope_power
        Power of the envelope of the radial basis.
    device
        Where to compute.
    """

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        atom_cutoff: float,
        bond_cutoff: float,
        envelope_power: int,
        device: torch.device,
    ) -> None:
        w = {name: tensor.to(device, torch.float32) for name, tensor in weights.items()}
        basis = "bond_basis_expansion.rbf_expansion"
        self._radial = RadialBasis(w[f"{basis}_ag.frequencies"], atom_cutoff, envelope_power)
        self._short_radial = RadialBasis(w[f"{basis}_bg.frequencies"], bond_cutoff, envelope_power)
        self._angular = w["angle_basis_expansion.fourier_expansion.frequencies"]
        self._elements = w["atom_embedding.embedding.weight"]
        bond, angle = w["bond_embedding.weight"], w["angle_embedding.weight"]
        self._short_weights = w["bond_weights_bg.weight"].T.contiguous()

        atom_names = [f"atom_conv_layers.{k}" for k in range(LAYERS)]
        first = [first_layers(w, f"{name}.twoBody_atom", 0) for name in atom_names]
        # rows of a first layer: centre, bond, neighbour
        self._atom_centre = [m[:WIDTH].contiguous() for m, _ in first]
        self._atom_bond = [m[WIDTH : 2 * WIDTH].contiguous() for m, _ in first]
        self._atom_neighbour = [m[2 * WIDTH :].contiguous() for m, _ in first]
        self._atom_bias = [bias for _, bias in first]
        self._atom_hidden = [Hidden(w, f"{name}.twoBody_atom") for name in atom_names]
        self._atom_gate = [Gate(w, f"{name}.twoBody_atom") for name in atom_names]
        self._atom_out = [w[f"{name}.mlp_out.layers.1.weight"].T for name in atom_names]
        # Everything linear in the radial basis, in one product: bond weights, then what each
        # convolution's first layer makes of the bond's embedding.
        self._from_radial = torch.cat(
            [w["bond_weights_ag.weight"].T] + [bond.T @ m for m in self._atom_bond], dim=1
        )

        bond_names = [f"bond_conv_layers.{k}" for k in range(LAYERS - 1)]
        self._bond_in = [AngleMessage(w, f"{name}.twoBody_bond", 0, False) for name in bond_names]
        self._bond_hidden = [Hidden(w, f"{name}.twoBody_bond") for name in bond_names]
        self._bond_gate = [Gate(w, f"{name}.twoBody_bond") for name in bond_names]
        self._bond_out = [w[f"{name}.mlp_out.layers.1.weight"].T for name in bond_names]
        self._bond_embedding = bond.T.contiguous()

        angle_names = [f"angle_layers.{k}" for k in range(LAYERS - 2)]
        self._angle_in = [AngleMessage(w, f"{name}.twoBody_bond", 1, True) for name in angle_names]
        self._angle_gate = [Gate(w, f"{name}.twoBody_bond") for name in angle_names]
        # Everything linear in the angular basis: first layers of the first updates, and features.
        self._from_angular = torch.cat(
            [angle.T @ self._bond_in[0].angle, angle.T @ self._angle_in[0].angle, angle.T], dim=1
        )
        self._readout = Readout(w)

    def __call__(
        self, numbers: Tensor, graph: Graph, lengths: Tensor, angles: Tensor
    ) -> Derivatives:
        """Return energies and derivatives.

        Parameters
        ----------
        numbers
            Atomic numbers, shape (n,).
        graph
            Bonds and angles.
        lengths, angles
            Bond lengths (Å), shape (b,), and angles (rad), shape (a,).
        """
        radial, radial_slope = self._radial.forward(lengths)
        short_radial, short_slope = self._short_radial.forward(lengths[: graph.short])
        angular, angular_slope = fourier_basis(angles, self._angular)
        inputs = _Inputs(
            radial @ self._from_radial,
            short_radial @ self._short_weights,
            radial[: graph.short] @ self._bond_embedding,
            angular @ self._from_angular,
        )
        atom, trace = self._forward(self._elements[numbers - 1], inputs, graph)
        energies, g_atom = self._readout.forward(atom)
        g = self._backward(g_atom, inputs, trace, graph)

        g_basis = g.from_radial @ self._from_radial.T
        g_basis[: graph.short] += g.bond @ self._bond_embedding.T
        g_lengths = (g_basis * radial_slope).sum(dim=1)
        g_short = (g.short_weight @ self._short_weights.T) * short_slope
        g_lengths[: graph.short] += g_short.sum(dim=1)
        g_angles = ((g.from_angular @ self._from_angular.T) * angular_slope).sum(dim=1)
        return Derivatives(energies, g_lengths, g_angles)

    def _forward(self, atom: Tensor, inputs: _Inputs, graph: Graph) -> tuple[Tensor, _Trace]:
        """Return the atoms' last features, and what the way back needs."""
        trace = _Trace(inputs.from_radial[:, :WIDTH].contiguous())
        bond, angle = inputs.bond, None
        half = len(graph.left)
        for k in range(LAYERS):
            in_bond = inputs.from_radial[:, _block(k)]
            if k > 0 and half:
                in_bond[: graph.short].addmm_(bond - inputs.bond, self._atom_bond[k])
            atom, saved = self._convolve_atoms(k, atom, in_bond, trace.weight, graph.bond_messages)
            trace.atoms.append(saved)
            if k == LAYERS - 1 or not half:
                continue
            in_angle = inputs.from_angular[:, _FIRST_BOND] if angle is None else angle
            bond, saved = self._convolve_bonds(k, atom, bond, in_angle, inputs.short_weight, graph)
            trace.bonds.append(saved)
            if k == LAYERS - 2:
                continue
            in_angle = inputs.from_angular[:, _FIRST_ANGLE] if angle is None else angle
            change, saved = self._update_angles(k, atom, bond, in_angle, graph.angle_messages)
            trace.angles.append(saved)
            if angle is None:
                angle = change.view(2, half, WIDTH) + inputs.from_angular[:, _FEATURES]
                angle = angle.view(-1, WIDTH)
            else:
                angle = angle + change
        return atom, trace

    def _backward(self, g_atom: Tensor, inputs: _Inputs, trace: _Trace, graph: Graph) -> _Inputs:
        """Return the derivatives of the energy with respect to the inputs."""
        g = _Inputs(
            torch.empty_like(inputs.from_radial),
            torch.zeros_like(inputs.short_weight),
            torch.zeros_like(inputs.bond),
            torch.zeros_like(inputs.from_angular),
        )
        g_weight, g_bond = torch.zeros_like(trace.weight), torch.zeros_like(inputs.bond)
        half = len(graph.left)
        g_angle = inputs.bond.new_zeros((2 * half, WIDTH))
        for k in reversed(range(LAYERS)):
            if k < LAYERS - 2 and half:
                g_in = self._update_angles_back(
                    k, g_angle, g_atom, g_bond, trace.angles[k], graph.angle_messages
                )
                if k == 0:
                    g.from_angular[:, _FEATURES] = g_angle[:half] + g_angle[half:]
                    g.from_angular[:, _FIRST_ANGLE] = g_in[:half] + g_in[half:]
                else:
                    g_angle.addmm_(g_in, self._angle_in[k].angle_back)
            if k < LAYERS - 1 and half:
                g_in = self._convolve_bonds_back(
                    k, g_atom, g_bond, g.short_weight, trace.bonds[k], inputs.short_weight, graph
                )
                if k == 0:
                    g.from_angular[:, _FIRST_BOND] = g_in[:half] + g_in[half:]
                else:
                    g_angle.addmm_(g_in, self._bond_in[k].angle_back)
            g_atom, g_in = self._convolve_atoms_back(
                k, g_atom, g_weight, trace.atoms[k], trace.weight, graph
            )
            g.from_radial[:, _block(k)] = g_in
            if k > 0 and half:
                pull = g_in[: graph.short] @ self._atom_bond[k].T
                g_bond += pull
                g.bond.sub_(pull)
        g.from_radial[:, :WIDTH] = g_weight
        g.bond.add_(g_bond)
        return g

    def _convolve_atoms(
        self, k: int, atom: Tensor, in_bond: Tensor, weight: Tensor, bonds: Incidence
    ) -> tuple[Tensor, tuple[Any, ...]]:
        count = len(atom)
        table = atom.new_empty((2 * count, 2 * WIDTH))
        torch.addmm(self._atom_bias[k], atom, self._atom_centre[k], out=table[:count])
        torch.mm(atom, self._atom_neighbour[k], out=table[count:])
        x = read_rows(table, bonds)
        x.view(2, -1, 2 * WIDTH).add_(in_bond)
        message, gate = self._atom_gate[k].forward(*self._atom_hidden[k].forward(x))
        weighted = message.view(2, -1, WIDTH) * weight
        total = collect_rows(weighted.view(-1, WIDTH), bonds, (0, count))
        return torch.addmm(atom, total, self._atom_out[k]), (x, gate)

    def _convolve_atoms_back(
        self,
        k: int,
        g_atom: Tensor,
        g_weight: Tensor,
        saved: tuple[Any, ...],
        weight: Tensor,
        graph: Graph,
    ) -> tuple[Tensor, Tensor]:
        x, gate = saved
        bonds = graph.bond_messages
        message = gate[-1]
        g = torch.embedding(g_atom @ self._atom_out[k].T, graph.centres)
        g_pair = g.view(2, -1, WIDTH)
        pair = message.view(2, -1, WIDTH)
        g_weight.addcmul_(g_pair[0], pair[0]).addcmul_(g_pair[1], pair[1])
        g_pair.mul_(weight)
        gx = self._atom_hidden[k].backward(self._atom_gate[k].backward(g, gate), x)
        g_in = gx.view(2, -1, 2 * WIDTH).sum(dim=0)
        g_table = collect_rows(gx, bonds)
        count = len(g_atom)
        g_atom = torch.addmm(g_atom, g_table[:count], self._atom_centre[k].T)
        return g_atom.addmm_(g_table[count:], self._atom_neighbour[k].T), g_in

    def _convolve_bonds(
        self,
        k: int,
        atom: Tensor,
        bond: Tensor,
        in_angle: Tensor,
        weight: Tensor,
        graph: Graph,
    ) -> tuple[Tensor, tuple[Any, ...]]:
        layer, messages = self._bond_in[k], graph.angle_messages
        x = read_rows(layer.table(atom, bond), messages)
        layer.add_angles(x, in_angle, first=k == 0)
        message, gate = self._bond_gate[k].forward(*self._bond_hidden[k].forward(x))
        # A message carries the weights of both its bonds; that of the left one waits for the sum.
        partner = torch.embedding(weight, graph.right_bonds)
        total = collect_rows(message * partner, messages, (0, len(bond)))
        out = self._bond_out[k]
        return torch.addmm(bond, total * weight, out), (x, gate, total, partner)

    def _convolve_bonds_back(
        self,
        k: int,
        g_atom: Tensor,
        g_bond: Tensor,
        g_weight: Tensor,
        saved: tuple[Any, ...],
        weight: Tensor,
        graph: Graph,
    ) -> Tensor:
        """Add to the derivatives of atoms, bonds and weights; return that of the first layer."""
        x, gate, total, partner = saved
        count, messages = len(weight), graph.angle_messages
        g_total = g_bond @ self._bond_out[k].T
        g_weight.addcmul_(g_total, total)
        g = torch.embedding(g_total * weight, graph.left_bonds)
        g_weight += collect_rows(g * gate[-1], messages, (count, 2 * count))
        gx = self._bond_hidden[k].backward(self._bond_gate[k].backward(g.mul_(partner), gate), x)
        self._bond_in[k].back(collect_rows(gx, messages), g_atom, g_bond)
        return gx

    def _update_angles(
        self, k: int, atom: Tensor, bond: Tensor, in_angle: Tensor, messages: Incidence
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        layer = self._angle_in[k]
        x = read_rows(layer.table(atom, bond), messages)
        layer.add_angles(x, in_angle, first=k == 0)
        return self._angle_gate[k].forward(x[:, :WIDTH].contiguous(), x[:, WIDTH:].contiguous())

    def _update_angles_back(
        self,
        k: int,
        g_angle: Tensor,
        g_atom: Tensor,
        g_bond: Tensor,
        saved: tuple[Tensor, ...],
        messages: Incidence,
    ) -> Tensor:
        gx = torch.cat(self._angle_gate[k].backward(g_angle, saved), dim=1)
        self._angle_in[k].back(collect_rows(gx, messages), g_atom, g_bond)
        return gx


def _block(k: int) -> slice:
    """Return the columns of what is linear in the radial basis that enter convolution k."""
    return slice(WIDTH + 2 * WIDTH * k, WIDTH + 2 * WIDTH * (k + 1))
