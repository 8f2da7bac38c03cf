"""Fine-tune potentials on a campaign's calculations, behind a gate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

from monty.json import MSONable

from matloop import registry
from matloop.documents.labelled import Labelled, ModelCard
from matloop.documents.objective import Objective
from matloop.documents.phase import PhaseSet
from matloop.errors import ConfigurationError
from matloop.potentials import Tuning
from matloop.protocols import Lesson, Observation, Resources
from matloop.surrogates.finetuning import Gate, Tuned, admitted, finetune, frozen_ids
from matloop.surrogates.model_errors import Weights, flips
from matloop.surrogates.potentials import MEDIA_TYPE, read_card, read_weights, sha256_of, to_bytes

MOST_COMPARED = 300
"""Most crystals whose distance to the hull is compared between two models, the newest."""

_PHASES = "phases"


@dataclass(frozen=True)
class Finetune(MSONable):
    """Tune a potential on the calculations of all rounds, and keep the better one.

    Labels are the geometries with energies and forces that the engines' calculations left. Only
    converged ones of one level of theory enter. The frozen set that judges is drawn in the first
    round with enough labels, and stays. A tuned model replaces its parent, the model at the start
    or the last one accepted, only if it is better there; otherwise it is kept beside it, as the
    artifact ``<resource>.refused``.

    The campaign at hand goes on with the potential it began with: its energies are of one level of
    theory. The next campaign names the tuned one, and computes its reference phases with it.

    Lesson metrics: ``labels`` used, ``frozen``, ``excluded``, ``accepted`` (1 or 0), ``energy_mae``
    and ``force_mae`` of the tuned model on the frozen set, the same of its parent (``before.``) and
    of its parent with refitted element energies (``shifted.``), ``flips`` of ``compared`` crystals.

    Attributes
    ----------
    parameters
        Parameters of the potential.
    theory
        Key of the level of theory to learn from, or its start; by default that of most labels.
    min_labels
        Labels below which nothing is tuned.
    new_labels
        Labels that must have come since the last tuning.
    frozen_share
        Share of the candidates of the first round that are frozen, at least three.
    margin
        Least relative fall of the energy error on the frozen set, compared with the parent whose
        element energies have been refitted.
    force_margin
        The same for forces, compared with the parent.
    steps, batch, rate
        Optimiser steps, crystals per step and learning rate.
    layers
        Which parameters move: ``all``, or the ``readout`` alone.
    device
        ``cpu`` or ``cuda``.
    """

    parameters: dict[str, bool | int | float | str] = field(default_factory=dict)
    theory: str = ""
    min_labels: int = 20
    new_labels: int = 5
    frozen_share: float = 0.2
    margin: float = 0.05
    force_margin: float = 0.0
    steps: int = 200
    batch: int = 8
    rate: float = 1e-4
    layers: Literal["all", "readout"] = "all"
    device: str = "cpu"

    model: ClassVar[str] = ""
    resource: ClassVar[str] = ""

    def __post_init__(self) -> None:
        if self.min_labels < 4 or self.new_labels < 1:
            raise ValueError("min_labels must be at least 4, new_labels at least 1")
        if not 0.0 < self.frozen_share < 1.0:
            raise ValueError(f"frozen_share must lie between 0 and 1, got {self.frozen_share}")
        if not (0.0 <= self.margin < 1.0 and 0.0 <= self.force_margin < 1.0):
            raise ValueError("margin and force_margin must lie between 0 and 1")
        self.tuning()

    def tuning(self) -> Tuning:
        """Return how the network is trained."""
        return Tuning(
            steps=self.steps,
            batch=self.batch,
            rate=self.rate,
            layers=self.layers,
            device=self.device,
        )

    def informed(self, resources: Resources) -> InformedFinetune:
        """Return a learner that knows the campaign's phases and the last lesson.

        Parameters
        ----------
        resources
            Artifacts of the campaign.
        """
        return InformedFinetune(self, resources, self.resource)

    def learn(
        self, history: Sequence[Observation], objective: Objective, seed: int
    ) -> Lesson | None:
        """Return the model as the lesson; None while there are too few labels."""
        return self.informed(Resources()).learn(history, objective, seed)


@dataclass(frozen=True)
class ChgnetFinetune(Finetune):
    """Tune CHGNet on the campaign's calculations; a better one is there for the next campaign.

    See `Finetune`; `parameters` are those of the model ``chgnet``.
    """

    model: ClassVar[str] = "chgnet"
    resource: ClassVar[str] = "finetuned_chgnet"


@dataclass(frozen=True)
class MaceFinetune(Finetune):
    """Tune a MACE on the campaign's calculations; a better one is there for the next campaign.

    See `Finetune`; `parameters` are those of the model ``mace``, its `path` among them.
    """

    model: ClassVar[str] = "mace"
    resource: ClassVar[str] = "finetuned_mace"


@dataclass(frozen=True)
class InformedFinetune:
    """A fine-tuning that knows what there is in its campaign.

    Attributes
    ----------
    learner
        How.
    resources
        Artifacts of the campaign.
    resource
        Name of the artifact it makes.
    """

    learner: Finetune
    resources: Resources
    resource: str

    def learn(
        self, history: Sequence[Observation], objective: Objective, seed: int
    ) -> Lesson | None:
        """Return the model as the lesson; None while there is nothing new to learn."""
        learner = self.learner
        labels = [label for item in history for label in item.labels]
        last, parent = self._last()
        try:
            usable, _, _ = admitted(labels, last.trained_on.key if last else learner.theory)
        except ConfigurationError:
            return None
        known = len(last.training) + len(last.frozen) if last else 0
        if len(usable) < max(learner.min_labels, known + learner.new_labels):
            return None
        tuned = finetune(
            learner.model,
            learner.parameters,
            labels,
            settings=learner.tuning(),
            gate=Gate(learner.margin, learner.force_margin),
            frozen=last.frozen if last else self._frozen(usable),
            theory=last.trained_on.key if last else learner.theory,
            parent=parent,
            seed=seed,
        )
        return self._lesson(self._compared(tuned, parent, history, objective), parent)

    def _frozen(self, usable: Sequence[Labelled]) -> tuple[str, ...]:
        """Return the frozen set: drawn from the first rounds that together had enough labels."""
        for turn in sorted({item.iteration for item in usable}):
            first = [item for item in usable if item.iteration <= turn]
            if len(first) >= self.learner.min_labels:
                break
        return tuple(sorted(frozen_ids(first, self.learner.frozen_share)))

    def _last(self) -> tuple[ModelCard | None, tuple[str, Weights] | None]:
        """Return the card of the last lesson, and the model that was accepted last."""
        name = self.resource
        paths = self.resources.paths
        if name not in paths:
            return None, None
        card, weights = read_card(paths[name]), read_weights(paths[name])
        parent = (self.resources.digests[name], weights) if weights else None
        refused = paths.get(f"{name}.refused")
        if refused is not None:
            other = read_card(refused)
            if len(other.training) > len(card.training):
                card = other
        return card, parent

    def _compared(
        self,
        tuned: Tuned,
        parent: tuple[str, Weights] | None,
        history: Sequence[Observation],
        objective: Objective,
    ) -> Tuned:
        """Add which crystals change sides with the model."""
        path = self.resources.paths.get(_PHASES)
        if path is None:
            return tuned
        phases = PhaseSet.from_bytes(path.read_bytes())
        found = [item.final for item in history if "e_above_hull" in item.final.quantities]
        crystals = {item.candidate_id: item.structure for item in found[-MOST_COMPARED:]}
        model = registry.build("models", self.learner.model, self.learner.parameters)
        new = (sha256_of(tuned.to_bytes()), tuned.weights)
        changed = flips(model, (parent or ("", None), new), phases, crystals, objective)
        card = tuned.card.model_copy(update={"flips": changed, "compared": len(crystals)})
        return replace(tuned, card=card)

    def _lesson(self, tuned: Tuned, parent: tuple[str, Weights] | None) -> Lesson:
        card = tuned.card
        metrics = {
            "labels": float(len(card.training)),
            "frozen": float(len(card.frozen)),
            "excluded": float(sum(card.excluded.values())),
            "accepted": float(card.accepted),
            "flips": float(len(card.flips)),
            "compared": float(card.compared),
        }
        for prefix, found in (
            ("", card.after),
            ("before.", card.before),
            ("shifted.", card.shifted),
        ):
            metrics |= {
                f"{prefix}energy_mae": found.energy_mae,
                f"{prefix}force_mae": found.force_mae,
            }
        content = tuned.to_bytes()
        if card.accepted:
            return Lesson(content, MEDIA_TYPE, metrics)
        kept = self.resources.paths.get(self.resource)
        stays = kept.read_bytes() if kept is not None and parent else to_bytes(card, {})
        return Lesson(stays, MEDIA_TYPE, metrics, {"refused": content})
