"""What a candidate costs besides its evaluation, through a real LaunchPad and a database server.

One iteration of a campaign whose evaluators take no time runs through FireWorks, at several
numbers of candidates. Printed per candidate: database commands and seconds; per run: the largest
document. ``python -m benchmarks.orchestration --counts 1000 3000 10000``

The server is the one of ``matloop.testing``; ``--uri`` names another, such as a MongoDB.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from uuid import uuid4

import bson
import numpy as np
from pymongo import MongoClient, monitoring

from matloop.documents.campaign import Campaign
from matloop.launch.site import Site, parse_site
from matloop.testing.mongodb.process import ServerProcess
from matloop.testing.toys import toys_registered

MEGABYTE = 1_000_000


class Commands(monitoring.CommandListener):
    """Count the commands this process sends."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        """Count one command."""
        self.counts[event.command_name] += 1

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        """Ignore the answer."""

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        """Ignore the failure; it was counted when it started."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--counts", type=int, nargs="+", default=[1000, 3000, 10_000])
    parser.add_argument("--uri", help="MongoDB server; by default the test server")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    logging.disable(logging.INFO)
    warnings.simplefilter("ignore")
    commands = Commands()
    monitoring.register(commands)
    with tempfile.TemporaryDirectory() as folder:
        if options.uri:
            rows = [measure(count, options.uri, Path(folder), commands) for count in options.counts]
        else:
            with ServerProcess(Path(folder) / "journal") as server:
                rows = [
                    measure(count, server.uri, Path(folder), commands) for count in options.counts
                ]
    logs = [np.log([row[name] for row in rows]) for name in ("candidates", "commands", "seconds")]
    growth = {
        name: float(np.polyfit(logs[0], logs[place], 1)[0]) if len(rows) > 1 else None
        for place, name in ((1, "commands"), (2, "seconds"))
    }
    if options.json:
        print(json.dumps({"rows": rows, "growth_exponents": growth}, indent=1))
        return
    print("candidates  jobs  commands/candidate  ms/candidate  largest document (kB)")
    for row in rows:
        print(
            f"{row['candidates']:10d} {row['jobs']:5d} {row['commands'] / row['candidates']:19.3f}"
            f" {1e3 * row['seconds'] / row['candidates']:13.2f} {row['largest'] / 1e3:15.0f}"
            f"  in {row['largest_in']}"
        )
    if len(rows) > 1:
        print(
            f"growth exponents: commands {growth['commands']:.2f}, seconds {growth['seconds']:.2f}"
        )


def measure(count: int, uri: str, folder: Path, commands: Commands) -> dict[str, float | str]:
    """Run one campaign of so many candidates and return what it took."""
    from fireworks import FWorker
    from fireworks.core.rocket_launcher import launch_rocket

    from matloop.jobs.place import close_ledgers
    from matloop.launch.submission import submit

    os.environ["MATLOOP_BENCHMARK_URI"] = uri
    database = f"matloop_benchmark_{uuid4().hex[:8]}"
    site = _site(folder / str(count), database)
    launchpad = site.launchpad()
    workers = [FWorker(name=kind, category=kind) for kind in site.kinds]
    here = Path.cwd()
    with toys_registered():
        submit(site, campaign(count), folder)
        commands.counts.clear()
        started, jobs = time.perf_counter(), 0
        os.chdir(folder)
        while any(launch_rocket(launchpad, worker, strm_lvl="ERROR") for worker in workers):
            jobs += 1
        seconds = time.perf_counter() - started
        os.chdir(here)
    used = sum(commands.counts.values())
    ledger = site.ledger().open()
    finished = ledger.states("orchestration")[-1].status == "finished"
    ledger.close()
    close_ledgers()
    with MongoClient(uri) as client:
        sizes = {
            name: max((len(bson.encode(d)) for d in client[database][name].find()), default=0)
            for name in client[database].list_collection_names()
        }
        failed = client[database]["fireworks"].count_documents({"state": "FIZZLED"})
        client.drop_database(database)
    if not finished or failed:
        raise RuntimeError(f"{count} candidates: the campaign did not end, {failed} jobs failed")
    largest = max(sizes, key=lambda name: sizes[name])
    if sizes[largest] >= MEGABYTE:
        raise RuntimeError(f"a document of {largest} has {sizes[largest]} bytes")
    return {
        "candidates": count,
        "jobs": jobs,
        "commands": used,
        "seconds": seconds,
        "largest": sizes[largest],
        "largest_in": largest,
    }


def campaign(count: int) -> Campaign:
    """Return a campaign whose evaluators take no time, with shards in every stage but the first."""
    return Campaign.model_validate(
        {
            "name": "orchestration",
            "space": {"system": "Al-Ni-Ti", "max_atoms": 4},
            "objective": {"minimize": "e_above_hull"},
            "references": {"templates": False},
            "generators": ["toy_generator"],
            "stages": [
                {"name": "validity", "evaluate": ["minimum_distance", "cell"]},
                {"name": "relaxation", "evaluate": ["toy_relaxation"], "worker_kind": "gpu"},
                {"name": "stability", "evaluate": ["hull_distance"]},
            ],
            "feedback": "off",
            "budget": {"iterations": 1, "candidates": count},
        }
    )


def _site(folder: Path, database: str) -> Site:
    folder.mkdir(parents=True)
    file = folder / "site.yaml"
    text = json.dumps(
        {
            "name": "benchmark",
            "database": {"name": database, "uri_variable": "MATLOOP_BENCHMARK_URI"},
            "directory": str(folder / "shared"),
            "kinds": {"cpu": {"walltime": "12:00:00"}, "gpu": {"max_jobs": 8}},
        }
    )
    file.write_text(text)
    return parse_site(text, file)


if __name__ == "__main__":
    main()
