"""Samples as records: what is damaged counts, and the arrays of generators are read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from matloop.errors import ConfigurationError
from matloop.structures.reading import read_records, read_structures

CRYSTALS = [
    Structure(Lattice.cubic(4.12), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]),
    Structure(
        Lattice.hexagonal(3.2, 5.2), ["Mg", "Mg"], [[1 / 3, 2 / 3, 0.25], [2 / 3, 1 / 3, 0.75]]
    ),
    Structure(Lattice.cubic(2.9), ["Fe"], [[0, 0, 0]]),
]


def arrays(samples: int | None = None) -> dict[str, np.ndarray]:
    """Return crystals in the layout of CDVAE, with some samples of each in front if asked."""
    found = {
        "frac_coords": np.concatenate([c.frac_coords for c in CRYSTALS]),
        "atom_types": np.concatenate([c.atomic_numbers for c in CRYSTALS]),
        "lengths": np.array([c.lattice.abc for c in CRYSTALS]),
        "angles": np.array([c.lattice.angles for c in CRYSTALS]),
        "num_atoms": np.array([len(c) for c in CRYSTALS]),
    }
    return found if samples is None else {k: np.stack([v] * samples) for k, v in found.items()}


def test_arrays_are_read(tmp_path: Path) -> None:
    """Every crystal comes back; several samples of each are told apart."""
    np.savez(tmp_path / "one.npz", **arrays())
    found = read_structures([tmp_path / "one.npz"])
    assert [known.known_id for known in found.crystals] == ["one-0", "one-1", "one-2"]
    for known, crystal in zip(found.crystals, CRYSTALS, strict=True):
        assert known.structure.matches(crystal, scale=False)
    np.savez(tmp_path / "two.npz", **arrays(samples=2))
    labels = [record.label for record in read_records([tmp_path / "two.npz"])]
    assert labels == ["0-0", "0-1", "0-2", "1-0", "1-1", "1-2"]


def test_arrays_that_do_not_agree_are_named(tmp_path: Path) -> None:
    """A missing array, or one of another length, is a reason and no crash."""
    content = arrays()
    np.savez(tmp_path / "a.npz", **{k: v for k, v in content.items() if k != "angles"})
    np.savez(tmp_path / "b.npz", **{**content, "atom_types": content["atom_types"][:-1]})
    first, second = read_records([tmp_path])
    assert "no array angles" in first.problem
    assert "atom_types has shape (4,), expected (5,)" in second.problem


def test_damaged_records_count(tmp_path: Path) -> None:
    """A crowded crystal keeps its structure and a reason; one that cannot be read has neither."""
    crowded = Structure(Lattice.cubic(4), ["Cs", "Cl"], [[0, 0, 0], [0, 0, 0.05]])
    crowded.to(str(tmp_path / "crowded.cif"), fmt="cif")
    CRYSTALS[0].to(str(tmp_path / "sound.cif"), fmt="cif")
    (tmp_path / "broken.cif").write_text("data_x\n_atom_site_label nonsense\n")
    broken, near, sound = read_records([tmp_path])
    assert broken.structure is None
    assert broken.problem
    assert near.structure is not None
    assert "apart" in near.problem
    assert (sound.label, sound.problem) == ("sound", "")
    assert len(read_structures([tmp_path]).crystals) == 1


def test_the_only_column_of_cifs_is_found(tmp_path: Path) -> None:
    """A table that names its column otherwise is read; one without any is refused."""
    cif = CRYSTALS[0].to(fmt="cif").replace('"', '""')
    (tmp_path / "a.csv").write_text(f'formula,relaxed\nCsCl,"{cif}"\n')
    (tmp_path / "b.csv").write_text("formula,energy\nCsCl,-3\n")
    table, other = read_records([tmp_path])
    assert table.structure is not None
    assert "no column `cif`" in other.problem


def test_an_empty_folder_is_no_sample(tmp_path: Path) -> None:
    """Nothing to count is a mistake."""
    with pytest.raises(ConfigurationError, match="holds no structure file"):
        read_records([tmp_path])
