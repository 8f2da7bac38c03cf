"""What became of one structure, in one document: what a Maker returns outside of any campaign."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field
from pymatgen.core import Structure

from matloop.documents.base import Crystal, Document
from matloop.documents.candidate import Quantity
from matloop.documents.evaluation import Cost, Evaluation, Verdict
from matloop.documents.theory import LevelOfTheory


class Outcome(Document):
    """One structure after all its evaluations.

    Attributes
    ----------
    index
        Place of the structure in the list given.
    formula, n_atoms
        Reduced formula, and atoms in the cell.
    verdict, reason
        Of the last evaluator asked.
    converged
        Whether its relaxation converged; None if there was none.
    steps
        Steps of its relaxation.
    energy, energy_per_atom
        Energy of the cell (eV), and per atom (eV/atom).
    forces
        Forces (eV/Å), one row per atom of `structure`.
    stress
        Cauchy stress (eV/Å^3), positive when the crystal wants to contract, three rows.
    max_force
        What the relaxation was to bring below its limit (eV/Å).
    theory
        Level of theory of the energy, with the model's name and the hash of its file.
    quantities
        Everything found, by name.
    cost
        What all evaluations took together.
    structure
        The crystal at its end, or as given if it was not moved.
    """

    index: int
    formula: str
    n_atoms: int
    verdict: Verdict
    reason: str
    converged: bool | None = None
    steps: int | None = None
    energy: float | None = None
    energy_per_atom: float | None = None
    forces: tuple[tuple[float, float, float], ...] | None = None
    stress: tuple[tuple[float, float, float], ...] | None = None
    max_force: float | None = None
    theory: LevelOfTheory | None = None
    quantities: dict[str, Quantity] = Field(default_factory=dict)
    cost: Cost = Cost()
    structure: Crystal

    @classmethod
    def of(cls, index: int, structure: Structure, evaluations: Sequence[Evaluation]) -> Outcome:
        """Return the outcome of one structure from its evaluations, in the order they were made."""
        last = evaluations[-1]
        ends = [item.end for item in evaluations if item.end is not None]
        end = ends[-1] if ends else None
        quantities = {name: q for item in evaluations for name, q in item.quantities.items()}
        moved = [item.structure for item in evaluations if item.structure is not None]
        theories = [item.theory for item in evaluations if item.theory is not None]
        per_atom = quantities.get("energy_per_atom")
        return cls(
            index=index,
            formula=structure.reduced_formula,
            n_atoms=len(structure),
            verdict=last.verdict,
            reason=last.reason,
            converged=end.converged if end else None,
            steps=end.steps if end else None,
            energy=per_atom.value * len(structure) if per_atom else None,
            energy_per_atom=per_atom.value if per_atom else None,
            forces=end.forces if end else None,
            stress=end.stress if end else None,
            max_force=end.max_force if end else None,
            theory=theories[-1] if theories else None,
            quantities=quantities,
            cost=_total([item.cost for item in evaluations]),
            structure=moved[-1] if moved else structure,
        )


def _total(costs: Sequence[Cost]) -> Cost:
    dearest = max(costs, key=lambda cost: cost.seconds)
    return Cost(
        seconds=sum(cost.seconds for cost in costs),
        work=sum(cost.work for cost in costs),
        calls=sum(cost.calls for cost in costs),
        device=dearest.device,
        threads=dearest.threads,
    )
