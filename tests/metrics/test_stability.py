"""Samples on a hull of references that were relaxed as they were."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from matloop.documents.evaluation import EvaluationRecord
from matloop.jobs.evaluation import Memory
from matloop.metrics.evaluation import Assessment, Protocol, assess
from matloop.metrics.hull import Judge, reference_hull
from matloop.metrics.reference import Reference
from matloop.metrics.stability import displacement

from .conftest import FACES, fcc, ordered, records


def assessed(
    crystals: Mapping[str, Structure | None], reference: Reference, judge: Judge
) -> Assessment:
    """Judge samples with energies."""
    return assess(records(crystals), reference, Protocol(judge=judge))


class Counting(Memory):
    """A shelf that counts, and whose process dies once it holds so many results."""

    def __init__(self, last: int = 10**9) -> None:
        super().__init__()
        self.added, self.last = 0, last

    def add_evaluations(self, records: Sequence[EvaluationRecord]) -> None:
        """Keep results."""
        super().add_evaluations(records)
        self.added += len(records)
        if self.added >= self.last:
            raise KeyboardInterrupt


def silent(step: str, done: int, total: int) -> None:
    """Say nothing."""


def test_everything_adds_up(metals: Reference, judge: Judge) -> None:
    """Of five samples: a known phase, its copy, a new alloy, one without reference, one broken."""
    found = assessed(
        {
            "known": ordered("Au", "Cu", 3.8),
            "copy": ordered("Au", "Cu", 3.7),
            "new": ordered("Cu", "Au", 3.95),
            "broken": None,
            "crowded": Structure(Lattice.cubic(3), ["Cu", "Cu"], [[0, 0, 0], [0.01, 0, 0]]),
        },
        metals,
        judge,
    )
    figures = found.figures
    assert figures["n"] == 5
    assert figures["readable"] == 4 / 5
    assert figures["structural_validity"] == 3 / 5
    assert figures["unique"] == 3 / 5  # known, new, crowded: the copy and the broken are not
    assert figures["novel"] == 2 / 5
    for key in ("relaxed", "stable", "sun", "msun", "sun_mattergen"):
        assert figures[f"{key}_denominator"] == 5
    by_name = {verdict.name: verdict for verdict in found.verdicts}
    assert by_name["known"].e_above_hull == pytest.approx(0, abs=2e-4)
    assert by_name["broken"].relaxed is False
    assert by_name["known"].novel_relaxed is False
    new = by_name["new"]
    assert new.unique_relaxed
    assert new.novel_relaxed
    # CuAu3 lies a little below the hull of Cu, Au and AuCu3 with this potential.
    assert new.e_above_hull is not None
    assert -0.2 < new.e_above_hull < 0.1
    assert figures["sun_mattergen"] == 1 / 5


def test_a_missing_element_is_filled_in(metals: Reference, judge: Judge) -> None:
    """Platinum is not in the reference; the embedded set has it, and the hull says so."""
    hull = reference_hull(metals, [frozenset({"Cu", "Pt"})], judge, silent)
    assert hull.filled == ("Pt",)
    assert not hull.missing({"Cu", "Pt"})
    assert hull.theory == judge.relaxation.theory().key


def test_an_element_without_reference_fails_its_samples_only(
    metals: Reference, judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others keep their places on the hull, and the failures are counted."""
    monkeypatch.setattr("matloop.metrics.hull.embedded.entries", lambda: ())
    found = assessed(
        {"platinum": ordered("Pt", "Cu", 3.7), "gold": ordered("Au", "Cu", 3.7)}, metals, judge
    )
    platinum, gold = found.verdicts
    assert platinum.relaxed
    assert platinum.e_above_hull is None
    assert platinum.no_reference == "Pt"
    assert gold.e_above_hull is not None
    assert found.figures["without_reference_count"] == 1
    assert found.figures["stable_denominator"] == 2


def test_nothing_is_relaxed_twice(metals: Reference, judge: Judge) -> None:
    """A second call finds every result under structure and method."""

    shelf = Counting()
    counting = Judge(judge.relaxation, shelf)
    crystals = {"alloy": ordered("Cu", "Au", 3.95)}
    first = assessed(crystals, metals, counting)
    added = shelf.added
    assert added >= 4  # the sample and three references
    second = assessed(crystals, metals, counting)
    assert shelf.added == added
    assert second.verdicts == first.verdicts


def test_a_dead_run_loses_what_was_in_flight(
    metals: Reference, judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after its second chunk, a run goes on with the third, and finds the same."""
    monkeypatch.setattr("matloop.metrics.hull.CHUNK", 1)
    crystals = {
        "alloy": ordered("Cu", "Au", 3.95),
        "copper": fcc("Cu", 3.5),
        "known": ordered("Au", "Cu", 3.7),
    }
    whole, shelf = Counting(), Counting(last=2)
    undisturbed = assessed(crystals, metals, Judge(judge.relaxation, whole))
    with pytest.raises(KeyboardInterrupt):
        assessed(crystals, metals, Judge(judge.relaxation, shelf))
    shelf.last = 10**9
    resumed = assessed(crystals, metals, Judge(judge.relaxation, shelf))
    assert shelf.added == whole.added
    assert resumed.figures == undisturbed.figures


def test_without_a_potential_nothing_is_invented(metals: Reference) -> None:
    """Keys of energies are there, and null."""
    figures = assess(records({"copper": fcc("Cu", 3.6)}), metals, Protocol()).figures
    for key in ("stable", "sun", "msun", "energy_drop_median", "wdist_energy", "hull_theory"):
        assert figures[key] is None
    assert figures["stable_denominator"] is None


def test_a_cost_needs_a_discovery(metals: Reference, judge: Judge) -> None:
    """Seconds are shared among the crystals found; none found has no cost."""
    alloy = {"alloy": ordered("Cu", "Au", 3.95)}
    protocol = Protocol(judge=judge, seconds=12.0)
    figures = assess(records(alloy), metals, protocol).figures
    count = figures["sun_mattergen_count"]
    assert isinstance(count, int)
    assert figures["seconds_per_sun_mattergen"] == 12.0 / count
    assert figures["samples_per_second"] == pytest.approx(1 / 12)
    known = assess(records({"copper": fcc("Cu", 3.6)}), metals, protocol).figures
    assert known["seconds_per_sun"] is None


def test_displacement_is_a_length() -> None:
    """One of four atoms moved by 0.2 Å: the mean position moves too, the rest is the distance."""
    still = ordered("Au", "Cu", 4.0)
    shift = np.array([[0.05, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]])
    moved = Structure(still.lattice, still.species, FACES + shift)
    expected = 0.2 * (3 / 16) ** 0.5
    assert displacement(still, moved) == pytest.approx(expected, rel=1e-3)
    assert displacement(still, still) == pytest.approx(0, abs=1e-6)
