"""Relaxation of candidates: verdicts, costs, and what a bad candidate does to the others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from monty.json import MontyDecoder
from pymatgen.core import Lattice, Structure

from matloop import registry
from matloop.evaluators.mlip.ase import AseModel, LoadedAseModel
from matloop.evaluators.mlip.minimisation import minimise
from matloop.evaluators.mlip.model import Member, Prediction
from matloop.evaluators.mlip.reading import moved
from matloop.evaluators.mlip.relaxation import Relaxation, relax
from matloop.protocols import Resources
from matloop.structures.symmetry import space_group

from .conftest import candidates

EMT = Relaxation(model="ase")


def test_quantities_add_up(metals: list[Structure]) -> None:
    """Energy, drop, volume change, steps and cost are those of the structure returned."""
    for structure, found in zip(metals, relax(metals, EMT), strict=True):
        assert found.verdict == "pass"
        assert set(found.quantities) == set(Relaxation.produces)
        for name, quantity in found.quantities.items():
            assert quantity.unit == Relaxation.produces[name]
        assert found.structure is not None
        model = AseModel().load()
        ends = model.predict([Member.from_structure(s) for s in (structure, found.structure)])
        first, last = ends.energies / len(structure)
        values = {name: quantity.value for name, quantity in found.quantities.items()}
        assert values["energy_per_atom"] == pytest.approx(last, abs=1e-9)
        assert values["relaxation_drop"] == pytest.approx(first - last, abs=1e-9)
        assert values["relaxation_drop"] > 0
        change = found.structure.volume / structure.volume - 1
        assert values["volume_change"] == pytest.approx(change)
        assert values["max_force"] < EMT.fmax
        assert found.cost.calls == values["relaxation_steps"] + 1
        assert found.cost.work == len(structure) * found.cost.calls
        assert found.cost.threads == 1
        assert found.theory is not None
        assert found.quantities["energy_per_atom"].theory == found.theory.key
        assert found.structure.composition == structure.composition


def test_seconds_are_shared_by_work(metals: list[Structure]) -> None:
    """The batch's wall time is divided among its members in proportion to their work."""
    found = relax(metals, EMT)
    rates = [item.cost.seconds / item.cost.work for item in found]
    assert rates == pytest.approx([rates[0]] * len(rates))
    assert rates[0] > 0


def test_running_out_of_steps_is_a_reject_with_its_structure(metals: list[Structure]) -> None:
    """A candidate that does not converge is rejected, with structure, numbers and what was left."""
    found = relax(metals[:1], Relaxation(model="ase", max_steps=3))[0]
    assert found.verdict == "reject"
    assert found.reason.startswith("did not reach 0.1 eV/Å in 3 steps, ")
    assert found.structure is not None
    assert found.quantities["max_force"].value > 0.1
    assert found.cost.calls == 4


class Erratic(LoadedAseModel):
    """Effective medium theory that goes wrong, in one of several ways, for crystals with silver."""

    def __init__(self, way: str) -> None:
        super().__init__(AseModel())
        self.way = way

    def predict(self, members: Sequence[Member]) -> Prediction:
        found = super().predict(members)
        start = 0
        for index, member in enumerate(members):
            rows = slice(start, start + len(member.numbers))
            start += len(member.numbers)
            if 47 not in member.numbers:
                continue
            if self.way == "nan":
                found.energies[index] = np.nan
            elif self.way == "nan forces":
                found.forces[rows] = np.nan
            elif self.way == "inf stress":
                found.stresses[index] = np.inf
            elif self.way == "explode":
                found.stresses[index] = -100.0 * np.eye(3)
            elif self.way == "collapse":
                found.stresses[index] = 100.0 * np.eye(3)
        return found


@pytest.mark.parametrize(
    ("way", "reason"),
    [
        ("nan", "not finite"),
        ("nan forces", "not finite"),
        ("inf stress", "not finite"),
        ("explode", "exploded"),
        ("collapse", "collapsed"),
    ],
)
@pytest.mark.parametrize("optimizer", ["fire", "bfgs"])
def test_a_model_gone_wrong_harms_one_candidate(
    monkeypatch: pytest.MonkeyPatch,
    metals: list[Structure],
    way: str,
    reason: str,
    optimizer: Any,
) -> None:
    """NaN and runaway cells end as that candidate's failure; the others' results stay."""
    model = Erratic(way)
    monkeypatch.setattr("matloop.evaluators.mlip.relaxation.load_model", lambda *_: model)
    relaxation = Relaxation(model="ase", optimizer=optimizer)
    silver = Structure(Lattice.from_parameters(3, 3, 3, 60, 60, 60), ["Ag"], [[0, 0, 0]])
    without = relax(metals, relaxation)
    found = relax([*metals[:2], silver, *metals[2:]], relaxation)
    assert found[2].verdict == "fail"
    assert reason in found[2].reason
    assert found[2].cost.calls >= 1
    assert_same(found[:2] + found[3:], without)


