"""`matloop finetune` on a file of labelled crystals."""

from __future__ import annotations

from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

from matloop.surrogates.potentials import read_card


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file of strained copper and gold, one of them not converged."""
    frames = []
    for index in range(16):
        atoms = bulk("Cu" if index % 2 else "Au", cubic=True)
        atoms.set_cell(atoms.cell * (0.97 + 0.005 * index), scale_atoms=True)
        atoms.rattle(0.08, seed=index)
        atoms.calc = EMT()
        results = {
            n: getattr(atoms, f"get_{n}")() for n in ("potential_energy", "forces", "stress")
        }
        energy = results.pop("potential_energy")
        atoms.calc = SinglePointCalculator(atoms, energy=energy, **results)
        atoms.info["converged"] = index != 5
        frames.append(atoms)
    path = tmp_path_factory.mktemp("labels") / "labels.xyz"
    ase.io.write(path, frames, format="extxyz")
    return path


def test_a_model_is_written_with_its_card(matloop, data: Path, tmp_path: Path) -> None:
    """Counts, errors and the verdict are told, and are those of the card in the file."""
    path = tmp_path / "tuned.safetensors"
    arguments = ["--steps", 12, "--batch", 6, "--rate", 2e-4, "--margin", 0.02, "-o", path]
    said = matloop("finetune", "chgnet", "--data", data, *arguments)
    card = read_card(path)
    assert said.code == (0 if card.accepted else 1)
    assert card.reason.split(":")[0] in said.out
    assert card.excluded == {"not converged": 1}
    assert "1 left out (1 not converged)" in said.out
    assert card.after.stresses == card.after.crystals == 3
    assert np.isfinite(card.after.energy_mae)
    assert card.after.energy_mae < card.before.energy_mae


def test_mistakes_are_named(matloop, data: Path, finished: Path, tmp_path: Path) -> None:
    """Missing file, a model that cannot be tuned, a campaign without labels: one line each."""
    out = tmp_path / "x"
    for arguments, words in (
        (("chgnet", "--data", tmp_path / "none.xyz"), "there is no file"),
        (("ase", "--data", data), "cannot be tuned"),
        (("chgnet", "--data", data, "--theory", "vasp"), "no converged label"),
        (("chgnet", "--dir", finished), "has no labels"),
        (("chgnet", "--data", data, "--dir", finished), "--data or --dir"),
    ):
        said = matloop("finetune", *arguments, "-o", out)
        assert said.code == 2, said
        assert words in said.err
        assert len(said.err.strip().splitlines()) == 1, said.err
    assert not out.exists()
