"""The crystals that samples are held against: many thousands, built one by one when asked for."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pymatgen.core import Composition, Element, Lattice, Structure

from matloop.atomic import whole_file
from matloop.documents.base import digest
from matloop.documents.phase import Known
from matloop.errors import ConfigurationError
from matloop.references import embedded
from matloop.structures.reading import read_structures

EMBEDDED = "embedded"
"""Name of the built-in textbook set."""

_LAYOUT = 1  # of the stored arrays; another number is another file


@dataclass(frozen=True, eq=False)
class Reference:
    """Known crystals as arrays: reading 21,000 of them again takes milliseconds, not minutes.

    Attributes
    ----------
    name
        Name of the file or files, or ``embedded``.
    sha256
        Hash of the file; of several, hash of their names and hashes.
    ids
        Unique name of each crystal.
    counts
        Number of atoms of each, shape (m,).
    lattices
        Lattice vectors as rows (Å), shape (m, 3, 3).
    numbers
        Atomic numbers, one crystal after the other, shape (N,).
    coords
        Fractional coordinates, shape (N, 3).
    set_aside
        Records of the files that are no ordered crystals.
    """

    name: str
    sha256: str
    ids: tuple[str, ...]
    counts: NDArray[np.int64]
    lattices: NDArray[np.float64]
    numbers: NDArray[np.int64]
    coords: NDArray[np.float64]
    set_aside: int = 0

    def __len__(self) -> int:
        return len(self.ids)

    def structure(self, index: int) -> Structure:
        """Return one crystal."""
        atoms = slice(self._starts[index], self._starts[index + 1])
        species = [Element.from_Z(int(number)) for number in self.numbers[atoms]]
        return Structure(Lattice(self.lattices[index]), species, self.coords[atoms])

    @cached_property
    def formulas(self) -> tuple[str, ...]:
        """Reduced formula of each crystal."""
        return tuple(Composition(content).reduced_formula for content in self._contents)

    @cached_property
    def systems(self) -> tuple[frozenset[str], ...]:
        """Elements of each crystal."""
        return tuple(frozenset(content) for content in self._contents)

    @cached_property
    def densities(self) -> NDArray[np.float64]:
        """Mass density of each crystal (g/cm^3)."""
        masses = np.array([0.0, *(float(Element.from_Z(z).atomic_mass) for z in range(1, 119))])
        totals = np.add.reduceat(masses[self.numbers], self._starts[:-1])
        return np.asarray(totals * 1.66053906660 / np.abs(np.linalg.det(self.lattices)))

    def with_formulas(self, formulas: Iterable[str]) -> list[tuple[str, Structure]]:
        """Return id and crystal of everything that has one of the reduced formulas."""
        wanted = set(formulas)
        return [
            (self.ids[i], self.structure(i)) for i, f in enumerate(self.formulas) if f in wanted
        ]

    def within(self, systems: Iterable[frozenset[str]]) -> list[int]:
        """Return the places of the crystals that lie within one of the chemical systems."""
        wanted = list(set(systems))
        inside = {own: any(own <= system for system in wanted) for own in set(self.systems)}
        return [i for i, own in enumerate(self.systems) if inside[own]]

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        return np.concatenate([[0], np.cumsum(self.counts)])

    @cached_property
    def _contents(self) -> tuple[dict[str, int], ...]:
        symbols = np.array(["", *(Element.from_Z(z).symbol for z in range(1, 119))])
        found = []
        for start, stop in zip(self._starts[:-1], self._starts[1:], strict=True):
            kinds, amounts = np.unique(self.numbers[start:stop], return_counts=True)
            found.append(dict(zip(symbols[kinds].tolist(), amounts.tolist(), strict=True)))
        return tuple(found)


def load_reference(
    paths: Sequence[Path], cache: Path | None = None, notify: Callable[[], None] = lambda: None
) -> Reference:
    """Read reference crystals, or the embedded set where its name stands alone.

    Parameters
    ----------
    paths
        Structure files and folders, or ``embedded``.
    cache
        Folder where the arrays of files are kept, under the hash of the files, to be read faster
        the next time.
    notify
        Called before files are parsed, which takes a while.

    Raises
    ------
    ConfigurationError
        If a path does not exist, or none holds an ordered crystal.
    """
    if [str(path) for path in paths] == [EMBEDDED]:
        return _packed(EMBEDDED, "", embedded.crystals(), 0)
    missing = [path for path in paths if not path.exists()]
    if missing:
        raise ConfigurationError(
            f"{missing[0]} does not exist; give a structure file or folder, or the word {EMBEDDED}"
        )
    name = ", ".join(path.name or str(path) for path in paths)
    sha256 = _hash(paths)
    kept = cache / f"reference-{sha256[:24]}-{_LAYOUT}.npz" if cache else None
    if kept is not None and kept.exists():
        found = _unpacked(kept, name, sha256)
        if found is not None:
            return found
    notify()
    read = read_structures(paths)
    if not read.crystals:
        reason = f" ({read.set_aside[0].reason})" if read.set_aside else ""
        raise ConfigurationError(f"{name} holds no crystal to compare with{reason}")
    reference = _packed(name, sha256, read.crystals, len(read.set_aside))
    if kept is not None:
        _keep(kept, reference)
    return reference


def _packed(name: str, sha256: str, known: Sequence[Known], set_aside: int) -> Reference:
    structures = [crystal.structure for crystal in known]
    reference = Reference(
        name=name,
        sha256=sha256,
        ids=tuple(crystal.known_id for crystal in known),
        counts=np.array([len(s) for s in structures], dtype=np.int64),
        lattices=np.array([s.lattice.matrix for s in structures]),
        numbers=np.array([site.specie.Z for s in structures for site in s], dtype=np.int64),
        coords=np.concatenate([s.frac_coords for s in structures]),
        set_aside=set_aside,
    )
    if sha256:
        return reference
    content = hashlib.sha256("\n".join(reference.ids).encode())
    for values in (reference.counts, reference.lattices, reference.numbers, reference.coords):
        content.update(np.round(values, 9).tobytes())
    return replace(reference, sha256=content.hexdigest())


def _hash(paths: Sequence[Path]) -> str:
    files = [
        file
        for path in paths
        for file in (sorted(f for f in path.rglob("*") if f.is_file()) if path.is_dir() else [path])
    ]
    hashes = []
    for file in files:
        with file.open("rb") as stream:
            hashes.append((file.name, hashlib.file_digest(stream, "sha256").hexdigest()))
    return hashes[0][1] if len(paths) == 1 and not paths[0].is_dir() else digest(hashes)


def _keep(file: Path, reference: Reference) -> None:
    with whole_file(file) as partial, partial.open("wb") as stream:
        np.savez_compressed(
            stream,
            ids=np.array(reference.ids),
            counts=reference.counts,
            lattices=reference.lattices,
            numbers=reference.numbers,
            coords=reference.coords,
            set_aside=np.array(reference.set_aside),
        )


def _unpacked(file: Path, name: str, sha256: str) -> Reference | None:
    # None where the file is damaged: it is only a shortcut, and is written anew.
    try:
        with np.load(file, allow_pickle=False) as content:
            return Reference(
                name=name,
                sha256=sha256,
                ids=tuple(content["ids"].tolist()),
                counts=content["counts"],
                lattices=content["lattices"],
                numbers=content["numbers"],
                coords=content["coords"],
                set_aside=int(content["set_aside"]),
            )
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None
