"""The layers of CHGNet for inference, each with its derivative written out.

`forward` returns what `backward` needs; nothing is recorded by torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from matloop.evaluators.mlip.chgnet_graph import Incidence

WIDTH = 64
"""Features of an atom, a bond and an angle."""


class RadialBasis:
    """Bessel functions of a bond length under a polynomial envelope."""

    def __init__(self, frequencies: Tensor, cutoff: float, power: int) -> None:
        self._frequencies = frequencies / cutoff
        self._norm = math.sqrt(2.0 / cutoff)
        self._cutoff = cutoff
        self._p = float(power)

    def forward(self, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return the basis and its derivative (1/Å), shape (b, k) each."""
        p = self._p
        x = lengths / self._cutoff
        a, b, c = -(p + 1) * (p + 2) / 2, p * (p + 2), -p * (p + 1) / 2
        power = x ** (p - 1)
        envelope = 1 + power * x * (a + x * (b + x * c))
        slope = power * (a * p + x * (b * (p + 1) + x * (c * (p + 2)))) / self._cutoff
        inverse = self._norm / lengths
        height = (envelope * inverse)[:, None]
        tilt = (slope * inverse - envelope * inverse / lengths)[:, None]
        phase = lengths[:, None] * self._frequencies
        sine = torch.sin(phase)
        wave = torch.cos(phase).mul_(self._frequencies).mul_(height)
        return sine * height, wave.addcmul_(sine, tilt)


