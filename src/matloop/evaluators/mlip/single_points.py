"""Energies, forces and stresses of many crystals, in batches that fit into memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from matloop.evaluators.mlip.model import Floats, LoadedModel, Member, Prediction


@dataclass(frozen=True)
class SinglePoint:
    """What a model says of one crystal.

    Attributes
    ----------
    member
        The crystal.
    energy
        Total energy (eV).
    forces
        Forces (eV/Å), shape (n, 3).
    stress
        Cauchy stress (eV/Å^3), positive when the crystal wants to contract, shape (3, 3).
    fault
        Why it could not be computed; empty if it could.
    calls
        Force evaluations, one.
    """

    member: Member
    energy: float
    forces: Floats
    stress: Floats
    fault: str = ""
    calls: int = 1

    @property
    def max_force(self) -> float:
        """Largest norm over atomic forces and rows of the cell's force (eV/Å).

        It is what a relaxation of atoms and cell calls converged: the `Minimum.max_force` of its
        last step, up to the rotation of the rows.
        """
        volume = abs(np.linalg.det(self.member.cell))
        pull = volume * self.stress / len(self.member.numbers)
        rows = np.concatenate([self.forces, pull])
        return float(np.sqrt((rows * rows).sum(axis=1)).max())


def single_points(
    model: LoadedModel, members: Sequence[Member], batch_atoms: int
) -> list[SinglePoint]:
    """Return energies, forces and stresses of crystals of any sizes, in order.

    The members are not changed: what a model keeps between predictions is let go of with each
    batch, so that memory depends on `batch_atoms` and not on their number.

    Parameters
    ----------
    model
        The potential.
    members
        The crystals.
    batch_atoms
        Most atoms at once; a larger crystal runs alone. Halved whenever memory runs out.
    """
    found: list[SinglePoint] = []
    while len(found) < len(members):
        start = len(found)
        stop = batch_end(members, start, batch_atoms)
        batch = [Member(m.numbers, m.positions, m.cell) for m in members[start:stop]]
        prediction, batch_atoms = predict_within(model, batch, batch_atoms)
        first = 0
        for k, member in enumerate(members[start:stop]):
            last = first + len(member.numbers)
            point = SinglePoint(
                member,
                float(prediction.energies[k]),
                prediction.forces[first:last],
                prediction.stresses[k],
                prediction.faults.get(k, ""),
            )
            found.append(_checked(point))
            first = last
    return found


def batch_end(members: Sequence[Member], start: int, limit: int) -> int:
    """Return where a batch of at most so many atoms ends that starts with a given member."""
    stop, atoms = start, 0
    while stop < len(members) and (stop == start or atoms + len(members[stop].numbers) <= limit):
        atoms += len(members[stop].numbers)
        stop += 1
    return stop


def predict_within(
    model: LoadedModel, members: Sequence[Member], limit: int
) -> tuple[Prediction, int]:
    """Predict in pieces of at most `limit` atoms; return the limit, halved if memory ran out."""
    pieces: list[Prediction] = []
    start = 0
    while start < len(members):
        stop = batch_end(members, start, limit)
        try:
            pieces.append(model.predict(members[start:stop]))
        except MemoryError:
            if stop - start > 1:
                atoms = sum(len(member.numbers) for member in members[start:stop])
                limit = max(1, atoms // 2)
                continue
            pieces.append(_nothing(members[start], "out of memory"))
        start = stop
    return _joined(pieces), limit


def _checked(point: SinglePoint) -> SinglePoint:
    finite = np.isfinite(point.energy) and np.isfinite(point.forces).all()
    if point.fault or (finite and np.isfinite(point.stress).all()):
        return point
    fault = "energy, forces or stress are not finite"
    return SinglePoint(point.member, point.energy, point.forces, point.stress, fault)


def _nothing(member: Member, fault: str) -> Prediction:
    atoms = len(member.numbers)
    return Prediction(
        np.full(1, np.nan), np.full((atoms, 3), np.nan), np.full((1, 3, 3), np.nan), {0: fault}
    )


def _joined(pieces: list[Prediction]) -> Prediction:
    if len(pieces) == 1:
        return pieces[0]
    faults: dict[int, str] = {}
    offset = 0
    for piece in pieces:
        faults.update({offset + k: fault for k, fault in piece.faults.items()})
        offset += len(piece.energies)
    return Prediction(
        np.concatenate([piece.energies for piece in pieces]),
        np.concatenate([piece.forces for piece in pieces]),
        np.concatenate([piece.stresses for piece in pieces]),
        faults,
    )
