"""How much the surrogate and its selector gain over chance, replayed on computed crystals.

A pool of crystals with known results stands in for a campaign: each iteration refits the surrogate
on what has been bought, predicts the rest and buys a batch, all by the registered plugins with
their defaults unless stated. Prints JSON: quality of the predictions on crystals not bought, time
per crystal, and discoveries at the end of the budget over those expected by chance.

Data: CSV files with the columns ``cif`` and a result. Run ``python benchmarks/surrogate.py --data
FOLDER``; about five minutes on one core.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd
from pymatgen.core import Structure

from matloop.documents.candidate import Candidate, Origin, Quantity
from matloop.documents.objective import Objective
from matloop.evaluators.surrogate import Surrogate
from matloop.learners.surrogate import SurrogateRefit
from matloop.protocols import Judged, Observation, Resources, SelectionRequest, Selector
from matloop.selectors.expected_utility import ExpectedUtility
from matloop.selectors.ranking import Random
from matloop.surrogates.calibration import Residuals, quality
from matloop.surrogates.descriptors import describe_all

SELECTORS: dict[str, Selector] = {
    "default": ExpectedUtility(),
    "expected_utility": ExpectedUtility(acquisition="expected_utility"),
    "ucb": ExpectedUtility(acquisition="ucb", beta=1.0),
    "probability_of_discovery": ExpectedUtility(acquisition="probability_of_discovery"),
    "thompson": ExpectedUtility(acquisition="thompson"),
    "no_diversity": ExpectedUtility(diversity=0.0, formula_share=1.0),
    "no_random": ExpectedUtility(random_share=0.0),
    "random": Random(),
}


@dataclass(frozen=True)
class Case:
    """A table of computed crystals, and what to look for in it."""

    file: str
    column: str
    name: str
    unit: str
    share: float
    maximize: bool = False

    def objective(self, target: np.ndarray) -> Objective:
        """Return the objective whose discoveries are the best `share` of the target."""
        limit = float(np.quantile(target, 1.0 - self.share if self.maximize else self.share))
        relation = ">=" if self.maximize else "<="
        discovery = f"{self.name} {relation} {limit:.6f} {self.unit}"
        if self.maximize:
            return Objective(maximize=self.name, discovery=discovery)
        return Objective(minimize=self.name, discovery=discovery)


CASES = {
    "wbm_hull": Case("wbm_candidates.csv.gz", "e_above_hull_dft", "e_above_hull", "eV/atom", 0.1),
    "carbon_energy": Case("carbon24_val.csv.gz", "energy_per_atom", "energy", "eV/atom", 0.1),
    "aflow_bulk_modulus": Case(
        "aflow_bulk_modulus_val.csv.gz", "bulk_modulus", "bulk_modulus", "GPa", 0.1, maximize=True
    ),
}


def main() -> None:
    """Run the benchmark as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the CSV files")
    parser.add_argument("--pool", type=int, default=600, help="crystals per replay")
    parser.add_argument("--budget", type=float, default=0.2, help="share of the pool bought")
    parser.add_argument("--batches", type=int, default=6, help="iterations")
    parser.add_argument("--seeds", type=int, default=3, help="replays per selector")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--selectors", nargs="+", choices=SELECTORS, default=["default", "random"])
    options = parser.parse_args()
    report = {}
    for name in options.cases:
        case = CASES[name]
        candidates, results, milliseconds = _load(options.data / case.file, case)
        report[name] = {
            "crystals": len(candidates),
            "ms_per_descriptor": milliseconds,
            "selectors": {
                key: _summary(
                    [
                        _replay(candidates, results, case, SELECTORS[key], seed, options)
                        for seed in range(options.seeds)
                    ]
                )
                for key in options.selectors
            },
        }
    print(json.dumps({"options": vars(options) | {"data": str(options.data)}, "cases": report}))


