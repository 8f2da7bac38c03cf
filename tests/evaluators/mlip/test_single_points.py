"""Single points in batches are those one by one, and measure rest as relaxations do."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from matloop.evaluators.mlip.minimisation import minimise
from matloop.evaluators.mlip.model import LoadedModel, Member, Prediction, load_model
from matloop.evaluators.mlip.single_points import single_points


class Narrow:
    """A model with memory for few atoms, which remembers what it was asked for."""

    def __init__(self, model: LoadedModel, atoms: int) -> None:
        self._model, self._atoms = model, atoms
        self.theory, self.elements, self.device = model.theory, model.elements, model.device
        self.sizes: list[int] = []

    def predict(self, members: Sequence[Member]) -> Prediction:
        """Predict, or run out of memory."""
        self.sizes.append(sum(len(member.numbers) for member in members))
        if self.sizes[-1] > self._atoms:
            raise MemoryError
        return self._model.predict(members)


def test_batches_change_nothing(metals: list[Structure]) -> None:
    """In batches of any size each crystal has its own energy, forces and stress, in order."""
    model = load_model("ase", {})
    members = [Member.from_structure(metal) for metal in metals]
    together = single_points(model, members, 1000)
    for point, member, small in zip(
        together, members, single_points(model, members, 5), strict=True
    ):
        alone = model.predict([member])
        assert point.member is member
        assert point.energy == small.energy == alone.energies[0]
        assert np.array_equal(point.forces, alone.forces)
        assert np.array_equal(point.stress, alone.stresses[0])
        assert member.scratch is None


def test_rest_is_what_a_relaxation_calls_rest(metals: list[Structure]) -> None:
    """The largest force is the one a minimisation of atoms and cell starts from."""
    model = load_model("ase", {})
    members = [Member.from_structure(metal) for metal in metals]
    points = single_points(model, members, 100)
    starts = minimise(model, members, max_steps=0, relax_cell=True)
    for point, start in zip(points, starts, strict=True):
        assert point.max_force == pytest.approx(start.max_force, rel=1e-9)
        assert point.stress == pytest.approx(start.stress)


def test_little_memory_only_takes_longer(metals: list[Structure]) -> None:
    """Batches shrink until they fit; a crystal that never fits fails alone."""
    members = [Member.from_structure(metal) for metal in metals]
    narrow = Narrow(load_model("ase", {}), 4)
    points = single_points(narrow, members, 1000)
    assert narrow.sizes[0] > narrow.sizes[-1]
    for point in points:
        assert point.fault == ("out of memory" if len(point.member.numbers) > 4 else "")


def test_a_faulty_member_harms_nobody(metals: list[Structure]) -> None:
    """An element the potential does not know, or no number, is that member's fault alone."""
    unknown = Member.from_structure(Structure(Lattice.cubic(3), ["U"], [[0, 0, 0]]))
    good = Member.from_structure(metals[0])
    found = single_points(load_model("ase", {}), [good, unknown, good], 1000)
    assert [bool(point.fault) for point in found] == [False, True, False]
    assert found[0].energy == found[2].energy
