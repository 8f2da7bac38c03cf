"""Made-up campaigns, recorded in a ledger as the loop would."""

from __future__ import annotations

import hashlib
import zlib
from datetime import UTC, datetime, timedelta
from functools import cache

import numpy as np
import pytest
from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
from pymatgen.core import Lattice, Structure

from matloop.documents.artifact import Artifact
from matloop.documents.campaign import Campaign, CampaignRecord, CandidateRecord, IterationState
from matloop.documents.candidate import Candidate, Origin, Quantity, structure_digest
from matloop.documents.decision import Decision
from matloop.documents.evaluation import Cost, Evaluation, EvaluationRecord
from matloop.documents.phase import Archive, Known, Phase, PhaseSet
from matloop.documents.theory import LevelOfTheory
from matloop.ledger.opening import open_ledger
from matloop.reports.summary import summarize

START = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
THEORY = LevelOfTheory(
    kind="mlip", code="chgnet", version="0.4.2", model="0.3.0", model_sha256="ab12" * 16
)
# Prototype: space group, lattice (a, c/a, b/a or hexagonal angle), Wyckoff sites per species.
PROTOTYPES = {
    "rocksalt": ("Fm-3m", (4.9, 1, 1), "AX", [(0, 0, 0)], [(0.5, 0.5, 0.5)]),
    "cesium chloride": ("Pm-3m", (3.1, 1, 1), "AX", [(0, 0, 0)], [(0.5, 0.5, 0.5)]),
    "sphalerite": ("F-43m", (4.8, 1, 1), "AX", [(0, 0, 0)], [(0.25, 0.25, 0.25)]),
    "fluorite": ("Fm-3m", (5.2, 1, 1), "AX", [(0, 0, 0)], [(0.25, 0.25, 0.25)]),
    "rutile": ("P4_2/mnm", (4.6, 0.645, 1), "AX", [(0, 0, 0)], [(0.305, 0.305, 0)]),
    "perovskite": (
        "Pm-3m",
        (3.95, 1, 1),
        "ABX",
        [(0.5, 0.5, 0.5)],
        [(0, 0, 0)],
        [(0.5, 0, 0)],
    ),
    "layered perovskite": (
        "I4/mmm",
        (3.9, 3.24, 1),
        "ABX",
        [(0, 0, 0.355)],
        [(0, 0, 0)],
        [(0, 0.5, 0), (0, 0, 0.155)],
    ),
    "double layer": (
        "I4/mmm",
        (3.9, 5.25, 1),
        "ABX",
        [(0, 0, 0.5), (0, 0, 0.315)],
        [(0, 0, 0.0965)],
        [(0, 0, 0), (0, 0, 0.193), (0, 0.5, 0.096)],
    ),
    "half-Heusler": (
        "F-43m",
        (5.9, 1, 1),
        "ABX",
        [(0, 0, 0)],
        [(0.25, 0.25, 0.25)],
        [(0.5, 0.5, 0.5)],
    ),
    "post-perovskite": (
        "Cmcm",
        (3.1, 2.35, 3.15),
        "ABX",
        [(0, 0.75, 0.25)],
        [(0, 0, 0)],
        [(0, 0.08, 0.25), (0, 0.37, 0.43)],
    ),
    "auricupride": ("Pm-3m", (4.0, 1, 1), "AX", [(0.5, 0.5, 0)], [(0, 0, 0)]),
    "delafossite": (
        "P4/mmm",
        (3.9, 1.15, 1),
        "ABX",
        [(0, 0, 0)],
        [(0.5, 0.5, 0.5)],
        [(0.5, 0, 0.5)],
    ),
}


@cache
def prototype(name: str) -> Structure:
    group, (a, c, b), _, *sites = PROTOTYPES[name]
    names = [name for name, many in zip("HBC", sites, strict=False) for _ in many]
    positions = [site for many in sites for site in many]
    lattice = Lattice.orthorhombic(a, a * b, a * c)
    return Structure.from_spacegroup(group, lattice, names, positions).get_primitive_structure()


def crystal(name: str, species: tuple[str, ...]) -> Structure:
    return prototype(name).replace_species(dict(zip("HBC", species, strict=False)), in_place=False)


