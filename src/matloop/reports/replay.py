"""Replay a finished campaign: what other policies would have bought of the same candidates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from matloop import registry
from matloop.documents.base import Document
from matloop.documents.campaign import Campaign, Plugin, PluginUse, Stage
from matloop.documents.decision import Choice
from matloop.errors import ConfigurationError
from matloop.jobs.choices import PastChoice, past_choices
from matloop.jobs.place import derived_seed
from matloop.jobs.questions import select
from matloop.ledger.interface import Ledger
from matloop.protocols import Judged, Selector
from matloop.reports.bought import Labels, Measure, read_labels
from matloop.reports.history import read_history

SHARES = (0.2, 0.4, 0.6, 0.8, 1.0)
"""Shares of the budget at which policies are compared."""

_ROUNDING = 1 + 1e-9


class ReplayPoint(Document):
    """What a policy holds after a share of the budget, over all seeds.

    Attributes
    ----------
    share
        Share of the campaign's places and of its cost.
    bought
        Candidates bought, mean.
    cost
        What they cost, mean.
    discoveries, spread
        Distinct discoveries: mean, and standard deviation over seeds (0 for one seed).
    per_cost
        Discoveries per cost, mean over seeds; None where nothing was spent.
    enhancement
        Mean discoveries divided by those of chance; None where chance found none.
    volume
        With several goals, the share of the volume dominated by all labelled crystals that those
        bought dominate, mean over seeds; else None.
    """

    share: float
    bought: float
    cost: float
    discoveries: float
    spread: float
    per_cost: float | None
    enhancement: float | None = None
    volume: float | None = None


class PolicyReplay(Document):
    """One policy, replayed.

    Attributes
    ----------
    policy
        Registered name with the parameters that were given.
    own
        Whether it is the campaign's own.
    curve
        Points by share of the budget.
    area, area_spread
        Area under the curve of discoveries against the share of the budget, as a fraction of the
        campaign's discoveries at full budget: 1 for all at once, 0.5 for a straight line.
    choices, unlabelled
        Free to choose among all candidates, as the campaign was: how many it would have bought, all
        seeds together, and of how many of them no label exists.
    """

    policy: str
    own: bool
    curve: tuple[ReplayPoint, ...]
    area: float
    area_spread: float
    choices: int
    unlabelled: int


class Replay(Document):
    """What policies would have found, with the same labels and the same budget.

    Attributes
    ----------
    stage
        The stage whose choices are replayed.
    iterations, candidates
        Iterations, and candidates its selector was asked about.
    labelled, elsewhere
        Candidates with a recorded outcome, and those of them that the campaign did not buy: the
        same crystal was evaluated as another candidate, or by another campaign.
    bought, cost, measure
        What the campaign itself bought: the full budget.
    discoveries
        What it found.
    decisions, reproduced
        Decisions of the campaign's own policy, and how many come out exactly the same again.
    seeds
        Replays per policy; the first one has the campaign's own seed.
    policies
        The campaign's own first, then chance, then those asked for.
    """

    campaign_id: str
    stage: str
    iterations: int
    candidates: int
    labelled: int
    elsewhere: int
    bought: int
    cost: float
    measure: Measure
    discoveries: int
    decisions: int
    reproduced: int
    seeds: int
    policies: tuple[PolicyReplay, ...]


def choosing_stage(campaign: Campaign, name: str | None = None) -> Stage:
    """Return the stage whose choices are replayed.

    Parameters
    ----------
    campaign
        The campaign.
    name
        Its name; by default the first that keeps only some, or has a selector other than ``gate``.

    Raises
    ------
    ConfigurationError
        If there is no such stage, or none after it that could label what it chose.
    """
    *able, last = campaign.stages
    if name is not None:
        able_names = [stage.name for stage in able]
        if name not in able_names:
            known = ", ".join(able_names) or "none"
            raise ConfigurationError(
                f"--stage {name}: no stage of that name has others after it; these have: {known}"
            )
        return able[able_names.index(name)]
    for stage in able:
        if stage.keep is not None or stage.select.use != "gate":
            return stage
    raise ConfigurationError(
        f"no stage before {last.name!r} chooses: none keeps only some, so there is nothing to "
        "replay; name one with --stage and say with --keep how many it should keep"
    )


def replay(
    ledger: Ledger,
    campaign_id: str,
    policies: Sequence[Plugin],
    *,
    seeds: int = 5,
    stage: str | None = None,
    keep: int | None = None,
    shares: Sequence[float] = SHARES,
) -> Replay:
    """Replay a campaign's choices with other policies.

    In every iteration a policy sees the candidates that entered the stage then and have a label. It
    may buy as many, at the same cost, as the campaign had by then, times a share of the budget. The
    campaign's own policy and chance are always among them.

    Parameters
    ----------
    ledger
        The database.
    campaign_id
        The campaign.
    policies
        Selectors, by registered name.
    seeds
        Replays of each.
    stage
        Name of the stage; see `choosing_stage`.
    keep
        Places per iteration instead of the campaign's own; for stages that keep everybody.
    shares
        Shares of the budget, increasing.

    Raises
    ------
    ConfigurationError
        If the stage has made no choice yet, or nothing after it is on record.
    """
    history = read_history(ledger, campaign_id)
    declared = choosing_stage(history.record.campaign, stage)
    past = past_choices(ledger, history.record, declared)
    pool = [judged.candidate for choice in past for judged in choice.batch]
    if not pool:
        raise ConfigurationError(f"stage {declared.name!r} of {campaign_id!r} has not chosen yet")
    labels = read_labels(ledger, history, declared.name, pool)
    labelled = [item for item in pool if item.candidate_id in labels.known]
    if not labelled:
        raise ConfigurationError(f"nothing that stage {declared.name!r} chose has been judged yet")
    budget = _Budget.of(past, labels, keep)
    differing = sum(len(choice.differing(choice.again())) for choice in past)
    own = PluginUse(use=declared.select.use, parameters=declared.select.parameters)
    asked = list(dict.fromkeys(map(_told, [PluginUse(use="random"), *policies])))
    uses = {_told(use): use for use in [PluginUse(use="random"), *policies]}
    rehearsed = [_rehearse(_told(own), None, past, labels, budget, seeds, shares)]
    for name in asked:
        use = uses[name]
        selector = registry.build("selectors", use.use, use.parameters)
        rehearsed.append(_rehearse(name, selector, past, labels, budget, seeds, shares))
    return Replay(
        campaign_id=campaign_id,
        stage=declared.name,
        iterations=len(past),
        candidates=len(pool),
        labelled=len(labelled),
        elsewhere=sum(labels.known[item.candidate_id].elsewhere for item in labelled),
        bought=budget.places[-1],
        cost=budget.costs[-1],
        measure=labels.measure,
        discoveries=labels.discoveries,
        decisions=len(pool),
        reproduced=len(pool) - differing,
        seeds=seeds,
        policies=tuple(_against_chance(rehearsed)),
    )


@dataclass(frozen=True)
class _Budget:
    """What the campaign had bought by the end of each iteration: places, and their cost."""

    places: list[int]
    costs: list[float]
    keep: list[int | None]

    @classmethod
    def of(cls, past: Sequence[PastChoice], labels: Labels, keep: int | None) -> _Budget:
        places, costs, paid = [0], [0.0], set[str]()
        total, bought = 0.0, 0
        for choice in past:
            passed = [
                decision.candidate_id
                for decision in choice.decisions
                if decision.outcome == "passed" and decision.candidate_id in labels.known
            ]
            for name in passed:
                for key, cost in labels.known[name].costs.items():
                    total += 0.0 if key in paid else cost
                    paid.add(key)
            taken = len(passed) if keep is None else min(keep, len(passed))
            places.append(places[-1] + taken)
            bought += len(passed)
            # where fewer are kept than the campaign bought, they may cost its mean price
            costs.append(total * places[-1] / bought if bought else 0.0)
        kept = [choice.request.keep if keep is None else keep for choice in past]
        return cls(places[1:], costs[1:], kept)


def _rehearse(
    name: str,
    selector: Selector | None,
    past: Sequence[PastChoice],
    labels: Labels,
    budget: _Budget,
    seeds: int,
    shares: Sequence[float],
) -> PolicyReplay:
    """Replay one policy; the campaign's own without a selector."""
    table = np.array(
        [
            [_bought(selector, past, labels, budget, seed, share) for share in shares]
            for seed in range(seeds)
        ]
    )  # shape (seeds, shares, 4): bought, cost, discoveries, volume
    most = max(float(labels.discoveries), float(table[:, :, 2].max()), 1.0)
    areas = np.trapezoid(
        np.concatenate([np.zeros((seeds, 1)), table[:, :, 2]], axis=1) / most,
        np.array([0.0, *shares]),
        axis=1,
    )
    free = [
        _passed(_asked(selector, choice, choice.batch, seed, keep))
        for seed in range(seeds)
        for choice, keep in zip(past, budget.keep, strict=True)
    ]
    chosen = [name for names in free for name in names]
    return PolicyReplay(
        policy=name,
        own=selector is None,
        curve=tuple(
            _point(share, table[:, i], labels.reference is not None)
            for i, share in enumerate(shares)
        ),
        area=float(areas.mean()),
        area_spread=_spread(areas),
        choices=len(chosen),
        unlabelled=sum(name not in labels.known for name in chosen),
    )