def bad_structures() -> dict[str, Structure]:
    return {
        "disordered": Structure(Lattice.cubic(3), [{"Cu": 0.5, "Au": 0.5}], [[0, 0, 0]]),
        "does not know U": Structure(Lattice.cubic(3), ["U"], [[0, 0, 0]]),
        "exploded": Structure(Lattice.cubic(40), ["Cu"], [[0, 0, 0]]),
        "collapsed": Structure(Lattice.cubic(0.9), ["Cu"], [[0, 0, 0]]),
        "more than the 500": Structure(Lattice.cubic(2.3), ["Cu"], [[0, 0, 0]]) * (8, 8, 8),
        "not finite": Structure(Lattice.cubic(3), ["Cu"], [[float("nan"), 0, 0]]),
    }


@pytest.mark.parametrize("reason", bad_structures())
def test_an_unreadable_candidate_harms_nobody(metals: list[Structure], reason: str) -> None:
    """What cannot be relaxed fails with its reason at no cost, in its place among the others."""
    without = relax(metals[:3], EMT)
    found = relax([metals[0], bad_structures()[reason], *metals[1:3]], EMT)
    assert found[1].verdict == "fail"
    assert reason in found[1].reason
    assert found[1].cost.work == 0
    assert_same([found[0], *found[2:]], without)


def test_chgnet_survives_poison(compounds: list[Structure]) -> None:
    """With CHGNet, isolated, overlapping and crowded atoms fail, and the others relax as before."""
    relaxation = Relaxation(max_steps=60)
    good = compounds[:2]
    bad = [
        Structure(Lattice.cubic(12), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]),
        Structure(Lattice.cubic(4), ["Na", "Cl"], [[0, 0, 0], [0, 0, 0]]),
        Structure(Lattice.cubic(3.2), ["C"] * 30, np.random.default_rng(0).uniform(0, 1, (30, 3))),
    ]
    without = relax(good, relaxation)
    found = relax([bad[0], good[0], bad[1], bad[2], good[1]], relaxation)
    assert [item.verdict for item in found] == ["fail", "pass", "fail", "fail", "pass"]
    assert "no neighbour" in found[0].reason
    assert "not finite" in found[2].reason
    assert "explosion" in found[3].reason
    # In single precision the company a crystal keeps may show in the last digits.
    assert_same([found[1], found[4]], without, tolerance=2e-4)


def test_chgnet_relaxes_as_chgnet_does(compounds: list[Structure]) -> None:
    """Energies and steps are those of chgnet's own optimiser with FIRE."""
    from chgnet.model import CHGNet, StructOptimizer

    chosen = [compounds[0], compounds[3]]
    optimizer = StructOptimizer(CHGNet.load(use_device="cpu", verbose=False), use_device="cpu")
    for structure, found in zip(chosen, relax(chosen), strict=True):
        expected = optimizer.relax(structure.copy(), fmax=0.1, steps=300, verbose=False)
        energy = float(expected["trajectory"].energies[-1]) / len(structure)
        assert found.quantities["energy_per_atom"].value == pytest.approx(energy, abs=1e-4)
        assert found.quantities["relaxation_steps"].value == pytest.approx(
            len(expected["trajectory"]) - 2, abs=2
        )
        assert found.structure is not None
        volume = expected["final_structure"].volume
        assert found.structure.volume == pytest.approx(volume, rel=1e-3)


def symmetric_starts() -> list[Structure]:
    """Return crystals that must relax by several per cent; the perovskite sits on a ridge."""
    places = [[0.5, 0.5, 0.5], [0, 0, 0], [0.5, 0, 0]]
    rutile = [[0, 0, 0], [0.31, 0.31, 0]]
    triple, wide = ["Ba", "Ti", "O"], Lattice.tetragonal(4.8, 2.9)
    return [
        Structure.from_spacegroup("Fd-3m", Lattice.cubic(5.7), ["Si"], [[0, 0, 0]]),
        Structure.from_spacegroup("P4_2/mnm", wide, ["Ti", "O"], rutile),
        Structure.from_spacegroup(
            "P6_3/mmc", Lattice.hexagonal(3.1, 5.4), ["Mg"], [[1 / 3, 2 / 3, 1 / 4]]
        ),
        Structure.from_spacegroup("Pm-3m", Lattice.cubic(4.2), triple, places),
    ]


