"""Empirical potentials of ASE, one crystal after the other: the slow, generic path."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import ase
import numpy as np
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from monty.json import MSONable

from matloop.documents.theory import LevelOfTheory
from matloop.evaluators.mlip.model import Member, Prediction

EMT_ELEMENTS = frozenset({13, 28, 29, 46, 47, 78, 79})
"""Al, Ni, Cu, Pd, Ag, Pt, Au: the metals that effective medium theory was fitted to."""


@dataclass(frozen=True)
class AseModel(MSONable):
    """An empirical potential of ASE: fast to start, for metals or for tests.

    Attributes
    ----------
    calculator
        ``emt``: effective medium theory of Al, Ni, Cu, Pd, Ag, Pt and Au. ``lj``: one Lennard-Jones
        potential between all atoms, whatever their element.
    sigma
        Lennard-Jones length (Å); by default that of argon.
    epsilon
        Lennard-Jones depth (eV); by default that of argon.

    References
    ----------
    Jacobsen, Stoltze and Nørskov, Surf. Sci. 366, 394 (1996).
    """

    calculator: Literal["emt", "lj"] = "emt"
    sigma: float = 3.4
    epsilon: float = 0.0104

    def load(self) -> LoadedAseModel:
        """Return the calculator, the same object each time in one process."""
        return _load(self)


class LoadedAseModel:
    """An ASE calculator behind the interface of a batched model.

    Parameters
    ----------
    model
        Which calculator.
    """

    device = "cpu"

    def __init__(self, model: AseModel) -> None:
        settings: dict[str, str | float | int | bool] = {}
        if model.calculator == "emt":
            self._calculator: Any = EMT(asap_cutoff=True)
            self.elements = EMT_ELEMENTS
            settings = {"asap_cutoff": True}
        else:
            # `smooth` makes forces continuous at the cutoff, as a minimiser needs it.
            self._calculator = LennardJones(
                sigma=model.sigma,
                epsilon=model.epsilon,
                rc=2.5 * model.sigma,
                ro=2.0 * model.sigma,
                smooth=True,
            )
            self.elements = frozenset(range(1, 119))
            settings = {"sigma": model.sigma, "epsilon": model.epsilon}
        self.theory = LevelOfTheory(
            kind="empirical",
            code="ase",
            version=ase.__version__,
            model=model.calculator,
            settings=settings,
        )

    def predict(self, members: Sequence[Member]) -> Prediction:
        """Return energies, forces and stresses, computed one crystal at a time."""
        energies = np.full(len(members), np.nan)
        stresses = np.full((len(members), 3, 3), np.nan)
        forces = [np.full((len(member.numbers), 3), np.nan) for member in members]
        faults: dict[int, str] = {}
        for index, member in enumerate(members):
            atoms = ase.Atoms(
                numbers=member.numbers, positions=member.positions, cell=member.cell, pbc=True
            )
            atoms.calc = self._calculator
            try:
                energies[index] = atoms.get_potential_energy()
                forces[index] = atoms.get_forces()
                stresses[index] = atoms.get_stress(voigt=False)
            except MemoryError:
                raise
            except Exception as error:  # whatever a calculator raises is that member's own fault
                faults[index] = f"{self.theory.model} raised {type(error).__name__}: {error}"
        packed = np.concatenate(forces) if forces else np.zeros((0, 3))
        return Prediction(energies, packed, stresses, faults)


@cache
def _load(model: AseModel) -> LoadedAseModel:
    return LoadedAseModel(model)
