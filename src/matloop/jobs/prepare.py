"""Prepare: compute the reference phases by the campaign's own method, and start the campaign."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from jobflow import Flow, Job, Maker, Response, job
from jobflow.core.reference import OnMissing

from matloop.documents.artifact import Artifact
from matloop.documents.campaign import Campaign, IterationState, Stage
from matloop.documents.candidate import Candidate, Origin
from matloop.documents.phase import Archive, Known, Phase, PhaseSet
from matloop.errors import ConfigurationError, MissingReferenceError
from matloop.events import Progress, report
from matloop.jobs.attempts import StageDiary
from matloop.jobs.calculate import Calculation
from matloop.jobs.dispatch import Dispatch
from matloop.jobs.evaluation import Effort, Standing, evaluate
from matloop.jobs.place import Place
from matloop.jobs.placement import placed
from matloop.jobs.rungs import Rung, rungs
from matloop.jobs.sharding import enough_time
from matloop.jobs.stage import stage_evaluators, worker_count
from matloop.jobs.treasury import Treasury
from matloop.ledger.interface import Ledger
from matloop.protocols import Evaluator, Resources
from matloop.references.computed import computed
from matloop.references.gathering import ReferenceSet, gather
from matloop.references.library import Library
from matloop.structures.phase_diagram import Hull
from matloop.structures.segments import MEDIA_TYPE

logger = logging.getLogger(__name__)


REFERENCE_WINDOW = 0.1
"""Distance to the hull below (eV/atom) up to which a reference phase is calculated on the next
rung: far beyond the usual disagreement of two levels of theory about a known phase."""


@dataclass
class PrepareMaker(Maker):
    """Compute the reference phases and write the campaign's first state; twice does no harm.

    Attributes
    ----------
    kinds
        On a cluster: kind of worker of each stage that computes energies, by its name. Calculations
        are jobs of their own then.
    control
        On a cluster: kind of worker for verdicts on calculations.
    name
        Name of the job.
    """

    kinds: dict[str, str] = field(default_factory=dict)
    control: str = ""
    name: str = "prepare"

    @job
    def make(self, place: Place) -> dict[str, int] | Response[object]:
        """Start the campaign and return how many phases, templates and withheld phases it has.

        Where walltime ends before all phases are computed, a job like this one goes on; so it does
        after calculations that are jobs of their own.
        """
        ledger, campaign = place.open(), place.record().campaign
        references = gather(campaign.references, campaign.space, Path.cwd())
        for name, reason in references.set_aside:
            logger.warning("reference %s is set aside: %s", name, reason)
        resources: dict[str, Artifact] = {}
        below: PhaseSet | None = None
        for rung in rungs(campaign):
            computed = self._computed(place, rung, references, below)
            if not isinstance(computed, PhaseSet):
                jobs = [*computed, self.again(place, rung)]
                return Response(detour=Flow([Flow(jobs[:-1]), jobs[-1]], order="linear"))
            resources[rung.resource] = _stored(ledger, "phases", computed.to_bytes())
            below = computed
        resources |= {
            "archive": _stored(ledger, "archive", Archive().to_bytes()),
            "templates": _stored(ledger, "templates", _archive(references.templates)),
            "withheld": _stored(ledger, "withheld", _archive(references.withheld)),
        }
        if campaign.references.known:
            resources["known"] = known_crystals(ledger, campaign.references.known)
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
            "phases": len(below.phases) if below else 0,
            "templates": len(references.templates),
            "withheld": len(references.withheld),
        }

    def again(self, place: Place, rung: Rung) -> Job:
        """Return the job that goes on with a rung."""
        assert rung.energy is not None
        kind = self.control if rung.energy.calculate else self.kinds.get(rung.energy.name, "")
        following = self.make(place)
        following.config.on_missing_references = OnMissing.NONE
        return placed(following, place, kind)

    def _computed(
        self, place: Place, rung: Rung, references: ReferenceSet, below: PhaseSet | None
    ) -> PhaseSet | list[Flow]:
        """Return the reference phases of a rung, or the jobs that must run before they are known.

        Energies come from the stage that gives candidates theirs.
        """
        ledger, campaign = place.open(), place.record().campaign
        if rung.energy is None:
            raise ConfigurationError("no stage computes energy_per_atom, which the hull needs")
        evaluator, effort = _energy_evaluator(campaign, rung.energy, elsewhere=bool(self.kinds))
        here = replace(place, stage=f"references {rung.energy.name}")
        given, wanted = _wanted(campaign, rung, evaluator, references, below)
        candidates = [
            Candidate(
                candidate_id=known.known_id,
                structure=known.structure,
                origin=Origin(generator="reference", parameters={"source": known.source}),
            )
            for known in wanted
        ]
        turns = campaign.budget.iterations

        def progress(done: int) -> None:
            report(Progress(place.iteration, turns, "references", done, len(candidates)))

        if isinstance(evaluator, Calculation):
            treasury = Treasury(here, campaign, rung.energy, evaluator.engine)
            _set_aside(treasury, evaluator, candidates, ledger)
            effort = replace(effort, admit=treasury.admit)
        standings = evaluate(
            [evaluator], candidates, Resources(), ledger, effort, progress, StageDiary(here)
        )
        missing = [item.candidate for item in standings if not item.complete]
        if missing and isinstance(evaluator, Calculation):
            kinds = self.kinds[rung.energy.name], self.control
            flows = Dispatch(here, evaluator.engine, *kinds).flows(missing)
            return flows or self._computed(place, rung, references, below)
        if missing:
            return []
        phases = [*given, *_phases(standings)]
        held = {
            str(p.structure.composition.elements[0]) for p in phases if p.structure.n_elems == 1
        }
        lacking = sorted(set(campaign.space.allowed) - held)
        if lacking or not phases:
            raise MissingReferenceError(
                f"no elemental reference for {', '.join(lacking)} could be computed by stage "
                f"{rung.energy.name!r}: add a structure of the element under references.files, or "
                "loosen the settings of that stage"
            )
        return PhaseSet(theory=phases[0].theory, phases=tuple(phases))


def _wanted(
    campaign: Campaign,
    rung: Rung,
    evaluator: Evaluator,
    references: ReferenceSet,
    below: PhaseSet | None,
) -> tuple[list[Phase], list[Known]]:
    """Return phases whose energy is given at a rung's own theory, and those to be computed.

    On a higher rung only elements and phases near the hull below are computed.
    """
    if below is None or not isinstance(evaluator, Calculation):
        return [], list(references.phases)
    hull = Hull(below)
    near = [
        Known(known_id=phase.phase_id, structure=phase.structure, source=phase.source)
        for phase in below.phases
        if phase.structure.n_elems == 1
        or hull.distance(phase.structure.composition, phase.energy, phase.theory.key)
        <= REFERENCE_WINDOW
    ]
    engine, given = evaluator.engine, []
    found = computed(campaign.references, campaign.space)
    for item in found.set_aside:
        logger.warning("reference %s is set aside: %s", item.name, item.reason)
    for entry in found.entries:
        if entry.theory.key == engine.theory(entry.structure).key:
            given.append(
                Phase(
                    phase_id=entry.entry_id,
                    structure=entry.structure,
                    energy=entry.energy,
                    theory=entry.theory,
                )
            )
    covered = {phase.structure.composition.reduced_formula for phase in given}
    rest = [k for k in near if k.structure.composition.reduced_formula not in covered]
    return given, rest


def _set_aside(
    treasury: Treasury,
    calculation: Calculation,
    candidates: Sequence[Candidate],
    ledger: Ledger,
) -> None:
    """Set aside the cost of all reference calculations: a hull needs every one of them."""
    keys = {calculation.key(candidate): candidate for candidate in candidates}
    known = ledger.costs(keys)
    todo = {key: item for key, item in keys.items() if key not in known}
    new = [item for key, item in todo.items() if not treasury.has(key)]
    if problem := treasury.objection(sum(map(treasury.estimate, new))):
        raise ConfigurationError(
            f"the {len(todo)} reference phases cannot be calculated: {problem}; raise core_hours"
        )
    for key, item in todo.items():
        treasury.admit(key, item)


def _phases(standings: Sequence[Standing]) -> list[Phase]:
    phases: list[Phase] = []
    for standing in standings:
        (evaluation,) = standing.evaluations
        name = standing.candidate.candidate_id
        if evaluation.verdict != "pass" or evaluation.theory is None:
            logger.warning("reference %s is set aside: %s", name, evaluation.reason)
            continue
        phases.append(
            Phase(
                phase_id=name,
                structure=standing.candidate.structure,
                energy=evaluation.quantities["energy_per_atom"].value,
                theory=evaluation.theory,
            )
        )
    return phases


def _energy_evaluator(
    campaign: Campaign, stage: Stage, *, elsewhere: bool
) -> tuple[Evaluator, Effort]:
    chunk = 1 if stage.calculate else stage.chunk
    effort = Effort(worker_count(stage), chunk, go_on=enough_time)
    for evaluator in stage_evaluators(campaign, stage, elsewhere=elsewhere):
        if "energy_per_atom" in evaluator.produces:
            return evaluator, effort
    raise ConfigurationError("no stage computes energy_per_atom, which the hull needs")


def known_crystals(ledger: Ledger, folders: Sequence[str]) -> Artifact:
    """Keep the crystals of libraries with the ledger's own files, and return the list of them.

    Raises
    ------
    ConfigurationError
        If the folders hold no library.
    """
    files = {n: p for name in folders for n, p in Library(Path(name)).files().items()}
    if not files:
        raise ConfigurationError(
            f"references.known: {', '.join(folders)} holds no library of known crystals; make one "
            "with `matloop known FOLDER FILES`"
        )
    for path in files.values():
        ledger.put_artifact("segment", path.read_bytes(), MEDIA_TYPE)
    return _stored(ledger, "known", Archive(segments=tuple(files)).to_bytes())


def _archive(known: tuple[Known, ...]) -> bytes:
    return Archive(crystals=known).to_bytes()


def _stored(ledger: Ledger, kind: str, content: bytes) -> Artifact:
    return ledger.put_artifact(kind, content, "application/gzip")
