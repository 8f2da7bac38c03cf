"""A finished campaign is replayed: its own policy decides the same again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def test_own_policy_decides_the_same_again(
    environment: dict[str, str], undisturbed: tuple[Path, Path]
) -> None:
    """Every decision of the surrogate's choices comes out again, with its reason and numbers."""
    command = [sys.executable, "-m", "matloop", "replay", "--dir", str(undisturbed[0]), "--json"]
    command += ["--seeds", "2", "--policy", "best:quantity=predicted_e_above_hull"]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    assert found["stage"] == "choice"
    assert found["decisions"] > 36
    assert found["reproduced"] == found["decisions"]
    own = [row for row in found["rows"] if row["own"]]
    assert [row["share"] for row in own] == [0.2, 0.4, 0.6, 0.8, 1.0]
    assert own[-1]["discoveries"] == found["discoveries"]
    assert own[-1]["cost"] <= found["cost"] * (1 + 1e-9)
    assert {row["policy"] for row in found["rows"]} == {
        "expected_utility",
        "random",
        "best:quantity=predicted_e_above_hull",
    }
    by_lot = next(row for row in found["rows"] if row["policy"] == "random")
    assert 0 < by_lot["unlabelled"] < by_lot["choices"]
