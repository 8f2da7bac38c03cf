"""Is the plane-wave cutoff converged? Asked of small prototypes, once per pair of elements.

The error of a cutoff sits in the atoms, and most of it cancels between a compound and its elements.
What is left is the error of the formation energy, and it depends on the elements far more than on
the crystal. So it is measured on a two-atom CsCl cell and the two face-centred cubic elements, with
few k-points, whose errors cancel as well. For an element on its own, bcc is measured against fcc.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

from pymatgen.core import Element, Lattice, Structure

from matloop.atomic import whole_file
from matloop.engines.gpaw.datasets import XC, used, versions
from matloop.engines.gpaw.document import CutoffCheck, PairCheck

if TYPE_CHECKING:
    from ase import Atoms

HIGHEST = 1500.0
"""Cutoff (eV) beyond which none is suggested."""

_logger = logging.getLogger(__name__)
_RUNG = 1.19  # ratio of neighbouring cutoffs; two rungs, a factor of 1.4, must agree
_CONTACT = 0.8  # volume of the compound relative to its elements
_WIDTH = 0.5  # smearing (eV): every prototype becomes an easy metal
_Energy = Callable[[tuple[str, ...], float], float]


def check_cutoff(
    elements: Sequence[str], functional: str, cutoff: float, tolerance: float
) -> CutoffCheck:
    """Return how far formation energies shift when the cutoff is raised by a factor of 1.4.

    Energies of prototypes are kept in a cache folder, so that each is computed once per
    version of GPAW, functional and cutoff: ``$XDG_CACHE_HOME/matloop`` or ``~/.cache/matloop``.

    Parameters
    ----------
    elements
        Elements of the crystal.
    functional
        As the engine's.
    cutoff
        Cutoff in use (eV).
    tolerance
        Largest shift allowed (eV/atom).

    Raises
    ------
    gpaw.KohnShamConvergenceError
        If a prototype does not converge.
    """
    started = time.perf_counter()
    names = sorted(set(elements))
    pairs = list(combinations(names, 2)) if len(names) > 1 else [(names[0], names[0])]

    def energy(symbols: tuple[str, ...], at: float) -> float:
        return _kept_energy(symbols, functional, at)

    found = [check_pair(pair, cutoff, tolerance, energy) for pair in pairs]
    return CutoffCheck(
        cutoff=cutoff,
        tolerance=tolerance,
        pairs=found,
        seconds=round(time.perf_counter() - started, 3),
    )


def check_pair(
    pair: tuple[str, str], cutoff: float, tolerance: float, energy: _Energy
) -> PairCheck:
    """Return how one pair depends on the cutoff; looks for a better one only if it must.

    Parameters
    ----------
    pair
        Two elements, or twice the same.
    cutoff, tolerance
        As for `check_cutoff`.
    energy
        Energy of a prototype (eV/atom) from its elements, one or two, and the cutoff.
    """
    known: dict[float, float] = {}

    def formation(at: float) -> float:
        if at not in known:
            first, second = (energy((name,), at) for name in pair)
            known[at] = energy(pair, at) - (first + second) / 2
        return known[at]

    rungs = [cutoff, _next(cutoff)]
    rungs.append(_next(rungs[-1]))
    shift = formation(rungs[2]) - formation(rungs[0])
    step, here = 0, shift
    while abs(here) > tolerance and rungs[step + 2] < HIGHEST:
        step += 1
        rungs.append(_next(rungs[-1]))
        here = formation(rungs[step + 2]) - formation(rungs[step])
    tried = sorted(known)
    return PairCheck(
        elements=pair,
        cutoffs=tried,
        formation=[round(known[at], 6) for at in tried],
        shift=round(shift, 6),
        sufficient=rungs[step] if abs(here) <= tolerance else None,
    )


def prototype(symbols: tuple[str, ...]) -> Structure:
    """Return the fcc cell of one element, or the CsCl cell of two (bcc if they are the same).

    Volumes are molar volumes of the elements at ambient pressure, a compound's a fifth smaller.
    """
    volumes = [float(Element(symbol).molar_volume) / 0.602214 for symbol in symbols]
    if len(symbols) == 1:
        return Structure(_fcc(volumes[0]), list(symbols), [[0, 0, 0]])
    shrink = _CONTACT if symbols[0] != symbols[1] else 1.0
    cube = Lattice.cubic((shrink * sum(volumes)) ** (1 / 3))
    return Structure(cube, list(symbols), [[0, 0, 0], [0.5, 0.5, 0.5]])


def _fcc(volume: float) -> Lattice:
    half = (4 * volume) ** (1 / 3) / 2
    return Lattice([[0, half, half], [half, 0, half], [half, half, 0]])


def _next(cutoff: float) -> float:
    return 10.0 * round(cutoff * _RUNG / 10)


def _kept_energy(symbols: tuple[str, ...], functional: str, cutoff: float) -> float:
    gpaw, data = versions()
    name = f"{'-'.join(symbols)}-{functional}-{cutoff:g}.json"
    file = _cache() / f"gpaw-{gpaw}-data-{data}" / name
    try:
        return float(json.loads(file.read_text(encoding="utf-8"))["energy_per_atom"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not there, or damaged: compute it
    energy = _energy(symbols, functional, cutoff)
    try:
        with whole_file(file) as place:
            place.write_text(json.dumps({"energy_per_atom": energy}), encoding="utf-8")
    except OSError as error:
        _logger.warning("the cutoff check of %s cannot be kept: %s", name, error)
    return energy


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "matloop"


def _energy(symbols: tuple[str, ...], functional: str, cutoff: float) -> float:
    from gpaw import GPAW
    from pymatgen.io.ase import AseAtomsAdaptor

    atoms: Atoms = AseAtomsAdaptor.get_atoms(prototype(symbols))
    with used(symbols, functional):
        atoms.calc = GPAW(
            mode={"name": "pw", "ecut": cutoff},
            xc=XC.get(functional, functional),
            kpts={"size": (2, 2, 2), "gamma": True},
            occupations={"name": "fermi-dirac", "width": _WIDTH},
            convergence={"energy": 1e-4, "density": 1e-3, "eigenstates": 1e-6},
            txt=None,
        )
        return float(atoms.get_potential_energy()) / len(atoms)
