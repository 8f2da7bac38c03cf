"""The policies compared: configurations of the product's own plugins, and agents after CAMD."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.discovery.camd import Memory, agents
from benchmarks.discovery.problem import DISTANCE, Problem
from matloop.errors import ConfigurationError
from matloop.evaluators.surrogate import Surrogate
from matloop.learners.fidelity import FidelityCorrection
from matloop.learners.surrogate import SurrogateRefit
from matloop.protocols import Learner, Selector
from matloop.selectors.expected_utility import ExpectedUtility
from matloop.selectors.promotion import Promotion
from matloop.selectors.ranking import Best, Random

DEFAULT = "multi_fidelity"

_AUDIT = 0.0035  # of those not bought: about a tenth of the places, as the others draw by lot


@dataclass(frozen=True)
class Policy:
    """How to choose what to buy.

    Attributes
    ----------
    selector
        Decides.
    learner, evaluator
        Learn from what was bought, and foretell the rest; None where nothing is learned.
    fidelity
        The one cheap method whose distance every candidate carries as its own.
    correction
        Learns how far that method and the oracle disagree.
    """

    selector: Selector
    learner: Learner | None = None
    evaluator: Surrogate | None = None
    fidelity: str | None = None
    correction: FidelityCorrection | None = None


def policies(problem: Problem) -> dict[str, Policy]:
    """Return every policy that a problem's data allow, by name."""
    every = _surrogate(problem, with_estimates=True)
    shape = problem.representation
    found = {"random": Policy(Random())}
    found[DEFAULT] = Policy(ExpectedUtility(representation=shape), *every)
    for fidelity in problem.estimates:
        found[f"greedy:{fidelity}"] = Policy(Best(), fidelity=fidelity)
        found[f"promotion:{fidelity}"] = Policy(
            Promotion(audit_share=_AUDIT, min_chance=0.0, cost_exponent=0.0),
            fidelity=fidelity,
            correction=FidelityCorrection(),
        )
    alone = _surrogate(problem, with_estimates=False)
    found["surrogate"] = Policy(ExpectedUtility(representation=shape), *alone)
    found["greedy_surrogate"] = Policy(_undisturbed(problem, "expected_utility"), *alone)
    if shape == "crystal":
        latent: tuple[SurrogateRefit, Surrogate] = (
            SurrogateRefit(representation="chgnet", inputs=problem.inputs),
            Surrogate(representation="chgnet", inputs=problem.inputs),
        )
        found["embedding"] = Policy(ExpectedUtility(representation="chgnet"), *latent)
    found["greedy_multi_fidelity"] = Policy(_undisturbed(problem, "expected_utility"), *every)
    for acquisition in (
        "expected_improvement",
        "probability_of_stability",
        "ucb",
        "thompson",
        "expected_hull_drop",
    ):
        selector = ExpectedUtility(acquisition=acquisition, representation=shape)
        found[acquisition] = Policy(selector, *every)
    found["diversity_batch"] = Policy(
        ExpectedUtility(repulsion="determinantal", representation=shape), *every
    )
    found["cost_aware"] = Policy(ExpectedUtility(cost_exponent=1.0, representation=shape), *every)
    for name, agent in agents(problem).items():
        found[name] = Policy(agent, Memory())
    return found


def choose(problem: Problem, names: list[str]) -> dict[str, Policy]:
    """Return the policies of some names; ``all`` stands for every one, ``greedy`` for a family.

    Raises
    ------
    ConfigurationError
        If a name is unknown; the message lists those the data allow.
    """
    known = policies(problem)
    wanted: dict[str, Policy] = {}
    for name in names:
        family = {key: policy for key, policy in known.items() if key.startswith(f"{name}:")}
        if name == "all":
            wanted |= known
            if problem.threshold == 0.0:  # then stability and discovery are one
                wanted.pop("probability_of_stability")
            if not problem.estimates:  # then there is but one kind of surrogate
                wanted.pop("surrogate")
                wanted.pop("greedy_multi_fidelity")
        elif name in known:
            wanted[name] = known[name]
        elif family:
            wanted |= family
        else:
            raise ConfigurationError(
                f"--policy {name}: unknown with these data; known are all, {', '.join(known)}"
            )
    return wanted


def estimate_name(fidelity: str) -> str:
    """Return the name of the quantity that holds a cheap distance."""
    return f"{DISTANCE}_{fidelity}"


def _surrogate(problem: Problem, *, with_estimates: bool) -> tuple[SurrogateRefit, Surrogate]:
    names = tuple(map(estimate_name, problem.estimates)) if with_estimates else ()
    estimates: Mapping[str, tuple[str, ...]] = {DISTANCE: names} if names else {}
    return (
        SurrogateRefit(
            representation=problem.representation, inputs=problem.inputs, estimates=estimates
        ),
        Surrogate(
            representation=problem.representation, inputs=problem.inputs, estimates=estimates
        ),
    )


def _undisturbed(problem: Problem, acquisition: str) -> ExpectedUtility:
    return ExpectedUtility(
        acquisition=acquisition,  # type: ignore[arg-type]
        random_share=0.0,
        diversity=0.0,
        formula_share=1.0,
        representation=problem.representation,
    )
