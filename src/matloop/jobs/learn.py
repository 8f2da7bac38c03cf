"""Learn: turn everything the campaign has seen into artifacts for the next iteration."""

from __future__ import annotations

from dataclasses import dataclass

from jobflow import Maker, job

from matloop import registry
from matloop.documents.campaign import Campaign
from matloop.documents.phase import Archive, Known, PhaseSet
from matloop.events import Progress, report
from matloop.jobs.evaluate import stage_evaluators
from matloop.jobs.place import Place, derived_seed
from matloop.jobs.reading import observations, refreshed
from matloop.ledger.interface import Ledger
from matloop.ledger.past import Past, read_packed, read_past
from matloop.protocols import Learner, Lesson, Observation, Resources


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
    def iteration(self, place: Place) -> dict[str, dict[str, object]]:
        """Store the artifacts of the next iteration and return their descriptions and metrics."""
        ledger, campaign, state = place.open(), place.record().campaign, place.state()
        turns = campaign.budget.iterations
        report(Progress(place.iteration, turns, "learn", 0, 1))
        past = read_past(ledger, place.campaign_id, campaign)
        artifacts = dict(state.resources)
        metrics: dict[str, float] = {}
        last = campaign.stages[-1].name
        known = read_packed(ledger, state.resources["phases"], PhaseSet)
        phases = known.grown(item.candidate for item in past if item.passed(last))
        artifacts["phases"] = ledger.put_artifact("phases", phases.to_bytes(), "application/gzip")
        archive = _archive(past)
        artifacts["archive"] = ledger.put_artifact(
            "archive", archive.to_bytes(), "application/gzip"
        )
        seen = current_observations(ledger, campaign, past, artifacts["phases"].sha256)
        if campaign.feedback != "off":
            for use in campaign.feedback.learn:
                learner = registry.build("learners", use.use, use.parameters)
                seed = derived_seed(campaign.seed, place.iteration, f"learner {use.use}")
                lesson: Lesson | None = learner.learn(seen, campaign.objective, seed)
                if lesson is None:
                    continue
                artifacts[learner.resource] = ledger.put_artifact(
                    learner.resource, lesson.content, lesson.media_type
                )
                metrics |= {f"{use.use}.{name}": v for name, v in lesson.metrics.items()}
        discoveries = sum(observation.discovery for observation in seen)
        report(Progress(place.iteration, turns, "learn", 1, 1, discoveries=discoveries))
        return {
            "artifacts": {name: item.model_dump() for name, item in artifacts.items()},
            "metrics": dict(metrics),
        }


def current_observations(
    ledger: Ledger, campaign: Campaign, past: list[Past], phases_sha256: str
) -> list[Observation]:
    """Return the history judged against one and the same hull."""
    evaluators = [e for stage in campaign.stages for e in stage_evaluators(campaign, stage)]
    resources = Resources(
        {"phases": ledger.artifact_path(phases_sha256)}, {"phases": phases_sha256}
    )
    return refreshed(observations(past, campaign), campaign, evaluators, resources)


def _archive(past: list[Past]) -> Archive:
    """Return what was relaxed, as proposed and as relaxed."""
    return Archive(
        crystals=tuple(
            Known(known_id=item.candidate_id, structure=structure, source="campaign")
            for item in past
            if item.relaxed
            for structure in (item.record.candidate.structure, item.candidate.structure)
        )
    )