class Gate:
    """The end of a gated perceptron: silu(norm(core)) times sigmoid(norm(gate)).

    Norms subtract a mean, which is linear, and so is part of the layer before (`_centred`).
    """

    def __init__(self, weights: Mapping[str, Tensor], name: str) -> None:
        self._core = _Norm(weights, f"{name}.bn1")
        self._gate = _Norm(weights, f"{name}.bn2")

    def forward(self, core: Tensor, gate: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the messages, shape (m, WIDTH), and what `backward` needs, messages last."""
        z, core_inverse = self._core.forward(core)
        openness, gate_inverse = self._gate.forward(gate)
        openness.sigmoid_()
        content = torch.nn.functional.silu(z)
        message = content * openness
        return message, (core, core_inverse, z, gate, gate_inverse, openness, content, message)

    def backward(self, g: Tensor, saved: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """Return the derivatives with respect to core and gate of `forward`."""
        core, core_inverse, z, gate, gate_inverse, openness, content, _ = saved
        aten = torch.ops.aten
        g_core = aten.silu_backward(g * openness, z)
        g_gate = aten.sigmoid_backward(g * content, openness)
        return (
            self._core.backward(g_core, core, core_inverse),
            self._gate.backward(g_gate, gate, gate_inverse),
        )


class Hidden:
    """The middle of a gated perceptron: silu, then one linear layer each for core and gate."""

    def __init__(self, weights: Mapping[str, Tensor], name: str) -> None:
        core = _centred(weights, f"{name}.mlp_core.layers.3")
        gate = _centred(weights, f"{name}.mlp_gate.layers.3")
        self._forward = [(matrix.T.contiguous(), bias) for matrix, bias in (core, gate)]
        self._backward = [matrix.contiguous() for matrix, _ in (core, gate)]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return core and gate, shape (m, WIDTH) each, of the first layer's output (m, 2 WIDTH)."""
        h = torch.nn.functional.silu(x)
        (core, core_bias), (gate, gate_bias) = self._forward
        return (
            torch.addmm(core_bias, h[:, :WIDTH], core),
            torch.addmm(gate_bias, h[:, WIDTH:], gate),
        )

    def backward(self, g: tuple[Tensor, Tensor], x: Tensor) -> Tensor:
        """Return the derivative with respect to `x` of `forward`."""
        gx = torch.empty_like(x)
        torch.mm(g[0], self._backward[0], out=gx[:, :WIDTH])
        torch.mm(g[1], self._backward[1], out=gx[:, WIDTH:])
        torch.ops.aten.silu_backward.grad_input(gx, x, grad_input=gx)
        return gx


class AngleMessage:
    """The first layer of an angle's message, split by left bond, right bond, angle and centre."""

    def __init__(self, weights: Mapping[str, Tensor], name: str, last: int, centre: bool) -> None:
        matrix, bias = first_layers(weights, name, last, centre)
        left, right, angle, atom = (matrix[k * WIDTH : (k + 1) * WIDTH] for k in range(4))
        self._left, self._right, self._atom = (
            left.contiguous(),
            right.contiguous(),
            atom.contiguous(),
        )
        self._bias = bias
        self.angle = angle.contiguous()
        self.angle_back = angle.T.contiguous()

    def table(self, atom: Tensor, bond: Tensor) -> Tensor:
        """Return what left bonds, right bonds and centres contribute, one row each."""
        bonds = len(bond)
        table = bond.new_empty((2 * bonds + len(atom), 2 * WIDTH))
        torch.mm(bond, self._left, out=table[:bonds])
        torch.mm(bond, self._right, out=table[bonds : 2 * bonds])
        torch.addmm(self._bias, atom, self._atom, out=table[2 * bonds :])
        return table

    def add_angles(self, x: Tensor, angle: Tensor, *, first: bool) -> None:
        """Add what angles contribute: of the first layer already a product, one for both orders."""
        if first:
            x.view(2, -1, 2 * WIDTH).add_(angle)
        else:
            x.addmm_(angle, self.angle)

    def back(self, g_table: Tensor, g_atom: Tensor, g_bond: Tensor) -> None:
        """Add the derivatives of a table to those of atoms and bonds."""
        bonds = len(g_bond)
        g_bond.addmm_(g_table[:bonds], self._left.T)
        g_bond.addmm_(g_table[bonds : 2 * bonds], self._right.T)
        g_atom.addmm_(g_table[2 * bonds :], self._atom.T)


class Readout:
    """The energy of each atom, by a norm and three hidden layers, and its derivative."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        self._scale = weights["readout_norm.weight"]
        self._shift = weights["readout_norm.bias"]
        self._layers = [
            (weights[f"mlp.layers.{k}.weight"], weights[f"mlp.layers.{k}.bias"])
            for k in (0, 2, 4, 7)
        ]

    def forward(self, atom: Tensor) -> tuple[Tensor, Tensor]:
        """Return the energy of each atom (eV), shape (n,), and its derivative, shape (n, WIDTH)."""
        x, mean, inverse = torch.native_layer_norm(atom, (WIDTH,), self._scale, self._shift, 1e-5)
        inputs = []
        for matrix, bias in self._layers[:-1]:
            x = torch.addmm(bias, x, matrix.T)
            inputs.append(x)
            x = torch.nn.functional.silu(x)
        matrix, bias = self._layers[-1]
        energies = torch.addmm(bias, x, matrix.T)[:, 0]
        g = matrix.expand(len(atom), -1)
        for (matrix, _), x in zip(reversed(self._layers[:-1]), reversed(inputs), strict=True):
            g = torch.ops.aten.silu_backward(g, x) @ matrix
        g_atom = torch.ops.aten.native_layer_norm_backward(
            g, atom, (WIDTH,), mean, inverse, self._scale, self._shift, (True, False, False)
        )[0]
        return energies, g_atom


class _Norm:
    """A layer norm of rows that have mean zero already."""

    def __init__(self, weights: Mapping[str, Tensor], name: str) -> None:
        self._scale, self._shift = weights[f"{name}.weight"], weights[f"{name}.bias"]

    def forward(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return the normed rows and the inverse of their standard deviation."""
        inverse = torch.linalg.vector_norm(y, dim=1, keepdim=True)
        inverse.square_().div_(WIDTH).add_(1e-5).rsqrt_()
        return (y * inverse).mul_(self._scale).add_(self._shift), inverse

    def backward(self, g: Tensor, y: Tensor, inverse: Tensor) -> Tensor:
        """Return the derivative of `forward`, up to a mean that the layer before ignores."""
        found: Tensor = torch.ops.aten.native_layer_norm_backward(
            g,
            y,
            (WIDTH,),
            torch.zeros_like(inverse),
            inverse,
            self._scale,
            self._shift,
            (True, False, False),
        )[0]
        return found


def _centred(weights: Mapping[str, Tensor], name: str) -> tuple[Tensor, Tensor]:
    """Return a linear layer whose output has mean zero, as a norm after it would make it."""
    matrix, bias = weights[f"{name}.weight"].double(), weights[f"{name}.bias"].double()
    return (matrix - matrix.mean(dim=0)).float(), (bias - bias.mean()).float()


def first_layers(
    weights: Mapping[str, Tensor], name: str, place: int, centre: bool = False
) -> tuple[Tensor, Tensor]:
    """Return the first layers of core and gate side by side, to multiply from the right."""
    parts = [f"{name}.{part}.layers.{place}" for part in ("mlp_core", "mlp_gate")]
    pairs = [
        _centred(weights, part) if centre else (weights[f"{part}.weight"], weights[f"{part}.bias"])
        for part in parts
    ]
    matrix = torch.cat([matrix for matrix, _ in pairs]).T.contiguous()
    return matrix, torch.cat([bias for _, bias in pairs])


def fourier_basis(angles: Tensor, frequencies: Tensor) -> tuple[Tensor, Tensor]:
    """Return the Fourier basis of angles and its derivative, shape (a, 1 + 2 k) each."""
    phase = angles[:, None] * frequencies
    sine, cosine = torch.sin(phase), torch.cos(phase)
    norm = 1.0 / math.sqrt(math.pi)
    constant = torch.full_like(angles[:, None], norm / math.sqrt(2.0))
    basis = torch.cat([constant, sine * norm, cosine * norm], dim=1)
    scaled = frequencies * norm
    slope = torch.cat([torch.zeros_like(constant), cosine * scaled, sine * -scaled], dim=1)
    return basis, slope


def _sum_rows(table: Tensor, rows: Tensor, starts: Tensor) -> Tensor:
    """Return sums of table rows: of all rows from one start to the next."""
    return torch._embedding_bag_forward_only(table, rows, starts, False, 0, False, None, False, -1)[
        0
    ]


def read_rows(table: Tensor, incidence: Incidence) -> Tensor:
    """Return for each message the sum of the rows it reads."""
    return _sum_rows(table, incidence.reads, incidence.starts)


def collect_rows(
    messages: Tensor, incidence: Incidence, block: tuple[int, int] | None = None
) -> Tensor:
    """Return for each table row (of a block of rows) the sum of the messages that read it."""
    starts, readers = incidence.reader_starts, incidence.readers
    if block is not None:
        ends = (int(starts[block[0]]), int(starts[block[1]]))
        starts = starts[block[0] : block[1] + 1] - ends[0]
        readers = readers[ends[0] : ends[1]]
    return _sum_rows(messages, readers, starts[:-1].contiguous())
