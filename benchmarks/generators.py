"""Generators under one judge: samples of every side, one protocol, one table.

Run ``python -m benchmarks.generators --crystals mp_structures.csv.gz --count 60``. The table of
crystals needs the columns ``cif`` and ``split``; ``train`` is the reference of novelty and of the
hull, ``val`` holds the real crystals that stand in as a ceiling, and whose chemical systems are
asked for: the same ones of every generator of matloop, one crystal each, at most 20 atoms, charge
balance required unless all elements are metals. Published samples are named with ``--samples
NAME=FILE``, learned generators with ``--model NAME=FILE``; they are asked for crystals on the hull,
as `matloop new` does, where they were trained with that property.

All sides are relaxed with CHGNet and placed on the hull of the reference crystals of their systems,
relaxed alike. Samples, relaxations and energies are kept in ``--cache``: a killed run goes on where
it was, and a larger one starts from a smaller one. Seconds are processor time of one process.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pymatgen.core import Element, Structure

from matloop import registry
from matloop.atomic import whole_file
from matloop.documents.space import ChemicalSpace
from matloop.evaluators.mlip.relaxation import Relaxation
from matloop.generators.neural.model_file import load_model, model_path
from matloop.ledger.opening import open_ledger
from matloop.metrics.evaluation import Protocol, assess
from matloop.metrics.figures import interval
from matloop.metrics.hull import Judge
from matloop.metrics.reference import Reference, load_reference
from matloop.protocols import Generator, Parent, ProposalRequest
from matloop.structures.reading import Record, read_records

BASELINES = ("random_symmetric", "substitution", "evolution")
REAL = "real crystals"
MAX_ATOMS = 20
TEMPLATES = 200
COLUMNS = {
    "n": "n",
    "structural_validity": "valid",
    "smact_validity_legacy": "neutral",
    "unique": "unique",
    "novel": "novel",
    "p1": "P1",
    "relaxed": "relaxed",
    "energy_drop_median": "drop, eV/atom",
    "rmsd_mean": "RMSD, Å",
    "stable_mattergen": "e_hull ≤ 0.1",
    "stable": "stable",
    "sun": "S.U.N.",
    "msun": "M.S.U.N.",
    "sun_mattergen": "S.U.N. ≤ 0.1",
    "samples_per_second": "samples/s",
    "seconds_per_msun": "s per M.S.U.N.",
}


@dataclass(frozen=True)
class Made:
    """Samples of one side, and what making them took (s), if known."""

    records: list[Record]
    seconds: float | None = None


Side = Callable[[int], Made]
"""Returns so many samples."""


def main() -> None:
    """Sample, judge, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--crystals", type=Path, required=True, help="CSV with cif and split")
    parser.add_argument("--count", type=int, default=60, help="samples of each side")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sides", nargs="*", default=[REAL, *BASELINES], help="also: none")
    parser.add_argument("--samples", nargs="*", default=[], help="published samples, NAME=FILE")
    parser.add_argument("--model", nargs="*", default=[], help="learned generators, NAME=FILE")
    parser.add_argument("--energies", type=int, default=1000, help="of held-out crystals")
    parser.add_argument("--cache", type=Path, default=Path("runs/generators"))
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--output", type=Path, default=Path(__file__).parent / "results/generators.json"
    )
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("moyo").setLevel(logging.ERROR)  # it warns of cells that are not primitive
    options.cache.mkdir(parents=True, exist_ok=True)
    train, held_out = splits(options.crystals, options.cache)
    rows = measured_before(options)
    with closing(open_ledger(options.cache, create=True)) as ledger:
        parameters: dict[str, bool | int | float | str] = {"device": options.device}
        relaxation = Relaxation(model="chgnet", model_parameters=parameters, max_steps=500)
        judge = Judge(relaxation, ledger, options.workers)
        for name, side in sides(options, train, held_out).items():
            made = side(options.count)
            protocol = Protocol(
                judge=judge,
                held_out=held_out,
                seconds=made.seconds,
                energies=options.energies,
                cache=options.cache,
            )
            found = assess(made.records, train, protocol, name, partial(_say, name, {}))
            rows[name] = found.figures
            write(options.output, rows, options)
    print(table(rows))


def sides(options: argparse.Namespace, train: Reference, held_out: Reference) -> dict[str, Side]:
    """Return what makes the samples of each side, by name."""
    found: dict[str, Side] = {}
    for name in options.sides:
        if name == REAL:
            found[name] = partial(real, held_out, options.seed)
        elif name != "none":
            generator = registry.build("generators", name, {})
            found[name] = partial(generated, name, generator, train, held_out, options)
    for text in options.samples:
        name, _, file = text.partition("=")
        found[name] = partial(published, Path(file), options.seed)
    for text in options.model:
        name, _, file = text.partition("=")
        known = load_model(model_path(file)).card.properties
        asked = {"e_above_hull": 0.0} if "e_above_hull" in known else {}
        learned = registry.build("generators", "learned", {"weights": file, "properties": asked})
        found[name] = partial(generated, name, learned, train, held_out, options)
    return found


def real(held_out: Reference, seed: int, count: int) -> Made:
    """Return held-out crystals, in the order in which their systems are asked for."""
    places = [place for _, place in zip(range(count), drawn(held_out, seed), strict=False)]
    return Made([_record(held_out.ids[i], held_out.structure(i)) for i in places])


def published(file: Path, seed: int, count: int) -> Made:
    """Return some of the published samples, drawn at random."""
    records = read_records([file])
    order = np.random.default_rng(seed).permutation(len(records))
    return Made([records[i] for i in sorted(order[:count].tolist())])


