"""Tune a potential on labelled crystals, and judge it on crystals it has not seen."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

import numpy as np

from matloop import registry
from matloop.documents.labelled import Errors, Labelled, ModelCard
from matloop.documents.theory import LevelOfTheory
from matloop.errors import ConfigurationError
from matloop.potentials import Finetunable, Tuning
from matloop.surrogates.model_errors import Weights, element_offsets, errors
from matloop.surrogates.potentials import to_bytes


@dataclass(frozen=True)
class Tuned:
    """What came of a fine-tuning.

    Attributes
    ----------
    card
        What was done, with errors before and after, and whether the model is accepted.
    weights
        The tuned weights, accepted or not.
    """

    card: ModelCard
    weights: Weights

    def to_bytes(self) -> bytes:
        """Return both as the content of one file."""
        return to_bytes(self.card, self.weights)


@dataclass(frozen=True)
class Gate:
    """When a tuned model replaces its parent.

    Attributes
    ----------
    margin
        Least relative fall of the energy error on the frozen set: of the energies as they are,
        compared with the parent with or without refitted element energies, whichever is better,
        and of what is left of it in distances to the hull, `Errors.relative_mae`.
    force_margin
        The same for the forces, compared with the parent; 0 asks that they get no worse.
    """

    margin: float = 0.05
    force_margin: float = 0.0

    def verdict(self, before: Errors, shifted: Errors, after: Errors) -> tuple[bool, str]:
        """Return whether the tuned model is accepted, and why, in one clause."""
        base = min(before.energy_mae, shifted.energy_mae)
        told = (
            f"on {after.crystals} frozen crystals energies are off by "
            f"{_milli(after.energy_mae)} meV/atom (before: {_milli(base)}; relative to the "
            f"elements {_milli(after.relative_mae)}, before: {_milli(before.relative_mae)}) and "
            f"forces by {_milli(after.force_mae)} meV/Å (before: {_milli(before.force_mae)})"
        )
        if not np.isfinite([after.energy_mae, after.force_mae]).all():
            return False, "refused: the tuned model has no finite energies or forces"
        if not after.energy_mae <= (1 - self.margin) * base:
            return False, f"refused: {told}; energies must improve by {100 * self.margin:g} %"
        old, new = before.relative_mae, after.relative_mae
        if old is not None and new is not None and not new <= (1 - self.margin) * old:
            return False, (
                f"refused: {told}; relative energies must improve by {100 * self.margin:g} %"
            )
        if not after.force_mae <= (1 - self.force_margin) * before.force_mae:
            return False, f"refused: {told}; forces must improve by {100 * self.force_margin:g} %"
        return True, f"accepted: {told}"


def _milli(value: float | None) -> str:
    return "unknown" if value is None else f"{1000 * value:.1f}"


def finetune(
    model: str,
    parameters: Mapping[str, Any],
    labels: Sequence[Labelled],
    *,
    settings: Tuning | None = None,
    gate: Gate | None = None,
    frozen: Sequence[str] = (),
    frozen_share: float = 0.2,
    theory: str = "",
    parent: tuple[str, Weights] | None = None,
    seed: int = 0,
) -> Tuned:
    """Tune a potential on labelled crystals and judge it on crystals it has not seen.

    Only converged labels of one level of theory enter. Element energies are refitted by ridge
    regression first, so that another zero of energy is not taken for an error of the network; then
    the network is trained. A frozen set judges parent, shifted parent and tuned model.

    Parameters
    ----------
    model, parameters
        Registered name and parameters of a potential that can be tuned.
    labels
        Labelled crystals.
    settings, gate
        How it is trained, and when it is accepted.
    frozen
        Ids of the labels it is judged on; drawn by hash of their groups where none are given.
    frozen_share
        Share of the groups that are frozen then, at least three.
    theory
        Key of the level of theory, or its start; the most frequent one by default.
    parent
        Hash and weights of an earlier tuned model to start from; the model's own by default.
    seed
        The only source of randomness.

    Raises
    ------
    ConfigurationError
        If the model cannot be tuned, or too few labels are left.
    """
    tunable = registry.build("models", model, parameters)
    if not isinstance(tunable, Finetunable):
        raise ConfigurationError(f"model {model} cannot be tuned; chgnet and mace can")
    settings, gate = settings or Tuning(), gate or Gate()
    usable, excluded, level = admitted(labels, theory)
    sha256, weights = parent or ("", None)
    usable = _computable(tunable, usable, weights, excluded)
    held = set(frozen) or frozen_ids(usable, frozen_share)
    judged = [item for item in usable if item.label_id in held]
    groups = {item.group for item in judged}
    learned = [item for item in usable if item.group not in groups]
    if not judged or len(learned) < 2:
        raise ConfigurationError(
            f"{len(learned)} labels to train on and {len(judged)} to judge by are too few; "
            f"left out were {dict(excluded) or 'none'}"
        )
    frames = [item.frame for item in learned]
    offsets = element_offsets(frames, tunable.predict([f.structure for f in frames], weights))
    shifted = tunable.shifted(offsets, weights)
    tuned = tunable.tuned(frames, settings, seed, shifted)
    probes = [item.frame for item in judged]
    before, moved, after = (
        errors(probes, tunable.predict([f.structure for f in probes], one))
        for one in (weights, shifted, tuned)
    )
    accepted, reason = gate.verdict(before, moved, after)
    old = tunable.theory(sha256)
    card = ModelCard(
        model=model,
        parameters=dict(parameters),
        parent=old,
        parent_sha256=old.model_sha256,
        trained_on=level,
        training=tuple(item.label_id for item in learned),
        frozen=tuple(item.label_id for item in judged),
        excluded=dict(excluded),
        seed=seed,
        settings=asdict(settings),
        steps=settings.steps,
        before=before,
        shifted=moved,
        after=after,
        accepted=accepted,
        reason=reason,
        versions={name: version(name) for name in ("matloop", "torch")},
    )
    return Tuned(card, tuned)


def _computable(
    model: Finetunable,
    labels: Sequence[Labelled],
    weights: Weights | None,
    excluded: Counter[str],
) -> list[Labelled]:
    """Return the labels of crystals that the model can compute, and count the others."""
    said = model.predict([item.frame.structure for item in labels], weights)
    able = [item for item, one in zip(labels, said, strict=True) if np.isfinite(one.energy)]
    if len(able) < len(labels):
        excluded["the potential cannot compute them"] = len(labels) - len(able)
    return able


def admitted(
    labels: Sequence[Labelled], theory: str = ""
) -> tuple[list[Labelled], Counter[str], LevelOfTheory]:
    """Return the labels that may teach, why others may not, and their level of theory.

    Parameters
    ----------
    labels
        All of them.
    theory
        Key of the level of theory, or its start; the most frequent one by default.

    Raises
    ------
    ConfigurationError
        If none is left.
    """
    excluded: Counter[str] = Counter()
    sound = []
    for item in labels:
        frame = item.frame
        numbers = [frame.energy, *np.ravel(frame.forces), *np.ravel(frame.stress or 0.0)]
        if not item.converged:
            excluded["not converged"] += 1
        elif not np.isfinite(numbers).all():
            excluded["not finite"] += 1
        else:
            sound.append(item)
    keys = Counter(item.theory.key for item in sound)
    fitting = [key for key in keys if key.startswith(theory)]
    if not fitting:
        known = ", ".join(sorted(keys)) or "none"
        raise ConfigurationError(
            f"no converged label of level of theory {theory!r}; there are: {known}"
        )
    chosen = min(fitting, key=lambda key: (-keys[key], key))
    usable = [item for item in sound if item.theory.key == chosen]
    if len(usable) < len(sound):
        excluded["another level of theory"] = len(sound) - len(usable)
    return usable, excluded, usable[0].theory


def frozen_ids(labels: Sequence[Labelled], share: float) -> set[str]:
    """Return the ids of the labels that are frozen: whole groups, by the hash of their names.

    Parameters
    ----------
    labels
        Those of the first round.
    share
        Share of the groups, at least three.
    """
    groups = sorted(
        {item.group for item in labels}, key=lambda g: hashlib.sha256(g.encode()).hexdigest()
    )
    count = max(round(share * len(groups)), 3)
    chosen = set(groups[:count])
    return {item.label_id for item in labels if item.group in chosen}
