"""A campaign with calculations on its ladder: promoted, audited, paid in advance, and reported."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jobflow import JobStore, run_locally
from maggma.stores import MemoryStore
from pymatgen.core import Lattice, Structure

from matloop.documents.campaign import Campaign
from matloop.documents.decision import AUDIT, TURNED_DOWN
from matloop.documents.phase import PhaseSet
from matloop.errors import ConfigurationError
from matloop.flows.iteration import IterationMaker, PreparationMaker
from matloop.jobs.place import Place, close_ledgers
from matloop.jobs.sharding import Sharding
from matloop.launch.local import run
from matloop.ledger.accounts import WHOLE, accounts
from matloop.ledger.interface import Ledger
from matloop.ledger.opening import LedgerConfig, open_ledger, read_ledger
from matloop.ledger.past import read_packed
from matloop.reports.html import render_report
from matloop.reports.summary import summarize
from matloop.testing import conformance
from matloop.testing.toys import ToyEngine, toys_registered

from .contents import contents

NAME = "two-rungs"
REFERENCES = 5  # phases of four elements
STAGES = ("unique", "relaxation", "stability", "dft")


def campaign(
    engine: dict[str, Any] | None = None,
    dft: dict[str, Any] | None = None,
    budget: dict[str, Any] | None = None,
    audit_share: float = 0.15,
    keep: int | None = 8,
) -> Campaign:
    toy = {"shift": 0.06, "noise": 0.02, "overrun": 1.1, **(engine or {})}
    promotion = {"use": "promotion", "with": {"audit_share": audit_share}}
    hull = {"use": "hull_distance", "with": {"reject_above": 0.02}}
    return Campaign.model_validate(
        {
            "name": NAME,
            "seed": 3,
            "space": {"system": "Li-Sr-Ti-O", "max_atoms": 4},
            "objective": {
                "minimize": "e_above_hull",
                "discovery": "e_above_hull <= 0.02 eV/atom",
            },
            "references": {"max_elements": 1},
            "generators": ["toy_generator"],
            "stages": [
                {"name": "unique", "evaluate": ["uniqueness"]},
                {"name": "relaxation", "evaluate": ["toy_relaxation"]},
                {"name": "stability", "evaluate": [hull], "select": promotion, "keep": keep},
                {
                    "name": "dft",
                    "calculate": {"use": "toy_engine", "with": toy},
                    "evaluate": ["hull_distance"],
                    **(dft or {}),
                },
            ],
            "feedback": {"learn": ["fidelity_correction"]},
            "budget": {"iterations": 3, "candidates": 40, **(budget or {})},
        }
    )


@pytest.fixture(autouse=True, scope="module")
def toys() -> Iterator[None]:
    with toys_registered():
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a campaign that ran to its end."""
    directory = tmp_path_factory.mktemp("two-rungs")
    assert run(campaign(), directory).status == "finished"
    return directory


@pytest.fixture
def ledger(finished: Path) -> Iterator[Ledger]:
    ledger = read_ledger(finished)
    yield ledger
    ledger.close()


def test_the_funnel_adds_up_with_audits(ledger: Ledger) -> None:
    """Who is calculated passed the stage before, rejected ones among them only as audits (P4)."""
    audited = 0
    for iteration in range(3):
        entering = ledger.candidate_ids(NAME, iteration)
        for stage in STAGES:
            decisions = ledger.decisions(NAME, iteration, stage)
            assert sorted(d.candidate_id for d in decisions) == sorted(entering)
            assert all(d.reason for d in decisions)
            entering = [d.candidate_id for d in decisions if d.outcome == "passed"]
        for decision in ledger.decisions(NAME, iteration, "stability"):
            keys = decision.evaluations
            verdicts = {r.evaluation.verdict for r in ledger.evaluations(keys).values()}
            if decision.outcome == "passed" and "reject" in verdicts:
                assert decision.evidence[AUDIT] == 1.0
                assert decision.evidence[TURNED_DOWN] == 1.0
                audited += 1
        assert len(entering) <= 8
    assert audited >= 1, "this seed audits a rejected candidate"


