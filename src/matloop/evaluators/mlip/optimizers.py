"""Steps of many minimisations at once, each with its own state."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from matloop.evaluators.mlip.model import Floats, Integers

MAX_STEP = 0.2
"""Longest step (Å): of the whole vector in FIRE, of one row in BFGS; ASE's default."""


class Optimizer(Protocol):
    """The state of m minimisations; member k owns ``sizes[k]`` consecutive rows of coordinates."""

    def add(self, sizes: Integers, curvatures: Floats) -> None:
        """Append members at the start of their minimisation.

        Parameters
        ----------
        sizes
            Rows of each new member.
        curvatures
            Guess at the second derivative of the energy for each of their rows (eV/Å^2).
        """
        ...

    def keep(self, members: Integers) -> None:
        """Forget all but these members, in this order of rising place."""
        ...

    def step(self, forces: Floats) -> Floats:
        """Return the displacement of all rows (Å) that follows from their forces (eV/Å)."""
        ...


class Fire:
    """FIRE, step for step as ASE takes it, with its defaults.

    References
    ----------
    Bitzek et al., Phys. Rev. Lett. 97, 170201 (2006).
    """

    _DT, _DT_MAX, _MIN_STEPS = 0.1, 1.0, 5
    _FASTER, _SLOWER, _MIX, _MIX_DECAY = 1.1, 0.5, 0.1, 0.99

    def __init__(self) -> None:
        self._sizes = np.zeros(0, dtype=np.int64)
        self._velocities = np.zeros((0, 3))
        self._dt = np.zeros(0)
        self._mix = np.zeros(0)
        self._downhill = np.zeros(0, dtype=np.int64)
        self._fresh = np.zeros(0, dtype=bool)

    def add(self, sizes: Integers, curvatures: Floats) -> None:
        """Append members at rest."""
        new = len(sizes)
        self._sizes = np.concatenate([self._sizes, sizes])
        self._velocities = np.concatenate([self._velocities, np.zeros((int(sizes.sum()), 3))])
        self._dt = np.concatenate([self._dt, np.full(new, self._DT)])
        self._mix = np.concatenate([self._mix, np.full(new, self._MIX)])
        self._downhill = np.concatenate([self._downhill, np.zeros(new, dtype=np.int64)])
        self._fresh = np.concatenate([self._fresh, np.ones(new, dtype=bool)])

    def keep(self, members: Integers) -> None:
        """Forget all but these members."""
        mask = np.zeros(len(self._sizes), dtype=bool)
        mask[members] = True
        self._velocities = self._velocities[np.repeat(mask, self._sizes)]
        self._sizes = self._sizes[mask]
        self._dt, self._mix = self._dt[mask], self._mix[mask]
        self._downhill, self._fresh = self._downhill[mask], self._fresh[mask]

    def step(self, forces: Floats) -> Floats:
        """Return the displacement of all rows."""
        velocities = self._velocities
        power = self._sums(forces * velocities)
        force = np.sqrt(self._sums(forces * forces))
        speed = np.sqrt(self._sums(velocities * velocities))
        downhill = (power > 0.0) & ~self._fresh
        uphill = ~downhill & ~self._fresh

        keep = np.where(downhill, 1.0 - self._mix, np.where(uphill, 0.0, 1.0))
        turn = np.where(downhill, self._mix * speed / np.where(force > 0, force, 1.0), 0.0)
        velocities = self._rows(keep) * velocities + self._rows(turn) * forces

        accelerate = downhill & (self._downhill > self._MIN_STEPS)
        self._dt = np.where(accelerate, np.minimum(self._dt * self._FASTER, self._DT_MAX), self._dt)
        self._mix = np.where(accelerate, self._mix * self._MIX_DECAY, self._mix)
        self._downhill = np.where(downhill, self._downhill + 1, 0)
        self._mix = np.where(uphill, self._MIX, self._mix)
        self._dt = np.where(uphill, self._dt * self._SLOWER, self._dt)
        self._fresh[:] = False

        dt = self._rows(self._dt)
        self._velocities = velocities + dt * forces
        step = dt * self._velocities
        length = np.sqrt(self._sums(step * step))
        return step * self._rows(MAX_STEP / np.maximum(length, MAX_STEP))

    def _sums(self, rows: Floats) -> Floats:
        starts = np.cumsum(self._sizes) - self._sizes
        return np.add.reduceat(rows.sum(axis=1), starts)

    def _rows(self, values: Floats) -> Floats:
        return np.repeat(values, self._sizes)[:, None]


class Bfgs:
    """BFGS with a starting Hessian that knows the scale of atoms and cell.

    The step is the Newton step with the absolute values of the Hessian's eigenvalues, shortened so
    that no row moves further than `MAX_STEP`.
    """

    def __init__(self) -> None:
        self._sizes: list[int] = []
        self._hessians: list[Floats] = []
        self._last: list[tuple[Floats, Floats] | None] = []

    def add(self, sizes: Integers, curvatures: Floats) -> None:
        """Append members with a diagonal Hessian."""
        start = 0
        for size in sizes.tolist():
            self._sizes.append(size)
            self._hessians.append(np.diag(np.repeat(curvatures[start : start + size], 3)))
            self._last.append(None)
            start += size

    def keep(self, members: Integers) -> None:
        """Forget all but these members."""
        chosen = members.tolist()
        self._sizes = [self._sizes[k] for k in chosen]
        self._hessians = [self._hessians[k] for k in chosen]
        self._last = [self._last[k] for k in chosen]

    def step(self, forces: Floats) -> Floats:
        """Return the displacement of all rows."""
        steps = np.zeros_like(forces)
        start = 0
        for k, size in enumerate(self._sizes):
            rows = slice(start, start + size)
            start += size
            gradient = -forces[rows].ravel()
            if not np.isfinite(gradient).all():
                continue
            self._update(k, gradient)
            curvatures, directions = np.linalg.eigh(self._hessians[k])
            step = -directions @ ((gradient @ directions) / np.abs(curvatures))
            longest = np.linalg.norm(step.reshape(-1, 3), axis=1).max()
            step *= MAX_STEP / max(longest, MAX_STEP)
            self._last[k] = (step, gradient)
            steps[rows] = step.reshape(-1, 3)
        return steps

    def _update(self, k: int, gradient: Floats) -> None:
        last = self._last[k]
        if last is None:
            return
        step, previous = last
        change = gradient - previous
        hessian = self._hessians[k]
        image = hessian @ step
        curvature, guess = float(step @ change), float(step @ image)
        if np.abs(step).max() < 1e-7 or curvature == 0.0 or guess == 0.0:
            return
        self._hessians[k] = (
            hessian + np.outer(change, change) / curvature - np.outer(image, image) / guess
        )


OPTIMIZERS: dict[str, type[Fire] | type[Bfgs]] = {"fire": Fire, "bfgs": Bfgs}
"""Optimisers by name."""
