"""The Pareto front of a campaign with several goals."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from matloop.documents.candidate import Quantity
from matloop.documents.pareto import dominators, hypervolume, reference_point
from matloop.reports.discoveries import Crystals, symmetry
from matloop.reports.front import Front, FrontPoint, GoalShown
from matloop.reports.history import Followed, History
from matloop.reports.stability import DISTANCE, Energies

MOST_DRAWN = 3000


def pareto_front(
    history: History, discoveries: Collection[str], references: Crystals, energies: Energies
) -> Front | None:
    """Return the front of all feasible relaxed crystals; None with one goal, or without any.

    Distances are those to the final hull; where the campaign has several levels of theory, those of
    the highest, and crystals without an energy there are left out.

    Parameters
    ----------
    history
        The campaign.
    discoveries
        Ids of the discoveries.
    references
        Phases that were known.
    energies
        The final hull.
    """
    objective = history.record.campaign.objective
    if not objective.several:
        return None
    known = {item.candidate_id: energies.refreshed(item) for item in history.candidates}
    judged = [item for item in history.candidates if is_judged(item, known, history, energies)]
    if not judged:
        return None
    gains = objective.gains_of([known[item.candidate_id] for item in judged])
    finite = np.flatnonzero(np.isfinite(gains).all(axis=1))
    judged, gains = [judged[row] for row in finite], gains[finite]
    if not judged:
        return None
    units = {name: known[judged[0].candidate_id][name].unit for name in objective.of_goals}
    given = objective.worst(units)
    reference = reference_point(gains) if given is None else given
    turns = np.array([item.record.iteration for item in judged])
    behind = dominators(gains)
    signs = np.array([goal.sign for goal in objective.goals])
    distinct = Crystals()
    points = []
    for row in np.lexsort((turns, -gains[:, 0])):
        item = judged[row]
        if behind[row] or distinct.match(item.reduced) is not None:
            continue
        distinct.add(item.candidate_id, item.reduced)
        points.append(
            FrontPoint(
                candidate_id=item.candidate_id,
                formula=item.final.structure.composition.reduced_formula,
                space_group=symmetry(item.final.structure)[0],
                values=tuple((signs * gains[row]).tolist()),
                discovery=item.candidate_id in discoveries,
                known=references.match(item.reduced) or "",
                iteration=item.record.iteration,
            )
        )
    drawn = [row for row in np.argsort(behind, kind="stable") if behind[row]][:MOST_DRAWN]
    return Front(
        goals=tuple(
            GoalShown(
                text=goal.text,
                direction="maximize" if goal.sign > 0 else "minimize",
                unit=objective.unit(goal, units),
                reference=float(goal.sign * worst),
            )
            for goal, worst in zip(objective.goals, reference, strict=True)
        ),
        given=given is not None,
        points=tuple(points),
        others=tuple(tuple((signs * gains[row]).tolist()) for row in drawn),
        judged=len(judged),
        volumes=tuple(
            hypervolume(gains[turns <= turn], reference)
            for turn in range(max(item.record.iteration for item in history.candidates) + 1)
        ),
    )


def is_judged(
    item: Followed,
    known: Mapping[str, Mapping[str, Quantity]],
    history: History,
    energies: Energies,
) -> bool:
    """Return whether a candidate may stand on the front: relaxed, feasible, all goals known."""
    objective = history.record.campaign.objective
    quantities = known[item.candidate_id]
    if not item.relaxed or not objective.of_goals <= quantities.keys():
        return False
    if len(history.levels) > 1 and DISTANCE in objective.names and energies.energy(item) is None:
        return False
    return objective.violated(quantities) is None
