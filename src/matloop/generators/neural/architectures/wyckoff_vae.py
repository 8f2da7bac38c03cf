"""A variational autoencoder of symmetric crystals, with a latent space to walk in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from pymatgen.core import Structure
from torch import Tensor, nn

from matloop.generators.neural.architecture import (
    Batch,
    SampleRequest,
    Statistics,
    TrainingCrystal,
)
from matloop.generators.neural.architectures.number_heads import MixtureHeads
from matloop.generators.neural.architectures.step_data import LOSS_SCALE
from matloop.generators.neural.architectures.wyckoff_network import WyckoffNetwork
from matloop.generators.neural.architectures.wyckoff_transformer import (
    WyckoffTransformer,
    step_log_density,
)


@dataclass(frozen=True)
class WyckoffVae(WyckoffTransformer):
    """Encode a crystal as a vector, and write crystals from vectors.

    The encoder reads all steps of a crystal with attention in both directions; the decoder is a
    `WyckoffTransformer` every step of which depends on the vector. So that the decoder cannot do
    without it, some of the steps it goes on from are hidden in training.

    Attributes
    ----------
    latent
        Length of the vector.
    encoder_depth
        Layers of the encoder.
    beta
        Weight of the divergence from the standard normal prior.
    free_nats
        Divergence in every direction that costs nothing, against collapse.
    hide
        Share of the steps that are hidden from the decoder in training.

    References
    ----------
    Kingma and Welling, ICLR 2014; hidden words and collapse: Bowman et al., CoNLL 2016; free nats:
    Kingma et al., NeurIPS 2016.
    """

    latent: int = 32
    encoder_depth: int = 2
    beta: float = 0.1
    free_nats: float = 0.1
    hide: float = 0.5

    def build(self, statistics: Statistics) -> nn.Module:
        """Return encoder and decoder with random weights."""
        return VaeNetwork(self, statistics)

    def loss(
        self, module: nn.Module, batch: Batch, part: str, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Return the negative evidence lower bound per crystal (10 nats), and its parts."""
        del part
        assert isinstance(module, VaeNetwork)
        mean, log_spread = module.encode(batch)
        noise = torch.randn(mean.shape, generator=generator, device=mean.device)
        seen = dict(batch)
        seen["latent"] = mean + torch.exp(log_spread) * noise
        if module.training:
            shape = batch["kind"].shape
            drawn = torch.rand(shape, generator=generator, device=mean.device)
            seen["hidden"] = drawn < self.hide
            jitter = torch.randn(shape, generator=generator, device=mean.device)
            seen["value"] = batch["value"] + self.noise * jitter
        state = module.decoder(seen)
        density = step_log_density(module.decoder, state, batch)
        written = -(density * batch["real"]).sum() / len(density) / LOSS_SCALE
        each = 0.5 * (mean**2 + torch.exp(2 * log_spread) - 1) - log_spread
        divergence = each.sum(1).mean() / LOSS_SCALE
        charged = each.mean(0).clamp(min=self.free_nats).sum() / LOSS_SCALE
        return {
            "loss": written + self.beta * charged,
            "reconstruction": written,
            "divergence": divergence,
        }

    def sample(
        self, module: nn.Module, statistics: Statistics, request: SampleRequest
    ) -> list[Structure]:
        """Return crystals written from vectors of the prior."""
        generator = torch.Generator().manual_seed(request.seed)
        points = torch.randn(request.count, self.latent, generator=generator)
        found = self.decode(module, statistics, request, points)
        return [structure for structure in found if structure is not None]

    def encode_latent(
        self, module: nn.Module, statistics: Statistics, structures: Sequence[Structure]
    ) -> list[Tensor | None]:
        """Return the vector of each crystal, shape (latent,); None where it cannot be written."""
        assert isinstance(module, VaeNetwork)
        rows = [self.encode(TrainingCrystal(one), statistics) for one in structures]
        known = [row for row in rows if row is not None]
        if not known:
            return [None] * len(rows)
        with torch.no_grad():
            means = iter(module.encode(self.collate(known, statistics, None))[0])
        return [None if row is None else next(means) for row in rows]

    def decode(
        self, module: nn.Module, statistics: Statistics, request: SampleRequest, points: Tensor
    ) -> list[Structure | None]:
        """Return the crystal written from each vector, shape (m, latent); None for dead ends."""
        from matloop.generators.neural.architectures.wyckoff_decoding import decode

        assert isinstance(module, VaeNetwork)
        return decode(module.decoder, statistics, request, points)


class VaeNetwork(nn.Module):
    """Encoder and decoder of a `WyckoffVae`.

    Parameters
    ----------
    settings
        Sizes.
    statistics
        Of the training data.
    """

    def __init__(self, settings: WyckoffVae, statistics: dict[str, Any]) -> None:
        super().__init__()
        numbers = MixtureHeads(settings.width, settings.components)
        self.decoder = WyckoffNetwork(
            settings.width,
            settings.depth,
            settings.heads,
            settings.dropout,
            numbers,
            statistics,
            settings.latent,
        )
        layer = nn.TransformerEncoderLayer(
            settings.width,
            settings.heads,
            4 * settings.width,
            settings.dropout,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.encoder = nn.TransformerEncoder(
            layer, settings.encoder_depth, enable_nested_tensor=False
        )
        self.to_latent = nn.Linear(settings.width, 2 * settings.latent)

    def encode(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return mean and log standard deviation of the latent vectors, each (m, latent)."""
        content = self.decoder.content_of(batch)
        read = self.encoder(content, src_key_padding_mask=~batch["real"])
        weights = batch["real"].float() / batch["real"].sum(1, keepdim=True)
        found = self.to_latent((read * weights.unsqueeze(-1)).sum(1))
        mean, log_spread = cast("Tensor", found).chunk(2, dim=-1)
        return mean, log_spread.clamp(-6, 2)