def test_each_level_has_a_hull_of_its_own(ledger: Ledger) -> None:
    """Energies never meet across levels (P5), and audited rejects stay off the lower hull."""
    resources = ledger.states(NAME)[-1].resources
    low = read_packed(ledger, resources["phases"], PhaseSet)
    high = read_packed(ledger, resources["phases.dft"], PhaseSet)
    assert (low.theory.kind, high.theory.kind) == ("empirical", "dft")
    rejected = {
        d.candidate_id
        for d in ledger.decisions(NAME, stage="stability")
        if d.evidence.get(TURNED_DOWN) == 1.0
    }
    assert rejected.isdisjoint(phase.phase_id for phase in low.phases)
    held = {
        d.candidate_id
        for d in ledger.decisions(NAME, stage="stability")
        if d.outcome == "held" and d.evidence["e_above_hull"] < -1e-9
    }
    assert held, "this seed holds phases below the hull"
    assert held <= {phase.phase_id for phase in low.phases}


def test_the_correction_is_learned_and_recorded(ledger: Ledger) -> None:
    """Each iteration's promotions rest on the lesson of the ones before."""
    states = ledger.states(NAME)
    counts = [state.metrics.get("fidelity_correction.n", 0) for state in states]
    assert counts == sorted(counts)
    assert counts[1] >= 3
    for iteration, state in enumerate(states[:-1]):
        shifts = {
            round(d.evidence["corrected_e_above_hull"] - d.evidence["e_above_hull"], 9)
            for d in ledger.decisions(NAME, iteration, "stability")
            if "e_above_hull" in d.evidence
        }
        assert (shifts == {0.0}) is ("fidelity_correction" not in state.resources)


def test_every_calculation_was_paid_in_advance(ledger: Ledger) -> None:
    """Reservations are there for references and candidates, and all are settled."""
    keys = {d.evaluations[0] for d in ledger.decisions(NAME, stage="dft")}
    reservations = {item.key: item for item in ledger.reservations(NAME)}
    assert keys <= reservations.keys()
    assert len(reservations) == len(keys) + REFERENCES
    known = accounts(ledger, NAME)
    assert known["dft"].core_hours.reserved == 0
    estimated = sum(item.core_hours for item in reservations.values())
    assert known["dft"].core_hours.spent == pytest.approx(1.1 * estimated)
    for key, record in ledger.evaluations(keys).items():
        assert record.evaluator == "toy_engine"
        assert record.recorded_at >= reservations[key].reserved_at


def test_discoveries_are_those_of_the_upper_level(ledger: Ledger) -> None:
    """A discovery was calculated, meets the criterion there, and the lower value stands beside."""
    summary = summarize(ledger, NAME)
    assert summary.discoveries
    assert summary.hull is not None
    assert summary.hull.theory.kind == "dft"
    calculated = {d.candidate_id for d in ledger.decisions(NAME, stage="dft")}
    for finding in summary.discoveries:
        assert finding.candidate_id in calculated
        assert finding.e_above_hull_final is not None
        assert finding.e_above_hull_final <= 0.02
        assert finding.e_above_hull_lower is not None
        assert finding.quantities["e_above_hull"].theory == summary.hull.theory.key


def test_the_report_compares_the_levels(ledger: Ledger) -> None:
    """Pairs, flips, audit and costs add up, and the page tells them."""
    summary = summarize(ledger, NAME)
    found = summary.fidelity
    assert found is not None
    decisions = ledger.decisions(NAME, stage="stability")
    assert len(found.pairs) == len(ledger.decisions(NAME, stage="dft"))
    assert sum(pair.audit for pair in found.pairs) == sum(
        d.evidence.get(AUDIT) == 1.0 for d in decisions
    )
    flips = (found.stable_both, found.stable_lower_only, found.stable_upper_only)
    assert sum(flips) + found.stable_neither == len(found.pairs)
    rejected, beyond, within, negative = found.audit
    assert rejected.others + beyond.others + within.others == len(decisions) - found.promoted
    assert negative.audited == rejected.audited + beyond.audited
    assert 0 <= negative.low <= negative.rate <= negative.high <= 1
    assert all(c.actual == pytest.approx(1.1 * c.estimated) for c in found.costs)
    assert summary.spent.calculations == len(found.pairs)
    assert summary.spent.relaxations < summary.spent.evaluations - summary.spent.calculations
    page = render_report(summary)
    assert 'id="levels"' in page
    assert "The audit" in page
    assert "Budgets" in page
    assert "Judged by" in page