class MadeUpCampaign:
    """Plays a campaign whose energies are made up, and records it as the loop would."""

    def __init__(self, ledger, campaign: Campaign, *, campaign_id: str, withhold: int = 2) -> None:
        self.ledger, self.campaign, self.campaign_id = ledger, campaign, campaign_id
        self.rng = np.random.default_rng(campaign.seed)
        self.elements = campaign.space.allowed
        self.anion = self.elements[-1]
        self.withhold = withhold
        self.archive: list[Known] = []
        self.found: list[Phase] = []
        self.made: dict[str, EvaluationRecord] = {}
        self.decided: list[Decision] = []
        self.hulls: dict[int, PhaseDiagram] = {}
        ledger.add_campaign(
            CampaignRecord(
                campaign_id=campaign_id,
                campaign=campaign,
                versions={"matloop": "0.1.0", "chgnet": "0.4.2", "torch": "2.13.0"},
                machine={"system": "Linux 6.1", "processor": "x86_64", "cores": "2"},
                created_at=START,
            )
        )
        self.references = self._references()
        self.withheld = [
            Known(
                known_id=f"{name} {crystal(name, self.elements[:3]).composition.reduced_formula}",
                structure=crystal(name, self.elements[:3]),
                source="textbook",
            )
            for name in ("perovskite", "layered perovskite", "double layer")[:withhold]
        ]

    def energy(self, structure: Structure, label: str) -> float:
        """Energy per atom: that of the reference hull, plus a penalty of each structure type."""
        name, _, order = label.partition(":")
        generator = np.random.default_rng(zlib.crc32(label.encode()))
        ordered = sorted(order, key="".join(self.elements).index) == list(order)
        penalty = float(generator.exponential(0.1 if ordered else 0.3)) - 0.012
        if name in ("perovskite", "layered perovskite") and order == "".join(self.elements[:3]):
            penalty = -0.05
        return self._hull(0).get_hull_energy_per_atom(structure.composition) + penalty

    def play(self, *, iterations: int, count: int, finished: bool = True) -> None:
        """Play iterations; the last one stops after its first stage if not `finished`."""
        self._state(0, "running")
        for iteration in range(iterations):
            complete = finished or iteration + 1 < iterations
            self._iteration(iteration, count, complete)
            if complete:
                last = iteration + 1 == iterations
                self._state(iteration + 1, "finished" if last else "running")

    def _references(self) -> list[Phase]:
        lattice = {"O": 5.0}
        phases = []
        for element in self.elements:
            structure = Structure(Lattice.cubic(lattice.get(element, 3.6)), [element], [[0, 0, 0]])
            phases.append(self._phase(element, structure, -4.0))
        for cation in self.elements[:-1]:
            structure = crystal("rocksalt", (cation, self.anion))
            phases.append(self._phase(f"{cation}{self.anion}", structure, -4.0 - 2.72))
        structure = crystal("rutile", (self.elements[-2], self.anion))
        phases.append(self._phase("rutile", structure, -4.0 - 2.42))
        return phases

    def _phase(self, name: str, structure: Structure, energy: float) -> Phase:
        return Phase(phase_id=name, structure=structure, energy=energy, theory=THEORY)

    def _state(self, iteration: int, status: str) -> None:
        labels = [entry.label for entry in self.campaign.generators]
        weights = np.array([1.0 + 0.5 * iteration * (i == 1) for i in range(len(labels))])
        phases = PhaseSet(theory=THEORY, phases=(*self.references, *self.found))
        resources = {
            "phases": self._artifact("phases", phases.to_bytes()),
            "archive": self._artifact("archive", Archive(crystals=tuple(self.archive)).to_bytes()),
            "withheld": self._artifact(
                "withheld", Archive(crystals=tuple(self.withheld)).to_bytes()
            ),
        }
        self.ledger.add_state(
            IterationState(
                campaign_id=self.campaign_id,
                iteration=iteration,
                status=status,
                reason="all iterations are done" if status == "finished" else "",
                resources=resources,
                shares=dict(zip(labels, (weights / weights.sum()).tolist(), strict=True)),
                metrics={"surrogate.n": 30.0 * iteration} if iteration else {},
                created_at=START + timedelta(minutes=2 * iteration),
            )
        )

    def _artifact(self, kind: str, content: bytes) -> Artifact:
        return self.ledger.put_artifact(kind, content, "application/gzip")

    def _iteration(self, iteration: int, count: int, complete: bool) -> None:
        labels = [entry.label for entry in self.campaign.generators]
        batch = []
        for index in range(count):
            types = [name for name in PROTOTYPES if len(PROTOTYPES[name][2]) <= len(self.elements)]
            name = types[int(self.rng.integers(len(types)))]
            size = len(PROTOTYPES[name][2])
            ordered = self.rng.random() < 0.4 + 0.12 * iteration
            chosen = list(self.rng.permutation(self.elements)[:size])
            if ordered:
                chosen.sort(key=self.elements.index)
            structure = crystal(name, tuple(map(str, chosen)))
            structure.scale_lattice(structure.volume * float(self.rng.uniform(0.5, 1.8)))
            candidate = Candidate(
                candidate_id=f"{self.campaign_id}-{iteration}-{index:04d}",
                structure=structure,
                origin=Origin(
                    generator=labels[int(self.rng.integers(len(labels)))],
                    version="0.1.0",
                    parents=(f"{self.campaign_id}-0-0001",) if iteration else (),
                    parameters={"prototype": name},
                    seed=int(self.rng.integers(2**31)),
                ),
            )
            batch.append((candidate, f"{name}:{''.join(chosen)}"))
        self.ledger.add_candidates(
            [
                CandidateRecord(
                    campaign_id=self.campaign_id, iteration=iteration, index=i, candidate=c
                )
                for i, (c, _) in enumerate(batch)
            ]
        )
        kept = self._validity(iteration, batch)
        if complete and any(stage.name == "ranking" for stage in self.campaign.stages):
            kept = self._ranking(iteration, kept)
        if complete:
            self._relaxation(iteration, kept)
        self.ledger.add_evaluations(list(self.made.values()))
        self.ledger.add_decisions(self.decided)
        self.decided.clear()

    def _record(self, candidate, evaluator, *, salt="", **said) -> str:
        key = hashlib.sha256(
            f"{structure_digest(candidate.structure)}{evaluator}{salt}".encode()
        ).hexdigest()
        evaluation = Evaluation(candidate_id=candidate.candidate_id, **said)
        record = EvaluationRecord(
            key=key,
            structure_digest=structure_digest(candidate.structure),
            evaluator=evaluator,
            method=evaluator,
            evaluation=evaluation,
            recorded_at=START + timedelta(seconds=1),
        )
        self.made[key] = record
        return key

    def _decide(self, iteration, stage, candidate, outcome, reason, keys, **evidence) -> None:
        self.decided.append(
            Decision(
                campaign_id=self.campaign_id,
                iteration=iteration,
                stage=stage,
                candidate_id=candidate.candidate_id,
                outcome=outcome,
                reason=reason,
                selector="gate",
                evidence=evidence,
                evaluations=tuple(keys),
            )
        )

    def _validity(self, iteration, batch):
        kept = []
        for candidate, label in batch:
            matrix = candidate.structure.distance_matrix + 9 * np.eye(len(candidate.structure))
            nearest = float(matrix.min())
            verdict = "pass" if nearest > 1.75 else "reject"
            reason = (
                "all sites are far enough apart"
                if verdict == "pass"
                else f"two sites are {nearest:.2f} Å apart, nearer than 1.75 Å"
            )
            key = self._record(
                candidate,
                "minimum_distance",
                verdict=verdict,
                reason=reason,
                quantities={"minimum_distance": Quantity(value=nearest, unit="Å")},
                cost=Cost(seconds=0.001),
            )
            outcome = "passed" if verdict == "pass" else "rejected"
            self._decide(iteration, "validity", candidate, outcome, reason, [key])
            if verdict == "pass":
                kept.append((candidate, label))
        return kept

    def _ranking(self, iteration, batch):
        scored = []
        for candidate, label in batch:
            quantities = {}
            if iteration:
                truth = self._distance(candidate.structure, label)
                sigma = 0.07 / (1 + 0.4 * iteration)
                quantities["predicted_e_above_hull"] = Quantity(
                    value=truth + float(self.rng.normal(0, 1.2 * sigma)),
                    unit="eV/atom",
                    uncertainty=sigma,
                )
            key = self._record(
                candidate,
                "surrogate",
                salt=f"{iteration}{candidate.candidate_id}",
                verdict="pass",
                reason="predicted" if iteration else "no surrogate yet",
                quantities=quantities,
                cost=Cost(seconds=0.004),
            )
            value = quantities.get("predicted_e_above_hull")
            score = value.value if value else float(self.rng.random())
            scored.append((score, candidate, label, key))
        scored.sort(key=lambda item: item[0])
        limit = next(s.keep for s in self.campaign.stages if s.name == "ranking")
        kept = []
        for rank, (score, candidate, label, key) in enumerate(scored):
            lucky = iteration > 0 and limit <= rank < limit + 4
            if rank < limit or lucky:
                reason = "drawn at random" if lucky else f"rank {rank + 1} by expected utility"
                self._decide(
                    iteration, "ranking", candidate, "passed", reason, [key],
                    arm=float(lucky or not iteration), score=-score,
                )  # fmt: skip
                kept.append((candidate, label))
            else:
                reason = f"rank {rank + 1} of {len(scored)}, beyond the {limit} that may pass"
                self._decide(iteration, "ranking", candidate, "held", reason, [key])
        return kept

    def _distance(self, structure, label) -> float:
        hull = self._hull(len(self.found)).get_hull_energy_per_atom(structure.composition)
        return self.energy(structure, label) - float(hull)

    def _hull(self, found: int) -> PhaseDiagram:
        if found not in self.hulls:
            phases = (*self.references, *self.found[:found])
            self.hulls[found] = PhaseDiagram(
                [PDEntry(p.structure.composition, p.energy * len(p.structure)) for p in phases]
            )
        return self.hulls[found]

    def _relaxation(self, iteration, batch):
        for candidate, label in batch:
            atoms = len(candidate.structure)
            calls = int(self.rng.integers(12, 90))
            cost = Cost(seconds=0.011 * atoms * calls, work=float(atoms * calls), calls=calls)
            failed = self.rng.random() < 0.05
            energy = self.energy(candidate.structure, label)
            key = self._record(
                candidate,
                "relaxation",
                verdict="fail" if failed else "pass",
                reason=f"not converged after {calls} steps"
                if failed
                else f"converged in {calls} steps",
                quantities={}
                if failed
                else {
                    "energy_per_atom": Quantity(value=energy, unit="eV/atom", theory=THEORY.key)
                },
                structure=None if failed else candidate.structure.copy().scale_lattice(
                    candidate.structure.volume * 1.01
                ),
                theory=THEORY,
                cost=cost,
            )  # fmt: skip
            if failed:
                self._decide(
                    iteration, "relaxation", candidate, "failed",
                    f"not converged after {calls} steps", [key],
                )  # fmt: skip
                continue
            self._decide(iteration, "relaxation", candidate, "passed", "converged", [key])
            relaxed = candidate.updated(self.made[key].evaluation.structure, {})
            distance = self._distance(candidate.structure, label)
            own = self._record(
                relaxed,
                "hull_distance",
                salt=f"{iteration}",
                verdict="pass",
                reason=f"{distance:.3f} eV/atom above the hull",
                quantities={
                    "e_above_hull": Quantity(value=distance, unit="eV/atom", theory=THEORY.key)
                },
                theory=THEORY,
            )
            near = distance <= 0.1
            place = "within" if near else "beyond"
            self._decide(
                iteration,
                "stability",
                candidate,
                "passed" if near else "rejected",
                f"{distance:.3f} eV/atom above the hull, {place} 0.1 eV/atom",
                [own],
            )
            self.archive.append(
                Known(
                    known_id=candidate.candidate_id, structure=relaxed.structure, source="campaign"
                )
            )
            if distance <= 0:
                self.found.append(
                    Phase(
                        phase_id=candidate.candidate_id,
                        structure=relaxed.structure,
                        energy=energy,
                        theory=THEORY,
                        source="found",
                    )
                )


