"""Minimise many crystals at once: converged ones leave, waiting ones take their place."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from matloop.evaluators.mlip.frechet import log_deformation_force, matrix_exponential
from matloop.evaluators.mlip.model import Floats, Integers, LoadedModel, Member, Prediction
from matloop.evaluators.mlip.optimizers import OPTIMIZERS, Optimizer
from matloop.evaluators.mlip.single_points import predict_within
from matloop.evaluators.mlip.site_symmetry import SiteSymmetry, site_symmetry

VOLUME_BOUNDS = (1.0, 1000.0)
"""Volumes per atom (Å^3) beyond which a cell has collapsed or exploded; crystals have 3 to 120."""

LENGTH_BOUNDS = (0.5, 500.0)
"""Lengths of lattice vectors (Å) beyond which a cell has collapsed or exploded."""

ATOM_CURVATURE = 70.0
"""Guess at an atom's second derivative of the energy (eV/Å^2); ASE's default for BFGS."""

CELL_STIFFNESS = 1.0
"""Guess at a crystal's elastic modulus (eV/Å^3, 160 GPa), for the first Hessian of BFGS."""


@dataclass
class Minimum:
    """Where one minimisation ended.

    Attributes
    ----------
    member
        The crystal at its end.
    energy, first_energy
        Total energies at the end and at the start (eV); NaN if not computed.
    max_force
        Largest norm over atomic forces and rows of the cell's force (eV/Å), as ASE measures it.
    forces
        Forces at the end (eV/Å), shape (n, 3), as the model gave them.
    stress
        Cauchy stress at the end (eV/Å^3), shape (3, 3).
    first_volume
        Volume of the cell at the start (Å^3).
    steps
        Steps taken.
    calls
        Force evaluations.
    converged
        Whether `max_force` fell below the limit.
    fault
        Why it was given up; empty if it was not.
    symmetry
        Symmetry of the start that every step keeps; None if it has none, or is free to lose it.
    """

    member: Member
    energy: float = np.nan
    first_energy: float = np.nan
    max_force: float = np.nan
    forces: Floats = field(default_factory=lambda: np.zeros((0, 3)))
    stress: Floats = field(default_factory=lambda: np.full((3, 3), np.nan))
    first_volume: float = np.nan
    steps: int = 0
    calls: int = 0
    converged: bool = False
    fault: str = ""
    symmetry: SiteSymmetry | None = None


def minimise(
    model: LoadedModel,
    members: Sequence[Member],
    *,
    optimizer: str = "fire",
    fmax: float = 0.1,
    max_steps: int = 300,
    relax_cell: bool = True,
    keep_symmetry: bool = True,
    batch_atoms: int = 384,
) -> list[Minimum]:
    """Return where each crystal ends, in order; the members are moved in place.

    Parameters
    ----------
    model
        The potential.
    members
        Crystals, of any sizes.
    optimizer
        ``fire`` or ``bfgs``.
    fmax
        Converged below this force (eV/Å), see `Minimum.max_force`.
    max_steps
        Given up after so many steps.
    relax_cell
        Whether the cell moves too.
    keep_symmetry
        Whether the asymmetric part of the forces on a symmetric crystal, which is noise, is taken
        out.
    batch_atoms
        Most atoms in flight at once; a larger crystal runs alone. Halved whenever memory runs out.
    """
    minima = [Minimum(member, first_volume=_volume(member.cell)) for member in members]
    waiting = deque(minima)
    flight = _Flight(model, OPTIMIZERS[optimizer](), relax_cell, keep_symmetry, batch_atoms)
    while waiting or flight.minima:
        flight.board(waiting)
        flight.evaluate()
        flight.dismiss(fmax, max_steps)
        flight.move()
    return minima


