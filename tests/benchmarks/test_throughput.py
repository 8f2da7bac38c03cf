"""The benchmarks of throughput run, and account for all of the time."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Return what imports a benchmark by its name."""
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.chdir(ROOT)
    return lambda name: importlib.import_module(f"benchmarks.{name}")


def test_a_funnel_is_charged_to_its_parts(benchmark: Callable[[str], ModuleType]) -> None:
    """Evaluators, ledger and verbs have a share each; what is left without evaluators is more."""
    funnel = benchmark("funnel")
    row = funnel.apart(40)
    assert {"evaluators", "ledger, reading", "ledger, writing"} < set(row["parts"])
    assert {"propose", "evaluate", "decide", "learn", "advance"} < set(row["parts"])
    assert min(row["parts"].values()) >= 0
    assert 0 < funnel.overhead(row) < sum(row["parts"].values())
    assert row["peak_mb"] > 0


def test_a_screening_is_split_into_the_model_and_the_rest(
    benchmark: Callable[[str], ModuleType],
) -> None:
    """Four crystals go through a real campaign, and every part of it took some time."""
    screening = benchmark("screening")
    row = screening.measure("Al-Ni", 4, "bfgs")
    assert (row["candidates"], row["optimizer"]) == (4, "bfgs")
    assert 0 < row["relaxed"] <= 4
    assert set(row["seconds"]) == {
        screening.MODEL,
        screening.RELAXATION,
        screening.EVALUATORS,
        screening.GENERATOR,
        screening.REST,
    }
    assert min(row["seconds"].values()) > 0
    assert screening.outside(row) == pytest.approx(
        1 - row["seconds"][screening.MODEL] / sum(row["seconds"].values())
    )
