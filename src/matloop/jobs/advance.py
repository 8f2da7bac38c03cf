"""Advance: the one place that decides what comes next, exactly once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from jobflow import Maker, job
from numpy.typing import NDArray

from matloop import registry
from matloop.documents.artifact import Artifact
from matloop.documents.campaign import Campaign, IterationState
from matloop.documents.diversity import Alarm, Diversity
from matloop.documents.phase import PhaseSet
from matloop.jobs.collecting import collected_seldom
from matloop.jobs.history import HISTORY, History, read_history
from matloop.jobs.learn import whole_past
from matloop.jobs.piecewise import Piecewise
from matloop.jobs.place import Place
from matloop.jobs.rungs import PHASES
from matloop.jobs.watch import alarms, compared, watched
from matloop.ledger.accounts import WHOLE, accounts
from matloop.ledger.interface import Ledger
from matloop.ledger.past import Past, read_packed
from matloop.protocols import Record
from matloop.structures.identity import IncomparableError, KnownIndex, Matcher


@dataclass
class AdvanceMaker(Maker):
    """Close an iteration and write the state that starts the next one.

    The state is written once: whoever comes second, however often, changes nothing.
    """

    name: str = "advance"

    @job
    @collected_seldom
    def iteration(self, place: Place, lesson: dict[str, Any]) -> dict[str, str | int]:
        """Write the next state and return its iteration and status.

        Parameters
        ----------
        place
            The iteration to close.
        lesson
            Output of `LearnMaker.iteration`.
        """
        ledger, campaign, state = place.open(), place.record().campaign, place.state()
        artifacts = {
            name: Artifact.model_validate(item) for name, item in lesson["artifacts"].items()
        }
        seen = read_history(ledger, artifacts[HISTORY])
        past = whole_past(ledger, campaign, place.campaign_id, seen.names)
        diversity, raised = _watch(ledger, place, campaign, seen, lesson["metrics"])
        orders = ledger.controls(place.campaign_id)
        if orders and orders[-1].order == "stop":
            reason = f"stopped by {orders[-1].given_by}"
        else:
            exhausted = _exhausted(ledger, place.campaign_id, campaign)
            reason = _reason_to_stop(campaign, place.iteration, past, seen, exhausted)
        shares: dict[str, float] = dict(state.shares)
        parents: tuple[str, ...] = ()
        if campaign.feedback != "off":
            found = seen.where(seen.numbers("discovery")).names
            distinct = _distinct(whole_past(ledger, campaign, place.campaign_id, found))
            raised_before = _past_alarms(ledger, place, raised)
            shares = _shares(campaign, seen, place.iteration, distinct, raised_before)
            parents = _parents(seen, campaign.feedback.parents)
        following = IterationState(
            campaign_id=place.campaign_id,
            iteration=place.iteration + 1,
            status="finished" if reason else "running",
            reason=reason,
            resources=artifacts,
            shares=shares,
            parents=parents,
            metrics=lesson["metrics"],
            diversity=tuple(diversity),
            alarms=tuple(_reacted(alarm, state.shares, shares) for alarm in raised),
            created_at=datetime.now(UTC),
        )
        ledger.add_state(following)
        return {"iteration": following.iteration, "status": following.status}


def stopped(ledger: Ledger, campaign_id: str, reason: str) -> IterationState:
    """End a campaign as it is, and return its last state; an end that is there already stays.

    Parameters
    ----------
    ledger
        Where the campaign is recorded.
    campaign_id
        The campaign.
    reason
        Who stopped it.
    """
    while True:
        states = ledger.states(campaign_id)
        last = states[-1] if states else None
        if last is not None and last.status == "finished":
            return last
        end = IterationState(
            campaign_id=campaign_id,
            iteration=last.iteration + 1 if last else 0,
            status="finished",
            reason=reason,
            resources=dict(last.resources) if last else {},
            shares=dict(last.shares) if last else {},
            parents=last.parents if last else (),
            created_at=datetime.now(UTC),
        )
        if ledger.add_state(end):
            return end  # otherwise the campaign has advanced meanwhile


def _exhausted(ledger: Ledger, campaign_id: str, campaign: Campaign) -> str:
    """Return which hours of the whole campaign are spent; empty if some are left."""
    if campaign.budget.core_hours is None and campaign.budget.gpu_hours is None:
        return ""
    whole = accounts(ledger, campaign_id)[WHOLE]
    for name, hours in (("core-hours", whole.core_hours), ("GPU-hours", whole.gpu_hours)):
        if hours.limit is not None and hours.spent >= hours.limit:
            return f"the budget of {hours.limit:g} {name} is spent"
    return ""


def _reason_to_stop(
    campaign: Campaign,
    iteration: int,
    past: Sequence[Past],
    seen: History,
    exhausted: str,
) -> str:
    """Return why the campaign ends here; empty if it goes on."""
    stop, budget = campaign.stop, campaign.budget
    turns = seen.numbers("iteration")[seen.numbers("discovery")]
    if stop.discoveries is not None and len(turns) >= stop.discoveries:
        return f"{len(turns)} discoveries are enough"
    last = int(turns.max(initial=-1))
    if stop.patience is not None and iteration - last >= stop.patience:
        return f"no discovery in {iteration - last} iterations"
    if budget.seconds is not None:
        spent = sum(evaluation.cost.seconds for item in past for evaluation in item.evaluations)
        if spent >= budget.seconds:
            return f"the budget of {budget.seconds:g} s is spent"
    if exhausted:
        return exhausted
    if iteration + 1 >= budget.iterations:
        return f"all {budget.iterations} iterations are done"
    return ""


def _watch(
    ledger: Ledger,
    place: Place,
    campaign: Campaign,
    seen: History,
    metrics: Mapping[str, float],
) -> tuple[list[Diversity], list[Alarm]]:
    """Return what generators offered in the iteration, and the alarms about it."""
    phases = read_packed(ledger, place.state().resources[PHASES], PhaseSet).phases
    references = [(p.phase_id, p.structure) for p in phases if p.source == "reference"]
    names = seen.at(compared(seen, place.iteration)).names
    proposals = Piecewise(
        names, lambda some: ledger.candidates(place.campaign_id, candidate_ids=some)
    )
    diversity = watched(campaign, place.iteration, proposals, references, metrics)
    states = [s for s in ledger.states(place.campaign_id) if s.iteration <= place.iteration]
    earlier = [item for state in states for item in state.diversity]
    return diversity, alarms(diversity, campaign.watch, earlier, states[-1].alarms)


def _distinct(discoveries: Sequence[Past]) -> set[str]:
    """Return the discoveries that repeat no earlier one: who repeats them earns nothing."""
    known = KnownIndex(Matcher())
    found = set()
    for item in discoveries:
        with suppress(IncomparableError):
            if known.find(item.candidate.structure) is None:
                known.add(item.candidate_id, item.candidate.structure)
                found.add(item.candidate_id)
    return found


def _past_alarms(
    ledger: Ledger, place: Place, raised: Sequence[Alarm]
) -> dict[tuple[str, int], int]:
    """Return the number of alarms per generator and iteration, those just raised among them."""
    known = [
        alarm
        for state in ledger.states(place.campaign_id)
        if state.iteration <= place.iteration
        for alarm in state.alarms
    ]
    return Counter((alarm.generator, alarm.iteration) for alarm in [*known, *raised])


def _reacted(alarm: Alarm, before: Mapping[str, float], after: Mapping[str, float]) -> Alarm:
    """Return an alarm with what the allocator made of it."""
    old, new = before.get(alarm.generator), after.get(alarm.generator)
    if old is None or new is None or new >= old - 1e-9:
        return alarm
    reaction = f"its share goes from {old:.2f} to {new:.2f}"
    return alarm.model_copy(update={"reaction": reaction})


def _shares(
    campaign: Campaign,
    seen: History,
    iteration: int,
    distinct: Collection[str],
    past_alarms: Mapping[tuple[str, int], int],
) -> dict[str, float]:
    assert campaign.feedback != "off"
    start = {entry.label: entry.share for entry in campaign.generators}
    total = sum(start.values())
    turns = range(iteration + 1)
    who, when, work = seen.texts("generator"), seen.numbers("iteration"), seen.numbers("work")
    found = np.array([name in distinct for name in seen.names], dtype=bool)
    records: dict[str, Record] = {}
    for label in start:
        own = who == label
        records[label] = Record(
            proposed=_per_turn(when[own], iteration),
            discoveries=_per_turn(when[own & found], iteration),
            work=_per_turn(when[own], iteration, work[own]),
            alarms=tuple(past_alarms.get((label, turn), 0) for turn in turns),
        )
    use = campaign.feedback.allocate
    allocator = registry.build("allocators", use.use, use.parameters)
    shares: dict[str, float] = allocator.allocate(
        records, {label: share / total for label, share in start.items()}
    )
    return shares


def _per_turn(
    iterations: NDArray[np.int64], last: int, amounts: NDArray[np.float64] | None = None
) -> tuple[Any, ...]:
    """Return how many rows belong to each iteration, or the sum of their amounts."""
    return tuple(np.bincount(iterations, amounts, last + 1)[: last + 1].tolist())


def _parents(seen: History, count: int) -> tuple[str, ...]:
    """Return the best crystals, best first, at most a quarter of them of one formula."""
    per_formula: Counter[str] = Counter()
    chosen: list[str] = []
    for row in seen.best():
        if len(chosen) == count:
            break
        if per_formula[row.formula] < max(2, count // 4):
            per_formula[row.formula] += 1
            chosen.append(row.candidate_id)
    return tuple(chosen)
