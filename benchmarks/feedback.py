"""Measure whether feedback beats spending the same relaxations without it.

Runs a campaign with feedback and the same campaign with ``feedback: off`` - same portfolio, same
stages, same number of relaxations per iteration - for several systems and seeds. Yield is the
number of distinct phases within 0.05 eV/atom of one hull that is pooled over all runs of a system,
so that no run is judged by its own ignorance. Distinct means not matched by `StructureMatcher`
(ltol 0.2, stol 0.3, angle 5), neither with each other nor with a reference phase.

    python -m benchmarks.feedback --seeds 3 --out benchmarks/results/feedback.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from matloop.documents.campaign import Campaign

NEAR = 0.05  # eV/atom above the pooled hull
ARMS = ("feedback", "no feedback")

SYSTEMS: dict[str, dict[str, Any]] = {
    "Sr-Ti-O": {
        "space": {"system": "Sr-Ti-O", "charge_balance": "required", "max_atoms": 14},
        "max_elements": 2,
    },
    "Sr-Ti-O-ternaries": {
        "space": {
            "system": "Sr-Ti-O",
            "charge_balance": "required",
            "min_elements": 3,
            "max_atoms": 14,
        },
        "max_elements": 2,
    },
    "Al-Ni": {"space": {"system": "Al-Ni", "max_atoms": 12}, "max_elements": 1},
}


@dataclass(frozen=True)
class Run:
    """One finished campaign.

    Attributes
    ----------
    relaxations
        Candidates relaxed, failures included: the cost.
    work
        Atoms times force evaluations.
    seconds
        Wall time of the run (s), other load included.
    crystals
        Name, formula, energy (eV/atom) and structure of every converged candidate in order of
        relaxation.
    """

    system: str
    seed: int
    arm: str
    relaxations: int
    work: float
    seconds: float
    crystals: list[dict[str, Any]]


def campaign(system: str, seed: int, arm: str, iterations: int, keep: int) -> Campaign:
    """Return the campaign of one run."""
    settings = SYSTEMS[system]
    rules: list[Any] = ["minimum_distance", "cell"]
    if settings["space"].get("charge_balance") == "required":
        rules.append("charge_balance")
    return Campaign.model_validate(
        {
            "name": f"{system.lower()}-{seed}-{arm.replace(' ', '-')}",
            "seed": seed,
            "space": settings["space"],
            "objective": {
                "minimize": "e_above_hull",
                "discovery": f"e_above_hull <= {NEAR} eV/atom",
            },
            "references": {"max_elements": settings["max_elements"], "templates": False},
            "generators": [
                {"use": "random_symmetric"},
                {"use": "substitution"},
                {"use": "evolution"},
            ],
            "stages": [
                {"name": "validity", "evaluate": rules},
                {"name": "unique", "evaluate": ["uniqueness"]},
                {
                    "name": "choice",
                    "evaluate": ["surrogate"],
                    "select": "expected_utility" if arm == "feedback" else "random",
                    "keep": keep,
                },
                {
                    "name": "relaxation",
                    "evaluate": [{"use": "relaxation", "with": {"fmax": 0.1, "max_steps": 250}}],
                    "workers": 0,
                    "chunk": keep,
                },
                {"name": "distinct", "evaluate": ["uniqueness", "novelty"]},
                {"name": "stability", "evaluate": ["symmetry", "hull_distance"]},
            ],
            "feedback": "off" if arm == "no feedback" else {},
            "budget": {"iterations": iterations, "candidates": 5 * keep},
        }
    )


def execute(job: tuple[str, int, str, int, int, str]) -> Run:
    """Run one campaign, or read it where it has already run."""
    import torch

    from matloop.launch.local import run
    from matloop.ledger.opening import read_ledger
    from matloop.ledger.past import read_past

    torch.set_num_threads(1)
    system, seed, arm, iterations, keep, folder = job
    declared = campaign(system, seed, arm, iterations, keep)
    directory = Path(folder) / declared.name
    started = time.perf_counter()
    run(declared, directory, resume=True)
    seconds = time.perf_counter() - started
    ledger = read_ledger(directory)
    relaxations, work, crystals = 0, 0.0, []
    for past in read_past(ledger, declared.name, declared):
        tried = [d for d in past.decisions if d.stage == "relaxation"]
        relaxations += len(tried)
        work += sum(evaluation.cost.work for evaluation in past.evaluations)
        if tried and tried[0].outcome == "passed":
            crystals.append(
                {
                    "name": past.candidate.candidate_id,
                    "relaxation": relaxations,
                    "generator": past.candidate.origin.generator,
                    "formula": past.candidate.structure.composition.reduced_formula,
                    "energy": past.candidate.quantities["energy_per_atom"].value,
                    "structure": past.candidate.structure.as_dict(verbosity=0),
                }
            )
    ledger.close()
    return Run(system, seed, arm, relaxations, work, seconds, crystals)


def judged(runs: list[Run], folder: Path) -> list[dict[str, Any]]:
    """Return the yield of every run of one system against one pooled hull."""
    from pymatgen.core import Structure

    from matloop.documents.phase import Phase, PhaseSet
    from matloop.ledger.opening import read_ledger
    from matloop.structures.identity import KnownIndex, Matcher
    from matloop.structures.phase_diagram import Hull

    first = campaign(runs[0].system, runs[0].seed, runs[0].arm, 1, 1).name
    ledger = read_ledger(folder / first)
    state = ledger.states(first)[0]
    references = PhaseSet.from_bytes(
        ledger.artifact_path(state.resources["phases"].sha256).read_bytes()
    )
    ledger.close()
    pooled = [
        Phase(
            phase_id=f"{run.seed}-{run.arm}-{crystal['name']}",
            structure=Structure.from_dict(crystal["structure"]),
            energy=crystal["energy"],
            theory=references.theory,
            source="found",
        )
        for run in runs
        for crystal in run.crystals
    ]
    hull = Hull(PhaseSet(theory=references.theory, phases=(*references.phases, *pooled)))
    rows = []
    for run in runs:
        known = KnownIndex(Matcher(), [(p.phase_id, p.structure) for p in references.phases])
        curve: list[int] = []
        by_generator: dict[str, int] = {}
        best = float("inf")
        for crystal in run.crystals:
            structure = Structure.from_dict(crystal["structure"])
            distance = hull.distance(structure.composition, crystal["energy"])
            if distance > NEAR or known.find(structure) is not None:
                continue
            known.add(crystal["name"], structure)
            best = min(best, distance)
            curve.append(crystal["relaxation"])
            name = crystal["generator"]
            by_generator[name] = by_generator.get(name, 0) + 1
        rows.append(
            {
                "system": run.system,
                "seed": run.seed,
                "arm": run.arm,
                "relaxations": run.relaxations,
                "converged": len(run.crystals),
                "yield": len(curve),
                "yield_per_100_relaxations": round(100 * len(curve) / run.relaxations, 2),
                "found_at_relaxation": curve,
                "by_generator": by_generator,
                "work": run.work,
                "seconds": round(run.seconds, 1),
            }
        )
    return rows


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return mean and spread of both arms per system, and their ratio."""
    result = []
    for system in dict.fromkeys(row["system"] for row in rows):
        entry: dict[str, Any] = {"system": system}
        for arm in ARMS:
            yields = [r["yield"] for r in rows if r["system"] == system and r["arm"] == arm]
            spent = [r["relaxations"] for r in rows if r["system"] == system and r["arm"] == arm]
            entry[arm] = {
                "yields": yields,
                "mean": statistics.mean(yields),
                "standard_deviation": statistics.stdev(yields) if len(yields) > 1 else None,
                "relaxations": spent,
            }
        base = entry["no feedback"]["mean"]
        entry["ratio_of_means"] = round(entry["feedback"]["mean"] / base, 2) if base else None
        result.append(entry)
    return result


