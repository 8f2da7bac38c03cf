"""Prepare: compute the reference phases by the campaign's own method, and start the campaign."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from jobflow import Maker, job

from matloop.documents.artifact import Artifact
from matloop.documents.campaign import Campaign, IterationState
from matloop.documents.candidate import Candidate, Origin
from matloop.documents.phase import Archive, Known, Phase, PhaseSet
from matloop.documents.theory import LevelOfTheory
from matloop.errors import ConfigurationError, MissingReferenceError
from matloop.events import Progress, report
from matloop.jobs.evaluate import stage_evaluators, worker_count
from matloop.jobs.evaluation import Effort, evaluate
from matloop.jobs.place import Place
from matloop.ledger.interface import Ledger
from matloop.protocols import Evaluator, Resources
from matloop.references.gathering import ReferenceSet, gather

logger = logging.getLogger(__name__)


@dataclass
class PrepareMaker(Maker):
    """Relax the reference phases and write the campaign's first state; twice does no harm."""

    name: str = "prepare"

    @job
    def make(self, place: Place) -> dict[str, int]:
        """Start the campaign and return how many phases, templates and withheld phases it has."""
        ledger, campaign = place.open(), place.record().campaign
        references = gather(campaign.references, campaign.space, Path.cwd())
        for name, reason in references.set_aside:
            logger.warning("reference %s is set aside: %s", name, reason)
        phases = _computed(ledger, place, campaign, references)
        resources = {
            "phases": _stored(ledger, "phases", phases.to_bytes()),
            "archive": _stored(ledger, "archive", Archive().to_bytes()),
            "templates": _stored(ledger, "templates", _archive(references.templates)),
            "withheld": _stored(ledger, "withheld", _archive(references.withheld)),
        }
        total = sum(entry.share for entry in campaign.generators)
        state = IterationState(
            campaign_id=place.campaign_id,
            iteration=0,
            status="running",
            resources=resources,
            shares={entry.label: entry.share / total for entry in campaign.generators},
            created_at=place.record().created_at,
        )
        ledger.add_state(state)
        return {
            "phases": len(phases.phases),
            "templates": len(references.templates),
            "withheld": len(references.withheld),
        }


def _computed(
    ledger: Ledger, place: Place, campaign: Campaign, references: ReferenceSet
) -> PhaseSet:
    """Return the reference phases with energies from the stage that gives candidates theirs."""
    evaluator, effort = _energy_evaluator(campaign)
    candidates = [
        Candidate(
            candidate_id=known.known_id,
            structure=known.structure,
            origin=Origin(generator="reference", parameters={"source": known.source}),
        )
        for known in references.phases
    ]
    turns = campaign.budget.iterations

    def progress(done: int) -> None:
        report(Progress(place.iteration, turns, "references", done, len(candidates)))

    standings = evaluate([evaluator], candidates, Resources(), ledger, effort, progress)
    phases: list[Phase] = []
    theory: LevelOfTheory | None = None
    for standing in standings:
        (evaluation,) = standing.evaluations
        name = standing.candidate.candidate_id
        if evaluation.verdict != "pass" or evaluation.theory is None:
            logger.warning("reference %s is set aside: %s", name, evaluation.reason)
            continue
        theory = evaluation.theory
        phases.append(
            Phase(
                phase_id=name,
                structure=standing.candidate.structure,
                energy=evaluation.quantities["energy_per_atom"].value,
                theory=theory,
            )
        )
    held = {str(p.structure.composition.elements[0]) for p in phases if p.structure.n_elems == 1}
    missing = sorted(set(campaign.space.allowed) - held)
    if missing or theory is None:
        raise MissingReferenceError(
            f"no elemental reference for {', '.join(missing)} could be computed: add a structure "
            "of the element under references.files, or raise max_steps of the relaxation"
        )
    return PhaseSet(theory=theory, phases=tuple(phases))


def _energy_evaluator(campaign: Campaign) -> tuple[Evaluator, Effort]:
    for stage in campaign.stages:
        for evaluator in stage_evaluators(campaign, stage):
            if "energy_per_atom" in evaluator.produces:
                return evaluator, Effort(worker_count(stage), stage.chunk)
    raise ConfigurationError("no stage computes energy_per_atom, which the hull needs")


def _archive(known: tuple[Known, ...]) -> bytes:
    return Archive(crystals=known).to_bytes()


def _stored(ledger: Ledger, kind: str, content: bytes) -> Artifact:
    return ledger.put_artifact(kind, content, "application/gzip")
