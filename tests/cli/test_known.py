"""`matloop known`: files become a library, and the same files change nothing."""

from pymatgen.core import Lattice, Structure
from typer.testing import CliRunner

from matloop.cli.main import app

SALT = Structure.from_spacegroup(
    "Fm-3m", Lattice.cubic(4.2), ["Mg", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]]
)


def test_files_are_added_once(tmp_path):
    """Two files, one of them broken: one crystal, a reason for the other, and none again."""
    SALT.to_file(str(tmp_path / "salt.cif"))
    (tmp_path / "broken.cif").write_text("no crystal")
    command = ["known", str(tmp_path / "library"), str(tmp_path / "salt.cif")]
    first = CliRunner().invoke(app, [*command, str(tmp_path / "broken.cif")])
    assert first.exit_code == 0, first.output
    assert "1 of 1 crystals are new" in first.output
    assert "broken.cif" in first.output
    again = CliRunner().invoke(app, command)
    assert "0 of 1 crystals are new" in again.output
    assert "holds 1 crystals" in " ".join(again.output.split())
