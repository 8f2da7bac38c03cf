"""Drawing crystals as coordinates: what flow matching and diffusion share between two steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from moyopy import niggli_reduce
from numpy.typing import NDArray
from pymatgen.core import Composition, Element, Lattice, Structure
from torch import Tensor

from matloop.errors import ConfigurationError
from matloop.generators.neural.architecture import Conditions, SampleRequest, Statistics
from matloop.generators.neural.architectures.periodic_network import Guess, PeriodicNetwork
from matloop.generators.neural.data_statistics import standardised_properties
from matloop.generators.neural.representations.coordinates import (
    SYMPREC,
    cell_numbers,
    standardised,
)
from matloop.structures.geometry import objection
from matloop.structures.symmetry import SymmetryError, primitive_cell, space_group

_AT_ONCE = 64
_PUSH = 8.0  # Å² for a whole way from noise to crystal, at a penalty scale of one
_FARTHEST_PUSH = 0.1  # Å in one step
_CELL_PUSH = 0.02  # of logarithmic strain in one step
_LAST_PUSHES = 20


@dataclass(frozen=True)
class _Draft:
    """Which atoms a crystal is to have: places in the vocabulary, -1 where any will do."""

    species: tuple[int, ...]
    place: int

    @property
    def n_atoms(self) -> int:
        return len(self.species)


def draw(
    network: PeriodicNetwork,
    statistics: Statistics,
    request: SampleRequest,
    symmetrize: float,
    follow: Callable[[Drawing], None],
) -> list[Structure]:
    """Return the crystals of a request; those that end in no crystal, or break it, are missing.

    Parameters
    ----------
    network
        In evaluation mode.
    statistics
        Of its training data.
    request
        What is asked for.
    symmetrize
        Tolerance (Å) with which finished crystals are moved onto their near symmetry; 0 for none.
    follow
        Takes a batch from noise to crystals: the method itself.

    Raises
    ------
    ConfigurationError
        If no cell within the conditions can hold what must be in it.
    """
    generator = torch.Generator().manual_seed(request.seed)
    rng = np.random.default_rng(request.seed)
    drafts = list(_drafts(statistics, request, rng))
    drafts.sort(key=lambda draft: draft.n_atoms)
    found: dict[int, Structure] = {}
    with torch.no_grad():
        for start in range(0, len(drafts), _AT_ONCE):
            chosen = drafts[start : start + _AT_ONCE]
            drawing = Drawing(network, statistics, request, chosen, generator)
            follow(drawing)
            drawing.polish()
            for draft, structure in zip(chosen, drawing.structures(symmetrize), strict=True):
                if structure is not None:
                    found[draft.place] = structure
    return [found[place] for place in sorted(found)]


class Drawing:
    """A batch of crystals on its way from noise, with what is asked of it.

    Attributes
    ----------
    species, frac, cell
        As they stand, see `PeriodicNetwork.forward`; the method that follows the way moves them.
    real
        Which are no padding, shape (m, n).
    fixed
        Which atoms are given, shape (m, n), all of them first in their crystals.
    goal, goal_cell
        Coordinates of the given atoms, shape (m, n, 3), and the given cell, shape (m, 6); without
        a partial structure the second is None.
    """

    def __init__(
        self,
        network: PeriodicNetwork,
        statistics: Statistics,
        request: SampleRequest,
        drafts: list[_Draft],
        generator: torch.Generator,
    ) -> None:
        self.network, self.statistics, self.request = network, statistics, request
        self.generator, self.device = generator, network.mean.device
        count, most = len(drafts), max(draft.n_atoms for draft in drafts)
        unknown = network.n_elements
        species = np.full((count, most), unknown, np.int64)
        real = np.zeros((count, most), bool)
        for index, draft in enumerate(drafts):
            real[index, : draft.n_atoms] = True
            species[index, : draft.n_atoms] = [s if s >= 0 else unknown for s in draft.species]
        self.real = torch.from_numpy(real).to(self.device)
        self.species = torch.from_numpy(species).to(self.device)
        self.sizes = self.real.sum(1)
        self.frac = self.uniform(count, most, 3)
        self.cell = self.normal(count, 6)
        self.fixed = torch.zeros_like(self.real)
        self.goal = torch.zeros_like(self.frac)
        self.goal_cell: Tensor | None = None
        if request.fixed is not None:
            self._fix(request.fixed)
        self._conditions = self._batch(request.conditions)
        self._blank = self._batch(Conditions())

    def uniform(self, *shape: int) -> Tensor:
        """Return uniform random numbers of a shape."""
        return torch.rand(shape, generator=self.generator).to(self.device)

    def normal(self, *shape: int) -> Tensor:
        """Return normal random numbers of a shape."""
        return torch.randn(shape, generator=self.generator).to(self.device)

    def guess(self, time: float) -> Guess:
        """Return what the network makes of the batch at a time, guided by the conditions."""
        times = torch.full((len(self.frac),), time, device=self.device)
        asked = self.network(self.species, self.frac, self.cell, times, self._conditions)
        assert isinstance(asked, Guess)
        weight = self.request.guidance
        if not weight or not self._is_conditional():
            return asked
        plain = self.network(self.species, self.frac, self.cell, times, self._blank)
        return Guess(
            *(
                getattr(plain, name) + (1 + weight) * (getattr(asked, name) - getattr(plain, name))
                for name in ("frac", "cell", "logits")
            )
        )

    def reveal(self, logits: Tensor, share: float) -> None:
        """Let a share of the unknown elements become known, within the conditions.

        Parameters
        ----------
        logits
            Of the network, shape (m, n, elements).
        share
            Chance of each unknown atom.
        """
        unknown = self.network.n_elements
        hidden = (self.species == unknown) & self.real
        chosen = (hidden & (self.uniform(*hidden.shape) < share)).nonzero().tolist()
        if not chosen:
            return
        drawn = self.uniform(len(chosen)).tolist()
        allowed, required = self._allowed(), self._required()
        scaled = (logits / max(self.request.temperature, 1e-3)).masked_fill(~allowed, -torch.inf)
        for (crystal, atom), chance in zip(chosen, drawn, strict=True):
            row = self.species[crystal]
            missing = required - set(row[self.real[crystal]].tolist())
            line = scaled[crystal, atom]
            if missing and len(missing) >= int(((row == unknown) & self.real[crystal]).sum()):
                only = torch.full_like(line, -torch.inf)
                places = torch.tensor(sorted(missing), device=self.device)
                line = only.index_copy(0, places, line[places])
            shares = torch.softmax(line.double(), dim=-1).cumsum(0)
            place = int(torch.searchsorted(shares, chance * float(shares[-1]), right=True))
            self.species[crystal, atom] = min(place, unknown - 1)

    def push(self, logits: Tensor, ahead: Tensor, ahead_cell: Tensor, share: float) -> None:
        """Move atoms and cells down the gradient of the penalty, if there is one.

        Parameters
        ----------
        logits
            Of the network; unknown elements count as the likeliest.
        ahead, ahead_cell
            Where coordinates and cells are expected to end; the gradient is taken there.
        share
            Share of the way from noise to crystal that this step makes.
        """
        penalty = self.request.penalty
        if penalty is None or not share:
            return
        likely = logits.masked_fill(~self._allowed(), -torch.inf).argmax(-1)
        species = torch.where(self.species == self.network.n_elements, likely, self.species)
        owner = self.real.nonzero()[:, 0]
        with torch.enable_grad():
            frac = ahead.detach().clone().requires_grad_()
            cell = ahead_cell.detach().clone().requires_grad_()
            lattice = self.network.lattices(cell, self.sizes)
            total = penalty(
                self._numbers()[species[self.real]], frac[self.real], lattice, owner
            ).sum()
            slopes = torch.autograd.grad(total, (frac, cell), allow_unused=True)
        strength = self.request.penalty_scale * _PUSH * share
        inverse = torch.linalg.inv(lattice.detach())
        if slopes[0] is not None:
            step = -strength * torch.nan_to_num(slopes[0]) @ inverse.transpose(1, 2)
            length = step.norm(dim=-1, keepdim=True).clamp(min=1e-9)
            step = step * (length.clamp(max=_FARTHEST_PUSH) / length)
            free = (self.real & ~self.fixed)[..., None]
            self.frac = (self.frac + (step @ inverse) * free) % 1.0
        if slopes[1] is not None and self.goal_cell is None:
            strain = -0.1 * strength * torch.nan_to_num(slopes[1]) / self.network.spread
            strain = strain.clamp(-_CELL_PUSH, _CELL_PUSH)
            self.cell = self.cell + strain / self.network.spread

    def polish(self) -> None:
        """Put given atoms and cells where they are, and follow the penalty once more."""
        self._restore()
        flat = torch.zeros((*self.species.shape, self.network.n_elements), device=self.device)
        for _ in range(_LAST_PUSHES if self.request.penalty is not None else 0):
            self.push(flat, self.frac, self.cell, 1 / 100)

    def structures(self, symmetrize: float) -> list[Structure | None]:
        """Return each crystal, or None where there is none that meets the request."""
        cells = self.network.lattices(self.cell, self.sizes).double().cpu().numpy()
        numbers = self._numbers().cpu().numpy()
        found: list[Structure | None] = []
        for index, n in enumerate(self.sizes.tolist()):
            frac = self.frac[index, :n].double().cpu().numpy()
            species = self.species[index, :n].cpu().numpy()
            symbols = [Element.from_Z(int(numbers[place])) for place in species]
            if self.request.fixed is not None:
                found.append(self._completed(self.request.fixed, symbols, frac))
                continue
            structure = Structure(Lattice(cells[index]), symbols, frac % 1.0)
            found.append(self._finished(structure, symmetrize))
        return found

    def _finished(self, structure: Structure, symmetrize: float) -> Structure | None:
        if objection(structure):
            return None
        asked = self.request.conditions
        try:
            if symmetrize:
                smaller = primitive_cell(structure, symmetrize)
                if len(smaller) < (asked.n_atoms or asked.min_atoms):
                    return None
                structure = smaller
            if asked.space_group and space_group(structure, SYMPREC).number != asked.space_group:
                return None
        except SymmetryError:
            return None if asked.space_group else structure
        return structure

    def _completed(
        self, fixed: Structure, symbols: list[Element], frac: NDArray[np.float64]
    ) -> Structure | None:
        """Return a partial structure, untouched, with the atoms that were filled in."""
        given = len(fixed)
        found = fixed.copy()
        reduced = np.array(niggli_reduce(fixed.lattice.matrix.tolist())[0])
        added = frac[given:] @ reduced @ np.linalg.inv(fixed.lattice.matrix)
        for symbol, place in zip(symbols[given:], added % 1.0, strict=True):
            found.append(symbol, place, validate_proximity=False)
        return None if objection(found) else found

    def _fix(self, fixed: Structure) -> None:
        reduced = np.array(niggli_reduce(fixed.lattice.matrix.tolist())[0])
        frac = fixed.cart_coords @ np.linalg.inv(reduced)
        goal = torch.tensor(frac % 1.0, dtype=self.frac.dtype, device=self.device)
        self.fixed[:, : len(fixed)] = True
        self.goal[:, : len(fixed)] = goal
        cells = [
            standardised(cell_numbers(reduced, n), self.statistics) for n in self.sizes.tolist()
        ]
        self.goal_cell = torch.tensor(np.array(cells), dtype=self.cell.dtype, device=self.device)

    def _restore(self) -> None:
        self.frac = torch.where(self.fixed[..., None], self.goal, self.frac)
        if self.goal_cell is not None:
            self.cell = self.goal_cell

    def _batch(self, conditions: Conditions) -> dict[str, Tensor]:
        count, names = len(self.real), self.statistics["elements"]
        present = torch.zeros((count, len(names)), device=self.device)
        for symbol in conditions.required:
            present[:, names.index(symbol)] = 1.0
        asked = torch.from_numpy(standardised_properties(conditions.properties, self.statistics))
        return {
            "real": self.real,
            "present": present,
            "group": torch.full((count,), conditions.space_group, device=self.device),
            "properties": asked.to(self.device).expand(count, -1),
        }

    def _is_conditional(self) -> bool:
        asked = self.request.conditions
        return bool(asked.required or asked.space_group or asked.properties)

    def _allowed(self) -> Tensor:
        """Return which elements may become known, shape (elements,)."""
        names, allowed = self.statistics["elements"], self.request.conditions.allowed
        found = [not allowed or name in allowed for name in names]
        return torch.tensor(found, device=self.device)

    def _required(self) -> set[int]:
        names = self.statistics["elements"]
        return {names.index(symbol) for symbol in self.request.conditions.system}

    def _numbers(self) -> Tensor:
        numbers = [Element(symbol).Z for symbol in self.statistics["elements"]]
        return torch.tensor(numbers, device=self.device)


def _drafts(
    statistics: Statistics, request: SampleRequest, rng: np.random.Generator
) -> Iterator[_Draft]:
    """Yield what each crystal is to have, by what the data has."""
    asked, names = request.conditions, statistics["elements"]
    least, most = (asked.n_atoms,) * 2 if asked.n_atoms else (asked.min_atoms, asked.max_atoms)
    given = [site.specie.symbol for site in request.fixed] if request.fixed is not None else []
    strange = sorted((asked.required | set(given)) - set(names))
    if strange:
        raise ConfigurationError(
            f"the model has never seen {', '.join(strange)}; it knows {', '.join(names)}"
        )
    first = [names.index(symbol) for symbol in given]
    contents: list[list[int]] = []
    weights: list[float] = []
    if asked.formula:
        reduced = Composition(dict(asked.formula)).get_reduced_composition_and_factor()[0]
        formula = {str(element): int(amount) for element, amount in reduced.items()}
        for units in range(1, most // sum(formula.values()) + 1):
            rest = Counter({symbol: amount * units for symbol, amount in formula.items()})
            rest.subtract(given)
            if (
                sum(formula.values()) * units < least
                or min(rest.values()) < 0
                or not any(rest.values())
            ):
                continue
            contents.append([names.index(symbol) for symbol in rest.elements()])
            weights.append(statistics["formula_units"].get(str(units), 0) + 0.01)
    else:
        missing = set(asked.system) - set(given)
        for n in range(max(least, len(given) + max(len(missing), 1)), most + 1):
            contents.append([-1] * (n - len(given)))
            weights.append(statistics["atoms"].get(str(n), 0) + 1e-3)
    if not contents:
        raise ConfigurationError(
            f"no cell of {least} to {most} atoms holds what is asked for; allow other sizes"
        )
    shares = np.array(weights) / sum(weights)
    for place, choice in enumerate(rng.choice(len(contents), request.count, p=shares)):
        yield _Draft((*first, *contents[choice]), place)