@dataclass(frozen=True)
class _Layout:
    """Which of the packed rows are whose.

    Attributes
    ----------
    atoms, cells
        Rows of atoms, and of cells.
    owners
        Number of the crystal that each atom belongs to.
    starts
        First row of each crystal.
    """

    atoms: Integers
    cells: Integers
    owners: Integers
    starts: Integers

    @classmethod
    def of(cls, counts: Integers) -> _Layout:
        """Return the layout of crystals with so many atoms each."""
        ends = np.cumsum(counts + 3)
        cells = (ends[:, None] - np.array([3, 2, 1])).ravel()
        is_atom = np.ones(int(counts.sum()) + 3 * len(counts), dtype=bool)
        is_atom[cells] = False
        owners = np.repeat(np.arange(len(counts)), counts)
        return cls(np.flatnonzero(is_atom), cells, owners, ends - counts - 3)


class _Flight:
    """The crystals in flight, their coordinates packed: rows of atoms, then three of the cell."""

    def __init__(
        self,
        model: LoadedModel,
        optimizer: Optimizer,
        relax_cell: bool,
        keep_symmetry: bool,
        batch_atoms: int,
    ) -> None:
        self.minima: list[Minimum] = []
        self._model = model
        self._optimizer = optimizer
        self._relax_cell = relax_cell
        self._keep_symmetry = keep_symmetry
        self._limit = batch_atoms
        self._counts = np.zeros(0, dtype=np.int64)
        self._first_cells = np.zeros((0, 3, 3))
        self._rows = np.zeros((0, 3))
        self._forces = np.zeros((0, 3))
        self._layout: _Layout | None = None
        self._strains: tuple[Floats, Floats] | None = None

    def board(self, waiting: deque[Minimum]) -> None:
        """Let waiting crystals in while there is room."""
        new: list[Minimum] = []
        atoms = int(self._counts.sum())
        while waiting:
            size = len(waiting[0].member.numbers)
            if atoms + size > self._limit and atoms > 0:
                break
            atoms += size
            new.append(waiting.popleft())
        if not new:
            return
        counts = np.array([len(item.member.numbers) for item in new], dtype=np.int64)
        origin = np.zeros((3, 3))
        self._rows = np.concatenate(
            [self._rows, *(part for item in new for part in (item.member.positions, origin))]
        )
        self._first_cells = np.concatenate(
            [self._first_cells, np.array([item.member.cell for item in new])]
        )
        self._counts = np.concatenate([self._counts, counts])
        self._layout = self._strains = None
        self.minima.extend(new)
        if self._keep_symmetry:
            for item in new:
                item.symmetry = site_symmetry(item.member)
        self._optimizer.add(counts + 3, np.concatenate([_curvatures(item) for item in new]))

    def evaluate(self) -> None:
        """Compute energies and the forces on all rows."""
        prediction = self._predict([item.member for item in self.minima])
        deformations, logarithms = self._deformations()
        layout = self._places()
        cells = np.array([item.member.cell for item in self.minima])
        volumes = np.abs(np.linalg.det(cells))
        forces = np.zeros_like(self._rows)
        forces[layout.atoms] = np.einsum(
            "ni,nij->nj", prediction.forces, deformations[layout.owners]
        )
        if self._relax_cell:
            virials = -volumes[:, None, None] * prediction.stresses
            pull = log_deformation_force(logarithms, deformations, virials)
            forces[layout.cells] = (pull / self._counts[:, None, None]).reshape(-1, 3)
        self._symmetrise(forces)
        self._forces = forces
        norms = np.sqrt((forces * forces).sum(axis=1))
        largest = np.maximum.reduceat(norms, layout.starts)
        ends = np.cumsum(self._counts)
        for k, item in enumerate(self.minima):
            item.calls += 1
            item.forces = prediction.forces[ends[k] - self._counts[k] : ends[k]]
            item.energy = float(prediction.energies[k])
            item.stress = prediction.stresses[k]
            item.max_force = float(largest[k])
            if item.calls == 1:
                item.first_energy = item.energy
            item.fault = prediction.faults.get(k, "") or item.fault
            if not item.fault and not np.isfinite(item.energy + item.max_force):
                item.fault = "energy or forces are not finite"

    def dismiss(self, fmax: float, max_steps: int) -> None:
        """Let go of crystals that are converged, faulty, or out of steps."""
        for item in self.minima:
            item.converged = not item.fault and item.max_force < fmax
        stay = [
            k
            for k, item in enumerate(self.minima)
            if not (item.converged or item.fault or item.steps >= max_steps)
        ]
        self._keep(np.array(stay, dtype=np.int64))

    def move(self) -> None:
        """Take one step with every crystal; let go of those whose cell breaks."""
        if not self.minima:
            return
        self._rows = self._rows + self._optimizer.step(self._forces)
        self._strains = None
        deformations, _ = self._deformations()
        cells = self._first_cells @ deformations.transpose(0, 2, 1)
        layout = self._places()
        positions = np.einsum("nj,nij->ni", self._rows[layout.atoms], deformations[layout.owners])
        sound: list[int] = []
        start = 0
        for k, item in enumerate(self.minima):
            stop = start + int(self._counts[k])
            fault = cell_fault(cells[k], stop - start)
            item.steps += 1
            if fault:
                item.fault = f"{fault} in step {item.steps}"
            else:
                item.member.cell = cells[k]
                item.member.positions = positions[start:stop]
                sound.append(k)
            start = stop
        if len(sound) < len(self.minima):
            self._keep(np.array(sound, dtype=np.int64))

    def _symmetrise(self, forces: Floats) -> None:
        """Take the asymmetric part out of the forces, which live in the undeformed cells."""
        start = 0
        for item, count in zip(self.minima, self._counts.tolist(), strict=True):
            atoms, cell = slice(start, start + count), slice(start + count, start + count + 3)
            start += count + 3
            if item.symmetry is not None:
                forces[atoms] = item.symmetry.of_atoms(forces[atoms])
                forces[cell] = item.symmetry.of_cell(forces[cell])

    def _keep(self, members: Integers) -> None:
        if len(members) == len(self.minima):
            return
        mask = np.zeros(len(self.minima), dtype=bool)
        mask[members] = True
        rows = np.repeat(mask, self._counts + 3)
        self._rows, self._forces = self._rows[rows], self._forces[rows]
        self._counts, self._first_cells = self._counts[mask], self._first_cells[mask]
        self._layout = self._strains = None
        self.minima = [self.minima[k] for k in members.tolist()]
        self._optimizer.keep(members)

    def _places(self) -> _Layout:
        """Return which rows are whose; it is the same until crystals come or go."""
        if self._layout is None:
            self._layout = _Layout.of(self._counts)
        return self._layout

    def _deformations(self) -> tuple[Floats, Floats]:
        """Return exp(U) and U of each crystal; they are the same until it moves."""
        if self._strains is None:
            cells = self._places().cells
            logarithms = self._rows[cells].reshape(-1, 3, 3) / self._counts[:, None, None]
            self._strains = matrix_exponential(logarithms), logarithms
        return self._strains

    def _predict(self, members: list[Member]) -> Prediction:
        """Predict in pieces within the limit, which falls when memory runs out."""
        prediction, self._limit = predict_within(self._model, members, self._limit)
        return prediction


