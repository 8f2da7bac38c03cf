"""The network behind `CifTransformer`: causal attention over the open tokens of a CIF."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from matloop.generators.neural.architectures.causal_network import (
    Block,
    Cache,
    CausalNetwork,
    small_start,
)
from matloop.generators.neural.architectures.cif_steps import (
    DIGIT,
    FIELDS,
    GROUPS,
    LETTER,
    MOST_COUNT,
    MOST_STEPS,
    WIDTH,
)
from matloop.generators.neural.architectures.property_embedding import PropertyEmbedding
from matloop.generators.neural.representations.orbits import LETTERS

STEP_FIELDS = ("kind", "field", "element", "letter", "atoms", "hint")
"""What a step is about, by name, as `cif_steps.Step`."""

_HARMONICS = 16


class CifNetwork(CausalNetwork):
    """Predict every open token of a text from those before it.

    The input of a step is the token before it and what the next one is about: its place, the
    element and position of its row, the atoms that are left. Embeddings of tokens are also the rows
    of the output. A Wyckoff letter is embedded with its group, multiplicity and site symmetry.

    Parameters
    ----------
    width, depth, heads, dropout
        Of the transformer.
    statistics
        ``elements``, ``properties``, and the table of Wyckoff ``positions``.
    """

    starts: Tensor
    widths: Tensor

    def __init__(
        self, width: int, depth: int, heads: int, dropout: float, statistics: dict[str, Any]
    ) -> None:
        super().__init__()
        self.n_elements = len(statistics["elements"])
        widths = torch.tensor([self.n_elements + 1, MOST_COUNT + 1, GROUPS, 100, 180, 10])
        starts = torch.cumsum(widths, 0) - widths
        tokens = int(widths.sum())
        self.register_buffer("starts", starts, persistent=False)
        self.register_buffer("widths", widths, persistent=False)
        self.token = nn.Embedding(tokens, width)
        self.bias = nn.Parameter(torch.zeros(tokens))
        self._embed_positions(statistics["positions"], width, absent=False)
        self.field = nn.Embedding(FIELDS, width)
        self.before = nn.Embedding(FIELDS, width)
        self.element = nn.Embedding(self.n_elements + 1, width)
        self.atoms = nn.Embedding(2 * (MOST_COUNT + 1), width)
        self.hint = nn.Linear(2 * _HARMONICS + 1, width)
        self.value = nn.Linear(2 * _HARMONICS + 1, width)
        self.content = nn.Linear(width, width)
        self.place = nn.Embedding(MOST_STEPS, width)
        self.system = nn.Embedding(self.n_elements, width)
        self.size = nn.Embedding(MOST_COUNT + 1, width)
        self.asked_group = nn.Embedding(GROUPS, width)
        self.properties = PropertyEmbedding(len(statistics["properties"]), width)
        self.condition = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width))
        self.blocks = nn.ModuleList(Block(width, heads, dropout, 0.0) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(width, width)
        self.apply(small_start)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the state from which each token is predicted, shape (m, steps, width).

        Parameters
        ----------
        batch
            `STEP_FIELDS`, ``token`` and ``value`` of shape (m, steps), ``group`` of shape (m,), and
            what `condition_of` reads.
        """
        condition = self.condition_of(batch)
        group = batch["group"][:, None].expand_as(batch["kind"])
        content = self.content_of({**batch, "group": group})
        before = torch.cat([condition[:, None], content[:, :-1]], dim=1)
        place = torch.arange(group.shape[1], device=group.device)[None]
        x = self._input({**batch, "group": group}, before, condition[:, None], place)
        return self._all_steps(self.dropout(x))

    def advance(
        self, cache: Cache, rows: Tensor, last: dict[str, Tensor], asked: dict[str, Tensor]
    ) -> Tensor:
        """Return the state from which the next token of some texts is drawn, shape (r, width).

        Parameters
        ----------
        cache
            Their memory, which grows by one step.
        rows
            Which texts, shape (r,).
        last
            Their last step with ``token``, ``value`` and ``group``, each of shape (r,); ignored at
            the start.
        asked
            What the next step is about, and ``group``, each of shape (r,).
        """
        condition, place = cache.condition[rows], cache.lengths[rows]
        before = torch.where((place == 0)[:, None], condition, self.content_of(last))
        x = self._input(asked, before, condition, place)[:, None]
        return self._next_step(x, cache, rows)

    def content_of(self, step: dict[str, Tensor]) -> Tensor:
        """Return what tokens say, shape (..., width); all fields and ``group`` of one shape."""
        kind, token = step["kind"], step["token"]
        letters = kind == LETTER
        plain = self.token((self.starts[kind.clamp(max=DIGIT)] + token) * ~letters)
        position = self.positions(step["group"], token.clamp(max=len(LETTERS) - 1))
        found = torch.where(letters[..., None], position, plain)
        found = found + self.before(step["field"])
        number = (step["field"] > 2)[..., None] & ~letters[..., None]
        found = found + self.value(_waves(step["value"])) * number
        content: Tensor = self.content(found)
        return content

    def logits(self, state: Tensor, kind: Tensor, group: Tensor) -> Tensor:
        """Return logits of the tokens of each kind, shape (n, `WIDTH`), minus infinity elsewhere.

        Parameters
        ----------
        state
            Shape (n, width).
        kind, group
            Shape (n,).
        """
        found = torch.full((len(state), WIDTH), -torch.inf, device=state.device)
        asked = self.out(state)
        for number in range(LETTER):
            chosen = (kind == number).nonzero()[:, 0]
            if len(chosen):
                start, size = int(self.starts[number]), int(self.widths[number])
                table = self.token.weight[start : start + size]
                found[chosen, :size] = asked[chosen] @ table.T + self.bias[start : start + size]
        chosen = (kind == LETTER).nonzero()[:, 0]
        if len(chosen):
            groups, own = torch.unique(group[chosen], return_inverse=True)
            letters = torch.arange(len(LETTERS), device=state.device)
            table = self.positions(groups[:, None], letters[None])  # (groups, 27, width)
            scores = torch.einsum("nw,nlw->nl", asked[chosen], table[own])
            found[chosen, : len(LETTERS)] = scores
        return found

    def condition_of(self, batch: dict[str, Tensor]) -> Tensor:
        """Return what is asked of each text, shape (m, width); zeros mean nothing is.

        Parameters
        ----------
        batch
            ``present`` of shape (m, elements), zero where not asked; ``size`` and ``asked_group``
            of shape (m,), 0 where not asked; ``properties`` of shape (m, properties), NaN where
            not.
        """
        asked = batch["present"] @ self.system.weight
        asked = asked + self.size(batch["size"].clamp(max=MOST_COUNT))
        asked = asked + self.asked_group(batch["asked_group"])
        asked = self.properties(asked, batch["properties"])
        found: Tensor = self.condition(asked)
        return found

    def _input(
        self, step: dict[str, Tensor], before: Tensor, condition: Tensor, place: Tensor
    ) -> Tensor:
        kind, field, letter = step["kind"], step["field"], step["letter"]
        in_row = ((kind == DIGIT) & (field >= FIELDS - 9))[..., None]
        about = self.field(field) + self.element(step["element"])
        about = about + self.positions(step["group"], letter) * in_row
        atoms = step["atoms"].clamp(max=MOST_COUNT) + (MOST_COUNT + 1) * (kind == LETTER)
        about = about + self.atoms(atoms) + self.hint(_waves(step["hint"] / 10))
        about = about + self.token(self.starts[2] + step["group"]) * (field > 2)[..., None]
        found: Tensor = before + about + self.place(place.clamp(max=MOST_STEPS - 1)) + condition
        return found


def _waves(value: Tensor) -> Tensor:
    """Return sines and cosines of the first harmonics of a value, and the value."""
    orders = torch.arange(1, _HARMONICS + 1, device=value.device) * 2 * math.pi
    angles = value[..., None] * orders
    return torch.cat([torch.sin(angles), torch.cos(angles), value[..., None]], dim=-1)
