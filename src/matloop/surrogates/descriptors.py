"""Descriptors of crystals before relaxation: composition and cheap geometry, of fixed length."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache

import numpy as np
from moyopy import Cell, MoyoDataset, minkowski_reduce, operations_from_number
from numpy.typing import NDArray
from pymatgen.core import Element, Lattice, Structure
from scipy.special import erfc

from matloop.surrogates import elements
from matloop.surrogates.elements import COMPOSITION_FEATURES, HEAVIEST

Array = NDArray[np.float64]
Numbers = NDArray[np.int64]

_CUTOFF = 8.0  # Å
_MOST_NEIGHBOURS = 400  # per atom; a denser crystal gets a shorter cutoff
_FARTHEST = 2.6  # scaled distance that stands for "no neighbour"
_SHELL = 48  # nearest neighbours that may bond to one atom
_RADIAL = np.linspace(0.6, 2.3, 14)  # centres of the radial bins, in scaled distance
_WIDTH = 0.07  # width of the radial bins
_SYMPREC = 0.05  # Å, tight for a crystal as proposed, loose for one read from a file
_COULOMB = 14.399645  # e^2 / (4 pi epsilon_0) in eV Å
_SHORTEST_HEIGHT = 0.5  # Å
_VOLUMES = (1.0, 2000.0)  # Å^3 per atom

GEOMETRY_FEATURES: tuple[str, ...] = (
    "volume_per_atom",
    "volume_to_elements",
    "packing",
    "density",
    *(
        f"{name}_{statistic}"
        for name in ("nearest", "coordination", "polar", "q2", "q4", "q6", "valence_sum")
        for statistic in ("mean", "std", "min", "max")
    ),
    *(f"nearest_{pair}" for pair in ("like", "cation_cation", "cation_anion", "anion_anion")),
    "unlike_contacts",
    "contrast_contacts",
    "pair_energy",
    "overlap",
    "electrostatic",
    "madelung",
    *(f"radial_{centre:.2f}" for centre in _RADIAL),
    *(f"contrast_{centre:.2f}" for centre in _RADIAL),
)
SYMMETRY_FEATURES: tuple[str, ...] = (
    "space_group",
    "point_operations",
    "orbits_per_atom",
    "primitive_atoms",
)

FEATURES: tuple[str, ...] = (*COMPOSITION_FEATURES, *GEOMETRY_FEATURES, *SYMMETRY_FEATURES)
"""Name of each number in a descriptor."""


def describe(structure: Structure) -> Array:
    """Return the descriptor of a crystal, shape (len(FEATURES),), all finite.

    It does not depend on the choice of cell, origin, orientation or order of sites. Distances are
    scaled by the sum of covalent radii, so that a bond has a length of about one.

    Raises
    ------
    ValueError
        If the crystal cannot be described: disorder, no number, unknown element, or a cell that
        is empty, flat or collapsed.
    """
    numbers = _atomic_numbers(structure)
    matrix = np.ascontiguousarray(structure.lattice.matrix, dtype=float)
    coordinates = np.ascontiguousarray(np.mod(structure.frac_coords, 1.0), dtype=float)
    return np.array(_cached(matrix.tobytes(), coordinates.tobytes(), numbers.tobytes()))


def describe_all(structures: Sequence[Structure]) -> tuple[Array, dict[int, str]]:
    """Return the descriptors of crystals, and why some have none.

    Returns
    -------
    features
        Shape (len(structures), len(FEATURES)); rows of NaN where a crystal has no descriptor.
    failures
        Reason by row.
    """
    features = np.full((len(structures), len(FEATURES)), np.nan)
    failures: dict[int, str] = {}
    for index, structure in enumerate(structures):
        try:
            features[index] = describe(structure)
        except ValueError as error:
            failures[index] = str(error)
    return features, failures


def _atomic_numbers(structure: Structure) -> Numbers:
    if not len(structure):
        raise ValueError("the cell is empty")
    sites = [tuple(site.species.items()) for site in structure]
    if any(len(kinds) != 1 or kinds[0][1] != 1.0 for kinds in sites):
        raise ValueError("sites are partly occupied")
    numbers = np.array([_atomic_number(kinds[0][0].symbol) for kinds in sites], dtype=np.int64)
    if numbers.max() > HEAVIEST:
        raise ValueError(f"no data for the element {Element.from_Z(int(numbers.max())).symbol}")
    return numbers


@cache
def _atomic_number(symbol: str) -> int:
    return int(Element(symbol).Z)


@lru_cache(maxsize=8192)
def _cached(matrix: bytes, coordinates: bytes, numbers: bytes) -> tuple[float, ...]:
    """Describe a crystal once per process: evaluators, selectors and learners all ask for it."""
    lattice = np.frombuffer(matrix).reshape(3, 3)
    fractional = np.frombuffer(coordinates).reshape(-1, 3)
    species = np.frombuffer(numbers, dtype=np.int64)
    _check_cell(lattice, fractional)
    kinds, counts = np.unique(species, return_counts=True)
    names = tuple(int(kind) for kind in kinds)
    amounts = tuple(int(count) for count in counts)
    with np.errstate(all="ignore"):
        values = (
            *elements.composition_features(names, amounts),
            *_geometry(lattice, fractional, species, names, amounts),
            *_symmetry(lattice, fractional, species),
        )
    if not np.isfinite(values).all():
        worst = FEATURES[int(np.argmin(np.isfinite(values)))]
        raise ValueError(f"its {worst} is not finite")
    return values


def _check_cell(matrix: Array, fractional: Array) -> None:
    if not (np.isfinite(matrix).all() and np.isfinite(fractional).all()):
        raise ValueError("its cell or coordinates are not numbers")
    per_atom = abs(float(np.linalg.det(matrix))) / len(fractional)
    low, high = _VOLUMES
    if not low <= per_atom <= high:
        raise ValueError(f"has {per_atom:.3g} Å^3 per atom, described are {low:g} to {high:g}")
    basis, _ = minkowski_reduce(matrix.tolist())
    height = 1.0 / np.linalg.norm(np.linalg.inv(np.asarray(basis)), axis=0).max()
    if height < _SHORTEST_HEIGHT:
        raise ValueError(f"its cell is {height:.2g} Å flat")


def _geometry(
    matrix: Array,
    fractional: Array,
    numbers: Numbers,
    kinds: tuple[int, ...],
    counts: tuple[int, ...],
) -> list[float]:
    n_atoms = len(numbers)
    volume = abs(float(np.linalg.det(matrix))) / n_atoms
    radius = elements.column("covalent_radius")[numbers]
    electronegativity = elements.column("electronegativity")[numbers]
    contrast = electronegativity - electronegativity.mean()
    mass = elements.column("mass")[numbers].mean()

    cutoff = min(_CUTOFF, (3.0 * _MOST_NEIGHBOURS * volume / (4.0 * np.pi)) ** (1 / 3))
    first, second, vectors, distances = _neighbours(matrix, fractional, cutoff)
    scaled = distances / (radius[first] + radius[second])
    near = scaled < _FARTHEST
    i, j, s, u = first[near], second[near], scaled[near], vectors[near] / distances[near, None]

    def per_atom(weights: Array) -> Array:
        return np.bincount(i, weights, minlength=n_atoms).astype(float)

    nearest = np.full(n_atoms, _FARTHEST)
    np.minimum.at(nearest, i, s)
    bonded = 1.0 / (1.0 + np.exp((s - 1.25) / 0.06))  # a bond is shorter than 1.25 radii sums
    coordination = per_atom(bonded)
    polar = np.sqrt(sum(per_atom(bonded * u[:, axis]) ** 2 for axis in range(3)))
    polar = polar / np.maximum(coordination, 1.0)
    # Bond valence with its empirical decay of 0.37 Å (Brown and Altermatt, Acta Cryst. B 41, 244,
    # 1985), and the sum of radii for the length of a single bond.
    bond_valence = np.exp(np.minimum((1.0 - s) * (radius[i] + radius[j]) / 0.37, 3.0))
    valence_sum = per_atom(bond_valence * np.sign(np.round(contrast[i] - contrast[j], 6)))
    orders = _bond_orders(i, s, u, n_atoms)

    features = [
        float(np.log(volume)),
        float(np.log(volume / elements.column("molar_volume")[numbers].mean())),
        float(np.log(np.mean(4.0 / 3.0 * np.pi * radius**3) / volume)),
        float(np.log(mass / volume)),
    ]
    for values in (nearest, coordination, polar, *orders, valence_sum):
        features += [values.mean(), values.std(), values.min(), values.max()]

    unlike = numbers[i] != numbers[j]
    anion = contrast > 1e-6
    cation = contrast < -1e-6
    for mask in (
        ~unlike,
        cation[i] & cation[j],
        (cation[i] & anion[j]) | (anion[i] & cation[j]),
        anion[i] & anion[j],
    ):
        features.append(float(s[mask].min(initial=_FARTHEST)))
    total = max(float(bonded.sum()), 1e-9)
    steepness = np.maximum(s, 0.3) ** -6
    features += [
        float(bonded @ unlike) / total,
        float(bonded @ np.abs(contrast[i] - contrast[j])) / total,
        float(np.arcsinh(0.5 * np.sum(steepness**2 - 2.0 * steepness) / n_atoms)),
        float(np.sum(np.maximum(0.85 - s, 0.0) ** 2) / n_atoms),
    ]
    pairs = (first, second, distances, cutoff)
    features.append(_electrostatic_energy(-contrast, *pairs))
    charges = elements.ionic_charges(kinds, counts)
    if charges is None:
        features.append(0.0)
    else:
        by_number = dict(zip(kinds, charges, strict=True))
        ions = np.array([by_number[int(number)] for number in numbers])
        features.append(_electrostatic_energy(ions, *pairs))

    bins = np.exp(-0.5 * ((s[:, None] - _RADIAL) / _WIDTH) ** 2) / (s[:, None] ** 2)
    variance = max(float(np.mean(contrast**2)), 1e-6)
    features += list(bins.sum(axis=0) / n_atoms)
    features += list((contrast[i] * contrast[j] / variance) @ bins / n_atoms)
    return [float(value) for value in features]


def _neighbours(
    matrix: Array, fractional: Array, cutoff: float
) -> tuple[Numbers, Numbers, Array, Array]:
    """Return pairs (i, j), the vectors from i to j (Å) and their lengths (Å), both directions."""
    lattice = Lattice(matrix)
    structure = Structure(lattice, ["H"] * len(fractional), fractional)
    first, second, images, distances = structure.get_neighbor_list(cutoff, exclude_self=True)
    apart = distances > 1e-3
    first, second, images = first[apart], second[apart], images[apart]
    vectors = (fractional[second] + images - fractional[first]) @ matrix
    return first, second, vectors, distances[apart]


def _bond_orders(i: Numbers, s: Array, u: Array, n_atoms: int) -> list[Array]:
    """Return Steinhardt's Q2, Q4 and Q6 of every atom, neighbours weighted by closeness.

    The addition theorem turns sums over spherical harmonics into Legendre polynomials of the
    angles between neighbours (Steinhardt et al., Phys. Rev. B 28, 784, 1983).
    """
    order = np.lexsort((s, i))
    starts = np.searchsorted(i[order], np.arange(n_atoms))
    place = np.arange(len(order)) - starts[i[order]]
    kept = order[place < _SHELL]
    slot = place[place < _SHELL]
    directions = np.zeros((n_atoms, _SHELL, 3))
    weights = np.zeros((n_atoms, _SHELL))
    directions[i[kept], slot] = u[kept]
    weights[i[kept], slot] = 1.0 / (1.0 + np.exp((s[kept] - 1.35) / 0.05))
    cosines = np.einsum("nax,nbx->nab", directions, directions)
    squared = cosines**2
    legendre = (
        (3.0 * squared - 1.0) / 2.0,
        (35.0 * squared**2 - 30.0 * squared + 3.0) / 8.0,
        (231.0 * squared**3 - 315.0 * squared**2 + 105.0 * squared - 5.0) / 16.0,
    )
    norm = np.maximum(weights.sum(axis=1), 1e-6) ** 2
    return [
        np.sqrt(np.maximum(np.einsum("na,nab,nb->n", weights, values, weights) / norm, 0.0))
        for values in legendre
    ]


def _electrostatic_energy(
    charges: Array, first: Numbers, second: Numbers, distances: Array, cutoff: float
) -> float:
    """Return the electrostatic energy of neutral point charges (eV/atom).

    Damped, shifted direct summation of Wolf et al., J. Chem. Phys. 110, 8254 (1999), eq. 5.13.
    """
    damping = 2.0 / cutoff
    shift = erfc(damping * cutoff) / cutoff
    r = np.maximum(distances, 0.3)
    pairs = 0.5 * np.sum(charges[first] * charges[second] * (erfc(damping * r) / r - shift))
    own = (0.5 * shift + damping / np.sqrt(np.pi)) * np.sum(charges**2)
    return float(_COULOMB * (pairs - own) / len(charges))


def _symmetry(matrix: Array, fractional: Array, numbers: Numbers) -> list[float]:
    n_atoms = len(numbers)
    cell = Cell(matrix.tolist(), fractional.tolist(), numbers.tolist())
    try:
        found = MoyoDataset(cell, symprec=_SYMPREC)
    except ValueError:  # nearly coincident atoms: no symmetry to speak of
        return [1.0, 0.0, 1.0, float(np.log(n_atoms))]
    primitive = len(found.prim_std_cell.numbers)
    return [
        float(found.number),
        float(np.log(_point_operations(int(found.number)))),
        len(set(found.orbits)) / primitive,
        float(np.log(primitive)),
    ]


@cache
def _point_operations(space_group: int) -> int:
    return len(operations_from_number(space_group, primitive=True))