def _load(path: Path, case: Case) -> tuple[list[Candidate], np.ndarray, float]:
    table = pd.read_csv(path)
    structures = [Structure.from_str(text, fmt="cif") for text in table["cif"]]
    start = time.process_time()
    _, failures = describe_all(structures)
    milliseconds = 1e3 * (time.process_time() - start) / len(structures)
    kept = [index for index in range(len(structures)) if index not in failures]
    origin = Origin(generator="table")
    candidates = [
        Candidate(candidate_id=str(index), structure=structures[index], origin=origin)
        for index in kept
    ]
    return candidates, table[case.column].to_numpy(dtype=float)[kept], milliseconds


def _replay(
    everything: Sequence[Candidate],
    results: np.ndarray,
    case: Case,
    selector: Selector,
    seed: int,
    options: argparse.Namespace,
) -> dict[str, float]:
    rows = np.random.default_rng(seed).permutation(len(everything))[: options.pool].tolist()
    target = dict(zip([everything[row].candidate_id for row in rows], results[rows], strict=True))
    objective = case.objective(results[rows])
    left = [everything[row] for row in rows]
    size = max(round(options.budget * len(rows) / options.batches), 1)
    history: list[Observation] = []
    last: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for iteration in range(options.batches):
            lesson = SurrogateRefit().learn(history, objective, seed)
            resources = Resources()
            if lesson is not None:
                path = Path(folder) / "surrogate.npz"
                path.write_bytes(lesson.content)
                digest = sha256(lesson.content).hexdigest()
                resources = Resources({"surrogate": path}, {"surrogate": digest})
            evaluations = Surrogate().evaluate(left, resources)
            batch = [
                Judged(candidate.updated(None, evaluation.quantities), (evaluation,))
                for candidate, evaluation in zip(left, evaluations, strict=True)
            ]
            if lesson is not None:
                last = _quality(batch, target, case.name)
            request = SelectionRequest(objective, seed * 1000 + iteration, size)
            choices = selector.select(batch, request)
            for judged, choice in zip(batch, choices, strict=True):
                if choice.outcome == "passed":
                    history.append(_bought(judged.candidate, target, case, objective, iteration))
            bought = {item.final.candidate_id for item in history}
            left = [candidate for candidate in left if candidate.candidate_id not in bought]
    every = sum(
        objective.is_discovery({case.name: Quantity(value=value, unit=case.unit)})
        for value in target.values()
    )
    found = sum(item.discovery for item in history)
    return {
        "bought": float(len(history)),
        "discoveries": float(found),
        "enhancement": found / (every * len(history) / len(rows)),
        **{f"unseen_{key}": value for key, value in last.items()},
    }


def _quality(batch: Sequence[Judged], target: dict[str, float], name: str) -> dict[str, float]:
    predicted = [judged.candidate.quantities[f"predicted_{name}"] for judged in batch]
    return quality(
        Residuals(
            np.array([target[judged.candidate.candidate_id] for judged in batch]),
            np.array([quantity.value for quantity in predicted]),
            np.array([quantity.uncertainty for quantity in predicted], dtype=float),
        )
    )


def _bought(
    candidate: Candidate, target: dict[str, float], case: Case, objective: Objective, turn: int
) -> Observation:
    value = Quantity(value=target[candidate.candidate_id], unit=case.unit, theory="table")
    final = candidate.updated(None, {case.name: value})
    return Observation(
        proposed=candidate,
        final=final,
        iteration=turn,
        generator="table",
        utility=objective.utility(final.quantities),
        discovery=objective.is_discovery(final.quantities),
        work=float(len(candidate.structure)),
    )


def _summary(replays: Sequence[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Return mean and sample standard deviation over seeds of every number."""
    return {
        key: {
            "mean": round(float(np.mean([replay[key] for replay in replays])), 4),
            "sd": round(float(np.std([replay[key] for replay in replays], ddof=1)), 4)
            if len(replays) > 1
            else 0.0,
        }
        for key in replays[0]
        if all(key in replay for replay in replays)
    }


if __name__ == "__main__":
    main()
