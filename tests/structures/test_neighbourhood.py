"""The nearest of many fingerprints."""

import numpy as np
import pytest

from matloop.structures import neighbourhood
from matloop.structures.neighbourhood import Neighbourhood


@pytest.mark.parametrize("limit", [50, 10_000])
def test_the_nearest_are_found_while_it_grows(monkeypatch, limit):
    """By tree and by looking at all: what sorting all distances gives, however it was filled."""
    monkeypatch.setattr(neighbourhood, "_IN_A_TREE", limit)
    rng = np.random.default_rng(0)
    vectors = rng.random((300, 5)).astype(np.float16)
    near = Neighbourhood(vectors[:100])
    for count in range(100, 301):
        if count % 40 == 0:
            asked = rng.random(5).astype(np.float16)
            gaps = np.linalg.norm(
                vectors[:count].astype(np.float64) - asked.astype(np.float64), axis=1
            )
            expected = [row for row in np.argsort(gaps)[:6] if gaps[row] <= 0.4]
            found = near.nearest(asked, 6, 0.4)
            assert [row for _, row in found] == expected
            assert [gap for gap, _ in found] == pytest.approx(gaps[expected], abs=1e-3)
        if count < 300:
            near.append(vectors[count])
    assert len(near) == 300


def test_an_empty_one_has_no_neighbours():
    """Before anything is added nothing is near."""
    near = Neighbourhood(np.empty((0, 4), dtype=np.float16))
    assert near.nearest(np.zeros(4), 3, 1.0) == []
