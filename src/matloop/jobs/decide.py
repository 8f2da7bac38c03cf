"""Decide: let a stage's selector say who goes on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import get_args

from jobflow import Maker, job

from matloop.documents.candidate import Candidate
from matloop.documents.decision import Choice, Decision, Outcome
from matloop.documents.evaluation import Evaluation
from matloop.documents.objective import Objective
from matloop.events import Progress, report
from matloop.jobs.collecting import collected_seldom
from matloop.jobs.evaluation import Standing
from matloop.jobs.handover import Chosen, chosen_here, hand_passed
from matloop.jobs.piecewise import PIECE, Piecewise
from matloop.jobs.place import Place
from matloop.jobs.questions import Question, select
from matloop.jobs.stage import StageWork
from matloop.protocols import Judged, SelectionRequest, Selector


@dataclass
class DecideMaker(Maker):
    """Turn judgements into decisions, exactly one per candidate, each with its reason.

    Attributes
    ----------
    selector
        Plugin that decides; None within a campaign, where the stage names it.
    name
        Name of the job.
    """

    selector: Selector | None = None
    name: str = "decide"

    @job(data="choices")
    def make(
        self,
        candidates: list[dict[str, object]],
        evaluations: list[list[dict[str, object]]],
        objective: dict[str, object],
        keep: int | None = None,
        seed: int = 0,
    ) -> dict[str, object]:
        """Return one choice per candidate.

        Parameters
        ----------
        candidates
            Fields of a `Candidate` each.
        evaluations
            Fields of each candidate's `Evaluation` documents.
        objective
            Fields of an `Objective`.
        keep
            Most candidates that may pass.
        seed
            The only source of randomness.
        """
        if self.selector is None:
            raise ValueError("DecideMaker needs a selector outside a campaign")
        batch = []
        for fields, results in zip(candidates, evaluations, strict=True):
            said = tuple(Evaluation.model_validate(result) for result in results)
            candidate = Candidate.model_validate(fields)
            for evaluation in said:
                candidate = candidate.updated(evaluation.structure, evaluation.quantities)
            batch.append(Judged(candidate, said))
        request = SelectionRequest(Objective.model_validate(objective), seed, keep)
        choices = select(self.selector, batch, request)
        return {"choices": [choice.model_dump(mode="json") for choice in choices]}

    @job
    @collected_seldom
    def stage(self, place: Place) -> dict[str, int]:
        """Record one decision per candidate of the stage, and return the outcomes' counts."""
        work = StageWork(place)
        ledger, campaign, stage = place.open(), work.campaign, work.stage
        question, desk = Question.of(work), _Desk(work)
        if not question.apart:
            asked = [item.candidate.candidate_id for item in desk.standings if item.complete]
            pieces = desk.together(question, asked)
        elif len(desk.standings) <= PIECE:
            listed = list(desk.apart(question))
            asked = [one.choice.candidate_id for piece in listed for one in piece if one.asked]
            pieces = iter(listed)
        else:  # pieces need not be read twice: decisions name whoever was asked
            asked, pieces = [], desk.apart(question)
        evidence = ledger.put_artifact(
            "selection",
            question.described(asked).model_dump_json().encode(),
            "application/json",
        )
        counts: Counter[Outcome] = Counter()
        for piece in pieces:
            ledger.add_decisions(
                [
                    Decision(
                        campaign_id=place.campaign_id,
                        iteration=place.iteration,
                        stage=stage.name,
                        candidate_id=one.choice.candidate_id,
                        outcome=one.choice.outcome,
                        reason=one.choice.reason,
                        selector=stage.select.use,
                        evidence=one.choice.evidence,
                        evaluations=one.keys,
                        late=one.choice.candidate_id in desk.late,
                        selection=evidence.sha256 if one.asked else "",
                    )
                    for one in piece
                ]
            )
            counts.update(one.choice.outcome for one in piece)
        outcomes = {outcome: counts[outcome] for outcome in get_args(Outcome)}
        report(
            Progress(
                place.iteration,
                campaign.budget.iterations,
                stage.name,
                counts.total(),
                counts.total(),
                tuple(outcomes.items()),
            )
        )
        return outcomes


class _Desk:
    """What lies before a stage's selector, piece by piece.

    Parameters
    ----------
    work
        The stage.
    """

    def __init__(self, work: StageWork) -> None:
        self._work = work
        self.late, self._why = work.closed()
        self.standings = work.find_pieces(self.late)

    def apart(self, question: Question) -> Iterator[list[Chosen]]:
        """Yield the choices of a selector that decides on each candidate apart.

        What was chosen while it was being judged is not asked again.
        """
        for number, names in enumerate(self.standings.name_pieces()):
            here: dict[str, Chosen] = {}
            if question.at_once and not self.late:
                here |= chosen_here(self._work.place, names)
            if len(here) < len(names):
                piece = self.standings.piece(number)
                rest = [item for item in piece if item.candidate.candidate_id not in here]
                here |= self._settled(rest, question.chosen(rest))
            yield [here[name] for name in names]

    def together(self, question: Question, asked: Sequence[str]) -> Iterator[list[Chosen]]:
        """Yield the choices of a selector that is shown all candidates, read as it goes on."""
        standings = self.standings
        positions = dict(zip(standings.names, range(len(standings)), strict=True))

        def load(names: Sequence[str]) -> list[Judged]:
            return [standings[positions[name]].judged for name in names]

        batch = Piecewise(asked, load)
        choices = {c.candidate_id: c for c in select(question.selector, batch, question.request)}
        for piece in standings.pieces():
            complete = [item for item in piece if item.complete]
            found = [Chosen.of(choices[item.candidate.candidate_id], item) for item in complete]
            yield list(self._settled(piece, found).values())

    def _settled(
        self, standings: Sequence[Standing], chosen: Sequence[Chosen]
    ) -> dict[str, Chosen]:
        """Hand on who passed, and return what becomes of all of them, by id, in order."""
        hand_passed(self._work.place, chosen, standings)
        found = {one.choice.candidate_id: one for one in chosen}
        found |= {one.choice.candidate_id: one for one in self._unasked(standings)}
        names = [item.candidate.candidate_id for item in standings]
        return {name: found[name] for name in names}

    def _unasked(self, standings: Sequence[Standing]) -> Iterator[Chosen]:
        """Yield why those are held of whom the selector is not asked."""
        for item in standings:
            if item.complete:
                continue
            name = item.candidate.candidate_id
            reason = (
                f"the stage closed before it was judged, because {self._why}; it joins the next "
                "iteration"
                if name in self.late
                else self._work.shortage(item)
            )
            held = Choice(candidate_id=name, outcome="held", reason=reason)
            yield Chosen(choice=held, keys=tuple(item.keys), asked=False)
