"""Structure prediction: samples, their targets, and what counts as a hit."""

from __future__ import annotations

import pytest
from pymatgen.core import Lattice, Structure

from matloop.errors import ConfigurationError
from matloop.metrics.prediction import assigned, predict
from matloop.metrics.verdicts import judge_alone

from .conftest import fcc, ordered, records


def test_any_sample_of_a_target_is_enough() -> None:
    """Two samples each: copper is met by the second, the alloy by none, and invalid ones miss."""
    alloy = ordered("Au", "Cu", 3.75)
    crowded = alloy.copy()
    crowded.translate_sites([0], [0.5, 0.5, 0.08], to_unit_cell=True)
    far = Structure(Lattice.cubic(6.0), ["Cu"] * 4, [[0, 0, z] for z in (0, 0.25, 0.5, 0.75)])
    samples = records(
        {"a": far, "b": fcc("Cu", 3.7), "c": crowded, "d": Structure.from_sites(far.sites)}
    )
    targets = records({"copper": fcc("Cu", 3.61), "alloy": alloy})
    found = predict(samples, judge_alone(samples, 0.1), targets)
    assert (found.targets, found.samples, found.matched) == (2, 2, 1)
    assert found.rmse == pytest.approx(0, abs=1e-6)


def test_rmse_is_the_smallest_of_a_target() -> None:
    """Of two hits the closer one counts."""
    target = ordered("Au", "Cu", 4.0)
    near, far = target.copy(), target.copy()
    near.translate_sites([0], [0.01, 0, 0])
    far.translate_sites([0], [0.05, 0, 0])
    samples = records({"far": far, "near": near})
    found = predict(samples, judge_alone(samples, 0.1), records({"alloy": target}))
    assert found.matched == 1
    # One of four atoms moved by 0.04 Å, the common shift taken off, over 4 Å / 4^(1/3).
    assert found.rmse == pytest.approx(0.04 * (3 / 16) ** 0.5 / 4 * 4 ** (1 / 3), rel=1e-3)


def test_labels_name_targets_and_order_does_otherwise() -> None:
    """Labels win; without them samples are shared out in order, if that is possible."""
    crystal = fcc("Cu", 3.6)
    targets = records({"mp-1": crystal, "mp-2": crystal})
    named = records({"mp-2_0": crystal, "mp-1_0": crystal, "mp-2": crystal})
    assert assigned(named, targets) == [1, 0, 1]
    plain = records(dict.fromkeys("abcd", crystal))
    assert assigned(plain, targets) == [0, 0, 1, 1]
    with pytest.raises(ConfigurationError, match="3 samples cannot be shared among 2 targets"):
        assigned(plain[:3], targets)
