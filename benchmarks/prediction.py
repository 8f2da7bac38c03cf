"""Structure prediction: formula and number of atoms are given, the crystal is to be found.

Run ``python -m benchmarks.prediction --crystals mp_structures.csv.gz --model wyckoff``. The table
of crystals needs the columns ``cif`` and ``split``; targets are drawn from ``val``, with at most 20
atoms in the primitive cell, and those whose formula ``train`` lacks are counted apart as well. A
target is met when a structurally valid sample matches it (ltol 0.3, stol 0.5, 10°, as in CDVAE).
Seconds are processor time of one process.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
import warnings
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from pymatgen.core import Composition

from benchmarks.generators import drawn, splits
from matloop.generators.neural.architecture import Conditions, SampleRequest
from matloop.generators.neural.guidance import PotentialEnergy
from matloop.generators.neural.model_file import TrainedModel, load_model, model_path
from matloop.generators.neural.representations.orbits import SYMPREC
from matloop.generators.neural.sampling import draw
from matloop.metrics.figures import interval
from matloop.metrics.prediction import predict
from matloop.metrics.verdicts import judge_alone
from matloop.structures.reading import Record


def main() -> None:
    """Sample, match, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--crystals", type=Path, required=True, help="CSV with cif and split")
    parser.add_argument("--model", nargs="+", default=["wyckoff"], help="shipped, or files")
    parser.add_argument("--count", type=int, default=120, help="targets")
    parser.add_argument("--samples", type=int, default=20, help="of each target")
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--potential", default="", help="chooses cells and coordinates")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, default=Path("runs/generators"))
    parser.add_argument("--json", type=Path, help="write the numbers here")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("moyo").setLevel(logging.ERROR)
    options.cache.mkdir(parents=True, exist_ok=True)
    train, held_out = splits(options.crystals, options.cache)
    order = drawn(held_out, options.seed)
    places = [place for _, place in zip(range(options.count), order, strict=False)]
    targets = [
        Record(held_out.ids[place], f"target{number}", "", held_out.structure(place), "")
        for number, place in enumerate(places)
    ]
    known = set(train.formulas)
    rows = [
        measure(load_model(model_path(name)), name, targets, known, options)
        for name in options.model
    ]
    for row in rows:
        print(json.dumps(row))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


def measure(
    model: TrainedModel,
    name: str,
    targets: Sequence[Record],
    known: Collection[str],
    options: argparse.Namespace,
) -> dict[str, Any]:
    """Return how many targets are met by one sample and by all, with denominators."""
    started = time.process_time()
    records: list[Record] = []
    for number, target in enumerate(targets):
        crystal = target.structure
        assert crystal is not None
        formula, _ = crystal.composition.get_reduced_formula_and_factor()
        asked = SampleRequest(
            count=options.samples,
            seed=options.seed + number,
            conditions=Conditions(
                formula={str(e): int(n) for e, n in Composition(formula).items()},
                n_atoms=len(crystal),
            ),
            temperature=options.temperature,
            penalty=PotentialEnergy(options.potential) if options.potential else None,
        )
        for index, structure in enumerate(draw(model, asked, distinct=False).structures):
            label = f"{target.label}_{index}"
            records.append(Record(label, label, "", structure, ""))
    seconds = time.process_time() - started
    verdicts = judge_alone(records, SYMPREC)
    row: dict[str, Any] = {
        "model": name,
        "temperature": options.temperature,
        "potential": options.potential,
        "seed": options.seed,
        "seconds_per_target": seconds / len(targets),
    }
    strange = {one.label for one in targets if one.structure.reduced_formula not in known}
    for title, chosen, most in (
        ("all", None, options.samples),
        ("first_sample", None, 1),
        ("formulas_not_in_train", strange, options.samples),
    ):
        wanted = [one for one in targets if chosen is None or one.label in chosen]
        own = [
            place
            for place, record in enumerate(records)
            if record.label.split("_")[0] in {one.label for one in wanted}
            and int(record.label.split("_")[1]) < most
        ]
        found = predict([records[i] for i in own], [verdicts[i] for i in own], wanted)
        low, high = interval(found.matched, len(wanted))
        row[title] = {
            "match_rate": found.matched / len(wanted),
            "match_rate_count": found.matched,
            "match_rate_denominator": len(wanted),
            "interval_95": [low, high],
            "samples": most,
            "rmse": found.rmse,
        }
    return row


if __name__ == "__main__":
    main()
