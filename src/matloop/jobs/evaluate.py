"""Evaluate: let a stage's evaluators judge its candidates, in this job or in shards."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from jobflow import Flow, Job, Maker, Response, job
from jobflow.core.reference import OnMissing
from pymatgen.core import Structure

from matloop.documents.candidate import Candidate, Origin, structure_digest
from matloop.documents.outcome import Outcome
from matloop.jobs.calculate import Calculation, stage_engine
from matloop.jobs.collecting import collected_seldom
from matloop.jobs.dispatch import Dispatch
from matloop.jobs.evaluation import Effort, Memory, Standing, evaluate
from matloop.jobs.handover import hand_chosen, hand_judged, hand_passed
from matloop.jobs.place import Place
from matloop.jobs.placement import placed
from matloop.jobs.questions import Question
from matloop.jobs.sharding import Segment, Sharding, read_plan, segments
from matloop.jobs.stage import StageWork
from matloop.jobs.survey import Survey
from matloop.protocols import Evaluator, Resources

MOST_IDLE_ROUNDS = 3
"""Rounds of shards without a single result after which a stage closes without the rest."""


@dataclass
class EvaluateMaker(Maker):
    """Judge crystals with one or more evaluators, each crystal failing alone.

    Alone, in any flow::

        EvaluateMaker([Relaxation(fmax=0.05)], workers=4).make(structures)

    returns one `Outcome` per structure under ``outcomes``, with its verdict, convergence, energy,
    forces, stress and structure; the evaluations behind them; and ``structures``, the crystals
    that passed, for the next job. Within a campaign (`stage`) candidates come from the ledger and
    results go there, chunk by chunk.

    Attributes
    ----------
    evaluators
        Plugins, asked in order; one that turns a crystal down is the last one asked about it.
    workers
        Worker processes of one thread each; 0 works in the job's own process.
    chunk
        Crystals evaluated and recorded together.
    sharding
        Within a campaign on a cluster: how the stage is split; None does all of it in one job.
    name
        Name of the job.
    """

    evaluators: list[Evaluator] = field(default_factory=list)
    workers: int = 0
    chunk: int = 64
    sharding: Sharding | None = None
    name: str = "evaluate"

    @job(data=["evaluations", "outcomes", "structures"])
    def make(
        self, structures: list[Structure], artifacts: dict[str, str] | None = None
    ) -> dict[str, object]:
        """Return the outcome and the evaluations of each structure, in order.

        Lists are kept in the additional store ``data``; the job's own document has counts only.

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
        outcomes = [
            Outcome.of(index, standing.candidate.structure, standing.evaluations)
            for index, standing in enumerate(standings)
            if standing.evaluations
        ]
        return {
            "count": len(standings),
            "passed": sum(_passed(standing) for standing in standings),
            "outcomes": [outcome.model_dump(mode="json") for outcome in outcomes],
            "structures": [outcome.structure for outcome in outcomes if outcome.verdict == "pass"],
            "evaluations": [
                [evaluation.model_dump(mode="json") for evaluation in standing.evaluations]
                for standing in standings
            ],
        }

    @job
    @collected_seldom
    def stage(
        self, place: Place, judged: int = 0, idle: int = 0
    ) -> dict[str, float] | Response[object]:
        """Judge the candidates of one stage.

        In one process all of it is done here. With `sharding` what is cheap is done here, and the
        rest in shards that this job puts before its own repetition, until everyone is judged or
        the stage may close without the rest.

        Parameters
        ----------
        place
            The stage.
        judged
            How many had been judged when the last shards were sent out.
        idle
            How often shards have come back without a result.

        Returns
        -------
        dict or Response
            ``entered``, ``judged``, ``seconds`` and ``work``, or what has to be done first.
        """
        if self.sharding is None:
            return _whole(StageWork(place)).summary()
        work = StageWork(place, elsewhere=True)
        work.begin()
        late: dict[str, int] = {}
        why = ""
        survey = Survey(work)
        for segment in segments(work.evaluators):
            if segment.how == "together":
                pieces = work.judge_pieces(late=late, until=segment.stop)
                survey = Survey.of(work, pieces, late)
                continue
            survey = self.sharding.first(work, late, segment)
            if survey.is_spent():
                continue
            calculated = segment.how == "calculated"
            admitted = self._admitted(work, survey) if calculated else []
            if not (admitted if calculated else survey.missing):
                continue
            done = survey.judged
            idle = 0 if done > judged else idle
            why = work.closing(done, survey.entered) or (
                f"no shard could judge them in {idle} rounds" if idle >= MOST_IDLE_ROUNDS else ""
            )
            if not why:
                jobs = (
                    self._calculations(work, admitted)
                    if calculated
                    else self._shards(work, survey, segment)
                )
                return self._after(jobs, place, done, idle)
            late |= {share.candidate_id: segment.start for share in survey.missing}
        work.close(late, why)
        return survey.summary()

    def _after(
        self, jobs: list[Job | Flow], place: Place, judged: int, idle: int
    ) -> Response[object]:
        """Return this job's repetition, after others."""
        assert self.sharding is not None
        again = self.stage(place, judged=judged, idle=idle + 1)
        # One that died must not keep the others waiting: what it left is sent out once more.
        again.config.on_missing_references = OnMissing.NONE
        again = placed(again, place, self.sharding.control)
        before = [Flow(jobs)] if jobs else []  # without any, all have a verdict by now
        return Response(detour=Flow([*before, again], order="linear"))

    def _shards(self, work: StageWork, survey: Survey, segment: Segment) -> list[Job | Flow]:
        assert self.sharding is not None
        plan = self.sharding.plan(work, survey, segment)
        jobs: list[Job | Flow] = []
        for index in range(len(plan.shards)):
            maker = replace(self, name=f"{self.name} {segment.start}.{index}")
            shard = maker.shard(work.place, plan.sha256, index)
            jobs.append(placed(shard, work.place, self.sharding.kind))
        return jobs

    def _admitted(self, work: StageWork, survey: Survey) -> list[Candidate]:
        """Return which of the missing calculations the budgets allow, in order.

        The cost of a calculation is estimated and set aside; what does not fit may fit later, when
        others have cost less than was set aside for them.
        """
        if work.treasury is None:
            return survey.awaited
        key = Calculation(work.treasury.engine).key
        return [item for item in survey.awaited if work.treasury.admit(key(item), item)]

    def _calculations(self, work: StageWork, missing: list[Candidate]) -> list[Job | Flow]:
        engine = stage_engine(work.stage)
        assert self.sharding is not None
        assert engine is not None
        dispatch = Dispatch(work.place, engine, self.sharding.kind, self.sharding.control)
        return [*dispatch.flows(missing)]

    @job
    @collected_seldom
    def shard(self, place: Place, plan: str, index: int) -> dict[str, float] | Response[object]:
        """Judge one shard; what its time does not allow is handed on to a job like this one.

        Parameters
        ----------
        place
            The stage.
        plan
            Hash of the plan that says who is in which shard.
        index
            Which shard.
        """
        work = StageWork(place)
        shard = read_plan(place, plan, index)
        evaluated = shard.judge(work, index)
        complete = sum(standing.complete for standing in evaluated)
        if complete < len(evaluated) and not shard.settled(work, evaluated):
            rest = self.shard(place, plan, index)
            kind = self.sharding.kind if self.sharding else ""
            return Response(detour=placed(rest, place, kind))
        return {"entered": len(evaluated), "judged": complete}


def _whole(work: StageWork) -> Survey:
    """Judge all of a stage, and hand on what its decisions need while candidates are at hand."""
    question, survey = Question.of(work), Survey(work)
    for piece in work.judge_pieces():
        if question.at_once:
            chosen = question.chosen(piece)
            hand_chosen(work.place, chosen)
            hand_passed(work.place, chosen, piece)
        else:
            hand_judged(work.place, piece)
        survey.count(piece)
        del piece  # it is not held while the next one is judged
    return survey


def _passed(standing: Standing) -> bool:
    return all(evaluation.verdict == "pass" for evaluation in standing.evaluations)
