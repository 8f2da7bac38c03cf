"""Recorded VASP runs and failures, where the data folder is there."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest

DATA = Path(os.environ.get("MATLOOP_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))


def unpacked(archive: str, target: Path) -> Path:
    """Return a folder with an archive's files; skip the tests if it is absent."""
    path = DATA / archive
    if not path.is_file():
        pytest.skip(f"{path} is absent: set MATLOOP_DATA to the folder that holds {archive}")
    with tarfile.open(path) as files:
        files.extractall(target, filter="data")
    return target
