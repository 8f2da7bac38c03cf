"""The campaign's past as its jobs need it: who enters a stage, and what learners are shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain

from matloop.documents.campaign import Campaign
from matloop.documents.candidate import Candidate
from matloop.documents.labelled import Labelled
from matloop.jobs.names import Names
from matloop.jobs.rungs import PHASES, Rung
from matloop.ledger.interface import Ledger
from matloop.ledger.past import ENERGY, Past, read_past
from matloop.protocols import Evaluator, Observation, Resources
from matloop.structures.shared_hull import SharedHull


def entering_ids(
    ledger: Ledger, campaign_id: str, campaign: Campaign, iteration: int, stage: str
) -> Names:
    """Return who enters a stage: who passed the one before, and who was late at this one.

    The order is that of the proposals, those of earlier iterations last.
    """
    names = [item.name for item in campaign.stages]
    before = names[: names.index(stage)]
    if before:
        decided = ledger.outcomes(campaign_id, iteration, before[-1])
        own = Names(name for name, outcome, _ in decided if outcome == "passed")
    else:
        own = Names(ledger.candidate_ids(campaign_id, iteration))
    earlier = ledger.outcomes(campaign_id, iteration - 1, stage)
    late = dict.fromkeys(name for name, _, is_late in earlier if is_late)
    for name in own if late else ():
        late.pop(name, None)
    return Names(chain(own, late)) if late else own


def entering(
    ledger: Ledger, campaign_id: str, campaign: Campaign, stage: str, candidate_ids: Sequence[str]
) -> list[Candidate]:
    """Return candidates as they stand on entering a stage, in the order asked for."""
    if not candidate_ids:
        return []
    names = [item.name for item in campaign.stages]
    before = names[: names.index(stage)]
    past = read_past(ledger, campaign_id, campaign, candidate_ids)
    found = {item.candidate_id: item.after(before) for item in past}
    return [found[name] for name in candidate_ids]


def observations(past: Sequence[Past], campaign: Campaign) -> list[Observation]:
    """Return the history as learners see it."""
    seen = []
    last = campaign.stages[-1].name
    for item in past:
        quantities = item.candidate.quantities
        seen.append(
            Observation(
                proposed=item.record.candidate,
                final=item.candidate,
                iteration=item.record.iteration,
                generator=item.candidate.origin.generator,
                utility=campaign.objective.utility(quantities),
                discovery=item.passed(last) and campaign.objective.is_discovery(quantities),
                work=sum(evaluation.cost.work for evaluation in item.evaluations),
                labels=_labels(item),
            )
        )
    return seen


def at_rung(
    past: Sequence[Past], rung: Rung, evaluators: Sequence[Evaluator], resources: Resources
) -> dict[str, Candidate]:
    """Return the candidates that a level of theory judged, as it left them, by id.

    Quantities of another level are left out, and those that depend on the known phases are computed
    anew.

    Parameters
    ----------
    past
        The history.
    rung
        The level.
    evaluators
        Evaluators of its stages.
    resources
        Its phases.
    """
    found = {}
    for item in past:
        quantities = item.judged(rung.stages, rung.before)
        if quantities is not None:
            candidate = item.after(rung.so_far)
            found[item.candidate_id] = candidate.model_copy(update={"quantities": quantities})
    for evaluator in _judges_of_phases(evaluators):
        known = [
            name for name, item in found.items() if set(evaluator.produces) & item.quantities.keys()
        ]
        judged = evaluator.evaluate([found[name] for name in known], resources)
        for name, evaluation in zip(known, judged, strict=True):
            found[name] = found[name].updated(None, evaluation.quantities)
    return found


def compared(
    lower: Mapping[str, Candidate], upper: Mapping[str, Candidate], hull: SharedHull
) -> dict[str, tuple[float, float]]:
    """Return the distances (eV/atom) of all that two levels of theory have judged, by id.

    Parameters
    ----------
    lower, upper
        What the levels judged, as `at_rung` returns it.
    hull
        The phases that both know.
    """
    found = {}
    for name, item in lower.items():
        if name in upper and ENERGY in upper[name].quantities and ENERGY in item.quantities:
            energies = (item.quantities[ENERGY].value, upper[name].quantities[ENERGY].value)
            distances = hull.distances(name, item.structure.composition, energies)
            if distances is not None:
                found[name] = distances
    return found


def refreshed(
    seen: Sequence[Observation],
    campaign: Campaign,
    evaluators: Sequence[Evaluator],
    resources: Resources,
    theory: str,
) -> list[Observation]:
    """Return the history with quantities that depend on the known phases computed anew.

    A distance to the hull judged before a phase was found is out of date once it is. Learners,
    parents and allocation must all see the same hull.

    Parameters
    ----------
    seen
        The history.
    campaign
        The campaign as declared.
    evaluators
        Evaluators of one rung of its ladder.
    resources
        The phases of that rung.
    theory
        Key of their level of theory; candidates whose energy is of another are left as they are.
    """
    result = list(seen)
    for evaluator in _judges_of_phases(evaluators):
        known = [
            index
            for index, observation in enumerate(result)
            if set(evaluator.produces) & observation.final.quantities.keys()
            and _theory(observation.final) == theory
        ]
        judged = evaluator.evaluate([result[index].final for index in known], resources)
        for index, evaluation in zip(known, judged, strict=True):
            final = result[index].final.updated(None, evaluation.quantities)
            objective = campaign.objective
            result[index] = replace(
                result[index],
                final=final,
                utility=objective.utility(final.quantities),
                discovery=result[index].discovery and objective.is_discovery(final.quantities),
            )
    return result


def _labels(item: Past) -> tuple[Labelled, ...]:
    """Return the geometries with forces that calculations left of a candidate."""
    return tuple(
        Labelled(
            label_id=f"{item.candidate_id}/{result.key[:12]}/{number}",
            group=item.candidate_id,
            frame=frame,
            theory=result.evaluation.theory,
            converged=result.evaluation.verdict == "pass",
            iteration=item.record.iteration,
        )
        for result in item.results
        if result.evaluation.theory is not None
        for number, frame in enumerate(result.evaluation.frames)
    )


def _judges_of_phases(evaluators: Sequence[Evaluator]) -> list[Evaluator]:
    return [
        e for e in evaluators if PHASES in e.resources and e.requires and e.scope == "candidate"
    ]


def _theory(candidate: Candidate) -> str | None:
    energy = candidate.quantities.get("energy_per_atom")
    return energy.theory if energy else None
