"""The batched CHGNet against chgnet's own, and against finite differences."""

from __future__ import annotations

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from matloop.evaluators.mlip.bond_model import SKIN
from matloop.evaluators.mlip.chgnet import ChgnetModel, LoadedChgnet, weights_path
from matloop.evaluators.mlip.model import Member, load_model
from matloop.evaluators.mlip.neighbours import find_neighbours, outdated

GPA = 160.21766208


@pytest.fixture(scope="module")
def model() -> LoadedChgnet:
    return ChgnetModel().load()


def edge_cases() -> list[Structure]:
    return [
        Structure(Lattice.cubic(3.3), ["Po"], [[0, 0, 0]]),  # one atom, bonded to its own images
        Structure(Lattice.cubic(5.0), ["Ar"], [[0, 0, 0]]),  # no bond short enough for angles
        Structure(Lattice.cubic(9.0), ["N", "N"], [[0, 0, 0], [0.12, 0, 0]]),  # one bond, no angle
        Structure(Lattice.cubic(2.2), ["Po"], [[0.3, 0.3, 0.3]]),  # each atom 18 short bonds
    ]


@pytest.mark.parametrize("version", ["0.3.0", "r2scan"])
def test_same_numbers_as_chgnet(version: str, compounds: list[Structure]) -> None:
    """Energies, forces and stresses are those of chgnet's own code, up to single precision."""
    from chgnet.model import CHGNet

    structures = compounds + edge_cases()
    reference = CHGNet.load(model_name=version, use_device="cpu", verbose=False)
    expected = reference.predict_structure(structures, task="efs")
    found = (
        ChgnetModel(version=version)
        .load()
        .predict([Member.from_structure(structure) for structure in structures])
    )
    assert not found.faults
    # Total energies of r2SCAN reach 90 eV per atom, where single precision ends earlier.
    tolerance = 2e-5 if version == "0.3.0" else 6e-5
    start = 0
    for index, (structure, values) in enumerate(zip(structures, expected, strict=True)):
        atoms = slice(start, start + len(structure))
        start += len(structure)
        assert found.energies[index] / len(structure) == pytest.approx(values["e"], abs=tolerance)
        np.testing.assert_allclose(found.forces[atoms], values["f"], atol=5e-4)
        symmetric = (values["s"] + values["s"].T) / 2
        np.testing.assert_allclose(found.stresses[index] * GPA, symmetric, atol=0.05)
    assert np.abs(found.forces).max() > 0.5


def test_forces_and_stresses_are_derivatives_of_the_energy(
    model: LoadedChgnet, compounds: list[Structure]
) -> None:
    """Moving an atom or straining the cell changes the energy as forces and stresses say."""
    member = Member.from_structure(compounds[4])
    found = model.predict([member])
    rng = np.random.default_rng(0)
    move = rng.normal(size=member.positions.shape)
    strain = rng.normal(size=(3, 3))
    strain = (strain + strain.T) / 2
    step = 3e-3

    def energy(moved: float, strained: float) -> float:
        deformation = np.eye(3) + strained * strain
        positions = (member.positions + moved * move) @ deformation
        changed = Member(member.numbers, positions, member.cell @ deformation)
        return float(model.predict([changed]).energies[0])

    along = (energy(step, 0) - energy(-step, 0)) / (2 * step)
    assert along == pytest.approx(-np.sum(found.forces * move), rel=0.01)
    volume = abs(np.linalg.det(member.cell))
    along = (energy(0, step) - energy(0, -step)) / (2 * step)
    assert along == pytest.approx(volume * np.sum(found.stresses[0] * strain), rel=0.01)


def test_batching_changes_nothing(compounds: list[Structure]) -> None:
    """A crystal has the same energy and forces alone, in a batch, and in a batch cut to pieces."""
    members = [Member.from_structure(structure) for structure in compounds]
    together = ChgnetModel().load().predict(members)
    cut = ChgnetModel(batch_messages=500).load().predict(members)
    np.testing.assert_allclose(cut.energies, together.energies, atol=2e-5)
    np.testing.assert_allclose(cut.forces, together.forces, atol=2e-4)
    alone = [ChgnetModel().load().predict([Member.from_structure(s)]) for s in compounds]
    energies = np.concatenate([prediction.energies for prediction in alone])
    np.testing.assert_allclose(energies, together.energies, atol=2e-5)


