"""Calculate: one crystal, one calculation in jobs of its own, one verdict."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, Literal

from jobflow import Flow, Job, JobStore, Maker, job, run_locally
from jobflow.core.reference import OnMissing
from pymatgen.core import Structure

from matloop import registry
from matloop.documents.campaign import Stage
from matloop.documents.candidate import Candidate, Origin, structure_digest
from matloop.documents.evaluation import Evaluation, EvaluationRecord
from matloop.errors import MatloopError
from matloop.jobs.keys import evaluation_keys, method_digest
from matloop.jobs.place import Place
from matloop.jobs.placement import placed
from matloop.ledger.sqlite import SQLiteStore
from matloop.protocols import Engine, Resources

OUTPUTS = "calculations.sqlite"
"""File in the folder of a run that keeps the task documents of its calculations."""


@dataclass(frozen=True)
class Calculation:
    """An engine among a stage's evaluators.

    In one process it runs the calculation; where calculations are jobs of their own it only finds
    what they have recorded.

    Attributes
    ----------
    engine
        The engine.
    found_only
        Never run anything.
    """

    engine: Engine
    found_only: bool = False

    produces: ClassVar[Mapping[str, str]] = {"energy_per_atom": "eV/atom"}
    requires: ClassVar[tuple[str, ...]] = ()
    resources: ClassVar[tuple[str, ...]] = ()
    scope: ClassVar[Literal["candidate", "batch"]] = "candidate"
    moves_atoms: ClassVar[bool] = True

    def identity(self) -> str:
        """Return the hash of the engine: all that its results depend on besides the crystal."""
        return method_digest(self.engine)

    def evaluate(self, candidates: Sequence[Candidate], resources: Resources) -> list[Evaluation]:
        """Run the calculations of candidates one after another, in this process."""
        return [self._evaluate(candidate) for candidate in candidates]

    def _evaluate(self, candidate: Candidate) -> Evaluation:
        name = candidate.candidate_id
        try:
            calculation = self.engine.calculation(candidate.structure, name)
        except MatloopError:
            raise
        except Exception as error:
            return _failed(name, cannot_describe(self.engine, error))
        folder = Path.cwd() / "calculations" / name.replace("/", "_")
        folder.mkdir(parents=True, exist_ok=True)
        store = outputs(Path.cwd())
        flow = calculation if isinstance(calculation, Flow) else Flow([calculation])
        with warnings.catch_warnings():
            # jobflow 0.4 enters job folders with monty's cd, which warns of its own retirement
            warnings.filterwarnings("ignore", message="cd is deprecated", category=FutureWarning)
            try:
                run_locally(
                    flow,
                    log=False,
                    store=store,
                    root_dir=folder,
                    create_folders=True,
                    raise_immediately=True,
                )
            except MatloopError:
                raise
            except Exception as error:
                return _failed(name, f"its calculation raised {_in_words(error)}")
        document = last_document(self.engine, document_of(calculation, store))
        return self.engine.evaluation(name, document)

    def key(self, candidate: Candidate) -> str:
        """Return the key under which a candidate's result is recorded."""
        (key,) = evaluation_keys(self, [candidate], Resources())
        return key


