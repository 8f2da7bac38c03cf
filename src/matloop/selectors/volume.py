"""Expected hypervolume improvement: what a batch adds to a Pareto front, picked one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, qmc
from threadpoolctl import threadpool_limits

from matloop.documents.expression import DimensionError
from matloop.documents.pareto import free_boxes, gained, is_on_front, reference_point
from matloop.errors import ConfigurationError
from matloop.protocols import Judged, SelectionRequest
from matloop.selectors.acquisition import (
    SAMPLES,
    Outcomes,
    Promise,
    expected_quantities,
    gains_seen,
    quasi_normal,
)
from matloop.surrogates.fitted import load
from matloop.surrogates.representations import carried, represent

Array = NDArray[np.float64]

_MOST_DIMENSIONS = 20_000  # of a Sobol sequence


@dataclass
class Volume:
    """The volume that candidates are expected to add beyond those already picked.

    For each joint sample of all candidates, the volume that a candidate adds to the front of the
    results and of the picked candidates, zero where the sample is infeasible; the mean over samples
    is the score. It is the batch acquisition of Daulton, Balandat and Bakshy (NeurIPS 2020), greedy
    and with common samples; its constraints are those of Gardner et al. (ICML 2014).

    Attributes
    ----------
    outcomes
        Joint samples.
    front
        Goals of the results on the front so far, shape (k, goals).
    reference
        Point from which volumes are measured, shape (goals,).
    """

    outcomes: Outcomes
    front: Array
    reference: Array

    def __post_init__(self) -> None:
        gains = self.outcomes.gains
        counts = np.isfinite(gains).all(axis=2) & self.outcomes.feasible
        self._points = np.where(counts[..., None], gains, self.reference)  # there they add nothing
        self._fronts = [self.front] * SAMPLES
        boxes = free_boxes(self.front, self.reference)
        flat = self._points.reshape(-1, gains.shape[2])
        self._added = gained(flat, *boxes).reshape(gains.shape[:2])

    @property
    def scores(self) -> Array:
        """Expected volume added, shape (n,)."""
        return np.asarray(self._added.mean(axis=1))

    def pick(self, row: int) -> Array:
        """Count a candidate as picked, and return the scores of all given that."""
        for sample in np.flatnonzero(self._added[row] > 0.0):
            front = np.vstack([self._fronts[sample], self._points[row, sample]])
            self._fronts[sample] = front[is_on_front(front)]
            boxes = free_boxes(self._fronts[sample], self.reference)
            self._added[:, sample] = gained(self._points[:, sample], *boxes)
        return self.scores


def volume(
    able: Sequence[Judged], request: SelectionRequest, rng: np.random.Generator
) -> tuple[Promise, Volume | None]:
    """Return what candidates promise by several goals, and the volume they add.

    While results are known and none is feasible, the promise is the probability of being so
    (Gelbart et al., UAI 2014), and there is no volume yet.

    Raises
    ------
    ConfigurationError
        If the reference point does not fit the units of the goals.
    """
    objective = request.objective
    names = sorted(objective.names)
    drawn = rng.integers(SAMPLES, size=len(able))
    normal = dict(zip(names, _joint(able, names, request, rng), strict=True))
    found = Outcomes.of(able, objective, normal)
    seen = gains_seen(request)
    known = np.empty((0, len(objective.goals))) if seen is None else seen[0][seen[1]]
    reference = _reference(able, found, known, request)
    if reference is None:  # nothing is predicted
        nothing = np.full(found.gains.shape[:2], np.nan)
        return Promise.from_outcomes(found, nothing, None, drawn, objective), None
    front = known[is_on_front(known)]
    ahead = _ahead(found.gains, front if len(front) else reference[None], known)
    hopeless = seen is not None and len(seen[0]) and not len(known) and objective.constraints
    added = Volume(found, front, reference)
    told = (np.empty(0), np.empty(0, dtype=bool)) if seen is None else (seen[0][:, 0], seen[1])
    promise = Promise.from_outcomes(found, ahead, told, drawn, objective)
    if hopeless:
        return promise, None
    missing = ~np.isfinite(promise.mean)
    return replace(promise, improvement=np.where(missing, np.nan, added.scores)), added


def _ahead(gains: Array, front: Array, known: Array) -> Array:
    """Return how far samples reach beyond a front, in widths of the goals, shape (n, 128)."""
    every = np.vstack([front, known, gains.reshape(-1, gains.shape[2])])
    every = every[np.isfinite(every).all(axis=1)]
    widths = np.std(every, axis=0)
    widths = np.where(widths > 0.0, widths, 1.0)
    nearest = np.full(gains.shape[:2], np.inf)
    for point in front:
        nearest = np.minimum(nearest, ((gains - point) / widths).max(axis=2))
    return nearest


def _reference(
    able: Sequence[Judged], found: Outcomes, known: Array, request: SelectionRequest
) -> Array | None:
    """Return the user's point, else one from the results, else from what is expected."""
    objective = request.objective
    means = found.gains[np.isfinite(found.gains).all(axis=(1, 2))].mean(axis=1)
    if not len(means):
        return None
    if objective.reference:
        for judged in able:
            quantities = expected_quantities(judged, objective)
            if objective.of_goals <= quantities.keys():
                units = {name: quantity.unit for name, quantity in quantities.items()}
                try:
                    return objective.worst(units)
                except DimensionError as error:
                    raise ConfigurationError(f"objective.reference: {error}") from None
    return reference_point(known if len(known) else means)


