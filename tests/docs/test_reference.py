"""The generated pages of the documentation."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "docs" / "generate_reference.py"


def test_generated_pages_are_up_to_date() -> None:
    """Fields and parameters in docs/ are those of the code."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
