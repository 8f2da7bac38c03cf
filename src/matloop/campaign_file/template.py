"""The commented campaign file that `matloop new` writes."""

from __future__ import annotations

from string import Template

from pymatgen.core import Element

from matloop.documents.space import ISOTOPES, ChemicalSpace
from matloop.errors import ConfigurationError

_IONIC_DIFFERENCE = 1.7
_DEFAULT_SYSTEM = "Ca-Ti-O"


def template(system: str | None = None) -> str:
    """Return a commented campaign file for a chemical system, ready to run.

    Parameters
    ----------
    system
        Elements joined by dashes, such as ``Ca-Ti-O``.

    Raises
    ------
    ConfigurationError
        If the system holds something that is no element, or an element twice.
    """
    system = _DEFAULT_SYSTEM if system is None else system
    elements = [part.strip() for part in system.split("-")]
    for element in elements:
        if element in ISOTOPES or not Element.is_valid_symbol(element):
            raise ConfigurationError(
                f"{element!r} is no chemical element; write a system such as {_DEFAULT_SYSTEM}"
            )
    if len(set(elements)) != len(elements):
        raise ConfigurationError(f"{system} names an element twice")
    space = ChemicalSpace(system="-".join(elements))
    ionic = suits_charge_balance(space.allowed)
    return _TEXT.substitute(
        name="-".join(elements).lower() + "-search",
        system=space.system,
        charge_balance="required" if ionic else "off",
        why=_IONIC if ionic else _METALLIC,
        rules="[minimum_distance, cell, charge_balance]" if ionic else "[minimum_distance, cell]",
    )


def suits_charge_balance(elements: tuple[str, ...]) -> bool:
    """Whether crystals of these elements are ionic enough for oxidation states to add up.

    True where the electronegativities of the elements lie 1.7 or more apart, which is half ionic
    character, and the most electronegative element is no metal.

    References
    ----------
    Pauling, The Nature of the Chemical Bond, 3rd ed. (1960), chapter 3: ionic character 1 -
    exp(-(difference / 2)^2), half at 1.7.
    """
    scale = {name: Element(name).data.get("X") for name in elements}
    known = {name: float(value) for name, value in scale.items() if value is not None}
    if len(known) < 2:
        return False
    top = max(known, key=lambda name: known[name])
    difference = known[top] - min(known.values())
    return difference >= _IONIC_DIFFERENCE and not Element(top).is_metal


_IONIC = "the elements differ enough in electronegativity to form ions"
_METALLIC = "these elements do not differ enough in electronegativity to form ions"

_TEXT = Template("""\
# A search for new crystals of $system.
# Check it with `matloop validate`, start it with `matloop run`. `matloop plugins` lists everything
# that can stand behind `use`, with all parameters.

name: $name
description: Stable crystals of $system.
seed: 0                        # same seed, same search

# Which compositions and cells may be proposed.
space:
  system: $system
  max_atoms: 12                # in the primitive cell; the cost of a relaxation grows with it
  charge_balance: $charge_balance      # $why

# What to look for. Quantities are what the stages below find; numbers carry their units.
objective:
  minimize: e_above_hull
  discovery: e_above_hull <= 0.05 eV/atom
  # constraints: [density <= 6 g/cm^3]

# What the convex hull is built from. All phases are relaxed with the same model as the candidates.
references:
  embedded: true               # textbook elements and compounds that come with matloop
  # files: [my-phases/]        # your own reference crystals: CIF, POSCAR, extxyz, JSON

# Who proposes. Shares adapt to what each finds per cost.
generators:
  - use: random_symmetric      # random crystals in every space group
  - use: substitution          # known crystals with one element exchanged for another
  - use: evolution             # offspring of the best so far
  - use: learned               # a network trained on crystals of the Materials Project
    with: {properties: {e_above_hull: 0}}   # asked for stable ones, eV/atom

# The fidelity ladder, cheapest first. What passes one stage enters the next.
stages:
  - name: validity             # cheap rules that no crystal breaks
    evaluate: $rules
  - name: unique               # each crystal once
    evaluate: [uniqueness]
  - name: choice               # the most promising, by a surrogate trained on this search's results
    evaluate: [surrogate]
    select: expected_utility
    keep: 24                   # relaxations per iteration, what the search mostly costs
  - name: relaxation           # CHGNet moves atoms and cell until forces vanish
    evaluate: [relaxation]
    workers: auto              # one process per core
    chunk: 4                   # results are safe on disk after every 4 crystals
  - name: novelty              # relaxed into another crystal of this search, or into a known one?
    evaluate: [uniqueness, novelty]
  - name: stability            # distance to the convex hull
    evaluate: [symmetry, hull_distance]

budget:
  iterations: 4
  candidates: 200              # proposals per iteration

stop:
  patience: 3                  # iterations in a row without a discovery
""")
