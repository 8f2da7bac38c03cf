"""How likely elements replace each other in one crystal structure."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache
from itertools import product
from math import exp, log

from pymatgen.core import Element
from pymatgen.core.structure_prediction.substitution_probability import SubstitutionProbability

MENDELEEV_WIDTH = 5.0
"""Distance on Pettifor's scale over which the likelihood of replacement falls by a factor e.

Our choice: neighbours in a column or a period are 1 to 4 apart, unlike metals 10 and more.
"""

_FLOOR = -9.0
_HEAVIEST = 103
_MOST_CHOICES = 64

Content = tuple[tuple[str, int], ...]
"""Element and number of atoms of each class of sites; an element may come twice."""


def log_likelihood(before: Content, after: Content) -> float:
    """Return the log-probability of finding `before` where `after` is wanted.

    Where common oxidation states neutralise both contents, it is the sum of the data-mined
    conditional probabilities of the ions (Hautier et al., Inorg. Chem. 2011), for the best choice
    of states. Elsewhere it is the sum over the elements' distances on Pettifor's chemical scale
    (Solid State Commun. 1984).

    Parameters
    ----------
    before, after
        The same classes of sites in the same order.
    """
    ions = [
        sum(
            ion_log_likelihood(old, charge, new, state)
            for (old, _), charge, (new, _), state in zip(before, first, after, second, strict=True)
        )
        for first in neutral_states(before)
        for second in neutral_states(after)
    ]
    if ions:
        return max(ions)
    return sum(
        element_log_likelihood(old, new) for (old, _), (new, _) in zip(before, after, strict=True)
    )


def likeliest(old: str, options: Sequence[str], count: int) -> list[str]:
    """Return the elements that replace one most likely, whatever their states, best first."""

    def score(new: str) -> float:
        ions = [
            ion_log_likelihood(old, charge, new, state)
            for charge in _states(old)
            for state in _states(new)
        ]
        return max([element_log_likelihood(old, new), *ions])

    return sorted(options, key=lambda new: (-score(new), Element(new).Z))[:count]


@lru_cache(maxsize=200_000)
def neutral_states(content: Content) -> tuple[tuple[int, ...], ...]:
    """Return each choice of common oxidation states, one per class, that adds up to zero.

    Classes of one element share one state. A content of one element has none.
    """
    names = sorted({name for name, _ in content})
    if len(names) == 1:
        return ()
    totals = [sum(n for other, n in content if other == name) for name in names]
    found = []
    for states in product(*(_states(name) for name in names)):
        if sum(state * n for state, n in zip(states, totals, strict=True)) == 0:
            chosen = dict(zip(names, states, strict=True))
            found.append(tuple(chosen[name] for name, _ in content))
    return tuple(found[:_MOST_CHOICES])


@lru_cache(maxsize=200_000)
def ion_log_likelihood(old: str, charge: int, new: str, state: int) -> float:
    """Return the log-probability of one ion given the ion wanted in its place.

    Ions the table does not know have the lowest.
    """
    model, known = _table()
    if (old, charge) not in known or (new, state) not in known:
        return _FLOOR
    chance = model.cond_prob(known[old, charge], known[new, state])
    return max(_FLOOR, log(chance)) if chance > 0 else _FLOOR


@lru_cache(maxsize=20_000)
def element_log_likelihood(old: str, new: str) -> float:
    """Return the log-probability of one element given the one wanted, on Pettifor's scale."""
    return max(_FLOOR, -abs(_place(old) - _place(new)) / MENDELEEV_WIDTH - _log_norm(new))


@cache
def _log_norm(new: str) -> float:
    symbols = [Element.from_Z(z).symbol for z in range(1, _HEAVIEST + 1)]
    places = [_place(symbol) for symbol in symbols]
    return log(sum(exp(-abs(place - _place(new)) / MENDELEEV_WIDTH) for place in places))


@cache
def _place(name: str) -> float:
    return float(Element(name).mendeleev_no)


@cache
def _states(name: str) -> tuple[int, ...]:
    return tuple(Element(name).common_oxidation_states)


@cache
def _table() -> tuple[SubstitutionProbability, dict[tuple[str, int], object]]:
    model = SubstitutionProbability()
    known = {(ion.symbol, round(ion.oxi_state)): ion for ion in model.species}
    return model, known