def _joint(
    able: Sequence[Judged],
    names: Sequence[str],
    request: SelectionRequest,
    rng: np.random.Generator,
) -> Array:
    """Return joint standard normal samples, shape (names, n, 128).

    Candidates hang together as the surrogate says, quantities do not. Each candidate has the same
    samples in another order (Iman and Conover, Commun. Stat. 11, 311, 1982), so that all are
    compared on equal terms; the order is that of a scrambled Sobol sequence through the Cholesky
    factor of the correlation. Quantities that no surrogate has learned vary alone.
    """
    count = len(able)
    even = np.sort(quasi_normal(1, rng)[0])
    correlations = _correlations(able, names, request)
    found = np.empty((len(names), count, SAMPLES))
    dimensions = count * len(names)
    if dimensions <= _MOST_DIMENSIONS:
        sobol = qmc.Sobol(dimensions, scramble=True, rng=rng).random(SAMPLES).T
        raw = norm.ppf(np.clip(sobol, 1e-6, 1.0 - 1e-6)).reshape(found.shape)
    else:
        raw = rng.standard_normal(found.shape)
    for number, name in enumerate(names):
        own = raw[number]
        if name in correlations:
            with threadpool_limits(1):  # sums in another order would give other bits
                own = np.linalg.cholesky(correlations[name] + 1e-8 * np.eye(count)) @ own
        found[number] = even[np.argsort(np.argsort(own, axis=1), axis=1)]
    return found


def _correlations(
    able: Sequence[Judged], names: Sequence[str], request: SelectionRequest
) -> dict[str, Array]:
    path = request.resources.paths.get("surrogate")
    if path is None:
        return {}
    model = load(path, request.resources.digests.get("surrogate", ""))
    table = model.table
    structures = [judged.candidate.structure for judged in able]
    features, failures = represent(table.representation, structures, table.checkpoint)
    inputs = carried([judged.candidate.quantities for judged in able], table.inputs)
    described = np.array([i for i in range(len(able)) if i not in failures], dtype=int)
    if not len(described):
        return {}
    rows = np.hstack([features, inputs])[described]
    found = {}
    for name in names:
        if name in table.targets:
            whole = np.eye(len(able))
            whole[np.ix_(described, described)] = model.correlation(name, rows)
            found[name] = whole
    return found