def main() -> None:
    """Run what is asked for and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS), choices=list(SYSTEMS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=5)
    parser.add_argument("--keep", type=int, default=24, help="relaxations per iteration")
    parser.add_argument("--workers", type=int, default=2, help="campaigns run at once")
    parser.add_argument("--dir", type=Path, default=Path("runs/feedback"))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    jobs = [
        (system, seed, arm, options.iterations, options.keep, str(options.dir))
        for system in options.systems
        for seed in range(options.seeds)
        for arm in ARMS  # arms interleaved, so that other load strikes both
    ]
    runs: list[Run] = []
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
        for future in as_completed([pool.submit(execute, job) for job in jobs]):
            run = future.result()
            runs.append(run)
            print(
                f"{run.system} seed {run.seed} {run.arm}: {run.relaxations} relaxations, "
                f"{len(run.crystals)} converged, {run.seconds:.0f} s",
                file=sys.stderr,
            )
    runs.sort(key=lambda run: (run.system, run.seed, run.arm))
    rows = [
        row
        for system in options.systems
        for row in judged([run for run in runs if run.system == system], options.dir)
    ]
    result = {
        "near_eV_per_atom": NEAR,
        "matcher": {"ltol": 0.2, "stol": 0.3, "angle_tol": 5},
        "settings": {k: str(v) for k, v in vars(options).items()},
        "runs": rows,
        "summary": summary(rows),
    }
    text = json.dumps(result, indent=1)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text + "\n")
    print(json.dumps(result["summary"], indent=1))


if __name__ == "__main__":
    main()
