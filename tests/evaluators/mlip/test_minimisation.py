"""Batched minimisation against ASE, step for step, and its conduct when things go wrong."""

from __future__ import annotations

from collections.abc import Sequence

import ase
import numpy as np
import pytest
from ase.calculators.emt import EMT
from ase.filters import FrechetCellFilter
from ase.optimize import FIRE
from pymatgen.core import Structure
from pymatgen.io.ase import AseAtomsAdaptor

from matloop.evaluators.mlip.ase import AseModel, LoadedAseModel
from matloop.evaluators.mlip.minimisation import cell_fault, minimise
from matloop.evaluators.mlip.model import Member, Prediction


class Watched(LoadedAseModel):
    """Effective medium theory that notes every geometry it is asked about."""

    def __init__(self) -> None:
        super().__init__(AseModel())
        self.seen: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}
        self.batches: list[int] = []

    def predict(self, members: Sequence[Member]) -> Prediction:
        self.batches.append(sum(len(member.numbers) for member in members))
        for member in members:
            path = self.seen.setdefault(id(member), [])
            path.append((member.positions.copy(), member.cell.copy()))
        return super().predict(members)


def ase_path(structure: Structure, relax_cell: bool) -> list[tuple[np.ndarray, np.ndarray]]:
    atoms: ase.Atoms = AseAtomsAdaptor.get_atoms(structure)
    atoms.calc = EMT(asap_cutoff=True)
    path: list[tuple[np.ndarray, np.ndarray]] = []
    optimizer = FIRE(FrechetCellFilter(atoms) if relax_cell else atoms, logfile=None)
    optimizer.attach(lambda: path.append((atoms.positions.copy(), atoms.cell.array.copy())))
    optimizer.run(fmax=0.3, steps=25)
    return path


@pytest.mark.parametrize("relax_cell", [True, False])
@pytest.mark.parametrize("batch_atoms", [1, 12, 1000])
def test_every_step_is_ases(metals: list[Structure], relax_cell: bool, batch_atoms: int) -> None:
    """Alone, with crystals coming and going, and all at once, each follows ASE's path."""
    model = Watched()
    members = [Member.from_structure(structure) for structure in metals]
    minima = minimise(
        model,
        members,
        fmax=0.3,
        max_steps=25,
        relax_cell=relax_cell,
        batch_atoms=batch_atoms,
    )
    assert len({end.steps for end in minima}) > 2  # they leave at different times
    for structure, member, end in zip(metals, members, minima, strict=True):
        expected = ase_path(structure, relax_cell)
        found = model.seen[id(member)]
        assert end.steps == len(expected) - 1
        assert end.calls == len(found) == len(expected)
        for (positions, cell), (ase_positions, ase_cell) in zip(found, expected, strict=True):
            np.testing.assert_allclose(positions, ase_positions, atol=1e-8)
            np.testing.assert_allclose(cell, ase_cell, atol=1e-8)


def test_a_batch_is_refilled_up_to_its_limit(metals: list[Structure]) -> None:
    """No batch exceeds the limit, and waiting crystals enter before the first batch is done."""
    model = Watched()
    minimise(model, [Member.from_structure(s) for s in metals], batch_atoms=12)
    assert max(model.batches) <= 12
    assert np.mean(model.batches) > 8


def test_bfgs_reaches_the_minima_of_fire(metals: list[Structure]) -> None:
    """BFGS ends at FIRE's energies in fewer force evaluations."""
    ends = {
        name: minimise(
            AseModel().load(),
            [Member.from_structure(structure) for structure in metals],
            optimizer=name,
            fmax=0.01,
        )
        for name in ("fire", "bfgs")
    }
    for fire, bfgs in zip(ends["fire"], ends["bfgs"], strict=True):
        assert bfgs.converged
        assert bfgs.energy == pytest.approx(fire.energy, abs=2e-3)
    calls = {name: sum(end.calls for end in found) for name, found in ends.items()}
    assert calls["bfgs"] < 0.8 * calls["fire"]


class Starved(LoadedAseModel):
    """Effective medium theory on a machine with memory for a few atoms."""

    def __init__(self, atoms: int) -> None:
        super().__init__(AseModel())
        self.room = atoms
        self.refused = 0

    def predict(self, members: Sequence[Member]) -> Prediction:
        if sum(len(member.numbers) for member in members) > self.room:
            self.refused += 1
            raise MemoryError
        return super().predict(members)


def test_out_of_memory_halves_the_batch_and_goes_on(metals: list[Structure]) -> None:
    """When memory runs out, smaller batches give the same ends; what never fits fails alone."""
    plenty = minimise(AseModel().load(), [Member.from_structure(s) for s in metals])
    model = Starved(9)
    short = minimise(model, [Member.from_structure(s) for s in metals])
    assert 0 < model.refused < 5
    for a, b in zip(plenty, short, strict=True):
        assert (a.steps, b.fault) == (b.steps, "")
        assert a.energy == pytest.approx(b.energy, abs=1e-9)
    tiny = minimise(Starved(5), [Member.from_structure(s) for s in metals])
    assert [end.fault for end in tiny] == ["", "out of memory", "", "out of memory", ""]


def test_cells_out_of_bounds_are_named() -> None:
    """Collapsed, exploded, needle-like and broken cells have a fault, a common one has none."""
    assert cell_fault(np.eye(3) * 4.0, 4) == ""
    assert "collapsed" in cell_fault(np.eye(3) * 1.0, 4)
    assert "exploded" in cell_fault(np.eye(3) * 30.0, 1)
    assert "edges" in cell_fault(np.diag([0.1, 20.0, 20.0]), 4)
    assert "not finite" in cell_fault(np.eye(3) * np.nan, 4)
