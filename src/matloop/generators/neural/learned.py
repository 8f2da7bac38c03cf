"""A trained model as a generator of the portfolio."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import ClassVar

from monty.json import MSONable

from matloop.documents.space import ChemicalSpace
from matloop.errors import ConfigurationError
from matloop.generators.neural.architecture import Conditions, SampleRequest
from matloop.generators.neural.guidance import named_penalty
from matloop.generators.neural.model_file import TrainedModel, load_model, model_path
from matloop.generators.neural.sampling import draw
from matloop.protocols import Proposal, ProposalRequest

WHOLE_SYSTEM = 5
"""Largest number of elements of a space that is taken for one chemical system."""


@dataclass(frozen=True)
class Learned(MSONable):
    """Crystals drawn from a trained network: a shipped model, or one of `matloop train`.

    The model is asked for the campaign's elements, cell sizes and charge balance; what it cannot
    hold by itself is held by rejection. Where the campaign learns by `reinforcement`, the model is
    the policy as it stands.

    Attributes
    ----------
    weights
        Name of a shipped model, or path of a model file.
    temperature
        1 for the model as it is; below, the sample keeps to what is likely: crystals nearer to
        their minima, at the price of some novelty.
    guidance
        How much conditions outweigh what is likely anyway; 0 for the plain conditional model.
    properties
        Target of each property that the model was trained with, such as ``{e_above_hull: 0}``.
    space_group
        International number of the only space group wanted; 0 for any.
    potential
        Potential, such as ``chgnet``, by whose energy cells and coordinates are chosen,
        or guided; empty for none.
    penalties
        What else chooses or guides them: ``minimum_distance`` in sums of covalent radii, ``volume``
        in Å^3 per atom, ``density`` in g/cm^3, such as ``{density: 5.2}``.
    full_system
        Share of the crystals that must hold every element, in a space of up to five.
    """

    resources: ClassVar[tuple[str, ...]] = ("policy",)

    weights: str = "wyckoff"
    temperature: float = 0.6
    guidance: float = 0.0
    properties: dict[str, float] = field(default_factory=dict)
    space_group: int = 0
    potential: str = ""
    penalties: dict[str, float] = field(default_factory=dict)
    full_system: float = 0.7

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError("temperature must be positive")
        if self.guidance < 0:
            raise ValueError("guidance must not be negative")
        if not 0 <= self.space_group <= 230:
            raise ValueError(f"space_group {self.space_group}: they are numbered 1 to 230")
        if not 0 <= self.full_system <= 1:
            raise ValueError("full_system must lie between 0 and 1")
        model_path(self.weights)
        named_penalty(self.penalties, self.potential)

    def propose(self, request: ProposalRequest) -> list[Proposal]:
        """Return crystals of the space; fewer than asked where the model finds too few."""
        model = load_model(request.resources.paths.get("policy") or model_path(self.weights))
        proposals: list[Proposal] = []
        parts = self._parts(model, request.space, request.count)
        for number, (conditions, count) in enumerate(parts):
            asked = SampleRequest(
                count=count,
                seed=request.seed + number,
                conditions=conditions,
                temperature=self.temperature,
                guidance=self.guidance,
                charge_balance=request.space.charge_balance == "required",
                penalty=named_penalty(self.penalties, self.potential),
            )
            sample = draw(model, asked)
            proposals += [
                Proposal(structure, parameters={"model": model.sha256[:12]})
                for structure in sample.structures
                if request.space.objection(structure.composition) is None
            ]
        return proposals[: request.count]

    def _parts(
        self, model: TrainedModel, space: ChemicalSpace, count: int
    ) -> Iterator[tuple[Conditions, int]]:
        """Yield what to ask for, and how often: the whole system, and the rest of the space."""
        known = model.statistics.get("elements", space.allowed)
        elements = tuple(name for name in space.allowed if name in known)
        if not elements:
            raise ConfigurationError(
                f"the model {self.weights} knows none of {', '.join(space.allowed)}"
            )
        anywhere = Conditions(
            elements=elements,
            space_group=self.space_group,
            min_atoms=space.min_atoms,
            max_atoms=space.max_atoms,
            properties=self.properties,
        )
        whole = 0
        if len(elements) == len(space.allowed) == space.most_elements <= WHOLE_SYSTEM:
            whole = round(count * self.full_system)
            if space.min_elements == len(elements):
                whole = count
        if whole:
            yield replace(anywhere, elements=(), system=elements), whole
        if count - whole:
            yield anywhere, count - whole
