"""The doctor on one machine: what is well, what is not, and what to do about it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from matloop import registry
from matloop.launch import checks
from matloop.launch.checks import Check, Examination, compare, examine
from matloop.launch.doctor import Diagnosis, diagnose_here
from matloop.launch.site import Site, load_site
from matloop.settings import settings
from matloop.testing.mongodb.process import ServerProcess

TEXT = """\
name: test
database: {name: health, uri_file: uri}
directory: shared
kinds:
  cpu: {}
  huge: {cores: 9999}
  gpu: {gpus: 64}
  dft: {}
"""

pytestmark = pytest.mark.mongo


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with ServerProcess() as running:
        yield running


@pytest.fixture
def site(server: ServerProcess, tmp_path: Path) -> Site:
    file, secret = tmp_path / "site.yaml", tmp_path / "uri"
    file.write_text(TEXT)
    secret.touch(mode=0o600)
    secret.write_text(server.uri)
    return load_site(file)


def found(examination: Examination, subject: str) -> Check:
    """Return the only check of a subject."""
    (check,) = [item for item in examination.checks if item.subject == subject]
    return check


def secret_of(site: Site) -> Path:
    """Return the file of the URI."""
    assert site.database.uri_file is not None
    return site.database.uri_file


def test_a_sound_machine_is_well(site: Site) -> None:
    """Everything a cpu worker needs is there; only SLURM says nothing outside of a job."""
    examination = examine(site, "cpu")
    states = {check.subject: check.state for check in examination.checks}
    assert states.pop("time left") == "warning"
    assert states.keys() == {
        "packages", "shared folder", "database", "clock", "unique keys", "cores",
    }  # fmt: skip
    assert set(states.values()) == {"ok"}
    assert not examination.failed
    assert examination.versions.keys() == {"python", *checks.PACKAGES}


def test_it_leaves_nothing_behind(site: Site) -> None:
    """After a look, the shared folder is empty, and so is the collection it wrote to."""
    examine(site, "cpu")
    assert list(site.directory.iterdir()) == []
    launchpad = site.launchpad()
    assert launchpad.db["doctor"].count_documents({}) == 0


def test_a_database_that_is_away_is_a_failure(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said in seconds, without the password of the URI."""
    monkeypatch.setattr(checks, "_TIMEOUT_MS", 300)
    secret_of(site).write_text("mongodb://ada:lovelace@127.0.0.1:1/")
    started = time.monotonic()
    examination = examine(site, "cpu")
    assert time.monotonic() - started < 10
    check = found(examination, "database")
    assert check.state == "failure"
    assert check.text.startswith("the server does not answer from here (ServerSelectionTimeout")
    assert "lovelace" not in examination.model_dump_json()


@pytest.mark.parametrize(
    "uri",
    [
        "mongodb://ada:lovelace@host:port/",
        "mongodb://ada:love@lace@h/",
        "mongodb+srv://ada:lovelace@h:27017/",
        "https://ada:lovelace@h/",
    ],
)
def test_a_uri_that_is_none_is_a_failure(site: Site, uri: str) -> None:
    """What cannot be a URI is told in one line that does not repeat it."""
    secret_of(site).write_text(uri)
    examination = examine(site, "cpu")
    assert found(examination, "database").state == "failure"
    assert "lace" not in examination.model_dump_json()


def test_a_secret_others_may_read_is_a_failure(site: Site) -> None:
    """The check says which command mends it."""
    secret_of(site).chmod(0o644)
    check = found(examine(site, "cpu"), "database")
    assert check.state == "failure"
    assert f"chmod 600 {secret_of(site)}" in check.text


def test_a_folder_that_is_none_is_a_failure(site: Site) -> None:
    """A file in the place of the shared folder fails that check, and no other."""
    site.directory.write_text("")
    examination = examine(site, "cpu")
    assert found(examination, "shared folder").text == f"{site.directory}: File exists"
    assert [item.subject for item in examination.checks if item.state == "failure"] == [
        "shared folder"
    ]


