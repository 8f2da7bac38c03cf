"""Rungs of the ladder that have a hull of their own: one per level of theory."""

from __future__ import annotations

from dataclasses import dataclass

from matloop import registry
from matloop.documents.campaign import Campaign, Stage

PHASES = "phases"
"""Name of the artifact that holds the phases of a hull, as evaluators know it."""


@dataclass(frozen=True)
class Rung:
    """Stages that share a level of theory: the one that computes energies, and those after it.

    Attributes
    ----------
    resource
        Name of the artifact with its phases in the campaign's state.
    energy
        The stage that computes energies; None before any does.
    stages
        Names of its stages.
    before
        Names of the stages of the rungs below.
    """

    resource: str
    energy: Stage | None
    stages: tuple[str, ...]
    before: tuple[str, ...] = ()

    @property
    def so_far(self) -> tuple[str, ...]:
        """Names of all stages up to the end of this rung."""
        return self.before + self.stages


def rungs(campaign: Campaign) -> list[Rung]:
    """Return the rungs of a campaign, lowest first; cheap stages before the first belong to it."""
    found: list[Rung] = []
    names: list[str] = []
    energy: Stage | None = None
    for stage in campaign.stages:
        if computes_energy(stage):
            if energy is not None:
                found.append(_rung(found, energy, names))
                names = []
            energy = stage
        names.append(stage.name)
    return [*found, _rung(found, energy, names)]


def rung_of(campaign: Campaign, stage: str) -> Rung:
    """Return the rung a stage belongs to; the lowest for no stage."""
    ladder = rungs(campaign)
    return next((rung for rung in ladder if stage in rung.stages), ladder[0])


def computes_energy(stage: Stage) -> bool:
    """Whether a stage gives candidates an energy of its own."""
    if stage.calculate is not None:
        return True
    return any(
        "energy_per_atom" in registry.load("evaluators", use.use).produces for use in stage.evaluate
    )


def _rung(below: list[Rung], energy: Stage | None, names: list[str]) -> Rung:
    resource = f"{PHASES}.{energy.name}" if below and energy else PHASES
    return Rung(resource, energy, tuple(names), below[-1].so_far if below else ())
