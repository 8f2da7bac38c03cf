"""Speed of the embedded store beside maggma's MontyStore, on the same documents, in seconds.

Run it with ``python benchmarks/ledger.py [DOCUMENTS]``; MontyStore needs ``montydb``.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from maggma.stores import MontyStore

from matloop.ledger.sqlite import SQLiteStore

CHUNK = 64


def documents(count: int) -> list[dict[str, Any]]:
    """Return documents of about 2 kB, like an evaluation with its relaxed structure."""
    chance = random.Random(0)
    return [
        {
            "key": f"{n:064x}",
            "iteration": n // 100,
            "verdict": "pass",
            "coordinates": [[chance.random() for _ in range(3)] for _ in range(30)],
        }
        for n in range(count)
    ]


def measure(store: Any, docs: list[dict[str, Any]]) -> dict[str, float]:
    """Return operations per second, by what is done."""
    store.connect()
    singles = docs[: max(10, len(docs) // 20)]
    keys = [doc["key"] for doc in docs]

    def insert() -> int:
        for start in range(0, len(docs), CHUNK):
            store.update([dict(doc) for doc in docs[start : start + CHUNK]])
        return len(docs)

    def update() -> int:
        for doc in singles:
            store.update({**doc, "verdict": "reject"})
        return len(singles)

    def read_one() -> int:
        return sum(1 for doc in singles if store.query_one({"key": doc["key"]}))

    def read_many() -> int:
        return sum(1 for _ in store.query({"key": {"$in": keys[:CHUNK]}}))

    def read_iteration() -> int:
        return sum(1 for _ in store.query({"iteration": 1}, sort={"key": 1}))

    if isinstance(store, SQLiteStore):  # the other one has no indexes
        store.ensure_index("key")
        store.ensure_index(["iteration", "key"])
    actions: dict[str, Callable[[], int]] = {
        f"inserts, {CHUNK} per call": insert,
        "updates, one per call": update,
        "reads by key": read_one,
        f"reads by {CHUNK} keys": read_many,
        "reads of an iteration": read_iteration,
    }
    rates = {}
    for name, action in actions.items():
        start = time.perf_counter()
        done = action()
        rates[name] = done / (time.perf_counter() - start)
    assert store.count() == len(docs)
    store.close()
    return rates


def main() -> None:
    """Print a table of documents per second."""
    docs = documents(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        ours = measure(SQLiteStore(Path(folder) / "s.sqlite", "docs", key="key"), docs)
        monty = MontyStore("docs", database_path=folder, storage="sqlite", key="key")
        theirs = measure(monty, docs)
    print(f"{len(docs)} documents; documents per second")
    print(f"{'':24}{'SQLiteStore':>12}{'MontyStore':>12}{'ratio':>8}")
    for name, rate in ours.items():
        print(f"{name:24}{rate:12.0f}{theirs[name]:12.0f}{rate / theirs[name]:8.1f}")


if __name__ == "__main__":
    main()
