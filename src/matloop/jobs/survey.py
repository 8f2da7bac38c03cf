"""How far a stage has come: counts, costs and who is missing, without holding its crystals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from matloop.documents.candidate import Candidate
from matloop.jobs.evaluation import Standing
from matloop.jobs.stage import StageWork


@dataclass(frozen=True)
class Share:
    """One candidate that is to be judged: its position in the stage, and the results it has."""

    position: int
    candidate_id: str
    keys: tuple[str, ...]


@dataclass
class Survey:
    """How far a stage has come.

    Attributes
    ----------
    stage
        The stage.
    entered, judged
        How many candidates there are, and how many all evaluators have judged.
    seconds, work
        What their evaluations cost: time (s), and atoms times force evaluations.
    paid, paid_seconds
        How many of the judged have evaluations, and what these cost (s).
    core_hours, gpu_hours
        What the campaign paid for them, calculations left out; 0 where nothing limits it, or nobody
        asks.
    missing
        Who is not judged and is waited for, in order.
    awaited
        The same as they stand, where they are asked for.
    """

    stage: StageWork
    entered: int = 0
    judged: int = 0
    seconds: float = 0.0
    work: float = 0.0
    paid: int = 0
    paid_seconds: float = 0.0
    core_hours: float = 0.0
    gpu_hours: float = 0.0
    missing: list[Share] = field(default_factory=list)
    awaited: list[Candidate] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        work: StageWork,
        pieces: Iterable[Sequence[Standing]],
        late: Mapping[str, int] = {},
        *,
        awaited: bool = False,
    ) -> Survey:
        """Return the survey of a stage whose candidates come in pieces, in order.

        Parameters
        ----------
        work
            The stage.
        pieces
            Where its candidates stand.
        late
            Whom the stage does not wait for.
        awaited
            Whether those who are missing are kept as they stand.
        """
        survey = cls(work)
        for piece in pieces:
            survey.count(piece, late, awaited=awaited)
            core_hours, gpu_hours = work.hours_paid(piece)
            survey.core_hours += core_hours
            survey.gpu_hours += gpu_hours
            del piece  # it is not held while the next one is read
        return survey

    @property
    def mean_seconds(self) -> float | None:
        """Mean cost of a judged candidate (s); None where there is none."""
        return self.paid_seconds / self.paid if self.paid else None

    def summary(self) -> dict[str, float]:
        """Return what the stage's job tells of it."""
        return {
            "entered": self.entered,
            "judged": self.judged,
            "seconds": self.seconds,
            "work": self.work,
        }

    @property
    def left(self) -> tuple[float | None, float | None, float | None]:
        """Seconds, core-hours and GPU-hours left after this iteration's evaluations."""
        seconds, (core_hours, gpu_hours) = self.stage.seconds_left(), self.stage.hours_left()
        return (
            None if seconds is None else seconds - self.seconds,
            None if core_hours is None else core_hours - self.core_hours,
            None if gpu_hours is None else gpu_hours - self.gpu_hours,
        )

    def is_spent(self) -> bool:
        """Whether one of the budgets leaves nothing for those who are missing."""
        return any(left is not None and left <= 0 for left in self.left)

    def count(
        self,
        piece: Sequence[Standing],
        late: Mapping[str, int] = {},
        *,
        awaited: bool = False,
    ) -> None:
        """Add a piece to counts, costs and who is missing, but not to the hours.

        Parameters
        ----------
        piece, late, awaited
            As for `of`.
        """
        for item in piece:
            cost = sum(evaluation.cost.seconds for evaluation in item.evaluations)
            name = item.candidate.candidate_id
            self.seconds += cost
            self.work += sum(evaluation.cost.work for evaluation in item.evaluations)
            self.judged += item.complete
            if item.complete and item.evaluations:
                self.paid += 1
                self.paid_seconds += cost
            if not item.complete and name not in late:
                self.missing.append(Share(self.entered, name, tuple(item.keys)))
                if awaited:
                    self.awaited.append(item.candidate)
            self.entered += 1
