"""Another potential as an engine: a second opinion before a discovery is called one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from monty.json import MSONable
from pymatgen.core import Structure

from matloop import registry
from matloop.documents.candidate import Candidate, Origin
from matloop.documents.evaluation import Evaluation
from matloop.documents.theory import LevelOfTheory
from matloop.errors import ConfigurationError, MatloopError
from matloop.protocols import Evaluator, Resources

if TYPE_CHECKING:
    from jobflow import Job

_SECONDS_PER_HOUR = 3600


class _Relaxing(Evaluator, Protocol):
    def theory(self) -> LevelOfTheory: ...


@dataclass(frozen=True)
class Potential(MSONable):
    """Relax a crystal with a potential, in a job of its own, on a hull of its own.

    A stage with this engine verifies what another potential has chosen: every crystal and every
    reference phase is computed anew, so that the distance to the hull is that of this potential
    alone. It is meant for a potential other than the one that the stages before relax with.

    Attributes
    ----------
    model
        Name of the potential, as registered.
    model_parameters
        Its parameters, such as ``{version: r2scan}`` of ``chgnet`` or ``{path: FILE}`` of ``mace``.
    optimizer
        ``fire``, or ``bfgs``, which is faster.
    fmax
        Largest force on an atom, or on a row of the cell, of a relaxed crystal (eV/Å).
    max_steps
        Steps after which a relaxation that has not converged fails.
    max_atoms
        Crystals with more atoms fail.
    seconds_per_atom
        Estimated cost of a relaxation on one core (s).
    """

    model: str = "chgnet"
    model_parameters: dict[str, bool | int | float | str] = field(default_factory=dict)
    optimizer: Literal["fire", "bfgs"] = "fire"
    fmax: float = 0.05
    max_steps: int = 500
    max_atoms: int = 500
    seconds_per_atom: float = 0.5

    produces: ClassVar[Mapping[str, str]] = {
        "energy_per_atom": "eV/atom",
        "relaxation_steps": "",
        "max_force": "eV/Å",
        "volume_change": "",
    }

    def __post_init__(self) -> None:
        if not self.seconds_per_atom > 0:
            raise ValueError(f"seconds_per_atom must be positive, got {self.seconds_per_atom!r}")
        try:
            self.relaxation()
        except ConfigurationError as error:
            raise ValueError(str(error)) from None

    def relaxation(self) -> _Relaxing:
        """Return the evaluator that does the work."""
        names = ("model", "model_parameters", "optimizer", "fmax", "max_steps", "max_atoms")
        parameters = {name: getattr(self, name) for name in names}
        found: _Relaxing = registry.build("evaluators", "relaxation", parameters)
        return found

    def theory(self, structure: Structure) -> LevelOfTheory:
        """Return the level of theory of the potential, the same for every crystal."""
        return self.relaxation().theory()

    def calculation(self, structure: Structure, name: str) -> Job:
        """Return the job whose output is an `Evaluation` as a dictionary."""
        from jobflow import Job

        return Job(relaxed, function_args=(self, structure), name=f"{self.model} {name}")

    def evaluation(self, candidate_id: str, document: Mapping[str, object] | None) -> Evaluation:
        """Return the verdict; ``fail`` wherever the relaxation died or did not converge."""
        if document is None:
            return Evaluation(
                candidate_id=candidate_id,
                verdict="fail",
                reason=f"the relaxation with {self.model} left no result: its process died",
            )
        plain = {key: value for key, value in document.items() if not key.startswith("@")}
        found = Evaluation.model_validate(plain).model_copy(update={"candidate_id": candidate_id})
        if found.verdict == "pass":
            kept = {name: q for name, q in found.quantities.items() if name in self.produces}
            return found.model_copy(update={"quantities": kept})
        return Evaluation(
            candidate_id=candidate_id, verdict="fail", reason=found.reason, cost=found.cost
        )

    def core_hours(self, structure: Structure) -> float:
        """Return the estimated cost (core-hours), proportional to the number of atoms."""
        return self.seconds_per_atom * len(structure) / _SECONDS_PER_HOUR

    def problems(self) -> list[str]:
        """Return why the potential cannot be loaded here, in one line; nothing if it can."""
        try:
            self.relaxation().theory()
        except (MatloopError, ImportError, OSError) as error:
            return [f"potential {self.model}: {error}".splitlines()[0]]
        return []


def relaxed(engine: Potential, structure: Structure) -> dict[str, Any]:
    """Relax a crystal as the engine says: the body of its job."""
    candidate = Candidate(
        candidate_id="crystal", structure=structure, origin=Origin(generator="potential")
    )
    found = engine.relaxation().evaluate([candidate], Resources())[0]
    return found.model_dump(mode="json")
