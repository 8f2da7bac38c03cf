"""What every plugin must fulfil, as functions that a plugin's own test suite calls.

Each function raises `AssertionError` with a sentence that says which promise is broken.
"""

from __future__ import annotations

import fnmatch
import json
import math
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
from monty.json import MontyDecoder, MontyEncoder, MSONable
from pymatgen.core import Lattice, Structure

from matloop import registry
from matloop.documents.candidate import Candidate, Origin, structure_digest
from matloop.documents.decision import AUDIT
from matloop.documents.evaluation import Evaluation
from matloop.protocols import (
    Allocator,
    Engine,
    Evaluator,
    Generator,
    Judged,
    Learner,
    Observation,
    ProposalRequest,
    Record,
    Resources,
    SelectionRequest,
    Selector,
)


def check_plugin(plugin: Any) -> None:
    """Check what all plugins share: a frozen, documented dataclass that travels as JSON."""
    cls = type(plugin)
    assert is_dataclass(cls), f"{cls.__name__} must be a dataclass"
    assert vars(cls)["__dataclass_params__"].frozen, f"{cls.__name__} must be frozen"
    assert isinstance(plugin, MSONable), f"{cls.__name__} must be MSONable"
    assert (cls.__doc__ or "").strip(), f"{cls.__name__} needs a docstring"
    documented: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        documented |= registry.attribute_docs(base.__doc__ or "")
    for item in fields(cls):
        assert not item.init or documented.get(item.name), (
            f"{cls.__name__}.{item.name} must be described under Attributes"
        )
    text = json.dumps(plugin, cls=MontyEncoder)
    again = MontyDecoder().process_decoded(json.loads(text))
    assert again == plugin, f"{cls.__name__} does not survive a round trip through JSON"
    _check_firework_round_trip(plugin)


def check_generator(generator: Generator, request: ProposalRequest) -> None:
    """Check a generator: bounded, repeatable, inside the space, sound crystals."""
    check_plugin(generator)
    first, second = generator.propose(request), generator.propose(request)
    assert len(first) <= request.count, "a generator must not return more than it is asked for"
    digests = [structure_digest(proposal.structure) for proposal in first]
    assert digests == [structure_digest(proposal.structure) for proposal in second], (
        "the same request must give the same crystals"
    )
    known = {parent.parent_id for parent in (*request.found, *request.references)}
    for proposal in first:
        structure = proposal.structure
        assert structure.is_ordered, "proposals are ordered crystals"
        assert np.all(np.isfinite(structure.frac_coords)), "coordinates must be finite"
        assert math.isfinite(structure.volume), "the cell must be finite"
        objection = request.space.objection(structure.composition)
        assert objection is None, f"{structure.formula} {objection}"
        assert set(proposal.parents) <= known, "parents must be among those of the request"
        json.dumps(dict(proposal.parameters))


def check_evaluator(
    evaluator: Evaluator, candidates: Sequence[Candidate], resources: Resources
) -> None:
    """Check an evaluator: one reasoned verdict each, no harm from a poisoned neighbour.

    Crystals are shared by all who hold them, so that it may not change them.

    Parameters
    ----------
    evaluator
        Plugin under test.
    candidates
        At least two sound candidates, with the quantities it requires.
    resources
        The artifacts it reads.
    """
    check_plugin(evaluator)
    assert evaluator.scope in ("candidate", "batch"), "scope is candidate or batch"
    before = [structure_digest(candidate.structure) for candidate in candidates]
    alone = evaluator.evaluate(candidates, resources)
    after = [structure_digest(candidate.structure) for candidate in candidates]
    assert before == after, "an evaluator changed a crystal it was given; it must work on a copy"
    _check_evaluations(evaluator, candidates, alone)
    poisoned = [candidates[0], *poisoned_candidates(candidates[0]), *candidates[1:]]
    together = evaluator.evaluate(poisoned, resources)
    _check_evaluations(evaluator, poisoned, together)
    by_name = {evaluation.candidate_id: evaluation for evaluation in together}
    for evaluation in alone:
        companion = by_name[evaluation.candidate_id]
        assert companion.verdict == evaluation.verdict, (
            f"{evaluation.candidate_id}: {evaluation.verdict} alone, but {companion.verdict} "
            "beside a poisoned candidate"
        )


