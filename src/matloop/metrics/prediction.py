"""Structure prediction: how many targets are met, and how closely."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pymatgen.core import Structure

from matloop.errors import ConfigurationError
from matloop.metrics.verdicts import Verdict
from matloop.structures.identity import IncomparableError, Matcher, Reduced
from matloop.structures.reading import Record

TOLERANCES = Matcher(ltol=0.3, stol=0.5, angle_tol=10.0)
"""What counts as the same crystal in structure prediction: Xie et al., CDVAE, ICLR 2022."""


@dataclass(frozen=True)
class Prediction:
    """How well targets were predicted.

    Attributes
    ----------
    targets
        Number of targets.
    samples
        Largest number of samples of one target.
    matched
        Targets that at least one structurally valid sample matches.
    matched_valid
        Targets that at least one sample matches that also has a charge-neutral composition by the
        older rules: how CDVAE and DiffCSP count.
    rmse
        Mean over the matched targets of the smallest root mean square distance of their samples,
        in units of the cube root of the volume per atom; None without a match.
    """

    targets: int
    samples: int
    matched: int
    matched_valid: int
    rmse: float | None


def predict(
    records: Sequence[Record],
    verdicts: Sequence[Verdict],
    targets: Sequence[Record],
    notify: Callable[[int], None] = lambda done: None,
) -> Prediction:
    """Compare samples with the targets they were made for.

    A sample belongs to the target whose label it carries, alone or with a number behind it
    (``mp-12``, ``mp-12_3``). Where the labels say nothing, samples stand in the order of the
    targets, equally many of each.

    Parameters
    ----------
    records, verdicts
        The samples, and what was found of each.
    targets
        The crystals that were to be predicted.
    notify
        Told how many targets are done.

    Raises
    ------
    ConfigurationError
        If samples cannot be told to targets, or a target cannot be compared.
    """
    goals = [_goal(target) for target in targets]
    owners = assigned(records, targets)
    distances: list[float] = []
    matched_valid = most = 0
    for place, goal in enumerate(goals):
        own = [i for i, owner in enumerate(owners) if owner == place]
        most = max(most, len(own))
        met: list[tuple[float, bool]] = []
        for i in own:
            structure = records[i].structure
            if structure is None or not verdicts[i].structural_validity:
                continue
            distance = _distance(goal, structure)
            if distance is not None:
                met.append((distance, verdicts[i].smact_validity_legacy))
        if met:
            distances.append(min(distance for distance, _ in met))
            matched_valid += any(neutral for _, neutral in met)
        notify(place + 1)
    rmse = sum(distances) / len(distances) if distances else None
    return Prediction(len(targets), most, len(distances), matched_valid, rmse)


def assigned(records: Sequence[Record], targets: Sequence[Record]) -> list[int]:
    """Return for each sample the place of its target.

    Raises
    ------
    ConfigurationError
        If neither labels nor numbers tell.
    """
    places = {target.label: place for place, target in enumerate(targets)}
    if len(places) == len(targets) and not all(label.isdigit() for label in places):
        found = [_by_label(record.label, places) for record in records]
        if all(place is not None for place in found):
            return [place for place in found if place is not None]
    if not targets or len(records) % len(targets):
        raise ConfigurationError(
            f"{len(records)} samples cannot be shared among {len(targets)} targets: give equally "
            "many of each, in the order of the targets, or label each with the name of its target"
        )
    each = len(records) // len(targets)
    return [i // each for i in range(len(records))]


def _by_label(label: str, places: dict[str, int]) -> int | None:
    if label in places:
        return places[label]
    stem = re.sub(r"[-_.#:]\d+$", "", label)
    return places.get(stem)


def _goal(target: Record) -> Reduced:
    if target.structure is None or target.problem:
        raise ConfigurationError(f"target {target.source}: {target.problem}")
    try:
        return TOLERANCES.reduce(target.structure)
    except IncomparableError as error:
        raise ConfigurationError(f"target {target.source}: {error}") from error


def _distance(goal: Reduced, structure: Structure) -> float | None:
    try:
        return TOLERANCES.distance(goal, TOLERANCES.reduce(structure))
    except IncomparableError:
        return None
