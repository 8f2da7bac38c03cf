"""Learn how far the two lowest levels of theory disagree about distances to the hull."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from monty.json import MSONable

from matloop.documents.objective import Objective
from matloop.protocols import Lesson, Observation
from matloop.surrogates.fidelity import (
    MEDIA_TYPE,
    RESOURCE,
    Correction,
    features_of,
    leave_one_out,
)


@dataclass(frozen=True)
class FidelityCorrection(MSONable):
    """Learn the difference of hull distances between a potential and the theory above it.

    Every candidate teaches that has been judged on the two lowest levels of theory, promoted or
    audited: its distance to the one hull and to the other, each made of the phases that both levels
    know. A level that has not calculated a competing phase would look kinder than it is.
    A mean difference is learned first, and with 18 pairs or more also how it depends on the
    distance and the composition, as far as the data support it. Reference phases do not teach:
    nearly all of them lie on both hulls.

    Lesson metrics: ``n`` pairs, ``mean_difference`` (higher minus lower, eV/atom),
    ``mae_uncorrected``, and on pairs left out one at a time ``mae`` and ``coverage_90``;
    ``half_width_90`` of the interval; ``stable_below`` and ``unstable_below``, how many the lower
    level held stable and not, and of these ``flips_to_unstable`` and ``flips_to_stable``.

    Attributes
    ----------
    min_pairs
        Pairs below which nothing is learned.
    prior_uncertainty
        Standard deviation of the difference that is assumed while pairs are few (eV/atom).

    References
    ----------
    Distances to the hull by CHGNet and by MACE-MP-0 deviate from DFT by 0.10 eV/atom
    (root-mean-square): Riebesell et al., Nat. Mach. Intell. 7, 836 (2025).
    """

    min_pairs: int = 3
    prior_uncertainty: float = 0.1

    resource: ClassVar[str] = RESOURCE

    def __post_init__(self) -> None:
        if self.min_pairs < 2:
            raise ValueError(f"min_pairs must be at least 2, got {self.min_pairs}")
        if not self.prior_uncertainty > 0:
            raise ValueError(f"prior_uncertainty must be positive, got {self.prior_uncertainty}")

    def learn(
        self, history: Sequence[Observation], objective: Objective, seed: int
    ) -> Lesson | None:
        """Return the correction as the lesson; None while there are too few pairs."""
        del seed
        pairs = [
            (item, *item.on_shared_hull)
            for item in history
            if item.on_shared_hull is not None and np.isfinite(item.on_shared_hull).all()
        ]
        if len(pairs) < self.min_pairs:
            return None
        lower = np.array([low for _, low, _ in pairs])
        difference = np.array([high - low for _, low, high in pairs])
        features = features_of([item.final.structure.composition for item, _, _ in pairs], lower)
        correction = Correction.fit(features, difference, self.prior_uncertainty)
        unseen = leave_one_out(features, difference, self.prior_uncertainty)
        stable = [(objective.stable(low), objective.stable(high)) for _, low, high in pairs]
        metrics = {
            "n": len(pairs),
            "mean_difference": np.mean(difference),
            "mae_uncorrected": np.mean(np.abs(difference)),
            "mae": np.mean(np.abs(unseen.error)),
            "coverage_90": np.mean(unseen.inside),
            "half_width_90": correction.factor,
            "stable_below": sum(low for low, _ in stable),
            "unstable_below": sum(not low for low, _ in stable),
            "flips_to_unstable": sum(low and not high for low, high in stable),
            "flips_to_stable": sum(high and not low for low, high in stable),
        }
        numbers = {name: float(value) for name, value in metrics.items()}
        return Lesson(correction.to_bytes(), MEDIA_TYPE, numbers)