def test_what_competitors_share_cancels(tmp_path: Path) -> None:
    """With every compound shifted alike, hull distances differ by that shift at most, and less
    where the competitors are compounds too; energies differ by all of it."""
    run(campaign(engine={"shift": 0.05, "noise": 0.0}, budget={"iterations": 1}), tmp_path)
    ledger = read_ledger(tmp_path)
    found = summarize(ledger, NAME).fidelity
    assert found is not None
    differences = [pair.upper - pair.lower for pair in found.pairs]
    assert all(-1e-9 <= difference <= 0.05 + 1e-9 for difference in differences)
    assert min(differences) < 0.02
    ledger.close()


@pytest.mark.parametrize("owner", ["stage", "campaign"])
@pytest.mark.parametrize("overrun", [0.5, 1.0, 1.3])
def test_the_budget_is_a_hard_stop(owner: str, overrun: float, tmp_path: Path) -> None:
    """Nothing begins that does not fit: it ends within what the last estimate was wrong by."""
    limit = {"core_hours": 9.0}
    declared = campaign(
        engine={"overrun": overrun},
        dft=limit if owner == "stage" else None,
        budget={"iterations": 2, **(limit if owner == "campaign" else {})},
    )
    run(declared, tmp_path)
    ledger = read_ledger(tmp_path)
    known = accounts(ledger, NAME)["dft" if owner == "stage" else WHOLE]
    costs = ledger.costs(item.key for item in ledger.reservations(NAME))
    wrong = sum(
        max(costs[item.key][0].core_hours - item.core_hours, 0.0)
        for item in ledger.reservations(NAME)
    )
    assert known.core_hours.spent <= 9.0 + wrong + 0.01
    assert known.core_hours.spent > 5.0, "most of it is used"
    refused = [
        d
        for stage in ("stability", "dft")
        for d in ledger.decisions(NAME, stage=stage)
        if d.outcome == "held" and "do not fit" in d.reason
    ]
    assert refused
    ledger.close()


def test_a_gate_before_calculations_leaves_the_budget_to_the_stage(tmp_path: Path) -> None:
    """Without promotion the stage itself holds what does not fit, and says what is left."""
    declared = campaign(dft={"core_hours": 5.0}, budget={"iterations": 1})
    gate = declared.stages[2].model_copy(update={"select": declared.stages[0].select, "keep": None})
    stages = (*declared.stages[:2], gate, declared.stages[3])
    run(declared.model_copy(update={"stages": stages}), tmp_path)
    ledger = read_ledger(tmp_path)
    held = [d for d in ledger.decisions(NAME, stage="dft") if d.outcome == "held"]
    assert held
    assert all("do not fit" in d.reason and "stage 'dft'" in d.reason for d in held)
    ledger.close()


def test_reference_phases_must_fit_the_budget(tmp_path: Path) -> None:
    """A budget that does not pay for the references is a mistake with one clear line."""
    with pytest.raises(ConfigurationError, match=r"reference phases cannot be calculated"):
        run(campaign(dft={"core_hours": 0.5}), tmp_path)
    ledger = read_ledger(tmp_path)
    assert ledger.reservations(NAME) == []
    ledger.close()


def test_calculations_that_fail_cost_their_candidate_alone(tmp_path: Path) -> None:
    """One that raises or does not converge has a failed verdict with a reason (P3)."""
    declared = campaign(
        engine={"raises": "SrO", "unconverged": "TiO"},
        audit_share=0.0,
        keep=None,
    )
    run(declared, tmp_path)
    ledger = read_ledger(tmp_path)
    failed = [d for d in ledger.decisions(NAME, stage="dft") if d.outcome == "failed"]
    reasons = {d.candidate_id.split("-")[0]: d.reason for d in failed}
    assert set(reasons) == {"SrO", "TiO"}
    assert "raised ValueError: SrO is more than this toy can bear" in reasons["SrO"]
    assert "not converged" in reasons["TiO"]
    ledger.close()


def test_the_toy_is_an_engine() -> None:
    """The engine of these tests fulfils the contract of engines."""
    crystals = [
        Structure(Lattice.cubic(4), ["Sr", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]]),
        Structure(Lattice.cubic(3), ["Ti"], [[0, 0, 0]]),
    ]
    conformance.check_engine(ToyEngine(), crystals, [ToyEngine(shift=0.1), ToyEngine(noise=0.1)])


def test_same_seed_same_campaign(finished: Path, tmp_path: Path) -> None:
    """A second run gives the same candidates, promotions, audits and lessons (P9)."""
    run(campaign(), tmp_path)
    assert contents(tmp_path, NAME) == contents(finished, NAME)


