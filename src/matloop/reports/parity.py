"""How well the surrogate predicted: parity, rank correlation and calibration."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from pymatgen.core import Composition

from matloop.reports.history import Followed, History
from matloop.reports.predictions import Calibration, Parity, ParityPair
from matloop.surrogates.calibration import Residuals, quality

Values = NDArray[np.float64]

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.6827, 0.8, 0.9, 0.9545)
"""Nominal probabilities of the calibration curve; 0.6827 and 0.9545 are one and two sigma."""

_FEWEST = 5  # pairs of a chemical system that say anything of its calibration


def parities(history: History) -> tuple[Parity, ...]:
    """Return one comparison per quantity that was predicted and then computed.

    Only candidates that were relaxed count. The selector chose most of them by these very
    predictions, so they are no random sample of the proposals.
    """
    pairs: dict[str, list[ParityPair]] = {}
    units: dict[str, str] = {}
    for item in history.candidates:
        for name, predicted in sorted(item.predicted.items()):
            computed = item.lowest.quantities.get(name)
            if not item.relaxed or computed is None:
                continue
            units.setdefault(name, computed.unit)
            pairs.setdefault(name, []).append(
                ParityPair(
                    candidate_id=item.candidate_id,
                    formula=item.final.structure.composition.reduced_formula,
                    iteration=item.record.iteration,
                    predicted=predicted.value,
                    uncertainty=predicted.uncertainty,
                    computed=computed.value,
                )
            )
    return tuple(
        _parity(name, units[name], found, history.candidates) for name, found in pairs.items()
    )


def coverage_curve(pairs: Sequence[ParityPair]) -> tuple[tuple[float, float], ...]:
    """Return (nominal, observed) fractions inside the central interval of a normal distribution.

    Pairs without an uncertainty are left out; the curve is empty if none has one.
    """
    from scipy.special import ndtri

    known = [pair for pair in pairs if pair.uncertainty]
    if not known:
        return ()
    z = np.array([abs(p.computed - p.predicted) / (p.uncertainty or 1.0) for p in known])
    return tuple((level, float(np.mean(z <= ndtri(0.5 + level / 2)))) for level in LEVELS)


def calibrations(
    pairs: Sequence[ParityPair], part: Callable[[ParityPair], str], fewest: int
) -> tuple[Calibration, ...]:
    """Return the calibration of every part that has enough pairs, in order of appearance.

    Parameters
    ----------
    pairs
        Predictions and results; those without an uncertainty are left out.
    part
        Names the part that a pair belongs to.
    fewest
        Pairs below which a part is left out.
    """
    parts: dict[str, list[ParityPair]] = {}
    for pair in pairs:
        if pair.uncertainty:
            parts.setdefault(part(pair), []).append(pair)
    found = []
    for name, own in parts.items():
        if len(own) < fewest:
            continue
        numbers = quality(
            Residuals(
                np.array([pair.computed for pair in own]),
                np.array([pair.predicted for pair in own]),
                np.array([pair.uncertainty or 0.0 for pair in own]),
            )
        )
        found.append(
            Calibration(
                part=name,
                count=len(own),
                mae=numbers["mae"],
                sharpness=numbers["sharpness"],
                coverage_90=numbers["coverage_90"],
                ence=numbers.get("ence"),
                uncertainty_correlation=numbers.get("uncertainty_correlation"),
            )
        )
    return tuple(found)


def _parity(
    name: str, unit: str, pairs: Sequence[ParityPair], candidates: Sequence[Followed]
) -> Parity:
    predicted = np.array([pair.predicted for pair in pairs])
    computed = np.array([pair.computed for pair in pairs])
    return Parity(
        quantity=name,
        unit=unit,
        pairs=tuple(pairs),
        mae=float(np.mean(np.abs(predicted - computed))),
        mae_constant=_mae_constant(name, pairs, candidates),
        spearman=_spearman(predicted, computed),
        coverage=coverage_curve(pairs),
        by_iteration=calibrations(pairs, lambda pair: str(pair.iteration + 1), 1),
        by_chemistry=calibrations(
            pairs, lambda pair: Composition(pair.formula).chemical_system, _FEWEST
        ),
    )


def _mae_constant(
    name: str, pairs: Sequence[ParityPair], candidates: Sequence[Followed]
) -> float | None:
    # Compared on the same pairs, with the same knowledge: all values of earlier iterations.
    earlier: dict[int, list[float]] = {}
    for item in candidates:
        quantity = item.lowest.quantities.get(name)
        if item.relaxed and quantity is not None:
            earlier.setdefault(item.record.iteration, []).append(quantity.value)
    errors = []
    for pair in pairs:
        known = [v for k, values in earlier.items() if k < pair.iteration for v in values]
        if not known:
            return None
        errors.append(abs(pair.computed - float(np.mean(known))))
    return float(np.mean(errors))


def _spearman(x: Values, y: Values) -> float | None:
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    return float(np.corrcoef(_ranks(x), _ranks(y))[0, 1])


def _ranks(values: Values) -> Values:
    # Equal values share the mean of their ranks.
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    mean: Values = last - (counts - 1) / 2
    return mean[place]
