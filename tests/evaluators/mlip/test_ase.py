"""ASE's potentials behind the interface of a batched model."""

from __future__ import annotations

import numpy as np
import pytest
from ase.calculators.emt import EMT
from pymatgen.core import Lattice, Structure
from pymatgen.io.ase import AseAtomsAdaptor

from matloop import registry
from matloop.errors import ConfigurationError
from matloop.evaluators.mlip.ase import AseModel
from matloop.evaluators.mlip.model import BatchedModel, Member, load_model


def test_numbers_are_ases(metals: list[Structure]) -> None:
    """Energies, forces and stresses are those of ASE's calculator."""
    found = AseModel().load().predict([Member.from_structure(metal) for metal in metals])
    start = 0
    for index, metal in enumerate(metals):
        atoms = AseAtomsAdaptor.get_atoms(metal)
        atoms.calc = EMT(asap_cutoff=True)
        rows = slice(start, start + len(metal))
        start += len(metal)
        assert found.energies[index] == pytest.approx(atoms.get_potential_energy())
        np.testing.assert_allclose(found.forces[rows], atoms.get_forces(), atol=1e-10)
        stress = atoms.get_stress(voigt=False)
        np.testing.assert_allclose(found.stresses[index], stress, atol=1e-10)


def test_solid_argon_has_its_lattice_constant() -> None:
    """The default Lennard-Jones crystal has argon's nearest-neighbour distance, 1.09 sigma."""
    from matloop.evaluators.mlip.relaxation import Relaxation, relax

    argon = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.6), ["Ar"], [[0, 0, 0]])
    found = relax(
        [argon], Relaxation(model="ase", model_parameters={"calculator": "lj"}, fmax=1e-3)
    )[0]
    assert found.structure is not None
    assert found.structure.lattice.a / np.sqrt(2) == pytest.approx(1.1 * 3.4, rel=0.02)


def test_a_calculator_that_raises_harms_one_member(metals: list[Structure]) -> None:
    """An element the calculator cannot take is that member's fault."""
    members = [Member.from_structure(metals[0]), Member.from_structure(metals[1])]
    members.insert(1, Member(np.array([92]), np.zeros((1, 3)), np.eye(3) * 3.0))
    found = AseModel().load().predict(members)
    assert set(found.faults) == {1}
    assert np.isnan(found.energies[1])
    assert np.isfinite(found.energies[[0, 2]]).all()


def test_models_are_plugins() -> None:
    """Models are built by name, once per process, and wrong parameters are named."""
    assert isinstance(registry.build("models", "ase", {}), BatchedModel)
    assert load_model("ase", {"calculator": "emt"}) is load_model("ase", {"calculator": "emt"})
    assert load_model("ase", {}).theory.kind == "empirical"
    with pytest.raises(ConfigurationError, match="calculator"):
        load_model("ase", {"calculator": "tersoff"})
