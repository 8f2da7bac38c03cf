"""Crystals with energies, forces and stresses: what potentials learn from, and how well."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field, JsonValue, model_validator

from matloop.documents.base import Crystal, Document
from matloop.documents.theory import LevelOfTheory

Vector = tuple[float, float, float]
Matrix = tuple[Vector, Vector, Vector]

MOST_FRAMES = 10
"""Most geometries of one calculation that are kept, evenly spaced, the last among them."""


class Frame(Document):
    """One geometry of a calculation.

    Attributes
    ----------
    structure
        The crystal.
    energy
        Total energy (eV).
    forces
        Forces (eV/Å), one per site.
    stress
        Symmetric Cauchy stress (eV/Å^3), positive when the crystal wants to contract; None where
        the calculation gave none.
    """

    structure: Crystal
    energy: float
    forces: tuple[Vector, ...]
    stress: Matrix | None = None

    @model_validator(mode="after")
    def _one_force_per_site(self) -> Frame:
        if len(self.forces) != len(self.structure):
            raise ValueError(f"{len(self.forces)} forces for {len(self.structure)} sites")
        return self


class Labelled(Document):
    """A frame with where it is from.

    Attributes
    ----------
    label_id
        Unique name.
    group
        What must not be split between training and validation: the candidate, or whatever else the
        frame is one of several of.
    frame
        Crystal, energy, forces, stress.
    theory
        Level of theory of the energy.
    converged
        Whether the calculation is what it was meant to be.
    iteration
        Round of the campaign in which its crystal was proposed.
    """

    label_id: str
    group: str
    frame: Frame
    theory: LevelOfTheory
    converged: bool = True
    iteration: int = 0


class Errors(Document):
    """Errors of a model on labelled crystals, each with its denominator.

    Attributes
    ----------
    energy_mae
        Mean absolute error of the energy (eV/atom).
    relative_mae
        The same (eV/atom) after energies per element have been fitted to the residuals: what is
        left of it in distances to the hull. None where there are no more crystals than elements.
    force_mae
        Mean absolute error of the force components (eV/Å).
    stress_mae
        Mean absolute error of the stress components (eV/Å^3); None without stresses.
    crystals, components, stresses
        Crystals, force components and stresses behind them.
    """

    energy_mae: float
    relative_mae: float | None
    force_mae: float
    stress_mae: float | None
    crystals: int
    components: int
    stresses: int


class Flip(Document):
    """A crystal that changes sides of the stability criterion with the model.

    Attributes
    ----------
    crystal_id, formula
        Which.
    before, after
        Distance to the hull by the old model and by the new (eV/atom), each on the hull of the same
        crystals at its own level of theory.
    """

    crystal_id: str
    formula: str
    before: float
    after: float


class ModelCard(Document):
    """What a fine-tuned model is, and whether it replaces its parent.

    Attributes
    ----------
    model, parameters
        Registered name and parameters of the model at the start.
    parent
        Level of theory of the model that was tuned.
    parent_sha256
        Hash of its weights.
    trained_on
        Level of theory of the labels.
    training, frozen
        Ids of the labels it was trained on, and of those it was judged on, fixed in the first
        round.
    excluded
        Labels left out, by reason.
    seed, settings
        How it was trained.
    steps
        Optimiser steps.
    before, after
        Errors of parent and tuned model on the frozen set. Of the parent also with the element
        energies refitted alone, `shifted`, which tells learning from another zero of energy.
    accepted, reason
        Whether it replaces its parent, and why.
    flips, compared
        Crystals whose stability the model changes, of how many.
    versions
        Of the packages at work.
    """

    model: str
    parameters: dict[str, JsonValue]
    parent: LevelOfTheory
    parent_sha256: str
    trained_on: LevelOfTheory
    training: tuple[str, ...]
    frozen: tuple[str, ...]
    excluded: dict[str, int] = Field(default_factory=dict)
    seed: int
    settings: dict[str, JsonValue]
    steps: int
    before: Errors
    shifted: Errors
    after: Errors
    accepted: bool
    reason: str = Field(min_length=1)
    flips: tuple[Flip, ...] = ()
    compared: int = 0
    versions: dict[str, str] = Field(default_factory=dict)
    kind: Literal["fine-tuned potential"] = "fine-tuned potential"
    schema_version: int = 1


def kept(frames: list[Frame], most: int = MOST_FRAMES) -> tuple[Frame, ...]:
    """Return at most so many frames, evenly spaced, the last one among them.

    Parameters
    ----------
    frames
        All of a calculation, in order.
    most
        How many.
    """
    if len(frames) <= most:
        return tuple(frames)
    chosen = np.unique(np.linspace(0, len(frames) - 1, most).round().astype(int))
    return tuple(frames[index] for index in chosen)