def test_same_batch_same_bits(model: LoadedChgnet, compounds: list[Structure]) -> None:
    """The same batch gives the same bits, with a neighbour list new or old."""
    members = [Member.from_structure(structure) for structure in compounds]
    first = model.predict(members)
    again = model.predict(members)
    anew = model.predict([Member.from_structure(structure) for structure in compounds])
    for other in (again, anew):
        np.testing.assert_array_equal(other.energies, first.energies)
        np.testing.assert_array_equal(other.forces, first.forces)


def test_an_old_list_is_exact_until_it_is_outdated(
    model: LoadedChgnet, compounds: list[Structure]
) -> None:
    """While atoms and cell wander, a kept neighbour list gives the energies of a new one."""
    rng = np.random.default_rng(3)
    member = Member.from_structure(compounds[3])
    kept, renewed = 0, 0
    for _ in range(40):
        member.positions = member.positions + rng.normal(0.0, 0.015, member.positions.shape)
        deformation = np.eye(3) + rng.normal(0.0, 0.002, (3, 3))
        member.positions, member.cell = member.positions @ deformation, member.cell @ deformation
        before = member.scratch
        found = model.predict([member])
        kept += before is member.scratch
        renewed += before is not member.scratch
        fresh = model.predict([Member(member.numbers, member.positions, member.cell)])
        assert found.energies[0] == pytest.approx(fresh.energies[0], abs=1e-4)
    assert kept > 10
    assert renewed > 1


def test_a_list_is_outdated_by_strain_as_by_motion(compounds: list[Structure]) -> None:
    """Shrinking a cell renews its list as soon as pairs from outside may have come within reach."""
    member = Member.from_structure(compounds[0])
    found = find_neighbours(member, 6.0, 3.0, SKIN)
    ratio = 6.0 / (6.0 + SKIN)
    for scale, expected in [
        (1.0, False),
        (1.2, False),
        (ratio + 0.01, False),
        (ratio - 0.01, True),
    ]:
        moved = Member(member.numbers, member.positions * scale, member.cell * scale)
        assert outdated(found, moved, 6.0, SKIN) is expected


def test_faulty_members_are_named_and_harm_nobody(
    model: LoadedChgnet, compounds: list[Structure]
) -> None:
    """Isolated atoms, coinciding atoms, NaN and crowds of atoms are that member's own fault."""
    good = [Member.from_structure(structure) for structure in compounds[:2]]
    bad = [
        Member.from_structure(
            Structure(Lattice.cubic(20), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
        ),
        Member(np.array([11, 17]), np.zeros((2, 3)), np.eye(3) * 4.0),
        Member(np.array([11]), np.full((1, 3), np.nan), np.eye(3) * 4.0),
        Member(np.full(30, 6), np.random.default_rng(0).uniform(0, 3, (30, 3)), np.eye(3) * 3.1),
    ]
    found = model.predict([bad[0], good[0], bad[1], bad[2], good[1], bad[3]])
    assert "no neighbour" in found.faults[0]
    assert not np.isfinite(found.energies[2])
    assert "not finite" in found.faults[3]
    assert "explosion" in found.faults[5]
    alone = model.predict(good)
    np.testing.assert_allclose(found.energies[[1, 4]], alone.energies, atol=2e-5)
    np.testing.assert_allclose(found.forces[2:4], alone.forces[:2], atol=2e-4)


def test_theory_names_the_weights() -> None:
    """Two versions are two levels of theory, each with the hash of its weights file."""
    import hashlib

    keys = set()
    for version in ("0.3.0", "r2scan"):
        theory = load_model("chgnet", {"version": version}).theory
        assert theory.kind == "mlip"
        content = weights_path(version).read_bytes()
        assert theory.model_sha256 == hashlib.sha256(content).hexdigest()
        keys.add(theory.key)
    assert len(keys) == 2


def test_a_model_is_loaded_once() -> None:
    """Asking twice for the same model gives the same object."""
    assert load_model("chgnet", {}) is load_model("chgnet", {})
