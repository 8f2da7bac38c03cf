"""Predict what costly stages would find, from the campaign's own results."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from monty.json import MSONable

from matloop.documents.candidate import PREDICTED, Candidate, Quantity
from matloop.documents.evaluation import Cost, Evaluation
from matloop.protocols import Resources
from matloop.surrogates.descriptors import describe_all
from matloop.surrogates.ensemble import load


@dataclass(frozen=True)
class Surrogate(MSONable):
    """Predict final quantities with uncertainties, by what the campaign has learned so far.

    Every quantity ``x`` that the surrogate was trained on is reported as ``predicted_x``, in the
    unit of ``x``, with one calibrated standard deviation; ``out_of_domain`` says how far the
    crystal lies from the training data (0.5 is typical, 1 is farther out than all of it). No
    crystal is rejected: selectors decide. Before the first lesson every crystal passes without a
    prediction. A crystal that has no descriptor fails.
    """

    produces: ClassVar[Mapping[str, str]] = {f"{PREDICTED}*": "", "out_of_domain": ""}
    requires: ClassVar[tuple[str, ...]] = ()
    resources: ClassVar[tuple[str, ...]] = ("surrogate",)
    scope: ClassVar[Literal["candidate", "batch"]] = "candidate"

    def evaluate(self, candidates: Sequence[Candidate], resources: Resources) -> list[Evaluation]:
        """Return one evaluation per candidate, in order."""
        started = time.perf_counter()
        features, failures = describe_all([candidate.structure for candidate in candidates])
        quantities: list[dict[str, Quantity]] = [{} for _ in candidates]
        described = np.array([i for i in range(len(candidates)) if i not in failures], dtype=int)
        path = resources.paths.get("surrogate")
        if path is not None and len(described):
            model = load(path, resources.digests["surrogate"])
            distances = model.out_of_domain(features[described])
            for row, distance in zip(described, distances, strict=True):
                quantities[row]["out_of_domain"] = Quantity(value=float(distance))
            for name, prediction in model.predict(features[described]).items():
                for row, mean, spread in zip(
                    described, prediction.mean, prediction.spread, strict=True
                ):
                    quantities[row][f"{PREDICTED}{name}"] = Quantity(
                        value=float(mean), unit=model.units[name], uncertainty=float(spread)
                    )
        cost = Cost(seconds=(time.perf_counter() - started) / max(len(candidates), 1))
        return [
            Evaluation(
                candidate_id=candidate.candidate_id,
                verdict="fail" if index in failures else "pass",
                reason=_reason(failures.get(index), quantities[index]),
                quantities=quantities[index],
                cost=cost,
            )
            for index, candidate in enumerate(candidates)
        ]


def _reason(failure: str | None, quantities: Mapping[str, Quantity]) -> str:
    if failure is not None:
        return f"no descriptor: {failure}"
    predicted = [
        f"{name} {quantity.value:.3g} ± {quantity.uncertainty:.2g} {quantity.unit}".rstrip()
        for name, quantity in quantities.items()
        if quantity.uncertainty is not None
    ]
    return ", ".join(predicted) or "no surrogate yet"