def generated(
    name: str,
    generator: Generator,
    train: Reference,
    held_out: Reference,
    options: argparse.Namespace,
    count: int,
) -> Made:
    """Return samples of a generator of matloop, one for each system asked for.

    A generator that has nothing for a system is asked for the next one. What was made is kept.
    """
    file = options.cache / f"samples-{name}-{options.seed}.json"
    kept: list[dict[str, Any]] = json.loads(file.read_text()) if file.exists() else []
    for place in _after(kept, drawn(held_out, options.seed)):
        if sum(item["structure"] is not None for item in kept) >= count:
            break
        request = requested(train, held_out, place, options.seed)
        started = time.process_time()
        proposals = generator.propose(request)
        seconds = time.process_time() - started
        structure = proposals[0].structure.as_dict() if proposals else None
        kept.append({"place": place, "seconds": seconds, "structure": structure})
        if len(kept) % 20 == 0:
            _keep(file, kept)
    _keep(file, kept)
    some, seconds = [], 0.0
    for item in kept:
        if len(some) == count:
            break
        seconds += item["seconds"]
        if item["structure"] is not None:
            crystal = Structure.from_dict(item["structure"])
            some.append(_record(f"{name}-{item['place']}", crystal))
    return Made(some, seconds)


def requested(train: Reference, held_out: Reference, place: int, seed: int) -> ProposalRequest:
    """Return the request for one crystal of the chemical system of a held-out crystal."""
    system = held_out.systems[place]
    metallic = all(Element(element).is_metal for element in system)
    space = ChemicalSpace(
        system="-".join(sorted(system)),
        min_elements=len(system),
        max_atoms=MAX_ATOMS,
        charge_balance="off" if metallic else "required",
    )
    rng = np.random.default_rng([seed, place])
    alike = _of_arity(train, len(system))
    templates = rng.choice(alike, min(TEMPLATES, len(alike)), replace=False).tolist()
    known = dict.fromkeys([*train.within([system]), *templates])
    parents = [Parent(train.ids[i], train.structure(i)) for i in known]
    return ProposalRequest(space, 1, int(rng.integers(2**31)), references=parents)


@cache
def _of_arity(train: Reference, elements: int) -> list[int]:
    return [
        i
        for i, system in enumerate(train.systems)
        if len(system) == elements and train.counts[i] <= MAX_ATOMS
    ]


def drawn(held_out: Reference, seed: int) -> Iterator[int]:
    """Return held-out crystals of at most 20 atoms in a random order, that of all sides."""
    for place in np.random.default_rng(seed).permutation(len(held_out)).tolist():
        if held_out.counts[place] <= MAX_ATOMS:
            yield place


def splits(crystals: Path, cache: Path) -> tuple[Reference, Reference]:
    """Return the reference and the held-out crystals of a table."""
    frame = pd.read_csv(crystals)
    found = []
    for split in ("train", "val"):
        file = cache / f"{split}.csv"
        if not file.exists():
            with whole_file(file) as partial_file:
                frame[frame.split == split].to_csv(partial_file, index=False)
        found.append(load_reference([file], cache))
    return found[0], found[1]


def table(rows: dict[str, dict[str, Any]]) -> str:
    """Return the figures as a Markdown table; shares with their 95 % intervals."""
    lines = [
        "| side | " + " | ".join(COLUMNS.values()) + " |",
        "|---" * (len(COLUMNS) + 1) + "|",
    ]
    for name, figures in rows.items():
        cells = [_cell(figures, key) for key in COLUMNS]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def measured_before(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Return the rows of the output that were measured alike, so that sides can be added to it."""
    if not options.output.exists():
        return {}
    content = json.loads(options.output.read_text())
    alike = all(content[name] == getattr(options, name) for name in ("count", "seed", "energies"))
    rows: dict[str, dict[str, Any]] = content["sides"] if alike else {}
    return rows


def write(output: Path, rows: dict[str, dict[str, Any]], options: argparse.Namespace) -> None:
    """Write all figures as JSON, and the table beside it."""
    content = {
        "command": "python -m benchmarks.generators",
        "count": options.count,
        "seed": options.seed,
        "energies": options.energies,
        "sides": rows,
    }
    with whole_file(output) as partial_file:
        partial_file.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    with whole_file(output.with_suffix(".md")) as partial_file:
        partial_file.write_text(table(rows) + "\n")


def _cell(figures: dict[str, Any], key: str) -> str:
    value = figures.get(key)
    if value is None:
        return ""
    if f"{key}_count" in figures:
        low, high = interval(figures[f"{key}_count"], figures[f"{key}_denominator"])
        return f"{100 * value:.0f} % ({100 * low:.0f} to {100 * high:.0f})"
    return f"{value:.3g}"


def _record(name: str, structure: Structure) -> Record:
    return Record(name, name, name, structure, "")


def _after(kept: Sequence[dict[str, Any]], places: Iterator[int]) -> Iterator[int]:
    done = {item["place"] for item in kept}
    return (place for place in places if place not in done)


def _keep(file: Path, kept: Sequence[dict[str, Any]]) -> None:
    with whole_file(file) as partial_file:
        partial_file.write_text(json.dumps(kept))


def _say(name: str, last: dict[str, int], step: str, done: int, total: int) -> None:
    """Print a line at every tenth of a step."""
    tenth = 10 * done // max(total, 1)
    if last.get(step) != tenth:
        last[step] = tenth
        print(f"{time.strftime('%H:%M:%S')} {name}: {step} {done} of {total}", flush=True)


if __name__ == "__main__":
    main()
