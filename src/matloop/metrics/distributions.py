"""How samples are spread beside the reference: symmetry, templates, density, elements, energy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pymatgen.core import Composition, Structure
from scipy.stats import wasserstein_distance

from matloop.atomic import whole_file
from matloop.documents.base import Scalar, digest
from matloop.evaluators.mlip.model import Member, load_model
from matloop.evaluators.mlip.reading import readable
from matloop.evaluators.mlip.relaxation import Relaxation
from matloop.evaluators.mlip.single_points import single_points
from matloop.metrics.figures import Figures
from matloop.metrics.hull import Judge, Notify, reference_hull
from matloop.metrics.reference import Reference
from matloop.metrics.stability import formation_energy
from matloop.metrics.verdicts import Verdict

_CRYSTAL_SYSTEMS = (
    ("triclinic", 2),
    ("monoclinic", 15),
    ("orthorhombic", 74),
    ("tetragonal", 142),
    ("trigonal", 167),
    ("hexagonal", 194),
    ("cubic", 230),
)


def put_symmetry(figures: Figures, verdicts: Sequence[Verdict]) -> None:
    """Add space groups, crystal systems and repeated templates."""
    n = len(verdicts)
    groups = [verdict.space_group for verdict in verdicts]
    figures.share("p1", (group == 1 for group in groups), n)
    figures.share("symmetry_found", (group is not None for group in groups), n)
    lowest = 1
    for name, highest in _CRYSTAL_SYSTEMS:
        inside = [group is not None and lowest <= group <= highest for group in groups]
        figures.share(f"crystal_system_{name}", inside, n)
        lowest = highest + 1
    counted = Counter(group for group in groups if group is not None)
    ordered = sorted(counted.items(), key=lambda item: (-item[1], item[0]))
    spread: dict[str, Scalar] = {
        "space_groups": len(counted),
        "space_group_counts": " ".join(f"{group}:{count}" for group, count in ordered),
    }
    figures.put(spread)
    seen: set[str] = set()
    repeated = []
    for verdict in verdicts:
        repeated.append(bool(verdict.template) and verdict.template in seen)
        seen.add(verdict.template)
    figures.put({"templates": len(seen - {""})})
    figures.share("template_duplicates", repeated, n)


def put_distances(figures: Figures, verdicts: Sequence[Verdict], reference: Reference) -> None:
    """Add Wasserstein distances of density and number of elements, of valid samples as in CDVAE."""
    valid = [v for v in verdicts if v.structural_validity and v.smact_validity_legacy]
    densities = [v.density for v in valid if v.density is not None and np.isfinite(v.density)]
    elements = [_elements(v.formula) for v in valid]
    known = [len(system) for system in reference.systems]
    for key, ours, theirs in (
        ("wdist_density", densities, reference.densities),
        ("wdist_elements", elements, known),
    ):
        distance = float(wasserstein_distance(ours, theirs)) if len(ours) else None
        figures.statistic(key, distance, len(ours))
        figures.put({f"{key}_reference": len(theirs)})


def put_energy_distance(
    figures: Figures,
    verdicts: Sequence[Verdict],
    reference: Reference,
    judge: Judge | None,
    most: int,
    seed: int,
    cache: Path | None,
    notify: Notify,
) -> None:
    """Add the Wasserstein distance of formation energies, all crystals as given, not relaxed.

    Parameters are those of `reference_energies`, which gives the reference's.
    """
    ours = [
        v.formation_energy
        for v in verdicts
        if v.structural_validity and v.smact_validity_legacy and v.formation_energy is not None
    ]
    theirs = (
        reference_energies(reference, judge, most, seed, cache, notify) if judge and ours else []
    )
    distance = float(wasserstein_distance(ours, theirs)) if ours and theirs else None
    figures.statistic("wdist_energy", distance, len(ours))
    figures.put({"wdist_energy_reference": len(theirs) if distance is not None else None})


def reference_energies(
    reference: Reference, judge: Judge, most: int, seed: int, cache: Path | None, notify: Notify
) -> list[float]:
    """Return formation energies of reference crystals as they stand (eV/atom).

    Parameters
    ----------
    reference
        Known crystals.
    judge
        What computes energies, and relaxes the elements.
    most
        Of a larger reference so many crystals are drawn.
    seed
        Of the draw.
    cache
        Folder where energies are kept; None keeps none.
    notify
        Told of progress.
    """
    count = min(len(reference), most)
    drawn = np.random.default_rng(seed).choice(len(reference), count, replace=False)
    places = sorted(drawn.tolist())
    elements = set().union(*(reference.systems[i] for i in places))
    hull = reference_hull(reference, {frozenset({element}) for element in elements}, judge, notify)
    structures = [reference.structure(i) for i in places]
    name = digest([reference.sha256, places, hull.theory])[:24]
    file = cache / f"energies-{name}.npy" if cache else None
    if file is not None and file.exists():
        energies = np.load(file, allow_pickle=False).tolist()
    else:
        energies = _single_energies(judge.relaxation, structures, notify)
        if file is not None:
            with whole_file(file) as partial, partial.open("wb") as stream:
                np.save(stream, np.array(energies))
    found = [
        formation_energy(hull.hull, structure, energy)
        for structure, energy in zip(structures, energies, strict=True)
        if np.isfinite(energy)
    ]
    return [energy for energy in found if energy is not None]


def _single_energies(
    relaxation: Relaxation, structures: Sequence[Structure], notify: Notify
) -> list[float]:
    model = load_model(relaxation.model, relaxation.model_parameters)
    energies = [np.nan] * len(structures)
    members: dict[int, Member] = {}
    for index, structure in enumerate(structures):
        found = readable(structure, model, relaxation.max_atoms)
        if isinstance(found, Member):
            members[index] = found
    places = list(members)
    step = 64
    for start in range(0, len(places), step):
        some = places[start : start + step]
        points = single_points(model, [members[i] for i in some], relaxation.batch_atoms)
        for index, point in zip(some, points, strict=True):
            if not point.fault:
                energies[index] = point.energy / len(point.member.numbers)
        notify("energies of references", min(start + step, len(places)), len(places))
    return energies


def _elements(formula: str) -> int:
    return len(Composition(formula))