@pytest.mark.parametrize("optimizer", ["fire", "bfgs"])
def test_symmetry_of_the_start_is_kept(optimizer: Literal["fire", "bfgs"]) -> None:
    """Space groups within 1e-4 Å (moyo) are those of the starts, in any cell and orientation."""
    rng = np.random.default_rng(1)
    starts = symmetric_starts()
    turned = []
    for start in starts:
        turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
        primitive = start.get_primitive_structure()
        turned.append(
            Structure(primitive.lattice.matrix @ turn, primitive.species, primitive.frac_coords)
        )
    relaxation = Relaxation(fmax=0.02, optimizer=optimizer)
    for start, found in zip(starts + turned, relax(starts + turned, relaxation), strict=True):
        assert found.verdict == "pass"
        assert found.structure is not None
        assert found.cost.calls > 1
        assert space_group(found.structure, 1e-4).number == space_group(start, 1e-4).number


@pytest.mark.parametrize("optimizer", ["fire", "bfgs"])
def test_noise_is_taken_out_of_symmetric_starts_only(
    optimizer: Literal["fire", "bfgs"], metals: list[Structure]
) -> None:
    """With noise added to its forces a symmetric crystal still keeps its group; freed, it does not.

    What has no symmetry is left as it is.
    """
    starts = [Structure.from_spacegroup("Fm-3m", Lattice.cubic(3.8), ["Cu"], [[0, 0, 0]])]

    def ends(structures: list[Structure], keep: bool) -> list[Structure]:
        members = [Member.from_structure(structure) for structure in structures]
        found = minimise(Noisy(), members, optimizer=optimizer, fmax=0.05, keep_symmetry=keep)
        return [moved(s, end.member) for s, end in zip(structures, found, strict=True)]

    number = space_group(starts[0], 1e-4).number
    assert space_group(ends(starts, True)[0], 1e-6).number == number
    assert space_group(ends(starts, False)[0], 1e-6).number != number
    for kept, free in zip(ends(metals[:2], True), ends(metals[:2], False), strict=True):
        np.testing.assert_array_equal(kept.cart_coords, free.cart_coords)


class Noisy(LoadedAseModel):
    """Effective medium theory with errors of 1e-4 eV/Å, the same each time."""

    def __init__(self) -> None:
        super().__init__(AseModel())
        self.rng = np.random.default_rng(0)

    def predict(self, members: Sequence[Member]) -> Prediction:
        found = super().predict(members)
        found.forces[:] += self.rng.normal(0.0, 1e-4, found.forces.shape)
        return found


def test_one_thread_whatever_the_caller_has(metals: list[Structure]) -> None:
    """A relaxation pins itself to one thread, says so in its cost, and restores what was."""
    torch.set_num_threads(2)
    found = relax(metals[:1], EMT)
    assert found[0].cost.threads == 1
    assert torch.get_num_threads() == 2


def test_fixed_cell_stays_fixed(metals: list[Structure]) -> None:
    """Without relaxing the cell, only atoms move."""
    found = relax(metals[:1], Relaxation(model="ase", relax_cell=False))[0]
    assert found.verdict == "pass"
    assert found.structure is not None
    np.testing.assert_allclose(found.structure.lattice.matrix, metals[0].lattice.matrix, atol=1e-12)
    assert found.quantities["volume_change"].value == pytest.approx(0.0, abs=1e-12)


def test_same_chunk_same_bits(compounds: list[Structure]) -> None:
    """The same candidates in the same order end in the same bits."""
    first, second = (relax(compounds[:3]) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert a.quantities == b.quantities
        assert a.structure is not None
        assert b.structure is not None
        np.testing.assert_array_equal(a.structure.cart_coords, b.structure.cart_coords)


def test_a_plugin_survives_its_dictionary(tmp_path: Path) -> None:
    """A registered relaxation with parameters of its own comes back equal from a dictionary."""
    relaxation = registry.build(
        "evaluators", "relaxation", {"model": "ase", "model_parameters": {"calculator": "lj"}}
    )
    assert MontyDecoder().process_decoded(relaxation.as_dict()) == relaxation
    assert relaxation.theory().model == "lj"
    documented = registry.parameters("evaluators", "relaxation")
    assert all(parameter.doc for parameter in documented)


def test_nonsense_parameters_are_refused() -> None:
    """Limits must be positive, and the message names the parameter."""
    with pytest.raises(ValueError, match="fmax"):
        Relaxation(fmax=0.0)
    with pytest.raises(ValueError, match="max_steps"):
        Relaxation(max_steps=-1)


def test_nothing_in_nothing_out() -> None:
    """No candidates give no evaluations."""
    assert EMT.evaluate(candidates([]), Resources()) == []


def assert_same(found: list[Any], expected: list[Any], tolerance: float = 1e-9) -> None:
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert a.verdict == b.verdict
        energies = [item.quantities["energy_per_atom"].value for item in (a, b)]
        assert energies[0] == pytest.approx(energies[1], abs=tolerance)
        assert a.structure.volume == pytest.approx(b.structure.volume, rel=10 * tolerance)
