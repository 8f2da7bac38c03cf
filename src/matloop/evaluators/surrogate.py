"""Predict what costly stages would find, from the campaign's own results."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
from monty.json import MSONable

from matloop.documents.candidate import PREDICTED, Candidate, Quantity
from matloop.documents.evaluation import Cost, Evaluation
from matloop.errors import ConfigurationError
from matloop.protocols import Resources
from matloop.surrogates.embedding import checkpoint_digest
from matloop.surrogates.estimates import agreed
from matloop.surrogates.fitted import load
from matloop.surrogates.representations import (
    Representation,
    carried,
    checked,
    reading,
    represent,
)


@dataclass(frozen=True)
class Surrogate(MSONable):
    """Predict final quantities with uncertainties, by what the campaign has learned so far.

    Every quantity ``x`` that the surrogate was trained on is reported as ``predicted_x``, in the
    unit of ``x``, with one calibrated standard deviation; ``out_of_domain`` says how far the
    crystal lies from the training data (0.5 is typical, 1 is farther out than all of it). No
    crystal is rejected: selectors decide. Before the first lesson a crystal that carries
    `estimates` is foretold what they agree on, those far from the others counting less; its
    uncertainty is how far they disagree, and `prior_uncertainty` over the root of their number.
    Others pass without a prediction. A crystal that has no descriptor fails.

    Attributes
    ----------
    representation, checkpoint, inputs, estimates
        As the learner has them.
    prior_uncertainty
        Standard deviation of an estimate's error before the first lesson, in its unit.
    """

    representation: Representation = "crystal"
    checkpoint: str = ""
    inputs: tuple[str, ...] = ()
    estimates: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    prior_uncertainty: float = 0.1

    produces: ClassVar[Mapping[str, str]] = {f"{PREDICTED}*": "", "out_of_domain": ""}
    requires: ClassVar[tuple[str, ...]] = ()
    resources: ClassVar[tuple[str, ...]] = ("surrogate",)
    scope: ClassVar[Literal["candidate", "batch"]] = "candidate"

    def __post_init__(self) -> None:
        # JSON has no tuples: a plugin that has travelled must equal the one that was sent.
        estimates = {name: tuple(of) for name, of in self.estimates.items()}
        object.__setattr__(self, "inputs", tuple(self.inputs))
        object.__setattr__(self, "estimates", estimates)
        checked(self.representation, self.checkpoint)
        if not self.prior_uncertainty > 0:
            raise ValueError(f"prior_uncertainty must be positive, got {self.prior_uncertainty}")

    def reads(self) -> tuple[str, ...]:
        """Return the quantities it reads where a candidate has them."""
        return reading(self.inputs, self.estimates)

    def identity(self) -> str:
        """Return the hash of the model file: another one gives other predictions."""
        return checkpoint_digest(self.checkpoint) if self.checkpoint else ""

    def evaluate(self, candidates: Sequence[Candidate], resources: Resources) -> list[Evaluation]:
        """Return one evaluation per candidate, in order.

        Raises
        ------
        ConfigurationError
            If the learner was told of other inputs or another representation.
        """
        started = time.perf_counter()
        structures = [candidate.structure for candidate in candidates]
        features, failures = represent(self.representation, structures, self.checkpoint)
        quantities: list[dict[str, Quantity]] = [{} for _ in candidates]
        described = np.array([i for i in range(len(candidates)) if i not in failures], dtype=int)
        path = resources.paths.get("surrogate")
        if path is None:
            for row in described:
                quantities[row] = self._before(candidates[row])
        elif len(described):
            model = load(path, resources.digests["surrogate"])
            if (model.table.representation, model.table.inputs) != (
                self.representation,
                self.reads(),
            ):
                raise ConfigurationError(
                    "evaluator and learner called surrogate differ in representation, inputs or "
                    "estimates; give both the same"
                )
            if self.checkpoint and (
                model.table.checkpoint_sha256 != checkpoint_digest(self.checkpoint)
            ):
                raise ConfigurationError(
                    f"the surrogate was taught with another model file than {self.checkpoint}; "
                    "give evaluator and learner the same checkpoint"
                )
            inputs = carried([candidate.quantities for candidate in candidates], self.reads())
            table = np.hstack([features, inputs])[described]
            distances = model.out_of_domain(table)
            for row, distance in zip(described, distances, strict=True):
                quantities[row]["out_of_domain"] = Quantity(value=float(distance))
            for name, prediction in model.predict(table).items():
                for row, mean, spread in zip(
                    described, prediction.mean, prediction.spread, strict=True
                ):
                    if np.isfinite(mean):
                        quantities[row][f"{PREDICTED}{name}"] = Quantity(
                            value=float(mean), unit=model.units[name], uncertainty=float(spread)
                        )
        cost = Cost(seconds=(time.perf_counter() - started) / max(len(candidates), 1))
        return [
            Evaluation(
                candidate_id=candidate.candidate_id,
                verdict="fail" if index in failures else "pass",
                reason=_reason(failures.get(index), quantities[index], path is not None),
                quantities=quantities[index],
                cost=cost,
            )
            for index, candidate in enumerate(candidates)
        ]

    def _before(self, candidate: Candidate) -> dict[str, Quantity]:
        """Return what estimates alone foretell, before anything is learned."""
        found = {}
        for name, of in self.estimates.items():
            known = [candidate.quantities[x] for x in of if x in candidate.quantities]
            values = [quantity.value for quantity in known if np.isfinite(quantity.value)]
            if values:
                own = self.prior_uncertainty / np.sqrt(len(values))
                found[f"{PREDICTED}{name}"] = Quantity(
                    value=float(agreed(np.array([values]), self.prior_uncertainty)[0]),
                    unit=known[0].unit,
                    uncertainty=float(np.hypot(own, np.std(values))),
                )
        return found


def _reason(failure: str | None, quantities: Mapping[str, Quantity], learned: bool) -> str:
    if failure is not None:
        return f"no descriptor: {failure}"
    predicted = [
        f"{name} {quantity.value:.3g} ± {quantity.uncertainty:.2g} {quantity.unit}".rstrip()
        for name, quantity in quantities.items()
        if quantity.uncertainty is not None
    ]
    return ", ".join(predicted) or ("it carries no estimate" if learned else "no surrogate yet")
