"""Fingerprints that coverage compares: local order of the sites, and Magpie statistics.

Both are those of matminer (CrystalNN "ops" and Magpie), computed here with pymatgen and the table
of smact: matminer itself asks for pandas below 3.
"""

from __future__ import annotations

import csv
import warnings
from collections import Counter
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray
from pymatgen.analysis.local_env import CN_OPT_PARAMS, CrystalNN, LocalStructOrderParams
from pymatgen.core import Composition, Structure

from matloop.structures import geometry
from matloop.structures.symmetry import SymmetryError, space_group

Array = NDArray[np.float64]

LARGEST_COORDINATION = 24

SYMPREC = 0.001
"""Sites that symmetry relates within this distance (Å) share a fingerprint, computed once."""

# Order parameters by coordination number: Zimmermann and Jain, RSC Adv. 10, 6063 (2020).
_MOTIFS: dict[int, tuple[str, ...]] = {
    1: ("sgl_bd",),
    2: ("L-shaped", "water-like", "bent 120 degrees", "bent 150 degrees", "linear"),
    3: ("trigonal planar", "trigonal non-coplanar", "T-shaped"),
    4: (
        "square co-planar",
        "tetrahedral",
        "rectangular see-saw-like",
        "see-saw-like",
        "trigonal pyramidal",
    ),
    5: ("pentagonal planar", "square pyramidal", "trigonal bipyramidal"),
    6: ("hexagonal planar", "octahedral", "pentagonal pyramidal"),
    7: ("hexagonal pyramidal", "pentagonal bipyramidal"),
    8: ("body-centered cubic", "hexagonal bipyramidal"),
    9: ("q2", "q4", "q6"),
    10: ("q2", "q4", "q6"),
    11: ("q2", "q4", "q6"),
    12: ("cuboctahedral", "q2", "q4", "q6"),
}

STRUCTURE_LENGTH = LARGEST_COORDINATION + sum(map(len, _MOTIFS.values()))
"""Numbers in the fingerprint of a structure."""

COMPOSITION_LENGTH = 132
"""Numbers in the fingerprint of a composition: six statistics of 22 properties."""

_STATISTICS = 6

# What Magpie's table does not know; smact fills these with means.
_UNKNOWN = {
    "MeltingT": {"He", "Fr"},
    "Electronegativity": {"He", "Ne", "Ar", "Rn"},
    "SpaceGroupNumber": {"At", "Rn", "Fr"},
    "CovalentRadius": {"Bk"},
}


def structure_fingerprint(structure: Structure) -> Array | None:
    """Return the mean over all sites of their local order, shape (61,).

    For each coordination number its likelihood, and that times the order parameters of its motifs.
    None where the neighbours of a site cannot be found.

    References
    ----------
    CrystalNN: Pan et al., Inorg. Chem. 60, 1590 (2021). As the structure's part of coverage: Xie et
    al., CDVAE, ICLR 2022.
    """
    if geometry.objection(structure) is not None:
        return None
    total = np.zeros(STRUCTURE_LENGTH)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of missing radii and oxidation states
        try:
            for site, weight in Counter(_orbits(structure)).items():
                total += weight * _site_fingerprint(structure, site)
        except Exception:  # Voronoi tessellation fails in many ways
            return None
    return total / len(structure)


def composition_fingerprint(composition: Composition) -> Array | None:
    """Return Magpie's statistics, scaled as CDVAE scales them, shape (132,).

    Of each of 22 properties of the elements: minimum, maximum, range, mean, mean absolute deviation
    and the value of the most frequent element, minus the mean over MP-20, over its deviation there.
    What is unknown is 0. None where the table lacks an element.

    References
    ----------
    Ward et al., npj Comput. Mater. 2, 16028 (2016). Means and deviations: Xie et al., CDVAE, ICLR
    2022.
    """
    bare = composition.element_composition
    names = [element.symbol for element in bare]
    rows = [_properties(name) for name in names]
    if any(row is None for row in rows):
        return None
    values = np.array(rows)
    shares = np.array([bare.get_atomic_fraction(name) for name in names])
    mean = shares @ values
    # Of equally frequent elements the smallest value counts.
    most = np.isclose(shares, shares.max())
    found = np.stack(
        [
            values.min(axis=0),
            values.max(axis=0),
            np.ptp(values, axis=0),
            mean,
            shares @ np.abs(values - mean),
            values[most].min(axis=0),
        ],
        axis=1,
    ).ravel()
    means, deviations = _scale()
    return np.nan_to_num((found - means) / deviations, nan=0.0)


def _orbits(structure: Structure) -> tuple[int, ...]:
    try:
        return space_group(structure, SYMPREC).orbits
    except SymmetryError:
        return tuple(range(len(structure)))


def _site_fingerprint(structure: Structure, site: int) -> Array:
    neighbours, orders = _tools()
    data = neighbours.get_nn_data(structure, site)
    found: list[float] = []
    for coordination in range(1, LARGEST_COORDINATION + 1):
        weight = float(data.cn_weights.get(coordination, 0.0))
        found.append(weight)
        for order in orders.get(coordination, ()):
            if weight == 0:
                found.append(0.0)
                continue
            around = [entry["site"] for entry in data.cn_nninfo[coordination]]
            value = order.get_order_parameters(
                [structure[site], *around], 0, indices_neighs=list(range(1, len(around) + 1))
            )[0]
            found.append(weight * float(value or 0.0))
    return np.array(found)


@cache
def _tools() -> tuple[CrystalNN, dict[int, list[LocalStructOrderParams]]]:
    orders: dict[int, list[LocalStructOrderParams]] = {}
    for coordination, motifs in _MOTIFS.items():
        known = CN_OPT_PARAMS.get(coordination, {})
        for motif in motifs:
            name, *parameters = known.get(motif, [motif])
            order = LocalStructOrderParams(
                [name], parameters=[parameters[0] if parameters else None]
            )
            orders.setdefault(coordination, []).append(order)
    return CrystalNN(), orders


@cache
def _properties(element: str) -> tuple[float, ...] | None:
    from smact.data_loader import lookup_element_magpie_data

    row = lookup_element_magpie_data(element)
    if row is None:
        return None
    return tuple(
        float("nan") if element in _UNKNOWN.get(name, ()) else float(row[name])
        for name in _property_names()
    )


@cache
def _scale() -> tuple[Array, Array]:
    rows = _table()
    means = np.array([float(row["mean"]) for row in rows])
    return means, np.array([float(row["deviation"]) for row in rows])


@cache
def _property_names() -> tuple[str, ...]:
    return tuple(row["property"] for row in _table()[::_STATISTICS])


@cache
def _table() -> list[dict[str, str]]:
    # Means and deviations of the Magpie statistics over MP-20, from CDVAE (MIT licence).
    text = files("matloop.metrics").joinpath("data", "magpie_scale.csv").read_text("utf-8")
    return list(csv.DictReader(text.splitlines()))