def _point(
    share: float, rows: np.ndarray[tuple[int, int], np.dtype[np.float64]], several: bool
) -> ReplayPoint:
    bought, cost, found, volume = rows.T
    spent = cost > 0
    return ReplayPoint(
        share=share,
        bought=float(bought.mean()),
        cost=float(cost.mean()),
        discoveries=float(found.mean()),
        spread=_spread(found),
        per_cost=float((found[spent] / cost[spent]).mean()) if spent.any() else None,
        volume=float(volume.mean()) if several else None,
    )


def _bought(
    selector: Selector | None,
    past: Sequence[PastChoice],
    labels: Labels,
    budget: _Budget,
    seed: int,
    share: float,
) -> tuple[float, float, float, float]:
    """Return how many candidates a policy buys, what they cost, what it finds, and the volume."""
    paid: set[str] = set()
    found: set[str] = set()
    names: list[str] = []
    bought, spent = 0, 0.0
    for number, choice in enumerate(past):
        able = [item for item in choice.batch if item.candidate.candidate_id in labels.known]
        places = round(share * budget.places[number]) - bought
        if not able or places <= 0:
            continue
        for name in _passed(_asked(selector, choice, able, seed, places)):
            label = labels.known[name]
            price = sum(cost for key, cost in label.costs.items() if key not in paid)
            if spent + price > share * budget.costs[number] * _ROUNDING:
                break  # what is left over is for the next iteration
            paid |= label.costs.keys()
            spent, bought = spent + price, bought + 1
            found |= {label.discovery} - {""}
            names.append(name)
    return float(bought), spent, float(len(found)), labels.volume(names)


