"""Evaluate: let a stage's evaluators judge its candidates."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from jobflow import Maker, job
from pymatgen.core import Structure

from matloop import registry
from matloop.documents.campaign import Campaign, Stage
from matloop.documents.candidate import Candidate, Origin, structure_digest
from matloop.events import Progress, report
from matloop.jobs.evaluation import Effort, Memory, Standing, evaluate
from matloop.jobs.place import Place
from matloop.jobs.reading import entering
from matloop.jobs.workers import usable_cores
from matloop.protocols import Evaluator, Resources


@dataclass
class EvaluateMaker(Maker):
    """Judge crystals with one or more evaluators, each crystal failing alone.

    Alone, in any flow::

        EvaluateMaker([Relaxation(fmax=0.05)], workers=4).make(structures)

    returns one document per structure with its verdict, quantities and relaxed structure. Within
    a campaign (`stage`) candidates come from the ledger and results go there, chunk by chunk.

    Attributes
    ----------
    evaluators
        Plugins, asked in order; one that turns a crystal down is the last one asked about it.
    workers
        Worker processes of one thread each; 0 works in the job's own process.
    chunk
        Crystals evaluated and recorded together.
    name
        Name of the job.
    """

    evaluators: list[Evaluator] = field(default_factory=list)
    workers: int = 0
    chunk: int = 64
    name: str = "evaluate"

    @job(data="evaluations")
    def make(
        self, structures: list[Structure], artifacts: dict[str, str] | None = None
    ) -> dict[str, object]:
        """Return the evaluations of each structure, in order.

        Parameters
        ----------
        structures
            Ordered crystals.
        artifacts
            Path of every artifact the evaluators read, by name, such as ``phases``.
        """
        candidates = [
            Candidate(
                candidate_id=f"{index}-{structure_digest(structure)[:8]}",
                structure=structure,
                origin=Origin(generator="given"),
            )
            for index, structure in enumerate(structures)
        ]
        paths = {name: Path(path) for name, path in (artifacts or {}).items()}
        resources = Resources(paths, {name: str(path) for name, path in paths.items()})
        effort = Effort(self.workers, self.chunk)
        standings = evaluate(self.evaluators, candidates, resources, Memory(), effort)
        return {
            "count": len(standings),
            "passed": sum(_passed(standing) for standing in standings),
            "evaluations": [
                [evaluation.model_dump(mode="json") for evaluation in standing.evaluations]
                for standing in standings
            ],
        }

    @job
    def stage(self, place: Place) -> dict[str, float]:
        """Judge the candidates of one stage and return how many and at what cost."""
        standings = stage_standings(place)
        costs = [evaluation.cost for item in standings for evaluation in item.evaluations]
        return {
            "entered": len(standings),
            "seconds": sum(cost.seconds for cost in costs),
            "work": sum(cost.work for cost in costs),
        }


def stage_standings(place: Place, *, only_find: bool = False) -> list[Standing]:
    """Return the stage's candidates with their evaluations, computing what is missing.

    Parameters
    ----------
    place
        The stage.
    only_find
        Compute nothing; what is missing was left out for want of budget.
    """
    ledger, campaign = place.open(), place.record().campaign
    stage = next(item for item in campaign.stages if item.name == place.stage)
    candidates = entering(ledger, place.campaign_id, campaign, place.iteration, place.stage)
    seconds = 0.0 if only_find else _seconds_left(place, campaign, stage)

    def progress(done: int) -> None:
        if not only_find:
            turns = campaign.budget.iterations
            report(Progress(place.iteration, turns, stage.name, done, len(candidates)))

    return evaluate(
        stage_evaluators(campaign, stage),
        candidates,
        place.resources(),
        ledger,
        Effort(worker_count(stage), stage.chunk, seconds),
        progress,
    )


def worker_count(stage: Stage) -> int:
    """Return the number of worker processes a stage asks for on this machine."""
    return usable_cores() if stage.workers == "auto" else stage.workers


def stage_evaluators(campaign: Campaign, stage: Stage) -> list[Evaluator]:
    """Return a stage's evaluators; the first stage also asks whether the space is kept."""
    evaluators = [registry.build("evaluators", use.use, use.parameters) for use in stage.evaluate]
    if stage == campaign.stages[0]:
        bounds = {
            name: getattr(campaign.space, name)
            for name in type(campaign.space).model_fields
            if name != "charge_balance"
        }
        bounds = {k: list(v) if isinstance(v, tuple) else v for k, v in bounds.items()}
        evaluators.insert(0, registry.build("evaluators", "chemical_space", bounds))
    return evaluators


def _seconds_left(place: Place, campaign: Campaign, stage: Stage) -> float | None:
    """Return the stage's budget less what earlier iterations spent (s)."""
    if stage.seconds is None:
        return None
    spent = 0.0
    ledger = place.open()
    for iteration in range(place.iteration):
        decisions = ledger.decisions(place.campaign_id, iteration, place.stage)
        keys = {key for decision in decisions for key in decision.evaluations}
        spent += sum(r.evaluation.cost.seconds for r in ledger.evaluations(keys).values())
    return stage.seconds - spent


def _passed(standing: Standing) -> bool:
    return all(evaluation.verdict == "pass" for evaluation in standing.evaluations)