def declared(
    name: str, system: str, *, iterations: int = 5, seed: int = 3, ranking: bool = True
) -> Campaign:
    stages = [
        {"name": "validity", "evaluate": ["minimum_distance"]},
        {"name": "ranking", "evaluate": ["surrogate"], "select": "expected_utility", "keep": 24},
        {"name": "relaxation", "evaluate": ["relaxation"]},
        {"name": "stability", "evaluate": ["hull_distance"]},
    ]
    return Campaign.model_validate(
        {
            "name": name,
            "description": f"Oxides of {system} near the hull.",
            "seed": seed,
            "space": {"system": system},
            "objective": {"minimize": "e_above_hull"},
            "generators": ["random_symmetric", "substitution", "evolution"],
            "budget": {"iterations": iterations},
            "stages": stages if ranking else [stages[0], *stages[2:]],
        }
    )


@pytest.fixture(scope="session")
def ledger(tmp_path_factory):
    """Return a ledger with five campaigns: finished, running, just begun, binary, quaternary."""
    ledger = open_ledger(tmp_path_factory.mktemp("reports"), create=True)
    for name, system, iterations, count, options in (
        ("finished", "Sr-Ti-O", 3, 60, {}),
        ("running", "Sr-Ti-O", 2, 30, {"finished": False, "ranking": False}),
        ("begun", "Sr-Ti-O", 1, 12, {"finished": False}),
        ("binary", "Al-Ni", 2, 25, {"withhold": 0}),
        ("quaternary", "Li-Mn-Ni-O", 2, 40, {}),
    ):
        ranking = options.get("ranking", True)
        campaign = declared(name, system, iterations=iterations, ranking=ranking)
        made = MadeUpCampaign(
            ledger, campaign, campaign_id=name, withhold=options.get("withhold", 2)
        )
        made.play(iterations=iterations, count=count, finished=options.get("finished", True))
    yield ledger
    ledger.close()


@pytest.fixture(scope="session")
def summaries(ledger):
    """Return the summary of each campaign, by name."""
    names = ("finished", "running", "begun", "binary", "quaternary")
    return {name: summarize(ledger, name) for name in names}