def poisoned_candidates(model: Candidate) -> list[Candidate]:
    """Return candidates as bad generators make them, with the quantities of a good one."""
    cubic = Lattice.cubic(4.0)
    bad = {
        "nan": Structure(cubic, ["Al", "Al"], [[0, 0, 0], [float("nan"), 0.5, 0.5]]),
        "overlap": Structure(cubic, ["Al", "Al"], [[0, 0, 0], [1e-5, 0, 0]]),
        "flat": Structure(Lattice.from_parameters(4, 4, 4, 1, 1, 1), ["Al"], [[0, 0, 0]]),
        "huge": Structure(Lattice.cubic(900.0), ["Al"], [[0, 0, 0]]),
        "tiny": Structure(Lattice.cubic(0.01), ["Al"], [[0, 0, 0]]),
        "noble": Structure(cubic, ["Og"], [[0, 0, 0]]),
    }
    return [
        Candidate(
            candidate_id=f"poisoned-{name}",
            structure=structure,
            origin=Origin(generator="poison"),
            quantities=model.quantities,
        )
        for name, structure in bad.items()
    ]


def check_selector(selector: Selector, batch: Sequence[Judged], request: SelectionRequest) -> None:
    """Check a selector: one reasoned choice per candidate, in order, no more than may pass."""
    check_plugin(selector)
    choices = selector.select(batch, request)
    again = selector.select(batch, request)
    assert choices == again, "the same request must give the same choices"
    asked = [item.candidate.candidate_id for item in batch]
    assert [choice.candidate_id for choice in choices] == asked, (
        "a selector returns one choice per candidate, in order"
    )
    passed = sum(choice.outcome == "passed" for choice in choices)
    assert request.keep is None or passed <= request.keep, "more passed than may be kept"
    for choice in choices:
        assert all(math.isfinite(value) for value in choice.evidence.values()), (
            "evidence must be finite"
        )
    for item, choice in zip(batch, choices, strict=True):
        verdicts = {evaluation.verdict for evaluation in item.evaluations}
        if "fail" in verdicts or ("reject" in verdicts and choice.evidence.get(AUDIT) != 1.0):
            assert choice.outcome != "passed", (
                "what an evaluator turned down must not pass, unless it is marked as an audit"
            )


def check_learner(learner: Learner, history: Sequence[Observation], objective: Any) -> None:
    """Check a learner: repeatable bytes, finite metrics, and no lesson out of nothing."""
    check_plugin(learner)
    assert learner.learn([], objective, 1) is None, "nothing can be learned from nothing"
    first, second = learner.learn(history, objective, 1), learner.learn(history, objective, 1)
    if first is None or second is None:
        assert first is second, "the same history must give the same lesson"
        return
    assert first.content == second.content, "the same history must give the same lesson"
    assert all(isinstance(value, float | int) for value in first.metrics.values())


def check_engine(
    engine: Engine, structures: Sequence[Structure], others: Sequence[Engine] = ()
) -> None:
    """Check an engine: one theory, jobs that travel, honest ends, a price that grows.

    Parameters
    ----------
    engine
        Plugin under test.
    structures
        Crystals it can calculate, each small: 20 atoms or less.
    others
        The same engine with other settings that change an energy: cutoff, U, functional. Each must
        have a theory of its own.
    """
    check_plugin(engine)
    name = type(engine).__name__
    assert engine.produces.get("energy_per_atom") == "eV/atom", (
        "an engine produces energy_per_atom in eV/atom"
    )
    again = MontyDecoder().process_decoded(json.loads(json.dumps(engine, cls=MontyEncoder)))
    for structure in structures:
        theory = engine.theory(structure)
        assert theory.kind != "stated", "an engine knows how its energies were computed"
        mixing = theory.dft.mixing if theory.dft is not None else ""
        assert theory.version or mixing, (
            "a theory names the version of its code, or the scheme that puts versions on one scale"
        )
        assert theory == engine.theory(structure.copy()) == again.theory(structure), (
            f"{name} must give the same theory for the same crystal"
        )
        assert engine.theory(structure * (2, 1, 1)) == theory, (
            "the theory must not depend on the size of the cell"
        )
        for other in others:
            assert other.theory(structure).key != theory.key, (
                f"{other} and {engine} differ in what changes an energy, so their theories must"
            )
        _check_jobs_travel(engine.calculation(structure, "conformance"))
        hours, double = engine.core_hours(structure), engine.core_hours(structure * (2, 1, 1))
        assert math.isfinite(hours), "core_hours must be finite"
        assert 0 < hours < double, "core_hours must be positive and grow with the cell"
        assert engine.core_hours(structure.copy()) == hours, "core_hours must be repeatable"
    dead = engine.evaluation("dead", None)
    assert dead.candidate_id == "dead", "an evaluation names its candidate"
    assert dead.verdict == "fail", "a calculation that died is a fail"
    assert dead.reason.strip(), "every verdict has a reason"
    assert "energy_per_atom" not in dead.quantities, "a calculation that died has no energy"
    for problem in engine.problems():
        assert problem.strip(), "a problem says what is missing"
        assert "\n" not in problem, "a problem is one line"


