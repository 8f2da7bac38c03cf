"""What a candidate costs besides its evaluation in the local run: time, memory, orchestration.

One iteration of a screening with toy evaluators runs in a process of its own at several numbers of
candidates: propose, three rules, novelty, relaxation, hull, decisions, learning. Printed: processor
time per candidate and where it goes, what is left of it without the evaluators, peak memory, and
the exponent of growth; and the same number of jobs without contents, one per candidate, against the
jobs of one iteration. ``python -m benchmarks.funnel --counts 1000 3000 10000 30000``
"""

from __future__ import annotations

import argparse
import json
import logging
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from matloop.documents.campaign import Campaign

EVALUATORS, JOBFLOW = "evaluators", "jobflow"
READING, WRITING = "ledger, reading", "ledger, writing"
VERBS = ("prepare", "propose", "evaluate", "decide", "learn", "advance")


class Clock:
    """Processor time by part; what a part calls is counted there, not here."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self._open: list[str] = []
        self._since = time.process_time()

    def switch(self) -> None:
        """Charge the time since the last switch to whoever is at work."""
        now = time.process_time()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since
        self._since = now

    def timed(self, part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function whose time is charged to a part."""

        def wrapped(*arguments: Any, **named: Any) -> Any:
            self.switch()
            self._open.append(part)
            try:
                return call(*arguments, **named)
            finally:
                self.switch()
                self._open.pop()

        return wrapped

    def wrap(self, owner: Any, names: Sequence[str], part: str) -> None:
        """Charge the time of functions or methods to a part from now on."""
        for name in names:
            setattr(owner, name, self.timed(part, getattr(owner, name)))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--counts", type=int, nargs="+", default=[1000, 3000, 10_000, 30_000])
    parser.add_argument("--jobs", type=int, default=2000, help="jobs on the other side")
    parser.add_argument("--figure", type=Path, help="write the figure here")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    if options.one is not None:
        print(json.dumps(measure(options.one)))
        return
    rows = []
    print("candidates  ms/candidate  without evaluators (ms)  peak memory (MB)")
    for count in options.counts:
        row = apart(count)
        rows.append(row)
        print(
            f"{count:10d} {1e3 * sum(row['parts'].values()) / count:13.2f}"
            f" {1e3 * overhead(row) / count:23.2f} {row['peak_mb']:17.0f}"
        )
        for part, seconds in sorted(row["parts"].items(), key=lambda item: -item[1]):
            print(f"{'':12s}{part:20s} {1e3 * seconds / count:7.3f} ms")
    result: dict[str, Any] = {"rows": rows}
    if len(rows) > 1:
        counts = np.log([row["candidates"] for row in rows])
        spent = np.log([overhead(row) for row in rows])
        result["exponent"] = float(np.polyfit(counts, spent, 1)[0])
        last, first = rows[-1], rows[0]
        grown = last["peak_mb"] - first["peak_mb"]
        result["kb_per_candidate"] = 1e3 * grown / (last["candidates"] - first["candidates"])
        print(f"growth exponent of the time without evaluators {result['exponent']:.2f}")
        print(f"memory {result['kb_per_candidate']:.2f} kB per candidate")
    if options.jobs:
        result["orchestration"] = orchestration(options.jobs)
        print(result["orchestration"])
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    if options.figure:
        draw(rows, options.figure)


def campaign(count: int) -> Campaign:
    """Return a screening whose evaluators take no time beyond their own arithmetic."""
    rules = ["minimum_distance", "cell"]
    return Campaign.model_validate(
        {
            "name": "funnel",
            "space": {"system": "Al-Ni-Ti", "max_atoms": 4},
            "objective": {"minimize": "e_above_hull"},
            "references": {"templates": False},
            "generators": ["toy_generator"],
            "stages": [
                {"name": "validity", "evaluate": rules, "workers": 0},
                {"name": "new", "evaluate": ["novelty"], "workers": 0},
                {"name": "relaxation", "evaluate": ["toy_relaxation"], "workers": 0},
                {"name": "stability", "evaluate": ["hull_distance"], "workers": 0},
            ],
            "feedback": "off",
            "budget": {"iterations": 1, "candidates": count},
        }
    )


