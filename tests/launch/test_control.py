"""Orders are given once, obeyed by workers and by runs on a laptop, and never harm what runs."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("fireworks")

from fireworks import FWAction, FWorker, Workflow

from matloop.errors import ConfigurationError
from matloop.jobs.advance import stopped
from matloop.launch import control
from matloop.launch.patience import PatientLaunchPad
from matloop.launch.submission import ensure
from matloop.ledger.opening import open_ledger, read_ledger

from .conftest import CAMPAIGN
from .contents import contents
from .lab import Lab


def chain(lab: Lab) -> dict[str, int]:
    """Add a campaign whose stage is at work: one shard runs, one is ready, others wait."""
    lab.campaign("one")
    shards = [lab.firework(f"evaluate relax 0.{n}") for n in range(2)]
    join = lab.firework("evaluate relax", _allow_fizzled_parents=True)
    decide = lab.firework("decide relax")
    return lab.add([*shards, join, decide], {s: [join] for s in shards} | {join: [decide]})


@pytest.mark.mongo
def test_a_paused_campaign_starts_nothing(lab: Lab) -> None:
    """What runs ends; nothing else is taken, and nothing is submitted, until it is resumed."""
    ids = chain(lab)
    running = lab.take("cpu@7", fw_id=ids["evaluate relax 0.0"])
    control.give(lab.ledger, "one", "pause", "ada", "lab")
    assert control.enforce(lab.launchpad, lab.ledger, "one") == 3
    assert control.enforce(lab.launchpad, lab.ledger, "one") == 0
    assert not lab.run()
    lab.complete(running)
    assert not lab.run()
    assert lab.states()["evaluate relax 0.0"] == "COMPLETED"
    assert sorted(lab.states().values()).count("PAUSED") == 3
    assert ensure(lab.site, "one", lab.ledger, lab.launchpad).reason == "paused"
    control.give(lab.ledger, "one", "resume", "ada", "lab")
    assert control.enforce(lab.launchpad, lab.ledger, "one") == 3
    assert control.enforce(lab.launchpad, lab.ledger, "one") == 0
    assert lab.states()["decide relax"] == "WAITING"
    assert lab.run_all() == 3
    assert set(lab.states().values()) == {"COMPLETED"}


@pytest.mark.mongo
def test_what_a_paused_campaign_adds_is_paused_too(lab: Lab) -> None:
    """What a job adds while its campaign is paused is held by the next step."""
    ids = chain(lab)
    running = lab.take("cpu@7", fw_id=ids["evaluate relax 0.0"])
    control.give(lab.ledger, "one", "pause", "ada", "lab")
    control.enforce(lab.launchpad, lab.ledger, "one")
    rest = Workflow([lab.firework("evaluate relax 0.0 rest")])
    lab.complete(running, action=FWAction(detours=rest))
    lab.campaign("two")
    lab.add([lab.firework("evaluate other 0.0", campaign="two")], campaign="two")
    worker = PatientLaunchPad(lab.site.launchpad_settings(), patience=5)
    fworker = FWorker("cpu@8", "cpu", env={"slot": 0})
    assert worker.checkout_fw(fworker, "/")[0].name == "evaluate other 0.0"
    assert not worker.run_exists(fworker), "workers pass over it even before the next step"
    assert control.enforce(lab.launchpad, lab.ledger, "one") == 1
    assert not lab.run()
    lab.complete(lab.launches()[-1]["launch_id"])
    control.give(lab.ledger, "one", "resume", "ada", "lab")
    control.enforce(lab.launchpad, lab.ledger, "one")
    assert worker.run_exists(fworker)
    lab.run_all()
    assert set(lab.states().values()) == {"COMPLETED"}


@pytest.mark.mongo
def test_people_may_pause_a_firework_themselves(lab: Lab) -> None:
    """`lpad pause_fws` outlives a resume of the campaign that was not paused when it was given."""
    ids = chain(lab)
    for order in ("pause", "resume"):
        control.give(lab.ledger, "one", order, "ada", "lab")
        control.enforce(lab.launchpad, lab.ledger, "one")
    lab.launchpad.pause_fw(ids["evaluate relax 0.1"])
    control.enforce(lab.launchpad, lab.ledger, "one")
    assert lab.states()["evaluate relax 0.1"] == "PAUSED"


@pytest.mark.mongo
def test_a_stopped_campaign_ends_as_it_is(lab: Lab) -> None:
    """Running jobs end without harm, nothing else starts, the last state says who stopped it."""
    ids = chain(lab)
    running = lab.take("cpu@7", fw_id=ids["evaluate relax 0.0"])
    control.give(lab.ledger, "one", "stop", "ada", "lab")
    assert control.enforce(lab.launchpad, lab.ledger, "one") == 3
    rest = Workflow([lab.firework("evaluate relax 0.0 rest")])
    lab.complete(running, action=FWAction(detours=rest))
    assert control.enforce(lab.launchpad, lab.ledger, "one") == 1
    assert not lab.run()
    states = lab.ledger.states("one")
    assert [(state.status, state.reason) for state in states] == [("finished", "stopped by ada")]
    assert ensure(lab.site, "one", lab.ledger, lab.launchpad).reason.startswith("finished: stopped")
    with pytest.raises(ConfigurationError, match=r"has ended \(stopped by ada\)"):
        control.give(lab.ledger, "one", "resume", "ada", "lab")


@pytest.mark.mongo
def test_mistaken_orders_are_one_line(lab: Lab) -> None:
    """An unknown campaign, a second pause, a resume of what runs: each is said plainly."""
    chain(lab)
    with pytest.raises(ConfigurationError, match=r"lab has no campaign 'two'; it has one"):
        control.give(lab.ledger, "two", "pause", "ada", "lab")
    with pytest.raises(ConfigurationError, match="'one' is not paused"):
        control.give(lab.ledger, "one", "resume", "ada", "lab")
    control.give(lab.ledger, "one", "pause", "ada", "lab")
    with pytest.raises(ConfigurationError, match="'one' is paused already"):
        control.give(lab.ledger, "one", "pause", "ada", "lab")


@pytest.mark.mongo
def test_orders_given_at_once_are_one(lab: Lab) -> None:
    """Of eight people who pause at the same instant one does, seven learn that it is paused."""
    chain(lab)

    def give(number: int) -> str:
        try:
            control.give(lab.ledger, "one", "pause", f"user {number}", "lab")
        except ConfigurationError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(8) as people:
        told = list(people.map(give, range(8)))
    assert told.count("") == 1
    assert len(lab.ledger.controls("one")) == 1


def test_stopping_twice_changes_nothing(undisturbed: tuple[Path, Path]) -> None:
    """A campaign that has finished keeps its end and its reason."""
    ledger = open_ledger(undisturbed[0])
    try:
        before = ledger.states("copper-gold")
        assert stopped(ledger, "copper-gold", "stopped by ada") == before[-1]
        assert ledger.states("copper-gold") == before
    finally:
        ledger.close()


@pytest.mark.slow
def test_a_run_on_a_laptop_pauses_and_stops(
    environment: dict[str, str], undisturbed: tuple[Path, Path], tmp_path: Path
) -> None:
    """A paused run ends after its iteration and says how to go on; a stopped one ends for good."""
    matloop = [sys.executable, "-m", "matloop"]
    run = [*matloop, "run", str(CAMPAIGN), "--dir", str(tmp_path)]
    first = subprocess.Popen(run, env=environment, stderr=subprocess.PIPE, text=True)
    _wait_for(tmp_path, 0)
    there = ["copper-gold", "--dir", str(tmp_path)]
    subprocess.run([*matloop, "pause", *there], env=environment, check=True)
    _, said = first.communicate(timeout=120)
    assert first.returncode == 0, said
    assert "paused" in said
    assert f"matloop resume copper-gold --dir {tmp_path}" in said
    count = len(_states(tmp_path))  # the order arrives during the first iteration or the second
    assert count in {2, 3}
    again = subprocess.run(
        [*run, "--resume"], env=environment, check=True, capture_output=True, text=True
    )
    assert "paused" in again.stderr
    assert len(_states(tmp_path)) == count, "still paused"
    for order in ("resume", "stop"):
        subprocess.run([*matloop, order, *there], env=environment, check=True)
    subprocess.run([*run, "--resume"], env=environment, check=True)
    assert len(_states(tmp_path)) == count + 1
    last = _states(tmp_path)[-1]
    assert last[0] == "finished"
    assert last[1].startswith("stopped by ")
    whole, part = contents(undisturbed[0]), contents(tmp_path)
    known = whole["candidates"]
    assert isinstance(known, list)
    assert isinstance(part["candidates"], list)
    assert part["candidates"] == known[: len(part["candidates"])]
    refused = subprocess.run(
        [*matloop, "pause", *there], env=environment, check=False, capture_output=True, text=True
    )
    assert refused.returncode == 2
    assert len(refused.stderr.strip().splitlines()) == 1


def _states(directory: Path) -> list[tuple[str, str]]:
    ledger = read_ledger(directory)
    try:
        return [(state.status, state.reason) for state in ledger.states("copper-gold")]
    finally:
        ledger.close()


def _wait_for(directory: Path, iteration: int) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        if (directory / "ledger.sqlite").exists() and len(_states(directory)) > iteration:
            return
        time.sleep(0.1)
    raise TimeoutError(f"iteration {iteration} did not begin")