def check_allocator(allocator: Allocator) -> None:
    """Check an allocator: shares add up to one, and nobody dies."""
    check_plugin(allocator)
    records = {
        "lucky": Record((10, 10), (5, 6), (100.0, 100.0)),
        "unlucky": Record((10, 10), (0, 0), (100.0, 100.0)),
        "idle": Record((0, 0), (0, 0), (0.0, 0.0)),
    }
    start = dict.fromkeys(records, 1 / 3)
    shares = allocator.allocate(records, start)
    assert shares.keys() == records.keys(), "every generator needs a share"
    assert math.isclose(sum(shares.values()), 1.0, abs_tol=1e-9), "shares add up to one"
    assert min(shares.values()) > 0, "no generator may die"


def _check_evaluations(
    evaluator: Evaluator, candidates: Sequence[Candidate], evaluations: Sequence[Evaluation]
) -> None:
    assert [evaluation.candidate_id for evaluation in evaluations] == [
        candidate.candidate_id for candidate in candidates
    ], "an evaluator returns one evaluation per candidate, in order"
    for evaluation in evaluations:
        assert evaluation.reason.strip(), "every verdict has a reason"
        for name, quantity in evaluation.quantities.items():
            pattern = next((p for p in evaluator.produces if fnmatch.fnmatch(name, p)), None)
            assert pattern is not None, f"{name} is not among the quantities it says it produces"
            assert math.isfinite(quantity.value), f"{name} must be finite; fail instead"
            if pattern == name:
                assert quantity.unit == evaluator.produces[name], f"{name} has another unit"


def _check_jobs_travel(work: Any) -> None:
    """Check that a job or flow survives JSON and FireWorks, and is small."""
    from jobflow import Flow, Job

    assert isinstance(work, Job | Flow), "calculation() returns a job or a flow"
    assert work.output is not None, "the output of a calculation is its task document"
    text = json.dumps(work, cls=MontyEncoder)
    assert len(text) < 1_000_000, "the description of a calculation must stay below 1 MB"
    again = MontyDecoder().process_decoded(json.loads(text))
    assert type(again) is type(work), "a calculation must survive a round trip through JSON"
    assert json.loads(json.dumps(again, cls=MontyEncoder)) == json.loads(text), (
        "a calculation must survive a round trip through JSON"
    )
    try:
        from fireworks import Workflow
    except ImportError:
        return
    from jobflow.managers.fireworks import flow_to_workflow

    document = flow_to_workflow(Flow([again])).to_dict()
    there = Workflow.from_dict(json.loads(json.dumps(document, default=str)))
    for firework in there.fws:
        carried = firework.tasks[0]["job"]
        if isinstance(carried, dict):
            carried = MontyDecoder().process_decoded(carried)
        assert isinstance(carried, Job), "every job must survive a round trip through FireWorks"


def _check_firework_round_trip(plugin: Any) -> None:
    """Check that FireWorks' documents carry the plugin; skipped where FireWorks is missing."""
    try:
        from fireworks import Firework
    except ImportError:
        return
    from jobflow import Job
    from jobflow.managers.fireworks import job_to_firework

    job = Job(function=repr, function_args=(plugin,))
    document = json.loads(json.dumps(job_to_firework(job).to_dict(), default=str))
    again = Firework.from_dict(document).tasks[0]["job"]
    if isinstance(again, dict):
        again = MontyDecoder().process_decoded(again)
    assert again.function_args[0] == plugin, (
        f"{type(plugin).__name__} does not survive a round trip through FireWorks"
    )