def measure(count: int) -> dict[str, Any]:
    """Run one campaign in this process, and return its time by part and its peak memory."""
    from jobflow.core.job import Job

    from matloop.jobs import workers
    from matloop.launch.local import run
    from matloop.ledger.store_ledger import StoreLedger
    from matloop.testing.toys import toys_registered

    clock = Clock()
    clock.wrap(workers, ["evaluate_chunk"], EVALUATORS)
    read = ["candidates", "proposed", "evaluations", "decisions", "outcomes", "attempts"]
    clock.wrap(StoreLedger, [*read, "artifact_path"], READING)
    write = ["candidates", "evaluations", "decisions", "attempts"]
    clock.wrap(StoreLedger, [f"add_{name}" for name in write], WRITING)
    plain = Job.run

    def timed_run(job: Job, *arguments: Any, **named: Any) -> Any:
        verb = next((verb for verb in VERBS if job.name.startswith(verb)), JOBFLOW)
        return clock.timed(verb, plain)(job, *arguments, **named)

    Job.run = timed_run
    with toys_registered(), tempfile.TemporaryDirectory() as folder:
        wall = time.perf_counter()
        clock.timed(JOBFLOW, run)(campaign(count), Path(folder) / "run")
        wall = time.perf_counter() - wall
        files = sum(f.stat().st_size for f in (Path(folder) / "run").rglob("*") if f.is_file())
    return {
        "candidates": count,
        "parts": dict(clock.seconds),
        "wall": wall,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
        "ledger_kb_per_candidate": files / count / 1e3,
    }


def overhead(row: dict[str, Any]) -> float:
    """Return the processor time that is not the evaluators' (s)."""
    return float(sum(row["parts"].values()) - row["parts"][EVALUATORS])


def orchestration(count: int, repeats: int = 3) -> dict[str, float]:
    """Return what jobflow takes for one job per candidate and for the jobs of one iteration (s).

    Both sides run jobs that do nothing and return a number, through the same local manager and an
    empty `MemoryStore`, in turns.
    """
    stages = len(campaign(1).stages)
    ours = 3 + 2 * stages  # propose, learn and advance; evaluate and decide per stage
    many, few = [], []
    for _ in range(repeats):
        many.append(_empty_jobs(count))
        few.append(float(np.mean([_empty_jobs(ours) for _ in range(10)])))
    ratios = np.array(many) / np.array(few)
    return {
        "jobs_per_candidate": count,
        "seconds": float(np.median(many)),
        "jobs_per_iteration": ours,
        "seconds_per_iteration": float(np.median(few)),
        "ratio": float(np.median(ratios)),
        "least": float(ratios.min()),
        "most": float(ratios.max()),
    }


def _empty_jobs(count: int) -> float:
    from jobflow import Flow, Job, JobStore, run_locally
    from maggma.stores import MemoryStore

    flow = Flow([Job(abs, function_args=(number,)) for number in range(count)])
    store = JobStore(MemoryStore(), additional_stores={"data": MemoryStore()})
    started = time.process_time()
    run_locally(flow, log=False, store=store, raise_immediately=True)
    return time.process_time() - started


def apart(count: int) -> dict[str, Any]:
    """Return what `measure` does in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.funnel", "--one", str(count)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw where the time of a candidate goes, at each number of candidates."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    parts = [EVALUATORS, READING, WRITING, *VERBS, JOBFLOW]
    figure, axes = plt.subplots(figsize=(7.2, 3.2), layout="constrained")
    names = [f"{row['candidates']:,}" for row in rows]
    left = np.zeros(len(rows))
    for part, colour in zip(parts, plt.get_cmap("tab10").colors, strict=False):
        each = np.array([1e3 * row["parts"].get(part, 0.0) / row["candidates"] for row in rows])
        axes.barh(names, each, left=left, label=part, color=colour)
        left += each
    axes.invert_yaxis()
    axes.set_xlabel("processor time per candidate (ms)")
    axes.set_ylabel("candidates")
    axes.legend(ncols=1, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
