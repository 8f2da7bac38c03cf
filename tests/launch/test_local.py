"""A whole campaign in one process: it adds up, repeats itself, and refuses company."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from matloop.campaign_file import load
from matloop.documents.phase import PhaseSet
from matloop.ledger.opening import open_ledger, read_ledger

from .conftest import CAMPAIGN
from .contents import contents

NAME = "copper-gold"
STAGES = ["validity", "unique", "choice", "relaxation", "distinct", "stability"]


def test_the_funnel_adds_up(undisturbed: tuple[Path, Path]) -> None:
    """Who enters a stage is who passed the one before; each has one decision with a reason (P4)."""
    ledger = read_ledger(undisturbed[0])
    for iteration in range(3):
        entering = [r.candidate.candidate_id for r in ledger.candidates(NAME, iteration)]
        assert len(entering) == 24
        for stage in STAGES:
            decisions = ledger.decisions(NAME, iteration, stage)
            assert sorted(d.candidate_id for d in decisions) == sorted(entering)
            assert all(decision.reason for decision in decisions)
            entering = [d.candidate_id for d in decisions if d.outcome == "passed"]
    outcomes = Counter(d.outcome for d in ledger.decisions(NAME, stage="choice"))
    assert outcomes["passed"] <= 36
    assert outcomes["held"] > 0


def test_the_known_alloys_are_found(undisturbed: tuple[Path, Path]) -> None:
    """The hull grows by found phases, all at the level of theory of the references (P5)."""
    ledger = read_ledger(undisturbed[0])
    state = ledger.states(NAME)[-1]
    assert (state.status, state.reason) == ("finished", "all 3 iterations are done")
    phases = PhaseSet.from_bytes(
        ledger.artifact_path(state.resources["phases"].sha256).read_bytes()
    )
    found = [phase for phase in phases.phases if phase.source == "found"]
    assert {p.phase_id for p in phases.phases if p.source == "reference"} != set()
    assert found, "copper and gold form ordered compounds; none was found"
    assert {phase.theory.code for phase in phases.phases} == {"ase"}


def test_every_evaluation_has_a_cost(undisturbed: tuple[Path, Path]) -> None:
    """Relaxations record seconds, force evaluations and deterministic work (P10)."""
    ledger = read_ledger(undisturbed[0])
    keys = {k for d in ledger.decisions(NAME, stage="relaxation") for k in d.evaluations}
    for record in ledger.evaluations(keys).values():
        cost = record.evaluation.cost
        assert cost.seconds > 0
        assert cost.work == pytest.approx(cost.calls * len(record.evaluation.structure))


@pytest.mark.slow
def test_same_seed_same_campaign(
    environment: dict[str, str], undisturbed: tuple[Path, Path], tmp_path: Path
) -> None:
    """A second run gives the same candidates, verdicts and decisions; another seed others (P9)."""
    command = [sys.executable, "-m", "matloop", "run", str(CAMPAIGN)]
    again, other = tmp_path / "again", tmp_path / "other"
    subprocess.run([*command, "--dir", str(again)], env=environment, check=True)
    subprocess.run([*command, "--dir", str(other), "--seed", "12"], env=environment, check=True)
    expected = contents(undisturbed[0])
    assert contents(again) == expected
    assert contents(other)["candidates"] != expected["candidates"]


def test_a_finished_campaign_is_not_run_again(
    environment: dict[str, str], undisturbed: tuple[Path, Path]
) -> None:
    """Running a finished campaign again costs nothing and says that it is finished."""
    directory, log = undisturbed
    before = log.read_text()
    command = [sys.executable, "-m", "matloop", "run", str(CAMPAIGN), "--dir", str(directory)]
    env = {**environment, "COUNTED_RELAXATION_LOG": str(log)}
    subprocess.run([*command, "--resume"], env=env, check=True)
    assert log.read_text() == before


def test_a_second_process_is_refused(environment: dict[str, str], tmp_path: Path) -> None:
    """While one process holds the campaign, another ends with one clear line, and no traceback."""
    ledger = open_ledger(tmp_path, create=True)
    command = [sys.executable, "-m", "matloop", "run", str(CAMPAIGN), "--dir", str(tmp_path)]
    with ledger.lock(NAME):
        result = _run(command, environment)
    assert result.returncode != 0
    assert "Traceback" not in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    ledger.close()


def test_a_changed_file_is_refused(
    environment: dict[str, str], undisturbed: tuple[Path, Path], tmp_path: Path
) -> None:
    """Continuing with another seed would mix two campaigns; it is refused, naming the field."""
    changed = tmp_path / "changed.yaml"
    changed.write_text(CAMPAIGN.read_text().replace("seed: 11", "seed: 12"))
    command = [sys.executable, "-m", "matloop", "run", str(changed), "--resume"]
    command += ["--dir", str(undisturbed[0])]
    result = _run(command, environment)
    assert result.returncode == 2
    assert "seed" in result.stderr
    assert "Traceback" not in result.stderr


def test_the_campaign_file_is_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test campaign names plugins of an outside package; without it, the mistake is named."""
    from matloop.errors import ConfigurationError

    with pytest.raises(ConfigurationError, match="counted_relaxation"):
        load(CAMPAIGN)


def _run(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
