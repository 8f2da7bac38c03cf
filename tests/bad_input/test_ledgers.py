"""Damaged ledgers: found by every command, named, and left as they are."""

from __future__ import annotations

import re
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import SOUND, Matloop, untouched


def truncate(file: Path) -> None:
    with file.open("r+b") as ledger:
        ledger.truncate(file.stat().st_size * 2 // 3)


def empty(file: Path) -> None:
    file.write_bytes(b"")


def overwrite_pages(file: Path) -> None:
    middle = file.stat().st_size // 2
    with file.open("r+b") as ledger:
        ledger.seek(middle - middle % 4096)
        ledger.write(b"\xa5" * 8192)


def overwrite_head(file: Path) -> None:
    with file.open("r+b") as ledger:
        ledger.write(b"\0" * 100)


def replace_by_text(file: Path) -> None:
    file.write_text("The ledger is in the other folder.\n")


def replace_by_a_database(file: Path) -> None:
    file.unlink()
    with sqlite3.connect(file) as database:
        database.execute("CREATE TABLE evaluations (doc TEXT)")
    database.close()


def change_a_digit(file: Path) -> None:
    """Make one energy another number: good JSON in a sound database."""
    content = file.read_bytes()
    (energy, *_) = re.finditer(rb'"energy_per_atom":\{"value":-?\d+\.(\d)', content)
    place = energy.start(1)
    digit = b"1" if content[place : place + 1] != b"1" else b"2"
    file.write_bytes(content[:place] + digit + content[place + 1 :])


def spoil_a_document(file: Path) -> None:
    content = file.read_bytes()
    place = content.index(b'"energy_per_atom":{')
    file.write_bytes(content[:place] + b"\xff" + content[place + 1 :])


DAMAGE: dict[Callable[[Path], None], str] = {
    truncate: "is damaged (database disk image is malformed)",
    empty: "is empty",
    overwrite_pages: "is damaged (",
    overwrite_head: "is not an SQLite database",
    replace_by_text: "is not an SQLite database",
    replace_by_a_database: "is an SQLite database, but no ledger of matloop",
    change_a_digit: "of its evaluations is not what was written)",
    spoil_a_document: "of its evaluations is not what was written)",
}


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_damage_is_named_and_left_alone(
    matloop: Matloop,
    campaign: Path,
    finished: Path,
    tmp_path: Path,
    damage: Callable[[Path], None],
) -> None:
    """Every command ends in one line with the file's name; not a byte of it changes."""
    file = tmp_path / "run" / "ledger.sqlite"
    shutil.copytree(finished, file.parent)
    damage(file)
    for command in (
        ["run", campaign, "--resume"],
        ["run", campaign],
        ["status"],
        ["status", "--json"],
        ["report", "-o", tmp_path / "report.html"],
        ["export", "-f", "json", "-o", tmp_path / "all.json"],
        ["show", "Cu"],
    ):
        with untouched(tmp_path):
            said = matloop(*command, "--dir", "run")
        (line,) = said.err.splitlines()
        assert line.startswith("error: run/ledger.sqlite ")
        assert DAMAGE[damage] in line
        assert line.endswith("; it was left untouched")
        assert (said.code, said.out) == (1, "")


def test_a_damaged_artifact_is_named(matloop: Matloop, finished: Path, tmp_path: Path) -> None:
    """A file beside the ledger whose content is not what its name says is refused as well."""
    shutil.copytree(finished, tmp_path / "run")
    artifacts = [path for path in (tmp_path / "run" / "artifacts").rglob("*") if path.is_file()]
    for path in artifacts:
        path.write_bytes(path.read_bytes()[:-1])
    with untouched(tmp_path):
        said = matloop("report", "--dir", "run", "-o", tmp_path / "report.html")
    (line,) = said.err.splitlines()
    assert line.split()[1] in {str(path.relative_to(tmp_path)) for path in artifacts}
    assert line.endswith(
        "is damaged: its content does not have the hash it is named by; it was left untouched"
    )
    assert said.code == 1


def test_a_lost_ledger_is_not_begun_anew_over_its_log(
    matloop: Matloop, campaign: Path, tmp_path: Path
) -> None:
    """SQLite would play the log of a lost file into a new one; the log is named instead."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "ledger.sqlite-wal").write_bytes(b"what was written last")
    said = matloop("run", campaign, "--dir", "run")
    assert said.code == 1
    assert not (tmp_path / "run" / "ledger.sqlite").exists()
    assert (tmp_path / "run" / "ledger.sqlite-wal").read_bytes() == b"what was written last"
    assert said.err.startswith(
        "error: run/ledger.sqlite is missing, but its log ledger.sqlite-wal is there; restore"
    )


def test_a_run_that_has_not_started_has_no_results(
    matloop: Matloop, finished: Path, tmp_path: Path
) -> None:
    """Before the first iteration, `status` says so, and the other commands end in one line."""
    from matloop.ledger.opening import open_ledger, read_ledger

    ledger = read_ledger(finished)
    (record,) = ledger.campaigns()
    ledger.close()
    begun = open_ledger(tmp_path / "run", create=True)
    begun.add_campaign(record)
    begun.close()
    assert "has not come beyond its reference phases" in matloop("status", "--dir", "run").out
    for command in (
        ["report", "-o", tmp_path / "report.html"],
        ["export", "-f", "json", "-o", tmp_path / "all.json"],
        ["show", "Cu"],
    ):
        with untouched(tmp_path):
            said = matloop(*command, "--dir", "run")
        (line,) = said.err.splitlines()
        assert "copper-gold" in line
        assert said.code != 0
        assert said.out == ""


def test_another_seed_is_not_resumed(matloop: Matloop, finished: Path, tmp_path: Path) -> None:
    """A changed campaign is refused with the field and both values."""
    file = tmp_path / "campaign.yaml"
    file.write_text(SOUND.replace("max_atoms: 4", "max_atoms: 6"))
    with untouched(finished):
        matloop("run", file, "--dir", finished, "--resume").refuses(
            "error: space.max_atoms: was 4 when this campaign was started, is 6 now",
            "restore the file to resume, or give the changed campaign a new name",
        )
