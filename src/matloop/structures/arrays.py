"""Crystals in the arrays that CDVAE and its kin write: lengths, angles, coordinates, atom types."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymatgen.core import Element, Lattice, Structure

_NEEDED = ("frac_coords", "atom_types", "lengths", "angles", "num_atoms")


def crystal_arrays(file: Path) -> Iterator[tuple[str, Callable[[], Structure]]]:
    """Yield the place of each crystal of an ``.npz`` file, and what makes it.

    The file holds ``lengths`` (Å) and ``angles`` (degrees), shape (m, 3), ``num_atoms``, shape
    (m,), and for all N atoms one after the other ``frac_coords``, shape (N, 3), and ``atom_types``
    (atomic numbers), shape (N,). With k samples of each crystal every array has k in front.

    References
    ----------
    Layout: Xie et al., CDVAE, ICLR 2022; Jiao et al., DiffCSP, NeurIPS 2023.

    Raises
    ------
    ValueError
        If an array is missing, or their shapes do not agree.
    """
    with np.load(file, allow_pickle=False) as content:
        lacking = [name for name in _NEEDED if name not in content]
        if lacking:
            raise ValueError(f"it has no array {', '.join(lacking)}")
        arrays = {name: np.asarray(content[name]) for name in _NEEDED}
    if arrays["num_atoms"].ndim == 1:
        arrays = {name: values[None] for name, values in arrays.items()}
    samples = len(arrays["num_atoms"])
    for sample in range(samples):
        one = {name: values[sample] for name, values in arrays.items()}
        counts = one["num_atoms"].astype(int)
        total = int(counts.sum())
        shapes = {"frac_coords": (total, 3), "atom_types": (total,)}
        shapes |= {"lengths": (len(counts), 3), "angles": (len(counts), 3)}
        for name, shape in shapes.items():
            if one[name].shape != shape:
                raise ValueError(f"{name} has shape {one[name].shape}, expected {shape}")
        ends = np.cumsum(counts)
        for index, (stop, count) in enumerate(zip(ends, counts, strict=True)):
            atoms = slice(stop - count, stop)
            name = f"{sample}-{index}" if samples > 1 else str(index)
            yield (
                name,
                partial(
                    _crystal,
                    one["lengths"][index],
                    one["angles"][index],
                    one["atom_types"][atoms],
                    one["frac_coords"][atoms],
                ),
            )


def _crystal(
    lengths: NDArray[Any], angles: NDArray[Any], numbers: NDArray[Any], coords: NDArray[Any]
) -> Structure:
    lattice = Lattice.from_parameters(*map(float, lengths), *map(float, angles))
    species = [Element.from_Z(int(number)) for number in numbers]
    return Structure(lattice, species, np.asarray(coords, dtype=float))
