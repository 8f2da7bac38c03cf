"""The user's own structures as proposals."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from monty.json import MSONable

from matloop.documents.candidate import structure_digest
from matloop.errors import ConfigurationError
from matloop.protocols import Proposal, ProposalRequest
from matloop.structures.reading import ReadResult, read_structures

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StructureFiles(MSONable):
    """Propose the crystals of structure files: CIF, POSCAR, extxyz, JSON, CSV, zip, or folders.

    The generator holds no state, so each iteration draws from all files anew. Shuffled, every
    request is a random sample by its seed: without repetition inside a request, and with n of N
    crystals asked for per iteration, k iterations see about 1 - (1 - n/N)^k of them. Unshuffled,
    each request takes a window of the files in their order, which starts at a place drawn from the
    seed and wraps around; ask for as many candidates as there are crystals to propose each once.

    Attributes
    ----------
    paths
        Files and folders. In a campaign, relative ones are counted from the folder of its file.
    shuffle
        Draw a random sample; false takes neighbours in the order of files.
    """

    paths: list[str]
    shuffle: bool = True

    def __post_init__(self) -> None:
        """Refuse an empty list of paths."""
        if not self.paths:
            raise ValueError("paths is empty; name at least one structure file or folder")

    def propose(self, request: ProposalRequest) -> list[Proposal]:
        """Return up to `request.count` crystals, each with the file it is from.

        Raises
        ------
        ConfigurationError
            If a path does not exist, or no file holds a usable crystal.
        """
        found = _read([Path(path).expanduser() for path in self.paths])
        if not found.crystals:
            reasons = "; ".join(f"{aside.name}: {aside.reason}" for aside in found.set_aside[:3])
            raise ConfigurationError(f"no usable crystal in {', '.join(self.paths)} ({reasons})")
        crystals, total = found.crystals, len(found.crystals)
        random = np.random.default_rng(request.seed)
        if self.shuffle:
            order = random.permutation(total)
        else:
            start = 0 if request.count >= total else int(random.integers(total))
            order = (start + np.arange(total)) % total
        proposals: list[Proposal] = []
        seen: set[str] = set()
        for index in order:
            if len(proposals) >= request.count:
                break
            crystal = crystals[int(index)]
            name = structure_digest(crystal.structure)
            if name not in seen:
                seen.add(name)
                parameters = {"file": crystal.source, "record": crystal.known_id}
                proposals.append(Proposal(crystal.structure.copy(), parameters=parameters))
        return proposals


def _read(paths: list[Path]) -> ReadResult:
    """Read files once per process, and again when one of them changed."""
    stamps = []
    for path in paths:
        inside = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in inside:
            if file.is_file():
                state = file.stat()
                stamps.append((str(file), state.st_mtime_ns, state.st_size))
    return _read_as_stamped(tuple(paths), tuple(stamps))


@lru_cache(maxsize=4)
def _read_as_stamped(
    paths: tuple[Path, ...],
    stamps: tuple[tuple[str, int, int], ...],
) -> ReadResult:
    found = read_structures(paths)
    for aside in found.set_aside:
        logger.warning("%s is set aside: %s", aside.name, aside.reason)
    return found
