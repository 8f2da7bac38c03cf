"""The share of a screening campaign's time that is spent outside the model.

One iteration with a real potential, from proposals to learning, in one process of one thread:
random symmetric crystals, rules, uniqueness and novelty, relaxation with CHGNet, distance to the
hull. Printed: processor time inside the model (graphs, network and its derivatives), of the
relaxation around it, of the other evaluators, of the generator, and of all else. Relaxing the
reference phases counts as well. ``python -m benchmarks.screening --count 300 --optimizers fire``
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import warnings
from pathlib import Path
from typing import Any

from benchmarks.funnel import Clock
from matloop.documents.campaign import Campaign

MODEL, RELAXATION = "model", "relaxation around the model"
EVALUATORS, GENERATOR, REST = "other evaluators", "generator", "all else"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--system", default="Sr-Ti-O")
    parser.add_argument("--optimizers", nargs="+", default=["fire", "bfgs"])
    parser.add_argument("--json", type=Path, help="write the numbers here")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    rows = []
    for optimizer in options.optimizers:
        row = measure(options.system, options.count, optimizer)
        rows.append(row)
        total = sum(row["seconds"].values())
        print(
            f"{optimizer}: {row['relaxed']} of {row['candidates']} candidates of {options.system} "
            f"relaxed, {total:.1f} s; outside the model {100 * outside(row):.1f} %"
        )
        for part, seconds in sorted(row["seconds"].items(), key=lambda item: -item[1]):
            each = 1e3 * seconds / row["candidates"]
            print(f"  {part:28s} {100 * seconds / total:5.1f} %  {each:8.2f} ms per candidate")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


def outside(row: dict[str, Any]) -> float:
    """Return the share of a row's time that is not the model's."""
    return 1 - float(row["seconds"][MODEL]) / sum(row["seconds"].values())


def campaign(system: str, count: int, optimizer: str) -> Campaign:
    """Return a screening of random symmetric crystals."""
    relaxation = {"use": "relaxation", "parameters": {"optimizer": optimizer}}
    return Campaign.model_validate(
        {
            "name": "screening",
            "seed": 0,
            "space": {"system": system, "max_atoms": 12},
            "objective": {"minimize": "e_above_hull"},
            "references": {"templates": False},
            "generators": ["random_symmetric"],
            "stages": [
                {"name": "validity", "evaluate": ["minimum_distance", "cell"], "workers": 0},
                {"name": "new", "evaluate": ["uniqueness", "novelty"], "workers": 0},
                {"name": "relaxation", "evaluate": [relaxation], "workers": 0},
                {"name": "stability", "evaluate": ["symmetry", "hull_distance"], "workers": 0},
            ],
            "feedback": "off",
            "budget": {"iterations": 1, "candidates": count},
        }
    )


def measure(system: str, count: int, optimizer: str) -> dict[str, Any]:
    """Run one campaign in this process and return where its time went (s)."""
    from matloop.evaluators.mlip.model import load_model
    from matloop.evaluators.mlip.relaxation import Relaxation
    from matloop.generators.random_symmetric import RandomSymmetric
    from matloop.jobs import workers
    from matloop.launch.local import run
    from matloop.ledger.opening import read_ledger

    clock = Clock()
    potential = type(load_model("chgnet", {}))
    changed = [
        (workers, "evaluate_chunk", EVALUATORS),
        (Relaxation, "evaluate", RELAXATION),
        (potential, "predict", MODEL),
        (RandomSymmetric, "propose", GENERATOR),
    ]
    plain = [(owner, name, getattr(owner, name)) for owner, name, _ in changed]
    for owner, name, part in changed:
        clock.wrap(owner, [name], part)
    try:
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder) / "run"
            clock.timed(REST, run)(campaign(system, count, optimizer), place)
            ledger = read_ledger(place)
            relaxed = len(ledger.decisions("screening", 0, "relaxation"))
            ledger.close()
    finally:
        for owner, name, call in plain:
            setattr(owner, name, call)
    return {
        "system": system,
        "optimizer": optimizer,
        "candidates": count,
        "relaxed": relaxed,
        "seconds": dict(clock.seconds),
    }


if __name__ == "__main__":
    main()
