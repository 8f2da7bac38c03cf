"""Ensemble, its training table and its memory."""

import hashlib
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

from matloop.errors import MatloopError
from matloop.surrogates.calibration import LocalScale, quality, scale_factor
from matloop.surrogates.descriptors import FEATURES
from matloop.surrogates.ensemble import Compression, Ensemble, Settings, out_of_fold
from matloop.surrogates.fitted import FittedSurrogate, TrainingTable, load

FEW = Settings(trees=20)


def problem(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A nonlinear target of four hidden variables that all features depend on, with noise."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(4, len(FEATURES)))
    mixing[:, :4] = np.eye(4)
    x = rng.normal(size=(n, 4)) @ mixing + 0.02 * rng.normal(size=(n, len(FEATURES)))
    y = x[:, 0] + np.abs(x[:, 1]) + 0.5 * x[:, 2] * x[:, 3] + 0.1 * rng.normal(size=n)
    return x, y


def make_table(n: int = 60, **changes) -> TrainingTable:
    x, y = problem(n)
    other = y**2
    other[::2] = np.nan
    values = {
        "features": x.astype(np.float32),
        "targets": {"density": other, "e_above_hull": y},
        "units": {"density": "g/cm^3", "e_above_hull": "eV/atom"},
        "factors": {"density": 1.5, "e_above_hull": 0.8},
        "seed": 3,
        "settings": FEW,
    }
    return TrainingTable(**(values | changes))


def test_learns_a_nonlinear_function():
    """On unseen rows the ensemble explains most of the variance and ranks well."""
    x, y = problem(300)
    unseen = out_of_fold(x, y, FEW, 0, 5)
    metrics = quality(unseen.residuals)
    assert metrics["r2"] > 0.6
    assert metrics["rank_correlation"] > 0.75
    assert sorted(np.bincount(unseen.folds)) == [60] * 5
    assert unseen.trust == 1.0


def test_calibrated_on_folds_it_covers_new_rows():
    """The scale factor from out-of-fold residuals gives 68 % coverage on fresh rows."""
    x, y = problem(250)
    new, truth = problem(400, seed=1)
    factor = scale_factor(out_of_fold(x, y, FEW, 0, 5).residuals)
    prediction = Ensemble.fit(x, y, FEW, 0).predict(new)
    covered = np.abs(prediction.mean - truth) <= factor * prediction.spread
    assert np.mean(covered) == pytest.approx(0.68, abs=0.1)


def test_one_absurd_result_does_not_spoil_the_others():
    """An energy of 1e6 among 100 results at most doubles the error on new rows."""
    x, y = problem(100)
    new, truth = problem(100, seed=1)
    spoiled = y.copy()
    spoiled[7] = 1e6
    clean = Ensemble.fit(x, y, FEW, 0).predict(new).mean
    dirty = Ensemble.fit(x, spoiled, FEW, 0).predict(new).mean
    error = np.median(np.abs(clean - truth))
    assert np.median(np.abs(dirty - truth)) < 2.0 * error
    assert dirty.max() < 30.0


def test_compression_is_undone_by_its_inverse():
    """Compressed and expanded again, targets inside the seen range are unchanged."""
    y = np.array([-1.0, 0.0, 0.1, 0.2, 1.0, 2.0])
    compression = Compression.fit(y)
    assert compression.back(compression.forward(y)) == pytest.approx(y)
    assert compression.back(compression.forward(np.array([1e9]))) < 20.0
    assert np.isfinite(Compression.fit(np.full(5, 2.0)).forward(np.full(5, 2.0))).all()


@pytest.mark.parametrize("target", [np.full(15, 0.3), np.r_[np.zeros(14), 1.0]])
def test_constant_targets_are_no_trouble(target):
    """All results equal, or all but one, give finite predictions with a positive spread."""
    x, _ = problem(15)
    prediction = Ensemble.fit(x, target, FEW, 0).predict(x)
    assert np.isfinite(prediction.mean).all()
    assert (prediction.spread > 0).all()


def test_constant_features_are_no_trouble():
    """Fifteen copies of one crystal give the mean of their results."""
    x = np.ones((15, len(FEATURES)))
    y = np.linspace(0, 1, 15)
    prediction = Ensemble.fit(x, y, FEW, 0).predict(x)
    assert prediction.mean == pytest.approx(np.full(15, 0.5), abs=0.1)


def test_table_survives_the_round_trip_and_has_one_spelling():
    """Bytes give back the same table, NaN included, and equal tables give equal bytes."""
    scale = LocalScale(np.arange(3.0), np.array([0.5, 1.0, 2.0]))
    extra = {"scales": {"density": scale}, "trusts": {"e_above_hull": 0.25}}
    table = make_table(**extra)
    content = table.to_bytes()
    again = TrainingTable.from_bytes(content)
    assert again.to_bytes() == content == make_table(**extra).to_bytes()
    assert again.settings == FEW
    assert again.units == table.units
    assert again.trusts == table.trusts
    np.testing.assert_array_equal(again.scales["density"].scores, scale.scores)
    np.testing.assert_array_equal(again.targets["density"], table.targets["density"])


def test_reading_executes_no_code(tmp_path):
    """A pickle in place of the archive is refused and never loaded."""
    witness = tmp_path / "executed"

    class Trap:
        def __reduce__(self):
            return (witness.write_text, ("boom",))

    with pytest.raises(MatloopError, match="cannot read the surrogate"):
        TrainingTable.from_bytes(pickle.dumps(Trap()))
    assert not witness.exists()


def test_other_descriptors_are_refused():
    """A table of descriptors that this version does not compute is not silently used."""
    content = make_table(representation="composition").to_bytes()
    with pytest.raises(MatloopError, match="other descriptors"):
        TrainingTable.from_bytes(content)


def test_factor_scales_the_uncertainty_only():
    """Twice the factor doubles the standard deviations and leaves the means alone."""
    x, _ = problem(10, seed=5)
    once = FittedSurrogate(make_table()).predict(x)["density"]
    twice = make_table(factors={"density": 3.0, "e_above_hull": 0.8})
    double = FittedSurrogate(twice).predict(x)["density"]
    assert double.mean == pytest.approx(once.mean)
    assert double.spread == pytest.approx(2 * once.spread)


def test_out_of_domain_tells_strangers_from_kin():
    """A training row is inside (0), a row far from all is outside (1)."""
    table = make_table()
    model = FittedSurrogate(table)
    x = np.asarray(table.features, dtype=float)
    assert model.out_of_domain(x).max() == 0.0
    assert model.out_of_domain(np.full((1, len(FEATURES)), 50.0))[0] == 1.0


def test_load_remembers_by_content(tmp_path):
    """One digest is fitted once per process; another content is fitted anew."""
    models = []
    for seed in (1, 1, 2):
        content = make_table(20, seed=seed).to_bytes()
        path = tmp_path / "same.npz"
        path.write_bytes(content)
        models.append(load(path, hashlib.sha256(content).hexdigest()))
    assert models[0] is models[1]
    assert models[0] is not models[2]


def test_another_process_predicts_the_same(tmp_path):
    """The table refitted in a fresh process with other hash seeds gives the same numbers."""
    table = make_table()
    path = tmp_path / "table.npz"
    path.write_bytes(table.to_bytes())
    code = (
        "import sys, numpy as np; from pathlib import Path\n"
        "from matloop.surrogates.fitted import load\n"
        "p = load(Path(sys.argv[1]), 'x').predict(np.ones((1, int(sys.argv[2]))))\n"
        "print([(k, v.mean[0].hex(), v.spread[0].hex()) for k, v in sorted(p.items())])"
    )
    here = FittedSurrogate(table).predict(np.ones((1, len(FEATURES))))
    expected = [(k, v.mean[0].hex(), v.spread[0].hex()) for k, v in sorted(here.items())]
    there = subprocess.run(
        [sys.executable, "-c", code, str(path), str(len(FEATURES))],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "1"},
    )
    assert there.stdout.strip() == str(expected)