def _asked(
    selector: Selector | None,
    choice: PastChoice,
    batch: Sequence[Judged],
    seed: int,
    keep: int | None,
) -> list[Choice]:
    """Put the question to a policy; its first seed is the one of the campaign."""
    number = derived_seed(choice.request.seed, seed) if seed else choice.request.seed
    request = replace(choice.request, seed=number, keep=keep)
    return select(selector or choice.selector, batch, request)


def _passed(choices: Sequence[Choice]) -> list[str]:
    """Return who passed, in the order of rank where the policy ranks."""
    passed = [choice for choice in choices if choice.outcome == "passed"]
    ranked = sorted(passed, key=lambda choice: choice.evidence.get("rank", 0.0))
    return [choice.candidate_id for choice in ranked]


def _against_chance(policies: Sequence[PolicyReplay]) -> list[PolicyReplay]:
    chance = next(item for item in policies if item.policy == "random")
    base = [point.discoveries for point in chance.curve]
    return [
        item.model_copy(
            update={
                "curve": tuple(
                    point.model_copy(
                        update={"enhancement": point.discoveries / by_lot if by_lot else None}
                    )
                    for point, by_lot in zip(item.curve, base, strict=True)
                )
            }
        )
        for item in policies
    ]


def _told(use: PluginUse) -> str:
    parameters: Mapping[str, object] = use.parameters
    settings = ",".join(f"{name}={value}" for name, value in parameters.items())
    return f"{use.use}:{settings}" if settings else use.use


def _spread(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else 0.0
