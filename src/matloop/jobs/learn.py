"""Learn: turn everything the campaign has seen into artifacts for the next iteration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain
from pathlib import Path

from jobflow import Maker, job

from matloop import registry
from matloop.documents.artifact import Artifact
from matloop.documents.campaign import Campaign
from matloop.documents.candidate import Candidate
from matloop.documents.phase import PhaseSet
from matloop.events import Progress, report
from matloop.jobs.archive import archived
from matloop.jobs.collecting import collected_seldom
from matloop.jobs.handover import forget, handed_over
from matloop.jobs.history import HISTORY, History, Seen, grown, read_history, store_history
from matloop.jobs.names import Names
from matloop.jobs.piecewise import Piecewise
from matloop.jobs.place import Place, derived_seed
from matloop.jobs.reading import at_rung, compared, observations, refreshed
from matloop.jobs.rungs import PHASES, Rung, rungs
from matloop.jobs.stage import stage_evaluators
from matloop.ledger.interface import Ledger
from matloop.ledger.past import Past, read_packed, read_past
from matloop.protocols import Learner, Lesson, Observation, Resources
from matloop.structures.shared_hull import SharedHull
from matloop.structures.spanning import spanned


@dataclass
class LearnMaker(Maker):
    """Refit learners, let found phases join the hull, and archive what has been paid for.

    Attributes
    ----------
    learner
        Plugin to teach; None within a campaign, which names its own.
    name
        Name of the job.
    """

    learner: Learner | None = None
    name: str = "learn"

    @job
    @collected_seldom
    def iteration(self, place: Place) -> dict[str, dict[str, object]]:
        """Store the artifacts of the next iteration and return their descriptions and metrics."""
        ledger, campaign, state = place.open(), place.record().campaign, place.state()
        turns = campaign.budget.iterations
        report(Progress(place.iteration, turns, "learn", 0, 1))
        artifacts = dict(state.resources)
        before = read_history(ledger, artifacts.get(HISTORY))
        met = _met(ledger, place, campaign, before)
        past = whole_past(ledger, campaign, place.campaign_id, met)
        metrics: dict[str, float] = {}
        ladder = rungs(campaign)
        for rung in ladder:
            if rung.resource not in artifacts:
                continue
            known = read_packed(ledger, artifacts[rung.resource], PhaseSet)
            top = rung == ladder[-1]
            reached = _reached(ledger, campaign, place, met, rung, top=top)
            if len(ladder) == 1:
                phases = spanned(known, reached)
            else:  # levels are compared at the phases that both know, stable at both or not
                phases = known.grown(chain.from_iterable(reached))
            artifacts[rung.resource] = ledger.put_artifact(
                "phases", phases.to_bytes(), "application/gzip"
            )
        forget()
        if _is_archive_read(campaign):
            artifacts["archive"] = archived(ledger, artifacts.get("archive"), past)

        def judge(names: Sequence[str]) -> Iterator[Seen]:
            for piece in whole_past(ledger, campaign, place.campaign_id, names).pieces():
                observed = current_observations(ledger, campaign, piece, artifacts)
                for item, observation in zip(piece, observed, strict=True):
                    yield Seen.of(observation, item.record.index, campaign.objective)
                del piece, observed, item, observation  # not held while the next one is read

        hulls = [rung.resource for rung in ladder if rung.resource in artifacts]
        moved = any(artifacts[name] != state.resources.get(name) for name in hulls)
        rows = grown(before, met, judge, hull_changed=moved)
        artifacts[HISTORY] = store_history(ledger, rows)
        if campaign.feedback != "off":
            seen = _observed(ledger, place, campaign, rows, artifacts)
            for use in campaign.feedback.learn:
                learner = registry.build("learners", use.use, use.parameters)
                if hasattr(learner, "informed"):
                    learner = learner.informed(_resources(ledger, artifacts))
                seed = derived_seed(campaign.seed, place.iteration, f"learner {use.use}")
                lesson: Lesson | None = learner.learn(seen, campaign.objective, seed)
                if lesson is None:
                    continue
                artifacts[learner.resource] = ledger.put_artifact(
                    learner.resource, lesson.content, lesson.media_type
                )
                for name, content in lesson.beside.items():
                    artifacts[f"{learner.resource}.{name}"] = ledger.put_artifact(
                        f"{learner.resource}.{name}", content, lesson.media_type
                    )
                metrics |= {f"{use.use}.{name}": v for name, v in lesson.metrics.items()}
        discoveries = int(rows.numbers("discovery").sum())
        report(Progress(place.iteration, turns, "learn", 1, 1, discoveries=discoveries))
        return {
            "artifacts": {name: item.model_dump() for name, item in artifacts.items()},
            "metrics": dict(metrics),
        }


def _reached(
    ledger: Ledger,
    campaign: Campaign,
    place: Place,
    names: Names,
    rung: Rung,
    *,
    top: bool,
) -> Iterator[Sequence[Candidate]]:
    """Yield whoever belongs on the hull of a level of theory since this iteration, in pieces."""
    last = rung.stages[-1]
    outcomes = ("passed",) if top else ("passed", "held")
    decided = ledger.outcomes(place.campaign_id, place.iteration, last)
    there = Names(item.candidate_id for item in decided if item.outcome in outcomes)

    def load(some: Sequence[str]) -> list[Candidate]:
        here = handed_over(place, last, some) if top else {}
        rest = [name for name in some if name not in here]
        for item in read_past(ledger, place.campaign_id, campaign, rest) if rest else ():
            if item.belongs(last, top=top):
                here[item.candidate_id] = item.after(rung.so_far)
        return [here[name] for name in some if name in here]

    return Piecewise(names.among(there), load).pieces()


def _is_archive_read(campaign: Campaign) -> bool:
    """Whether an evaluator searches the archive; preparing crystals for it takes long."""
    return any(
        "archive" in evaluator.resources
        for stage in campaign.stages
        for evaluator in stage_evaluators(campaign, stage)
    )


def whole_past(
    ledger: Ledger, campaign: Campaign, campaign_id: str, names: Sequence[str]
) -> Piecewise[Past]:
    """Return candidates, given in the order proposed, with all that became of them."""
    return Piecewise(names, lambda some: read_past(ledger, campaign_id, campaign, some))


def _met(ledger: Ledger, place: Place, campaign: Campaign, before: History) -> Names:
    """Return who was proposed or met a stage in the iteration, in the order proposed."""
    known = before.names
    everyone = Names(item.candidate_id for item in ledger.proposed(place.campaign_id))
    decided = Names(
        item.candidate_id
        for stage in campaign.stages
        if len(known)
        for item in ledger.outcomes(place.campaign_id, place.iteration, stage.name)
    )
    return everyone.without(known.without(decided))


def _observed(
    ledger: Ledger,
    place: Place,
    campaign: Campaign,
    rows: History,
    artifacts: Mapping[str, Artifact],
) -> Piecewise[Observation]:
    """Return the whole history as learners see it, read as they go through it."""

    def load(names: Sequence[str]) -> list[Observation]:
        past = read_past(ledger, place.campaign_id, campaign, names)
        observed = current_observations(ledger, campaign, past, artifacts)
        if not campaign.objective.several:
            return observed
        return [replace(item, utility=utilities[item.final.candidate_id]) for item in observed]

    utilities = {row.candidate_id: row.utility for row in rows if campaign.objective.several}
    return Piecewise(rows.names, load)


def current_observations(
    ledger: Ledger, campaign: Campaign, past: Sequence[Past], artifacts: Mapping[str, Artifact]
) -> list[Observation]:
    """Return the history judged against one and the same hull at each level of theory."""
    seen = observations(past, campaign)
    ladder = [rung for rung in rungs(campaign) if rung.resource in artifacts]
    judged: dict[str, Mapping[str, Candidate]] = {}
    known: list[PhaseSet] = []
    for rung in ladder:
        stages = [stage for stage in campaign.stages if stage.name in rung.stages]
        evaluators = [e for stage in stages for e in stage_evaluators(campaign, stage)]
        phases = artifacts[rung.resource]
        resources = Resources(
            {PHASES: ledger.artifact_path(phases.sha256)}, {PHASES: phases.sha256}
        )
        known.append(_phase_set(resources.paths[PHASES], phases.sha256))
        seen = refreshed(seen, campaign, evaluators, resources, known[-1].theory.key)
        if len(ladder) > 1 and rung.energy is not None:
            judged[rung.energy.name] = at_rung(past, rung, evaluators, resources)
    if len(judged) < 2:
        return seen
    low, high = list(judged.values())[:2]
    pairs = compared(low, high, SharedHull(known[0], known[1]))
    return [
        replace(
            item,
            by_rung={
                name: candidates[key].quantities
                for name, candidates in judged.items()
                if key in candidates
            },
            on_shared_hull=pairs.get(key),
        )
        for item in seen
        for key in [item.final.candidate_id]
    ]


@lru_cache(maxsize=2)
def _phase_set(path: Path, sha256: str) -> PhaseSet:
    # Each piece of the past is judged against the same ones.
    return PhaseSet.from_bytes(path.read_bytes())


def _resources(ledger: Ledger, artifacts: Mapping[str, Artifact]) -> Resources:
    return Resources(
        {name: ledger.artifact_path(item.sha256) for name, item in artifacts.items()},
        {name: item.sha256 for name, item in artifacts.items()},
    )
