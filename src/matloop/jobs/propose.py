"""Propose: ask the portfolio for candidates."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
from jobflow import Maker, job
from pymatgen.core import Structure

from matloop import registry
from matloop.documents.campaign import Campaign, CandidateRecord, IterationState
from matloop.documents.candidate import Candidate, Origin, structure_digest
from matloop.documents.operation import Closing
from matloop.documents.phase import Archive, PhaseSet
from matloop.documents.space import ChemicalSpace
from matloop.errors import MatloopError, ProgramError
from matloop.events import Progress, report
from matloop.jobs.collecting import collected_seldom
from matloop.jobs.handover import hand_over
from matloop.jobs.piecewise import PIECE
from matloop.jobs.place import Place, derived_seed
from matloop.ledger.interface import Ledger
from matloop.ledger.past import read_packed, read_past
from matloop.protocols import Generator, Parent, Proposal, ProposalRequest, Resources
from matloop.structures.chemistry import reduced_formula

logger = logging.getLogger(__name__)


@dataclass
class ProposeMaker(Maker):
    """Ask generators for crystals.

    Alone, it asks one generator and returns structures::

        ProposeMaker(RandomSymmetric()).make({"system": "Sr-Ti-O"}, count=100, seed=1)

    Within a campaign the portfolio, its shares and its parents come from the ledger
    (`iteration`), and the candidates go there.

    Attributes
    ----------
    generator
        Plugin to ask; None within a campaign.
    name
        Name of the job.
    """

    generator: Generator | None = None
    name: str = "propose"

    @job(data="structures")
    def make(
        self, space: dict[str, object], count: int, seed: int = 0
    ) -> dict[str, list[Structure]]:
        """Return proposed structures.

        Parameters
        ----------
        space
            Fields of a `ChemicalSpace`.
        count
            How many are wanted.
        seed
            The only source of randomness.
        """
        if self.generator is None:
            raise ValueError("ProposeMaker needs a generator outside a campaign")
        request = ProposalRequest(ChemicalSpace.model_validate(space), count, seed)
        return {"structures": [p.structure for p in self.generator.propose(request)]}

    @job
    @collected_seldom
    def iteration(self, place: Place) -> dict[str, int]:
        """Propose one iteration's candidates and return how many each generator gave."""
        ledger, record, state = place.open(), place.record(), place.state()
        if ledger.closing(place.campaign_id, place.iteration, "") is None:
            # Whoever was proposed before a death stays; the same seeds bring the others again.
            there = {item.place for item in ledger.proposed(place.campaign_id, place.iteration)}
            if len(there) < record.campaign.budget.candidates:
                for records in _propose(ledger, place, record.campaign, state):
                    new = [item for item in records if item.index not in there]
                    ledger.add_candidates(new)
                    hand_over(replace(place, stage=""), [item.candidate for item in new])
            closing = Closing(
                campaign_id=place.campaign_id,
                iteration=place.iteration,
                stage="",
                closed_at=datetime.now(UTC),
            )
            ledger.add_closing(closing)
        proposed = ledger.proposed(place.campaign_id, place.iteration)
        return dict(Counter(item.generator for item in proposed))


def apportion(count: int, shares: Mapping[str, float]) -> dict[str, int]:
    """Return whole numbers in proportion to shares, by largest remainder (Hamilton's method)."""
    total = sum(shares.values())
    exact = {name: count * share / total for name, share in shares.items()}
    whole = {name: int(value) for name, value in exact.items()}
    by_remainder = sorted(exact, key=lambda name: (whole[name] - exact[name], name))
    for name in by_remainder[: count - sum(whole.values())]:
        whole[name] += 1
    return whole


