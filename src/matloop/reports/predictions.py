"""What a report says of the surrogate's predictions: frozen documents, numbers only."""

from __future__ import annotations

from matloop.documents.base import Document


class ParityPair(Document):
    """A prediction made before relaxation, and what was computed."""

    candidate_id: str
    formula: str
    iteration: int
    predicted: float
    uncertainty: float | None
    computed: float


class Calibration(Document):
    """How good the predictions of one part of the pairs are, and how honest their uncertainties.

    Attributes
    ----------
    part
        Iteration, counted from 1, or chemical system.
    count
        Pairs.
    mae, sharpness
        Mean absolute error, and root-mean-square predicted standard deviation, in the parity's
        unit.
    coverage_90
        Share of computed values inside the central 90 % interval.
    ence
        Expected normalised calibration error; None below 10 pairs.
    uncertainty_correlation
        Spearman's between standard deviation and absolute error; None below 3 pairs.
    """

    part: str
    count: int
    mae: float
    sharpness: float
    coverage_90: float
    ence: float | None
    uncertainty_correlation: float | None


class Parity(Document):
    """How well the surrogate predicted one quantity of the candidates that were then computed.

    Attributes
    ----------
    pairs
        One per candidate, in the order of the campaign.
    mae
        Mean absolute error, in `unit`.
    mae_constant
        Mean absolute error of predicting, for each candidate, the mean of all values computed in
        earlier iterations; None without any. A useful surrogate is better.
    spearman
        Rank correlation; None below three pairs or for constant values.
    coverage
        Fraction of computed values inside the central interval of each nominal probability, for a
        normal distribution with the predicted mean and uncertainty; empty without uncertainties.
    by_iteration, by_chemistry
        Calibration of each iteration's predictions, and of those in each chemical system with at
        least 5 pairs; empty without uncertainties.
    """

    quantity: str
    unit: str
    pairs: tuple[ParityPair, ...]
    mae: float
    mae_constant: float | None
    spearman: float | None
    coverage: tuple[tuple[float, float], ...] = ()
    by_iteration: tuple[Calibration, ...] = ()
    by_chemistry: tuple[Calibration, ...] = ()