def test_a_kind_that_asks_for_more_than_there_is_fails(site: Site) -> None:
    """Cores and GPUs are counted where the worker is, against what its kind asks for."""
    assert found(examine(site, "huge"), "cores").text.endswith("lower `cores`, or see `extra`")
    check = found(examine(site, "gpu"), "GPUs")
    assert check.state == "failure"
    assert "but the kind asks for 64" in check.text


def test_outside_programs_are_looked_for(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the environment names is reported; what is not there is a warning with its variable."""
    monkeypatch.setenv("MATLOOP_PROGRAMS__MATTERGEN", "/nowhere/mattergen-generate")
    monkeypatch.setenv("MATLOOP_PROGRAMS__LISTING", "ls -l")
    settings.cache_clear()
    try:
        examination = examine(site, "cpu")
    finally:
        monkeypatch.undo()
        settings.cache_clear()
    assert not examination.failed
    assert found(examination, "program listing").state == "ok"
    missing = found(examination, "program mattergen")
    assert missing.state == "warning"
    assert missing.text.startswith("MATLOOP_PROGRAMS__MATTERGEN: /nowhere/mattergen-generate is")


def test_engines_are_asked_on_the_kind_that_runs_them(site: Site) -> None:
    """Every registered engine says what it lacks, one line each, or that it can calculate."""
    here = examine(site, "dft").checks
    elsewhere = {check.subject for check in examine(site, "cpu").checks}
    engines = set(registry.names("engines")) or {"engines"}
    told = [check for check in here if check.subject in engines]
    assert {check.subject for check in told} == engines
    assert engines.isdisjoint(elsewhere)
    for check in told:
        assert "\n" not in check.text
        assert (check.state == "ok") == (check.text == "can calculate")


@pytest.mark.parametrize(("off", "state"), [(0, "ok"), (20, "warning"), (-300, "failure")])
def test_clocks_are_compared(off: float, state: str) -> None:
    """A clock that is minutes off would make living workers look dead."""
    answer = {"localTime": datetime.now(UTC) + timedelta(seconds=off)}
    (check,) = checks._clock(answer, time.time())
    assert check.state == state


@pytest.mark.parametrize(
    ("changed", "state"),
    [
        ({}, "ok"),
        ({"torch": "2.13.0+cu128"}, "ok"),
        ({"torch": "2.12.0+cpu"}, "warning"),
        ({"jobflow": "missing"}, "warning"),
        ({"matloop": "9.9.9"}, "failure"),
    ],
)
def test_versions_are_compared(changed: dict[str, str], state: str) -> None:
    """How a package was built does not matter, its version does, and matloop's most of all."""
    here = Examination(
        versions={"matloop": "1", "torch": "2.13.0+cpu", "jobflow": "0.4"}, checks=()
    )
    there = here.model_copy(update={"versions": {**here.versions, **changed}})
    check = compare(here, there)
    assert check.state == state
    assert all(name in check.text for name in changed if state != "ok")


def test_a_missing_package_is_named(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that is not installed is a failure with the command that installs it."""
    monkeypatch.setattr(checks, "PACKAGES", ("matloop", "no-such-package"))
    check = found(examine(site, "cpu"), "packages")
    assert check.state == "failure"
    assert check.text == "missing: no-such-package; pip install 'matloop[cluster,mongo]'"


def test_files_that_do_not_follow_the_site_are_named(site: Site) -> None:
    """Where the user sits, FireWorks' files are compared with the site file."""
    check = found(examine(site), "FireWorks' files")
    assert check.state == "failure"
    assert check.text.endswith("not as the site says; `matloop site update`")


def test_json_is_read_back(site: Site) -> None:
    """What a worker writes is what the caller reads."""
    diagnosis = diagnose_here(site, "cpu")
    data = json.loads(diagnosis.as_json())
    assert data.pop("failed") is False
    assert data.keys() == Diagnosis.model_fields.keys()
    assert Diagnosis.model_validate(data) == diagnosis