def _propose(
    ledger: Ledger, place: Place, campaign: Campaign, state: IterationState
) -> Iterator[list[CandidateRecord]]:
    """Ask every generator for its share, and once more the able for what others left over.

    Records come in pieces, so that those that were passed on need not be held.
    """
    found = _found(ledger, place.campaign_id, campaign, state)
    references = _references(ledger, state)
    entries = {entry.label: entry for entry in campaign.generators}
    wanted = apportion(campaign.budget.candidates, state.shares)
    count = 0
    for turn in range(2):
        able: dict[str, float] = {}
        for label, entry in entries.items():
            if not wanted.get(label):
                continue
            generator = registry.build("generators", entry.use, entry.parameters)
            version = registry.version_of("generators", entry.use)
            resources = _resources(ledger, state, generator)
            before = count
            for part, size in enumerate(_parts(generator, wanted[label])):
                path = (label, turn, part) if part else (label, turn)
                seed = derived_seed(campaign.seed, place.iteration, *path)
                request = ProposalRequest(campaign.space, size, seed, found, references, resources)
                given = _given(generator, request, label)
                yield [
                    _record(place, count + number, label, version, seed, proposal)
                    for number, proposal in enumerate(given)
                ]
                count += len(given)
                report(
                    Progress(
                        place.iteration,
                        campaign.budget.iterations,
                        "propose",
                        count,
                        campaign.budget.candidates,
                    )
                )
            if count - before == wanted[label]:
                able[label] = state.shares[label]
        missing = campaign.budget.candidates - count
        if not missing or not able:
            break
        wanted = apportion(missing, able)
    if not count:
        raise MatloopError(
            f"no generator proposed anything in iteration {place.iteration + 1}: widen the "
            "chemical space (max_atoms, charge_balance), or add random_symmetric to the portfolio"
        )


def _resources(ledger: Ledger, state: IterationState, generator: Generator) -> Resources:
    """Return those artifacts of the iteration that a generator reads."""
    wanted = getattr(generator, "resources", ())
    there = {name: state.resources[name] for name in wanted if name in state.resources}
    return Resources(
        {name: ledger.artifact_path(item.sha256) for name, item in there.items()},
        {name: item.sha256 for name, item in there.items()},
    )


def _parts(generator: Generator, count: int) -> list[int]:
    """Return how many to ask for at a time: all, unless the generator says it may be divided."""
    if not getattr(generator, "divisible", False):
        return [count]
    return [min(PIECE, count - start) for start in range(0, count, PIECE)]


def _given(generator: Generator, request: ProposalRequest, label: str) -> list[Proposal]:
    """Return what a generator proposes; one that breaks leaves its places to the others."""
    try:
        return generator.propose(request)[: request.count]
    except ProgramError as error:
        logger.warning("generator %s proposes nothing: %s", label, error)
        return []
    except MatloopError:
        raise
    except Exception as error:
        logger.warning("generator %s broke: %s: %s", label, type(error).__name__, error)
        return []


def _found(
    ledger: Ledger, campaign_id: str, campaign: Campaign, state: IterationState
) -> list[Parent]:
    if not state.parents:
        return []
    known = read_past(ledger, campaign_id, campaign, state.parents)
    past = {item.candidate_id: item.candidate for item in known}
    objective = campaign.objective
    utilities: list[float | None]
    if objective.several:  # among themselves
        ranks = objective.utilities_of([past[name].quantities for name in state.parents])
        utilities = [None if np.isnan(rank) else float(rank) for rank in ranks]
    else:
        utilities = [objective.utility(past[name].quantities) for name in state.parents]
    return [
        Parent(name, past[name].structure, utility)
        for name, utility in zip(state.parents, utilities, strict=True)
    ]


def _references(ledger: Ledger, state: IterationState) -> list[Parent]:
    phases = read_packed(ledger, state.resources["phases"], PhaseSet)
    references = [Parent(p.phase_id, p.structure) for p in phases.phases if p.source == "reference"]
    if "templates" in state.resources:
        crystals = read_packed(ledger, state.resources["templates"], Archive).crystals
        references += [Parent(known.known_id, known.structure) for known in crystals]
    return references


def _record(
    place: Place, index: int, label: str, version: str, seed: int, proposal: Proposal
) -> CandidateRecord:
    structure = proposal.structure
    name = f"{place.campaign_id}/{place.iteration}/{index}/{structure_digest(structure)}"
    origin = Origin(
        generator=label,
        version=version,
        parents=proposal.parents,
        parameters=dict(proposal.parameters),
        seed=seed,
    )
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return CandidateRecord(
        campaign_id=place.campaign_id,
        iteration=place.iteration,
        index=index,
        candidate=Candidate(
            candidate_id=f"{reduced_formula(structure) or 'empty'}-{digest}",
            structure=structure,
            origin=origin,
        ),
    )
