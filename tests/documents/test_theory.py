"""Keys of levels of theory: stable for potentials, and complete for DFT."""

from matloop.documents.theory import DftSettings, LevelOfTheory


def test_keys_of_potentials_do_not_change():
    """Stored energies stay comparable: the key of a potential is what it always was."""
    toy = LevelOfTheory(kind="mlip", code="toy", version="1", model="toy", settings={"a": 1})
    assert toy.key == "toy-toy@b9a3544fa0"


def test_every_dft_setting_is_part_of_the_key():
    """Two calculations that differ in one setting have two keys."""
    base = {
        "u_values": {"Fe": 5.3},
        "pseudopotentials": {"Fe": "PBE Fe_pv"},
        "basis": "plane waves",
        "cutoff": 520.0,
        "k_density": "KSPACING 0.22",
        "smearing": "ISMEAR -5",
        "corrections": {"MaterialsProject2020Compatibility": "pymatgen 2026.10"},
        "mixing": "mp2020",
    }
    assert set(base) == set(DftSettings.model_fields)
    others = [
        {**base, name: DftSettings.model_fields[name].get_default(call_default_factory=True)}
        for name in base
    ]
    keys = {
        LevelOfTheory(
            kind="dft", code="vasp", version="6", model="GGA", dft=DftSettings(**settings)
        ).key
        for settings in (base, *others)
    }
    assert len(keys) == len(base) + 1


def test_a_theory_survives_json():
    """What is stored and read again has the same key."""
    theory = LevelOfTheory(
        kind="dft", code="gpaw", version="26", model="PBE", dft=DftSettings(cutoff=700)
    )
    again = LevelOfTheory.model_validate_json(theory.model_dump_json())
    assert again == theory
    assert again.key == theory.key
