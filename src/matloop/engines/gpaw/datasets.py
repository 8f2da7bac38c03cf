"""PAW data sets of GPAW: what is there, what they cost in electrons, and which are used."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from matloop.errors import MissingDependencyError

PAW_OF = {
    "LDA": "LDA",
    "PBE": "PBE",
    "PBEsol": "PBE",
    "RPBE": "RPBE",
    "revPBE": "revPBE",
    "r2SCAN": "PBE",
}
"""Functional of the frozen cores that each functional is used with."""

XC = {"r2SCAN": "MGGA_X_R2SCAN+MGGA_C_R2SCAN"}
"""GPAW's names of functionals, where they are not the common ones."""


def versions() -> tuple[str, str]:
    """Return the versions of GPAW and of its data sets.

    Raises
    ------
    MissingDependencyError
        If one is not installed.
    """
    try:
        return version("gpaw"), version("gpaw-data")
    except PackageNotFoundError as error:
        raise MissingDependencyError(
            f"{error.name} is not installed; `make gpaw` installs GPAW with its data sets"
        ) from error


def lacking(symbols: Iterable[str], functional: str) -> list[str]:
    """Return the elements without a data set for a functional, sorted."""
    return sorted(symbol for symbol in set(symbols) if _file(symbol, functional) is None)


def valence(symbol: str, functional: str) -> int:
    """Return how many electrons a data set leaves outside the frozen core.

    An element without a data set counts 12, so that a price can be named before it is refused.
    """
    file = _file(symbol, functional)
    return 12 if file is None else _valence(file)


@contextmanager
def used(symbols: Iterable[str], functional: str) -> Iterator[None]:
    """Let GPAW see the data sets of the ``gpaw-data`` package and no others.

    For PBEsol, whose frozen cores are those of PBE, it sees copies under that name.

    Parameters
    ----------
    symbols
        Elements of the calculation.
    functional
        Its functional.
    """
    import gpaw

    before = list(gpaw.setup_paths)
    with TemporaryDirectory(prefix="matloop-paw-") as folder:
        if functional == "PBEsol":
            for symbol in sorted(set(symbols)):
                _relabel(symbol, functional, Path(folder))
        gpaw.setup_paths[:] = [folder, str(_folder())]
        try:
            yield
        finally:
            gpaw.setup_paths[:] = before


def _relabel(symbol: str, functional: str, folder: Path) -> None:
    file = _file(symbol, functional)
    if file is not None:
        text = gzip.decompress(file.read_bytes()).decode()
        text = re.sub(r'(<xc_functional [^>]*name=")[^"]+', rf"\g<1>{functional}", text, count=1)
        (folder / f"{symbol}.{functional}.gz").write_bytes(gzip.compress(text.encode()))


def _file(symbol: str, functional: str) -> Path | None:
    file = _folder() / f"{symbol}.{PAW_OF[functional]}.gz"
    return file if file.exists() else None


def _folder() -> Path:
    found = find_spec("gpaw_data")
    if found is None or found.origin is None:
        versions()  # says what is missing
        raise MissingDependencyError("gpaw-data is not importable; `make gpaw` installs it")
    return Path(found.origin).parent / "setups"


@cache
def _valence(file: Path) -> int:
    with gzip.open(file, "rt", encoding="utf-8") as stream:
        head = stream.read(2000)
    found = re.search(r'<atom [^>]*valence="([\d.]+)"', head)
    if found is None:
        raise MissingDependencyError(f"{file.name} of gpaw-data cannot be read")
    return round(float(found[1]))
