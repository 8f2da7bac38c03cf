"""The page on the database says what the code does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_the_schema_is_up_to_date() -> None:
    """Collections, keys, indexes, fields and versions in docs/database.md are those of the code."""
    command = [sys.executable, str(DOCS / "generate_database.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
