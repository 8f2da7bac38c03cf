"""`matloop submit`, `pause`, `resume`, `stop`, `heal` and `tick`, without a cluster at hand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from matloop.testing.mongodb.process import ServerProcess

from .conftest import CAMPAIGN, Matloop

pytestmark = pytest.mark.mongo

pytest.importorskip("fireworks")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return the file of a site with a database of its own, and no SLURM."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("MATLOOP_SITE", raising=False)
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "none"))
    monkeypatch.chdir(tmp_path)
    file, secret = tmp_path / "site.yaml", tmp_path / "uri"
    secret.touch(mode=0o600)
    file.write_text("name: far\ndatabase: {uri_file: uri}\ndirectory: shared\nkinds: {cpu: {}}\n")
    with ServerProcess() as server:
        secret.write_text(server.uri)
        yield file


def test_a_campaign_is_handed_over_and_ordered_about(matloop: Matloop, site: Path) -> None:
    """Each command says in a line or two what it did and how to go on; each order holds."""
    option = ("--site", site)
    said = matloop("submit", CAMPAIGN, *option)
    assert said.code == 0, said.err
    name = said.out.split()[2]
    assert f"submitted {name} to far: the preparation, jobs 1, 2" in said.out
    assert f"matloop workers up --site {site}" in said.out
    again = matloop("submit", CAMPAIGN, *option)
    assert again.code == 0
    assert f"{name} is at far already: running" in again.out
    assert f"matloop resume {name} --site {site}" in matloop("pause", name, *option).out
    assert f"{name}: paused" in matloop("tick", "--all", *option).out
    data = json.loads(matloop("status", "--campaign", name, "--json", *option).out)
    assert data["status"] == "paused"
    assert sum(job["paused"] for job in data["activity"]["jobs"]) == 2
    assert "2 jobs go on" in matloop("resume", name, *option).out
    ticked = matloop("tick", name, *option).out
    assert f"{name}: the preparation is under way" in ticked
    assert "nothing is broken" in matloop("heal", *option).out
    assert "2 jobs were dropped" in matloop("stop", name, *option).out
    assert f"{name}: finished: stopped by" in matloop("tick", "--all", *option).out
    refused = matloop("resume", name, *option)
    assert (refused.code, len(refused.err.splitlines())) == (2, 1)
    assert "has ended (stopped by" in refused.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("tick",), "name the campaigns to go on with, or give --all"),
        (("tick", "one", "--all"), "name the campaigns to go on with, or give --all"),
        (("tick", "one"), "site far has no campaign 'one'; it has none"),
        (("pause", "one"), "has no campaign 'one'; it has none"),
        (("stop", "one"), "has no campaign 'one'; it has none"),
    ],
)
def test_mistakes_are_one_line(
    matloop: Matloop, site: Path, words: tuple[str, ...], message: str
) -> None:
    """What a user mistook is one line, exit code 2."""
    said = matloop(*words, "--site", site)
    assert (said.code, len(said.err.splitlines())) == (2, 1), said.err
    assert message in said.err


def test_without_a_site_the_way_is_shown(
    matloop: Matloop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No site file anywhere: the line names the command that writes one."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("MATLOOP_SITE", raising=False)
    for words in (("submit", CAMPAIGN), ("heal",), ("tick", "--all")):
        said = matloop(*words)
        assert said.code == 2
        assert "matloop site init" in said.err