@dataclass
class CalculateMaker(Maker):
    """Calculate crystals with an engine, each failing alone.

    Alone, in any flow::

        CalculateMaker(Gpaw(cutoff=500)).make(structures)

    returns a flow with the engine's own jobs and one ``conclude`` job per structure, whose output
    is the evaluation.

    Attributes
    ----------
    engine
        Plugin that describes the calculation.
    name
        Name of the flow.
    """

    engine: Engine
    name: str = "calculate"

    def make(self, structures: Sequence[Structure]) -> Flow:
        """Return the flow that calculates every structure."""
        flows = []
        for index, structure in enumerate(structures):
            name = f"{index}-{structure_digest(structure)[:8]}"
            calculation = self.engine.calculation(structure, name)
            conclude = self._concluding(name, structure, calculation)
            flows.append(Flow([calculation, conclude], conclude.output))
        return Flow(flows, [flow.output for flow in flows], name=self.name)

    def in_campaign(self, place: Place, candidate: Candidate, kind: str, control: str) -> Flow:
        """Return the flow that calculates one candidate and records the verdict.

        Parameters
        ----------
        place
            The stage.
        candidate
            As it enters the stage.
        kind, control
            Kinds of worker for the calculation, and for the verdict on it.
        """
        name = candidate.candidate_id
        calculation = self.engine.calculation(candidate.structure, name)
        conclude = self._concluding(name, candidate.structure, calculation, place)
        placed(calculation, place, kind, pass_on=True)
        placed(conclude, place, control)
        return Flow([calculation, conclude], name=f"calculate {name}")

    def _concluding(
        self, name: str, structure: Structure, calculation: Job | Flow, place: Place | None = None
    ) -> Job:
        conclude: Job = self.conclude(name, structure, calculation.output, place)
        conclude.name = f"conclude {name}"
        # It also runs after a calculation that died.
        conclude.config.on_missing_references = OnMissing.NONE
        return conclude

    @job
    def conclude(
        self,
        name: str,
        structure: Structure,
        document: Any,
        place: Place | None = None,
    ) -> dict[str, Any]:
        """Derive the verdict from a task document, record it, and return it.

        In a campaign nothing is recorded without a document: the stage then sends the calculation
        out again, and gives up on one that dies repeatedly.

        Parameters
        ----------
        name
            Id of the candidate.
        structure
            The crystal as it went into the calculation.
        document
            The engine's task document; None if the calculation died.
        place
            The stage whose ledger keeps the verdict; None outside of a campaign.
        """
        found = last_document(self.engine, plain(document))
        evaluation = self.engine.evaluation(name, found)
        if place is not None and found is not None:
            candidate = Candidate(
                candidate_id=name, structure=structure, origin=Origin(generator="given")
            )
            place.open().add_evaluations([recorded(self.engine, candidate, evaluation)])
        return evaluation.model_dump(mode="json")


def stage_engine(stage: Stage) -> Engine | None:
    """Return the engine of a stage; None if it has none."""
    if stage.calculate is None:
        return None
    engine: Engine = registry.build("engines", stage.calculate.use, stage.calculate.parameters)
    return engine


def outputs(directory: Path) -> JobStore:
    """Return the store that keeps the task documents of a run in one process."""
    file = directory / OUTPUTS
    return JobStore(
        SQLiteStore(file, "outputs", key="uuid"),
        additional_stores={"data": SQLiteStore(file, "data", key="blob_uuid")},
    )


def document_of(calculation: Job | Flow, store: JobStore) -> Mapping[str, object] | None:
    """Return the task document a calculation left in its store; None if it left none."""
    try:
        output = calculation.output.resolve(store, on_missing=OnMissing.NONE)
    except (ValueError, AttributeError):
        return None
    return plain(output)


def last_document(
    engine: Engine, document: Mapping[str, object] | None
) -> Mapping[str, object] | None:
    """Return a calculation's document if it is its last; None if the calculation died before.

    Parameters
    ----------
    engine
        Who calculated.
    document
        The latest document it left.
    """
    finished: Callable[[Mapping[str, object]], bool] | None = getattr(engine, "finished", None)
    if document is None or finished is None or finished(document):
        return document
    return None


def recorded(engine: Engine, candidate: Candidate, evaluation: Evaluation) -> EvaluationRecord:
    """Return the record of a verdict, under the key by which stages find it.

    Parameters
    ----------
    engine
        Who calculated.
    candidate
        As it went into the calculation.
    evaluation
        The verdict.
    """
    return EvaluationRecord(
        key=Calculation(engine).key(candidate),
        structure_digest=structure_digest(candidate.structure),
        evaluator=registry.name_of("engines", engine),
        method=method_digest(engine),
        evaluation=evaluation,
        recorded_at=datetime.now(UTC),
    )


def cannot_describe(engine: Engine, error: Exception) -> str:
    """Return why there is no calculation of a crystal, in one line.

    Parameters
    ----------
    engine
        Who was asked for one.
    error
        What it raised.
    """
    return f"{type(engine).__name__} can make no calculation of it: {_in_words(error)}"


def _failed(name: str, reason: str) -> Evaluation:
    return Evaluation(candidate_id=name, verdict="fail", reason=reason)


def _in_words(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:200]}"


def plain(document: Any) -> Mapping[str, object] | None:
    """Return a task document as a dictionary, whether it arrives as one or as a model."""
    if document is None or isinstance(document, Mapping):
        return document
    dump = getattr(document, "model_dump", None) or getattr(document, "as_dict", None)
    if dump is None:
        raise TypeError(f"a {type(document).__name__} is no task document")
    dumped: Mapping[str, object] = dump()
    return dumped
