"""An autoregressive transformer over the text of CIF files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pymatgen.core import Structure
from torch import Tensor, nn

from matloop.generators.neural.architecture import (
    Batch,
    Condition,
    Conditions,
    Row,
    SampleRequest,
    Statistics,
    TrainingCrystal,
)
from matloop.generators.neural.architectures.cif_grammar import CifWriter, replayed
from matloop.generators.neural.architectures.cif_network import STEP_FIELDS, CifNetwork
from matloop.generators.neural.architectures.cif_steps import (
    COORDINATE_FIELD,
    COUNT,
    ELEMENT,
    GROUP,
    LETTER,
    MOST_COUNT,
    WIDTH,
    Rules,
)
from matloop.generators.neural.architectures.step_data import (
    LOSS_SCALE,
    SUPPORTS,
    content_row,
    filled,
    given_conditions,
    padded,
    statistics_of,
)
from matloop.generators.neural.architectures.transformer_architecture import (
    TransformerArchitecture,
)
from matloop.generators.neural.architectures.wyckoff_drafts import Draft
from matloop.generators.neural.representations.cif_text import CifCrystal, cif_crystal


@dataclass(frozen=True)
class CifTransformer(TransformerArchitecture):
    """Write the CIF of a crystal token by token: formula, space group, cell, rows of sites.

    The text has one canonical layout that any reader of CIF understands. A grammar says which
    tokens may come next, in training and in sampling, so likelihoods are exact and no text is
    invalid; what follows from the text before (keywords, symmetry operations, copied or fixed
    lengths, angles and coordinates, an origin that is free) is written without asking the network.
    Numbers are written decimal by decimal. Of several endings without a clash that have the same
    positions as the first, the likeliest is kept; with a penalty, of all the one that has least.

    References
    ----------
    Language models of CIF: CrystaLLM (Antunes et al., Nat. Commun. 15, 10570, 2024). Forced tokens
    as in grammar-constrained decoding (Willard and Louf, arXiv:2307.09702).
    """

    supports: ClassVar[frozenset[Condition]] = SUPPORTS
    parts: ClassVar[tuple[str, ...]] = ("",)

    depth: int = 4

    def statistics(self, crystals: Sequence[TrainingCrystal]) -> Statistics:
        """Return elements, scales of the properties, table of positions, cells by formula units."""
        return statistics_of(crystals, self.properties)

    def encode(self, crystal: TrainingCrystal, statistics: Statistics) -> Row | None:
        """Return the steps that write a crystal."""
        names = statistics["elements"]
        written = cif_crystal(crystal.structure)
        if written is None or not set(written.counts) <= set(names):
            return None
        steps = steps_of(written, names)
        if steps is None:
            return None
        content = content_row(crystal, written.counts, statistics)
        return {**steps, **content, "group": np.array(written.space_group)}

    def collate(
        self, rows: Sequence[Row], statistics: Statistics, rng: np.random.Generator | None
    ) -> Batch:
        """Return padded steps, in training with some of the conditions."""
        del statistics
        steps = max(len(row["kind"]) for row in rows)
        batch: Batch = {}
        for name in (*STEP_FIELDS, "token", "value", "allowed"):
            values = padded(rows, name, steps)
            if name == "allowed":
                values = np.unpackbits(values, axis=-1, count=WIDTH).astype(bool)
            elif values.dtype == np.uint8:
                values = values.astype(np.int64)
            batch[name] = torch.from_numpy(values)
        batch["real"] = filled(rows, "kind", steps)
        group = torch.tensor([int(row["group"]) for row in rows])
        counts = torch.from_numpy(np.stack([row["counts"] for row in rows]))
        kept, asked = given_conditions(rows, rng, self.drop_conditions)
        batch["group"] = group
        batch["present"] = (counts > 0).float() * kept[:, :1]
        batch["size"] = (counts.sum(1) * kept[:, 1]).long()
        batch["asked_group"] = (group * kept[:, 2]).long()
        batch["properties"] = asked
        return batch

    def build(self, statistics: Statistics) -> nn.Module:
        """Return the network with random weights."""
        return CifNetwork(self.width, self.depth, self.heads, self.dropout, statistics)

    def loss(
        self, module: nn.Module, batch: Batch, part: str, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Return the negative log-likelihood per crystal (10 nats), and its parts."""
        del part, generator
        assert isinstance(module, CifNetwork)
        density = log_likelihood(module, batch)
        kind, place = batch["kind"], batch["field"]
        of_formula = (kind == ELEMENT) | (kind == COUNT)
        of_xyz = place >= COORDINATE_FIELD
        parts = {
            "formula": of_formula,
            "group": kind == GROUP,
            "sites": kind == LETTER,
            "cell": ~of_formula & (kind != GROUP) & (kind != LETTER) & ~of_xyz,
            "xyz": of_xyz,
        }
        found = {
            name: -(density * chosen).sum() / len(kind) / LOSS_SCALE
            for name, chosen in parts.items()
        }
        return {"loss": torch.stack(list(found.values())).sum(), **found}

    def sample(
        self, module: nn.Module, statistics: Statistics, request: SampleRequest
    ) -> list[Structure]:
        """Return crystals whose texts could be ended without a clash."""
        from matloop.generators.neural.architectures.cif_decoding import decode

        assert isinstance(module, CifNetwork)
        found = decode(module, statistics, request)
        return [structure for structure in found if structure is not None]


def steps_of(crystal: CifCrystal, names: list[str]) -> dict[str, NDArray[Any]] | None:
    """Return the steps that write a crystal; None where the grammar does not allow them.

    Parameters
    ----------
    crystal
        In canonical form.
    names
        The elements, by electronegativity.

    Returns
    -------
    dict or None
        `STEP_FIELDS`, ``token`` and ``value`` of shape (steps,), and ``allowed``, one bit a token.
    """
    rules = Rules(names, [True] * len(names), Conditions())
    writer = CifWriter(rules, Draft({}, (), 1, MOST_COUNT * len(names)))
    found = replayed(writer, crystal)
    if found is None:
        return None
    steps, tokens, values, allowed = zip(*found, strict=True)
    arrays: dict[str, NDArray[Any]] = {
        name: np.array([getattr(step, name) for step in steps], np.uint8)
        for name in STEP_FIELDS
        if name != "hint"
    }
    return {
        **arrays,
        "hint": np.array([step.hint for step in steps], np.float32),
        "token": np.array(tokens, np.uint8),
        "value": np.array(values, np.float32),
        "allowed": np.packbits(np.stack(allowed), axis=-1),
    }


def log_likelihood(module: CifNetwork, batch: Batch) -> Tensor:
    """Return the log-likelihood of each token among the allowed ones, shape (m, steps).

    Zero in the padding; the sum over a row is that of the text, given its conditions.
    """
    real = batch["real"]
    owner = real.nonzero()[:, 0]
    state = module(batch)[real]
    logits = module.logits(state, batch["kind"][real], batch["group"][owner])
    logits = logits.masked_fill(~batch["allowed"][real], -torch.inf)
    chosen = torch.log_softmax(logits, -1).gather(1, batch["token"][real][:, None])[:, 0]
    return torch.zeros(real.shape, device=real.device).masked_scatter(real, chosen)