def test_reservations_survive_a_kill_and_are_settled(finished: Path, tmp_path: Path) -> None:
    """Killed amid its calculations, the campaign ends as undisturbed, and no money is lost."""
    log = tmp_path / "log"
    declared = campaign({"log": str(log), "seconds": 0.1}, budget={"iterations": 1})
    file = tmp_path / "campaign.json"
    file.write_text(declared.model_dump_json(by_alias=True))
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from matloop.documents.campaign import Campaign\n"
        "from matloop.launch.local import run\n"
        "from matloop.testing.toys import toys_registered\n"
        "with toys_registered():\n"
        "    declared = Campaign.model_validate_json(Path(sys.argv[1]).read_text())\n"
        "    run(declared, Path(sys.argv[2]))\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", script, str(file), str(tmp_path)]
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, cwd=tmp_path)
    end = time.monotonic() + 60
    while time.monotonic() < end and not (log.exists() and len(log.read_text().split()) > 7):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    ledger = open_ledger(tmp_path, create=True)
    before = ledger.reservations(NAME)
    running = accounts(ledger, NAME)["dft"].running
    assert running >= 1, "it was killed amid a calculation"
    ledger.close()
    run(declared, tmp_path, resume=True)
    ledger = read_ledger(tmp_path)
    after = ledger.reservations(NAME)
    assert after[: len(before)] == before
    assert accounts(ledger, NAME)["dft"].running == 0
    assert len({item.key for item in after}) == len(after)
    assert len(log.read_text().split()) <= len(after) + running
    ledger.close()


def test_on_a_cluster_calculations_are_paid_in_advance_too(tmp_path: Path) -> None:
    """As jobs of their own they are reserved before they are submitted, and held beyond it."""
    declared = campaign(dft={"core_hours": 6.0}, budget={"iterations": 1})
    directory = tmp_path / "ledger"
    run_place = _started(declared, directory)
    kinds = {"relaxation": "cpu", "dft": "dft"}
    shardings = {"dft": Sharding(kind="dft", control="cpu")}
    _run(PreparationMaker(kinds, "cpu").make(run_place), tmp_path)
    ledger = read_ledger(directory)
    assert accounts(ledger, NAME)["dft"].calculations == REFERENCES
    ledger.close()
    _run(IterationMaker(shardings, "cpu").make(run_place, declared), tmp_path)
    ledger = read_ledger(directory)
    known = accounts(ledger, NAME)["dft"]
    assert known.running == 0
    assert known.calculations > REFERENCES
    assert known.core_hours.spent <= 6.0 * 1.1
    decided = ledger.decisions(NAME, 0, "dft")
    assert len(decided) == len(
        [d for d in ledger.decisions(NAME, 0, "stability") if d.outcome == "passed"]
    )
    ledger.close()


def _started(declared: Campaign, directory: Path) -> Place:
    from matloop.launch.recording import recorded

    ledger = open_ledger(directory, create=True)
    recorded(ledger, declared, str(directory), "", resume=False)
    ledger.close()
    config = LedgerConfig(kind="embedded", directory=str(directory))
    return Place(config, NAME, 0)


def _run(flow: Any, directory: Path) -> None:
    store = JobStore(MemoryStore(), additional_stores={"data": MemoryStore()})
    run_locally(flow, log=False, store=store, root_dir=directory, raise_immediately=True)
    close_ledgers()


def test_status_shows_what_is_spent_reserved_and_left(tmp_path: Path) -> None:
    """The table and the JSON hold the accounts of every stage and of the campaign."""
    declared = campaign(dft={"core_hours": 12.0}, budget={"iterations": 1})
    run(declared, tmp_path)
    command = [sys.executable, "-W", "ignore", "-m", "matloop", "status", "--dir", str(tmp_path)]
    environment = {**os.environ, "COLUMNS": "120"}
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    for word in ("spent", "reserved", "left", "dft core", "campaign core", "12"):
        assert word in said.stdout
    raw = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True).stdout
    told = {account["stage"]: account for account in json.loads(raw)["accounts"]}
    hours = told["dft"]["core_hours"]
    assert hours["limit"] == 12.0
    assert hours["left"] == pytest.approx(12.0 - hours["spent"])
    assert told[""]["core_hours"]["spent"] >= hours["spent"]
