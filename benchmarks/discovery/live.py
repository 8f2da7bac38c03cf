"""Live: campaigns with real generators and CHGNet as the oracle, with feedback and without."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import feedback
from benchmarks.discovery.measures import Campaign, area, compared
from matloop.errors import ConfigurationError

OWN, CHANCE = feedback.ARMS


def report(options: argparse.Namespace) -> dict[str, object]:
    """Return the measures of every chemical system.

    Without ``--data`` the campaigns of `benchmarks.feedback` are run, one after the other, or read
    where they have already run. Random choice is the arm without feedback; a discovery is a
    distinct phase within 0.05 eV/atom of the hull that is pooled over all runs of a system. There
    is no pool: a fifth is that of the relaxations.
    """
    rows = _read(options.data) if options.data is not None else _run(options)
    systems: dict[str, dict[str, list[Campaign]]] = {}
    for row in rows:
        campaign = _campaign(row)
        systems.setdefault(row["system"], {}).setdefault(row["arm"], []).append(campaign)
    results: dict[str, object] = {}
    for system, arms in systems.items():
        if not arms.get(OWN) or len(arms.get(OWN, ())) != len(arms.get(CHANCE, ())):
            raise ConfigurationError(f"{system}: needs both arms with the same number of seeds")
        sizes = [round(campaign.bought[-1]) for campaign in arms[OWN]]
        numbers = compared(arms[OWN], arms[CHANCE], {}, sizes)
        numbers["baseline_discoveries"] = [int(c.found[-1]) for c in arms[CHANCE]]
        numbers["seeds"] = [
            row["seed"] for row in rows if (row["system"], row["arm"]) == (system, OWN)
        ]
        results[system] = numbers
    return {
        "benchmark": "live",
        "data": options.data.name if options.data is not None else "own runs",
        "near_eV_per_atom": feedback.NEAR,
        "policies": results,
    }


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["runs"]
        for row in rows:
            row["system"], row["arm"], row["seed"], row["relaxations"], row["found_at_relaxation"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(
            f"{path}: is no result of benchmarks.feedback: {error!r}"
        ) from error
    return sorted(rows, key=lambda row: (row["system"], row["arm"], row["seed"]))


def _run(options: argparse.Namespace) -> list[dict[str, Any]]:
    rows = []
    for system in options.systems:
        seeds = range(options.first_seed, options.first_seed + options.seeds)
        jobs = [
            (system, seed, arm, options.iterations, options.keep, str(options.dir))
            for seed in seeds
            for arm in feedback.ARMS
        ]
        rows += feedback.judged([feedback.execute(job) for job in jobs], options.dir)
    return rows


def _campaign(row: Mapping[str, Any]) -> Campaign:
    bought = np.arange(row["relaxations"] + 1, dtype=float)
    steps: Sequence[int] = row["found_at_relaxation"]
    found = np.array([sum(step <= count for step in steps) for count in bought], dtype=float)
    numbers = {
        "bought": float(row["relaxations"]),
        "discoveries": float(len(steps)),
        "audc": area(bought, found),
    }
    if row.get("work"):
        numbers["discoveries_per_million_atom_forces"] = 1e6 * len(steps) / float(row["work"])
    return Campaign(bought, found, numbers, [])
