"""Candidates as second derivatives need them: primitive, of exact symmetry, at rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

from pymatgen.core import Structure

from matloop.documents.candidate import Candidate
from matloop.documents.evaluation import Evaluation
from matloop.evaluators.mlip.model import Integers, LoadedModel, Member
from matloop.evaluators.mlip.reading import readable
from matloop.evaluators.mlip.single_points import SinglePoint, single_points
from matloop.evaluators.mlip.verdicts import unfit
from matloop.structures.symmetry import primitive_cell, rotations

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Reference:
    """A crystal at rest, from which it is displaced or strained.

    Attributes
    ----------
    structure
        Primitive cell of exact symmetry, in the standard setting.
    rotations
        Point group in fractional coordinates, shape (k, 3, 3).
    point
        Energy, forces and stress.
    """

    structure: Structure
    rotations: Integers
    point: SinglePoint


@dataclass
class References:
    """A batch of candidates, sorted into those at rest and those given up.

    Attributes
    ----------
    at_rest
        References by the candidates' places in the batch.
    given_up
        Why the others are none.
    points
        What was computed, by place.
    """

    at_rest: dict[int, Reference] = field(default_factory=dict)
    given_up: dict[int, Evaluation] = field(default_factory=dict)
    points: dict[int, SinglePoint] = field(default_factory=dict)


def references(
    model: LoadedModel,
    candidates: Sequence[Candidate],
    *,
    symprec: float,
    max_force: float,
    max_atoms: int,
    batch_atoms: int,
) -> References:
    """Return the crystals from which candidates are displaced or strained.

    Parameters
    ----------
    model
        The potential.
    candidates
        Crystals as earlier stages left them.
    symprec
        Tolerance within which symmetry is found and made exact (Å).
    max_force
        Largest force on an atom or on a row of the cell (eV/Å), as relaxations measure it; what
        feels more is rejected.
    max_atoms
        Candidates with more atoms fail.
    batch_atoms
        Most atoms computed at once.
    """
    result = References()
    sound: dict[int, tuple[Structure, Integers]] = {}
    for index, candidate in enumerate(candidates):
        found = readable(candidate.structure, model, max_atoms)
        exact = (
            found if isinstance(found, str) else guarded(_symmetric, candidate.structure, symprec)
        )
        if isinstance(exact, str):
            result.given_up[index] = unfit(candidate, "fail", exact, model)
        else:
            sound[index] = exact
    members = [Member.from_structure(structure) for structure, _ in sound.values()]
    result.points.update(zip(sound, single_points(model, members, batch_atoms), strict=True))
    for index, point in result.points.items():
        candidate = candidates[index]
        if point.fault:
            result.given_up[index] = unfit(candidate, "fail", point.fault, model)
        elif point.max_force > max_force:
            reason = (
                f"not at rest: {point.max_force:.2g} eV/Å is above {max_force:g}; relax it further "
                "with this potential"
            )
            result.given_up[index] = unfit(candidate, "reject", reason, model)
        else:
            result.at_rest[index] = Reference(*sound[index], point)
    return result


def guarded(
    compute: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
) -> Result | str:
    """Return what a function returns, or what went wrong in it, whatever that was."""
    try:
        return compute(*args, **kwargs)
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # a panic in a compiled library is no Exception
        return f"{type(error).__name__}: {error}"


def _symmetric(structure: Structure, symprec: float) -> tuple[Structure, Integers]:
    primitive = primitive_cell(structure, symprec)
    # The cell is exact now: a tight tolerance finds the group it was made exact with.
    return primitive, rotations(primitive, min(symprec, 1e-4))
