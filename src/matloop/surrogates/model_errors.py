"""What a potential gets wrong, and what another one would change about stability."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymatgen.core import Structure

from matloop.documents.labelled import Errors, Flip, Frame
from matloop.documents.objective import Objective
from matloop.documents.phase import Phase, PhaseSet
from matloop.potentials import Finetunable, Predicted
from matloop.structures.phase_diagram import Hull

Array = NDArray[np.float64]
Weights = Mapping[str, NDArray[Any]]


def element_offsets(
    frames: Sequence[Frame], predicted: Sequence[Predicted], ridge: float = 0.01
) -> dict[int, float]:
    """Return the energy per atom of each element (eV) that explains most of the residuals.

    Ridge regression of the energies per atom on atomic fractions, by elements that occur.

    Parameters
    ----------
    frames
        Labels.
    predicted
        What the model says of them.
    ridge
        Penalty, in units of one crystal; it keeps few crystals of many elements bounded.
    """
    numbers, rows, residuals = _table(frames, predicted)
    found = _fitted(rows, residuals, ridge)
    return {number: float(value) for number, value in zip(numbers, found, strict=True)}


def errors(frames: Sequence[Frame], predicted: Sequence[Predicted]) -> Errors:
    """Return the errors of predictions.

    Parameters
    ----------
    frames
        Labels, at least one.
    predicted
        What a model says of them.
    """
    energies = [
        abs(frame.energy - said.energy) / len(frame.structure)
        for frame, said in zip(frames, predicted, strict=True)
    ]
    forces = np.concatenate(
        [np.ravel(np.array(f.forces) - p.forces) for f, p in zip(frames, predicted, strict=True)]
    )
    stresses = [
        np.ravel(np.array(frame.stress) - said.stress)
        for frame, said in zip(frames, predicted, strict=True)
        if frame.stress is not None
    ]
    elements = {str(site.specie) for frame in frames for site in frame.structure}
    relative = None
    if len(frames) > len(elements):
        rest = _rest(frames, predicted)
        relative = float(np.mean(np.abs(rest))) if len(rest) == len(frames) else math.nan
    return Errors(
        energy_mae=float(np.mean(energies)),
        relative_mae=relative,
        force_mae=float(np.mean(np.abs(forces))),
        stress_mae=float(np.mean(np.abs(stresses))) if stresses else None,
        crystals=len(frames),
        components=len(forces),
        stresses=len(stresses),
    )


def flips(
    model: Finetunable,
    weights: tuple[tuple[str, Weights | None], tuple[str, Weights | None]],
    phases: PhaseSet,
    crystals: Mapping[str, Structure],
    objective: Objective,
) -> tuple[Flip, ...]:
    """Return the crystals whose stability another set of weights changes.

    Each model has a hull of its own: all phases and crystals at its level of theory, as they stand,
    without relaxing them again.

    Parameters
    ----------
    model
        The potential.
    weights
        Hash and weights of the old and of the new.
    phases
        Phases of the hull.
    crystals
        Crystals to compare, by id.
    objective
        Says what counts as stable.
    """
    structures = [phase.structure for phase in phases.phases] + list(crystals.values())
    distances = []
    for sha256, arrays in weights:
        theory = model.theory(sha256)
        energies = [
            said.energy / len(structure)
            for said, structure in zip(model.predict(structures, arrays), structures, strict=True)
        ]
        known = tuple(
            Phase(phase_id=p.phase_id, structure=p.structure, energy=e, theory=theory)
            for p, e in zip(phases.phases, energies, strict=False)
            if np.isfinite(e)
        )
        hull = Hull(PhaseSet(theory=theory, phases=known))
        distances.append(
            {
                name: hull.distance(structure.composition, energy)
                for (name, structure), energy in zip(
                    crystals.items(), energies[len(phases.phases) :], strict=True
                )
                if np.isfinite(energy)
                and not hull.missing(structure.composition.chemical_system_set)
            }
        )
    old, new = distances
    return tuple(
        Flip(
            crystal_id=name,
            formula=structure.composition.reduced_formula,
            before=old[name],
            after=new[name],
        )
        for name, structure in crystals.items()
        if name in old
        and name in new
        and objective.stable(old[name]) != objective.stable(new[name])
    )


def _table(
    frames: Sequence[Frame], predicted: Sequence[Predicted]
) -> tuple[list[int], Array, Array]:
    """Return elements, atomic fractions and residuals (eV/atom) of what could be predicted."""
    numbers = sorted({site.specie.Z for frame in frames for site in frame.structure})
    fractions = np.array(
        [
            [sum(z == site.specie.Z for site in f.structure) / len(f.structure) for z in numbers]
            for f in frames
        ]
    )
    residuals = np.array(
        [
            (frame.energy - said.energy) / len(frame.structure)
            for frame, said in zip(frames, predicted, strict=True)
        ]
    )
    known = np.isfinite(residuals)
    return numbers, fractions[known], residuals[known]


def _fitted(rows: Array, residuals: Array, ridge: float) -> Array:
    normal = rows.T @ rows + ridge * np.eye(rows.shape[1])
    return np.asarray(np.linalg.solve(normal, rows.T @ residuals))


def _rest(frames: Sequence[Frame], predicted: Sequence[Predicted]) -> Array:
    """Return what is left of the residuals (eV/atom) after energies per element."""
    _, rows, residuals = _table(frames, predicted)
    return np.asarray(residuals - rows @ _fitted(rows, residuals, ridge=1e-6))
