"""What many tests need: an outside plugin package, installed once, and a database server."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from matloop.testing.mongodb.process import ServerProcess

PACKAGE = Path(__file__).parent / "plugin_package"


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Install the package into a folder of its own, and return an environment that sees it."""
    source = tmp_path_factory.mktemp("source") / "package"
    shutil.copytree(PACKAGE, source)
    target = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    command += ["--no-build-isolation", "--target", str(target), str(source)]
    subprocess.run(command, check=True)
    return {**os.environ, "PYTHONPATH": str(target), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="session")
def mongodb_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the URI of a MongoDB server of the tester's choice, or of the test server."""
    own = os.environ.get("MATLOOP_TEST_MONGODB_URI")
    if own:
        yield own
        return
    with ServerProcess(tmp_path_factory.mktemp("mongodb") / "journal") as server:
        yield server.uri
