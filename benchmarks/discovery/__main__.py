"""Replay discovery on data with known truth: ``python -m benchmarks.discovery wbm --data FILE``.

Prints one JSON document, or a table of the main numbers without ``--json``. A mistake in the data
or in the options is one line on the error stream and exit code 2.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import feedback
from benchmarks.discovery import composition, live, oqmd, wbm
from benchmarks.discovery.measures import Campaign, compared, measured
from benchmarks.discovery.policies import DEFAULT, Policy, choose, policies
from benchmarks.discovery.problem import Problem, drawn, halved
from benchmarks.discovery.replay import replay
from matloop.errors import ConfigurationError, MatloopError

BUDGET = 0.2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; return the exit code."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.ERROR)  # cells that are no standard setting, row by row
    warnings.simplefilter("ignore", UserWarning)  # numbers in a cif that are rounded, row by row
    try:
        _check(options)
        report = live.report(options) if options.benchmark == "live" else run(options)
    except MatloopError as error:
        print(f"benchmarks.discovery: {str(error).splitlines()[0]}", file=sys.stderr)
        return 2
    text = json.dumps(report, indent=None if options.json else 1)
    _write(report, options.out)
    print(text if options.json else _readable(report))
    return 0


def run(options: argparse.Namespace) -> dict[str, object]:
    """Return the report of a benchmark: one policy's numbers, or those of several by name.

    With ``--out`` the file is written anew after each policy, so that a long run can be read early.
    """
    seeds = list(range(options.first_seed, options.first_seed + options.seeds))
    problems = _problems(options, seeds)
    known = [policies(problem) for problem in problems]  # a policy may know its own pool
    chosen = choose(problems[0], options.policy)
    baselines = ["random", *(f"greedy:{name}" for name in problems[0].estimates)]
    campaigns: dict[str, list[Campaign]] = {}
    results: dict[str, dict[str, object]] = {}
    for name in dict.fromkeys([*baselines, *chosen]):
        started = time.process_time()
        campaigns[name] = [
            _campaign(problem, of[name], seed, options)
            for problem, of, seed in zip(problems, known, seeds, strict=True)
        ]
        seconds = round(time.process_time() - started, 1)
        found = [int(campaign.found[-1]) for campaign in campaigns[name]]
        print(f"{name}: {found} found, {seconds:.0f} s", file=sys.stderr)
        if name not in chosen or not campaigns.keys() >= set(baselines):
            continue
        greedy = {key: campaigns[f"greedy:{key}"] for key in problems[0].estimates}
        sizes = [len(problem.candidates) for problem in problems]
        for key in [key for key in chosen if key in campaigns and key not in results]:
            numbers = compared(campaigns[key], campaigns["random"], greedy, sizes)
            results[key] = numbers | {"cpu_seconds": seconds if key == name else None}
        _write(_report(options, problems, seeds, baselines, campaigns, results), options.out)
    return _report(options, problems, seeds, baselines, campaigns, results)


def _campaign(problem: Problem, policy: Policy, seed: int, options: argparse.Namespace) -> Campaign:
    purchases = _purchases(problem, options)
    batches = min(options.batches, purchases)
    return measured(problem, replay(problem, policy, seed, purchases, batches))


def _report(
    options: argparse.Namespace,
    problems: Sequence[Problem],
    seeds: Sequence[int],
    baselines: Sequence[str],
    campaigns: Mapping[str, Sequence[Campaign]],
    results: Mapping[str, Mapping[str, object]],
) -> dict[str, object]:
    sizes = [len(problem.candidates) for problem in problems]
    stable = [int(problem.stable.sum()) for problem in problems]
    report: dict[str, object] = {
        "benchmark": options.benchmark,
        "data": options.data.name,
        "seeds": list(seeds),
        "pool": sizes,
        "discoverable": stable,
        "prevalence": [round(found / size, 4) for found, size in zip(stable, sizes, strict=True)],
        "budget": options.budget,
        "purchases": [_purchases(problem, options) for problem in problems],
        "batches": options.batches,
        "threshold_eV_per_atom": options.threshold,
        "half": getattr(options, "half", None),
        "notes": dict(problems[0].notes),
        "baseline_discoveries": {
            name: [int(campaign.found[-1]) for campaign in campaigns[name]] for name in baselines
        },
    }
    if len(options.policy) == 1 and len(results) == 1:
        name = next(iter(results))
        return {"policy": name, **results[name], **report}
    return {**report, "policies": dict(results)}


def _write(report: Mapping[str, object], out: Path | None) -> None:
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def _problems(options: argparse.Namespace, seeds: Sequence[int]) -> list[Problem]:
    if options.benchmark == "composition":
        return composition.load(
            options.data,
            options.predictions,
            seeds,
            options.pool or composition.POOL,
            options.elements,
            options.threshold,
        )
    if options.benchmark == "wbm":
        problem = wbm.load(options.data, options.hull, options.threshold)
    else:
        problem = oqmd.load(options.data, options.threshold)
    if options.half:
        problem = halved(problem, options.half)
    if options.pool:
        return [drawn(problem, options.pool, seed) for seed in seeds]
    return [problem] * len(seeds)


def _purchases(problem: Problem, options: argparse.Namespace) -> int:
    return max(round(options.budget * len(problem.candidates)), 1)


def _check(options: argparse.Namespace) -> None:
    checks = [("seeds", options.seeds >= 1)]
    if options.benchmark != "live":
        checks += [("batches", options.batches >= 1), ("budget", 0 < options.budget <= 1)]
        checks += [("pool", options.pool is None or options.pool >= 2)]
    for name, fine in checks:
        if not fine:
            given = getattr(options, name)
            wanted = {"budget": "above 0 and at most 1", "pool": "at least 2"}.get(
                name, "at least 1"
            )
            raise ConfigurationError(f"--{name} {given}: must be {wanted}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.discovery", description=__doc__)
    commands = parser.add_subparsers(dest="benchmark", required=True)
    for module in (wbm, composition, oqmd):
        name = module.__name__.rsplit(".", 1)[1]
        _common(commands.add_parser(name, help=(module.__doc__ or "").splitlines()[0]))
    for name in ("wbm", "oqmd"):
        commands.choices[name].add_argument(
            "--half", choices=("first", "second"), help="only one half of the data, cut by lot"
        )
    own = commands.choices["wbm"]
    own.add_argument("--hull", type=Path, help="CSV of known compounds: formula, Ef")
    own = commands.choices["composition"]
    own.add_argument("--predictions", type=Path, help="CSV of cheap results: formula, Ef_pred_*")
    own.add_argument("--elements", type=int, default=3, help="of a withheld system")
    own = commands.add_parser("live", help=(live.__doc__ or "").splitlines()[0])
    own.add_argument("--data", type=Path, help="result of benchmarks.feedback; runs it without")
    own.add_argument("--systems", nargs="+", choices=feedback.SYSTEMS, default=["Al-Ni"])
    own.add_argument("--iterations", type=int, default=5)
    own.add_argument("--keep", type=int, default=24, help="relaxations per iteration")
    own.add_argument("--dir", type=Path, default=Path("runs/feedback"))
    _shared(own)
    return parser


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--policy", nargs="+", default=[DEFAULT], help="names, or all")
    parser.add_argument("--budget", type=float, default=BUDGET, help="share of the pool bought")
    parser.add_argument("--batches", type=int, default=6)
    parser.add_argument("--pool", type=int, help="candidates per pool, drawn by lot for each seed")
    parser.add_argument("--threshold", type=float, default=0.0, help="eV/atom above the hull")
    _shared(parser)


def _shared(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print JSON on one line")
    parser.add_argument("--out", type=Path, help="write JSON to a file as well")


def _readable(report: dict[str, object]) -> str:
    many = report.get("policies")
    rows = many if isinstance(many, dict) else {report["policy"]: report}
    columns = ("discoveries", "enhancement_at_20pct", "acceleration", "audc", "coverage_90")
    columns += ("unbought_coverage_90",)
    heads = [*columns, "p_worse_than_random"]
    lines = ["policy".ljust(30) + "".join(head.rjust(22) for head in heads)]
    for name, numbers in rows.items():
        cells = []
        for column in columns:
            value = numbers.get(column, {"mean": None, "spread": None})
            mean, spread = value["mean"], value["spread"]
            cells.append("-" if mean is None else f"{mean:.3f} ({spread or 0:.3f})")
        p_value = numbers["p_worse_than_random"]
        cells.append("-" if p_value is None else f"{p_value:.3f}")
        lines.append(str(name).ljust(30) + "".join(cell.rjust(22) for cell in cells))
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