def cell_fault(cell: Floats, n_atoms: int) -> str:
    """Return what is wrong with a cell (rows in Å) of so many atoms; empty if nothing is."""
    if not np.isfinite(cell).all():
        return "the cell is not finite"
    volume = _volume(cell) / n_atoms
    if volume < VOLUME_BOUNDS[0]:
        return f"the cell collapsed to {volume:.2g} Å^3 per atom"
    if volume > VOLUME_BOUNDS[1]:
        return f"the cell exploded to {volume:.4g} Å^3 per atom"
    lengths = np.sqrt((cell * cell).sum(axis=1))
    if lengths.min() < LENGTH_BOUNDS[0] or lengths.max() > LENGTH_BOUNDS[1]:
        return f"the cell has edges of {lengths.min():.3g} to {lengths.max():.3g} Å"
    return ""


def _curvatures(minimum: Minimum) -> Floats:
    """Return the first diagonal of the Hessian, one number per row."""
    atoms = len(minimum.member.numbers)
    # A strain U costs C V U^2 / 2; the cell's coordinates are n U.
    cell = CELL_STIFFNESS * minimum.first_volume / atoms**2
    return np.concatenate([np.full(atoms, ATOM_CURVATURE), np.full(3, cell)])


def _volume(cell: Floats) -> float:
    return float(abs(np.linalg.det(cell)))
