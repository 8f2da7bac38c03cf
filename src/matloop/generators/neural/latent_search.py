"""Optimisation in the latent space of an autoencoder, guided by what the campaign has found."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from monty.json import MSONable
from scipy.stats import norm
from torch import Tensor

from matloop.documents.space import ChemicalSpace
from matloop.errors import ConfigurationError
from matloop.generators.cells import Array, Seen, is_sane, plain_cell
from matloop.generators.neural.architecture import Conditions, SampleRequest
from matloop.generators.neural.architectures.wyckoff_vae import WyckoffVae
from matloop.generators.neural.model_file import TrainedModel, load_model, model_path
from matloop.protocols import Parent, Proposal, ProposalRequest
from matloop.surrogates.gaussian_process import GaussianProcess

LEAST_PARENTS = 5
"""Found crystals with a utility from which on a Gaussian process is asked; before, the search walks
around what was found, or draws from the prior."""

_POOL = 24
_ROUNDS = 6


@dataclass(frozen=True)
class LatentSearch(MSONable):
    """Crystals written from latent vectors that promise a high utility.

    The campaign's best crystals are encoded; a Gaussian process learns their utility over the
    latent space; of many vectors around them and from the prior, those with the highest expected
    improvement are written down. Every decoded crystal is checked: atoms apart, inside the space,
    not a repetition.

    Attributes
    ----------
    weights
        Path of a model of the architecture ``wyckoff_vae``.
    reach
        Standard deviation of the steps away from found crystals, in units of the prior's.
    prior_share
        Share of the vectors drawn from the prior, so that the search does not stay where it is.
    temperature
        Of the decoder.

    References
    ----------
    Gómez-Bombarelli et al., ACS Cent. Sci. 2018; expected improvement: Jones et al., 1998.
    """

    weights: str
    reach: float = 0.4
    prior_share: float = 0.25
    temperature: float = 0.7

    def __post_init__(self) -> None:
        for name in ("reach", "temperature"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive")
        if not 0 <= self.prior_share <= 1:
            raise ValueError("prior_share must lie between 0 and 1")

    def propose(self, request: ProposalRequest) -> list[Proposal]:
        """Return crystals of the space; fewer than asked where decoding finds too few."""
        model = load_model(model_path(self.weights))
        if not isinstance(model.architecture, WyckoffVae):
            raise ConfigurationError(
                f"{self.weights} is a {model.card.architecture}; latent_search needs a wyckoff_vae"
            )
        rng = np.random.default_rng(request.seed)
        parents, points = self._encoded(model, [*request.found, *request.references])
        seen, proposals = Seen(), list[Proposal]()
        for _ in range(_ROUNDS):
            missing = request.count - len(proposals)
            if missing <= 0:
                break
            chosen, nearest = self._promising(parents, points, 2 * missing, rng)
            asked = SampleRequest(
                len(chosen),
                int(rng.integers(2**31)),
                _conditions(request.space, model),
                self.temperature,
                charge_balance=request.space.charge_balance == "required",
            )
            found = model.architecture.decode(model.module, model.statistics, asked, chosen)
            for structure, parent in zip(found, nearest, strict=True):
                cell = None if structure is None else plain_cell(structure)
                if cell is None or request.space.objection(cell.composition) or not is_sane(cell):
                    continue
                if seen.is_new(cell):
                    origin = (parent,) if parent else ()
                    proposals.append(Proposal(cell, origin, {"model": model.sha256[:12]}))
        return proposals[: request.count]

    def _encoded(self, model: TrainedModel, parents: list[Parent]) -> tuple[list[Parent], Array]:
        assert isinstance(model.architecture, WyckoffVae)
        vectors = model.architecture.encode_latent(
            model.module, model.statistics, [parent.structure for parent in parents]
        )
        known = [(p, v) for p, v in zip(parents, vectors, strict=True) if v is not None]
        if not known:
            return [], np.zeros((0, model.architecture.latent))
        return [p for p, _ in known], np.array([v.numpy() for _, v in known], dtype=float)

    def _promising(
        self, parents: list[Parent], points: Array, count: int, rng: np.random.Generator
    ) -> tuple[Tensor, list[str]]:
        """Return latent vectors, shape (count, latent), and the id of the parent of each."""
        pool = _POOL * count
        utilities = np.array([np.nan if p.utility is None else p.utility for p in parents])
        walked = rng.random(pool) >= self.prior_share if len(parents) else np.zeros(pool, bool)
        drawn = rng.standard_normal((pool, points.shape[1]))
        found = np.flatnonzero(np.isfinite(utilities))
        around = found if len(found) else np.arange(len(parents))
        start = rng.choice(around, pool) if len(parents) else np.zeros(pool, int)
        if len(parents):
            drawn[walked] = points[start[walked]] + self.reach * drawn[walked]
        if len(found) >= LEAST_PARENTS:
            scores = _expected_improvement(points[found], utilities[found], drawn, rng)
        else:
            scores = rng.random(pool)
        best = np.argsort(-scores, kind="stable")[:count]
        names = [parents[start[index]].parent_id if walked[index] else "" for index in best]
        return torch.from_numpy(drawn[best].astype(np.float32)), names


def _expected_improvement(
    points: Array, utilities: Array, drawn: Array, rng: np.random.Generator
) -> Array:
    spread = float(np.std(utilities)) or 1.0
    scaled = (utilities - np.mean(utilities)) / spread
    mean, deviation = GaussianProcess.fit(points, scaled, rng).predict(drawn)
    deviation = np.maximum(deviation, 1e-9)
    gain = mean - scaled.max()
    z = gain / deviation
    return np.asarray(gain * norm.cdf(z) + deviation * norm.pdf(z))


def _conditions(space: ChemicalSpace, model: TrainedModel) -> Conditions:
    known = model.statistics["elements"]
    elements = tuple(name for name in space.allowed if name in known)
    if not elements:
        raise ConfigurationError(f"the model knows none of {', '.join(space.allowed)}")
    return Conditions(elements=elements, min_atoms=space.min_atoms, max_atoms=space.max_atoms)
