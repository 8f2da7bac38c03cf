"""Coverage: how much of a test set samples reach, and how many of them lie near it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pymatgen.core import Structure
from scipy.spatial.distance import cdist

from matloop.atomic import whole_file
from matloop.errors import ConfigurationError
from matloop.metrics.figures import Figures
from matloop.metrics.fingerprints import (
    COMPOSITION_LENGTH,
    STRUCTURE_LENGTH,
    composition_fingerprint,
    structure_fingerprint,
)
from matloop.metrics.hull import Notify
from matloop.metrics.reference import Reference

Array = NDArray[np.float64]

_BLOCK = 200  # fingerprints written together
_LAYOUT = 1  # of the files of fingerprints; another number is another file


@dataclass(frozen=True)
class CutOffs:
    """Distances within which fingerprints count as near.

    Attributes
    ----------
    structure
        Distance of local order.
    composition
        Distance of scaled Magpie statistics.
    """

    structure: float
    composition: float


CUT_OFFS = {
    "mp-20": CutOffs(0.4, 10.0),
    "perov-5": CutOffs(0.2, 4.0),
    "carbon-24": CutOffs(0.2, 4.0),
}
"""Published cut-offs by data set: Xie et al., CDVAE, ICLR 2022."""


def cut_offs(text: str) -> CutOffs:
    """Return cut-offs from the name of a data set, or from two numbers as in ``0.4,10``.

    Raises
    ------
    ConfigurationError
        If the text is neither.
    """
    if text.lower() in CUT_OFFS:
        return CUT_OFFS[text.lower()]
    try:
        structure, composition = map(float, text.split(","))
    except ValueError:
        known = ", ".join(CUT_OFFS)
        raise ConfigurationError(
            f"coverage: {text!r} is no data set with published cut-offs ({known}), nor two numbers "
            "such as 0.4,10"
        ) from None
    if not (structure > 0 and composition > 0):
        raise ConfigurationError(f"coverage: cut-offs must be positive, got {text}")
    return CutOffs(structure, composition)


def put_coverage(
    figures: Figures,
    samples: Sequence[Structure | None],
    reference: Reference,
    limits: CutOffs | None,
    cache: Path | None,
    notify: Notify,
) -> None:
    """Add recall and precision of coverage.

    ``cov_recall`` is the share of the reference that a sample lies near, ``cov_precision`` the
    share of all samples that lie near a reference crystal: nearest by structure and nearest by
    composition both within their cut-offs, as CDVAE counts, whatever crystals those are.

    Parameters
    ----------
    figures
        Where they are added; null if no cut-offs are given.
    samples
        Structures of all samples; None for those that cannot be measured.
    reference
        The test set.
    limits
        Cut-offs.
    cache
        Folder where fingerprints of the reference are kept.
    notify
        Told of progress.
    """
    recall: list[bool] | None = None
    precision: list[bool] | None = None
    covered = 0
    if limits is not None:
        known = reference_fingerprints(reference, cache, notify)
        covered = len(known)
        ours = _fingerprints(samples, "fingerprints", len(samples), notify)
        usable = ~np.isnan(ours).any(axis=1)
        near_reference, near_sample = near(
            ours[usable], known[~np.isnan(known).any(axis=1)], limits
        )
        recall, precision = near_reference.tolist(), near_sample.tolist()
    figures.share("cov_recall", recall, covered)
    figures.share("cov_precision", precision, len(samples))
    figures.put(
        {
            "cov_structure_cutoff": limits.structure if limits else None,
            "cov_composition_cutoff": limits.composition if limits else None,
        }
    )


def near(samples: Array, known: Array, limits: CutOffs) -> tuple[NDArray[np.bool_], ...]:
    """Return which known crystals lie near a sample, and which samples near a known crystal.

    Parameters
    ----------
    samples, known
        Fingerprints of structure and composition side by side, one crystal per row.
    limits
        Cut-offs.
    """
    if not len(samples) or not len(known):
        return np.zeros(len(known), dtype=bool), np.zeros(len(samples), dtype=bool)
    recall = np.ones(len(known), dtype=bool)
    precision = np.ones(len(samples), dtype=bool)
    for columns, limit in (
        (slice(None, STRUCTURE_LENGTH), limits.structure),
        (slice(STRUCTURE_LENGTH, None), limits.composition),
    ):
        distances = cdist(samples[:, columns], known[:, columns])
        recall &= distances.min(axis=0) <= limit
        precision &= distances.min(axis=1) <= limit
    return recall, precision


def reference_fingerprints(reference: Reference, cache: Path | None, notify: Notify) -> Array:
    """Return the fingerprints of a reference, one row each, NaN where there is none.

    They are kept in blocks as they come, so that a run that dies goes on where it was.
    """
    blocks = []
    for start in range(0, len(reference), _BLOCK):
        stop = min(start + _BLOCK, len(reference))
        name = f"fingerprints-{reference.sha256[:24]}-{start}-{_LAYOUT}.npy"
        file = cache / name if cache else None
        block = _kept(file, stop - start)
        if block is None:
            some = (reference.structure(i) for i in range(start, stop))
            block = _fingerprints(some, "fingerprints of references", len(reference), notify, start)
            if file is not None:
                with whole_file(file) as partial, partial.open("wb") as stream:
                    np.save(stream, block)
        blocks.append(block)
    return np.concatenate(blocks)


def _kept(file: Path | None, rows: int) -> Array | None:
    if file is None or not file.exists():
        return None
    try:
        block = np.load(file, allow_pickle=False)
    except (OSError, ValueError):
        return None
    return np.asarray(block) if len(block) == rows else None


def _fingerprints(
    structures: Iterable[Structure | None], step: str, total: int, notify: Notify, start: int = 0
) -> Array:
    rows = []
    for done, structure in enumerate(structures, start + 1):
        order = structure_fingerprint(structure) if structure is not None else None
        content = composition_fingerprint(structure.composition) if structure is not None else None
        rows.append(None if order is None or content is None else np.concatenate([order, content]))
        notify(step, done, total)
    blank = np.full(STRUCTURE_LENGTH + COMPOSITION_LENGTH, np.nan)
    return np.array([blank if row is None else row for row in rows])
