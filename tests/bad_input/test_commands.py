"""Commands with arguments that cannot be meant: one line, and nothing written."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import Matloop, untouched

ALREADY = "is there already; choose another name with -o"
FOLDER_HINT = "CIF needs a folder, or a name that ends in .zip"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "campaign.yaml", "--seed", "-1"], ["--seed", "greater than or equal to 0"]),
        (["run", "campaign.yaml", "--seed", "lucky"], ["--seed", "valid integer"]),
        (["run", "campaign.yaml", "--seed", "9" * 30], ["--seed", "less than or equal to"]),
        (["run", "campaign.yaml", "--iterations", "0"], ["--iterations", "or equal to 1"]),
        (["run", "campaign.yaml", "--iterations", "1000000"], ["--iterations", "equal to 100000"]),
        (["run", "campaign.yaml", "--nonsense"], ["No such option", "--nonsense"]),
        (["run"], ["Missing argument", "CAMPAIGN.yaml"]),
        (["statsu"], ["No such command", "'statsu'", "'status'"]),
        (["export", "-f", "xls", "-o", "x"], ["'xls' is not one of", "'extxyz'"]),
        (["export", "-f", "csv", "-s", "best", "-o", "x"], ["'best' is not", "'discoveries'"]),
        (["export", "-f", "csv"], ["Missing option", "--output"]),
        (["show"], ["Missing argument", "CANDIDATE_ID"]),
    ],
    ids=lambda value: " ".join(value) if value[0] in ("run", "statsu", "export", "show") else "",
)
def test_wrong_usage_is_explained(
    matloop: Matloop, campaign: Path, arguments: list[str], words: list[str]
) -> None:
    """Unknown commands and options, and values out of range, are named with what is allowed."""
    with untouched(campaign.parent):
        said = matloop(*arguments)
    text = " ".join(said.err.replace("│", " ").split())
    assert all(word in text for word in words), text
    assert (said.code, said.out) == (2, "")


def test_a_folder_without_a_run(matloop: Matloop, tmp_path: Path) -> None:
    """Results of nothing are refused with where to look or what to start."""
    (tmp_path / "file").write_text("")
    with untouched(tmp_path):
        for command in (["status"], ["report"], ["show", "x"], ["export", "-f", "csv", "-o", "x"]):
            matloop(*command).refuses(
                "error: no run found here or in ./runs: say where with --dir, or start one with "
                "`matloop run`"
            )
            for place in ("file", "nowhere"):
                matloop(*command, "--dir", place).refuses(
                    f"error: {place} holds no run: there is no ledger.sqlite in it"
                )


def test_a_run_cannot_be_a_file(matloop: Matloop, campaign: Path) -> None:
    """`--dir` that is a file, or lies below one, is refused before anything runs."""
    with untouched(campaign.parent):
        for place in (campaign, campaign / "run"):
            matloop("run", campaign, "--dir", place).refuses(
                f"error: {campaign} is a file; name a folder with --dir"
            )


def test_a_finished_campaign_is_not_started_again(
    matloop: Matloop, campaign: Path, finished: Path
) -> None:
    """Starting it again is refused with how to see it."""
    with untouched(finished):
        matloop("run", campaign, "--dir", finished).refuses(
            f"error: campaign 'copper-gold' has finished in {finished}: see it with "
            f"`matloop report --dir {finished}`, or choose another --dir"
        )


def test_new_never_overwrites(matloop: Matloop, campaign: Path) -> None:
    """`new` refuses files that are there, folders that are not, and systems that are none."""
    with untouched(campaign.parent):
        matloop("new", "-o", campaign).refuses(f"{campaign}: {ALREADY}")
        matloop("new", "-o", campaign.parent).refuses(f"{campaign.parent}: {ALREADY}")
        matloop("new", "-o", "no/x.yaml").refuses(
            "no/x.yaml: cannot be written: no such file or directory"
        )
        for system, part in (("Ca-Qq", "Qq"), ("", ""), ("Ca Ti O", "Ca Ti O"), ("Ca-D", "D")):
            matloop("new", "--system", system).refuses(
                f"error: {part!r} is no chemical element; write a system such as Ca-Ti-O"
            )
        matloop("new", "--system", "Ca-O-Ca").refuses("error: Ca-O-Ca names an element twice")


def test_exports_and_reports_never_destroy(
    matloop: Matloop, finished: Path, tmp_path: Path
) -> None:
    """A folder with something in it, a file for a folder, a path below a file: all refused."""
    full = tmp_path / "full"
    full.mkdir()
    (full / "precious").write_text("years of work")
    file = full / "precious"
    with untouched(tmp_path):
        for form, target, expected in (
            ("cif", full, f"{full} is there already and not empty; name a new folder"),
            ("cif", file, f"{file} is a file; {FOLDER_HINT}"),
            ("json", full, f"{full} is a folder; name a file"),
            ("csv", file / "x", f"{file}/x cannot be written: file exists; name another"),
        ):
            matloop("export", "--dir", finished, "-f", form, "-o", target).refuses(
                f"error: {expected}"
            )
        matloop("report", "--dir", finished, "-o", full).refuses(
            f"error: {full} is a folder; name a file with -o"
        )
        matloop("report", "--dir", finished, "-o", file / "x").refuses(
            f"error: {file}/x cannot be written: file exists; name another"
        )


def test_a_candidate_that_is_none(matloop: Matloop, finished: Path) -> None:
    """`show` of a wrong or ambiguous id says which there are."""
    with untouched(finished):
        matloop("show", "zzz", "--dir", finished).refuses(
            "error: no candidate begins with 'zzz'; `matloop export --format csv` lists them all"
        )
        said = matloop("show", "", "--dir", finished)
        assert said.code == 2
        assert said.err.startswith("error: '' begins ")
        some = said.err.split()[3].rstrip(",;")
        assert matloop("show", some, "--dir", finished).out.split()[1] == some
        near = matloop("show", f"{some[:-1]}?", "--dir", finished)
        assert (near.code, some in near.err) == (2, True)


@pytest.fixture
def read_only(tmp_path: Path, finished: Path) -> Iterator[Path]:
    """Return a file system that nobody may write, not even root, with a finished run in it."""
    place = tmp_path / "read-only"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a file system")
    try:
        subprocess.run(["cp", "-r", str(finished), str(place / "run")], check=True)
        subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_folder_that_cannot_be_written(matloop: Matloop, campaign: Path, read_only: Path) -> None:
    """What would be written is refused, naming the place; what is there can still be read."""
    run = read_only / "run"
    matloop("run", campaign, "--dir", read_only / "new").refuses(
        f"error: {read_only} cannot be written; choose another --dir"
    )
    matloop("run", campaign, "--dir", run, "--resume").refuses(
        f"error: {run} cannot be written; choose another --dir"
    )
    for command, target in (
        (["report"], run / "report.html"),
        (["export", "-f", "csv", "-o", read_only / "x.csv"], read_only / "x.csv"),
    ):
        matloop(*command, "--dir", run).refuses(
            f"error: {target} cannot be written: read-only file system; name another"
        )
    assert matloop("status", "--dir", run).code == 0
    assert matloop("export", "--dir", run, "-f", "csv", "-o", "x.csv").code == 0
