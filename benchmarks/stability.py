"""Phonons and elastic tensors with CHGNet: what they cost, what they say, and on what they depend.

Run ``OMP_NUM_THREADS=1 python -m benchmarks.stability``. Textbook crystals are relaxed, judged
together and one by one, and the displaced supercells are also computed with chgnet's own ASE
calculator, one after the other. Times of a side are those of its fastest run.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import ase
import numpy as np
import torch
from pymatgen.core import Lattice, Structure

from matloop.documents.candidate import Candidate, Origin
from matloop.documents.evaluation import Evaluation
from matloop.evaluators.mlip.elastic import ElasticTensor
from matloop.evaluators.mlip.lattice_dynamics import Displacements
from matloop.evaluators.mlip.model import Member
from matloop.evaluators.mlip.phonons import Phonons
from matloop.evaluators.mlip.relaxation import Relaxation, relax
from matloop.protocols import Evaluator, Resources
from matloop.references.embedded import crystals
from matloop.structures.supercells import supercell_matrix
from matloop.structures.symmetry import primitive_cell, rotations

TEXTBOOK: dict[str, tuple[str, Lattice, list[str], list[list[float]]]] = {
    "Cu": ("Fm-3m", Lattice.cubic(3.61), ["Cu"], [[0, 0, 0]]),
    "Al": ("Fm-3m", Lattice.cubic(4.05), ["Al"], [[0, 0, 0]]),
    "Si": ("Fd-3m", Lattice.cubic(5.43), ["Si"], [[0, 0, 0]]),
    "NaCl": ("Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5] * 3]),
    "MgO": ("Fm-3m", Lattice.cubic(4.21), ["Mg", "O"], [[0, 0, 0], [0.5] * 3]),
    "TiN": ("Fm-3m", Lattice.cubic(4.24), ["Ti", "N"], [[0, 0, 0], [0.5] * 3]),
    "ZnO": (
        "P6_3mc",
        Lattice.hexagonal(3.25, 5.2),
        ["Zn", "O"],
        [[1 / 3, 2 / 3, 0], [1 / 3, 2 / 3, 0.382]],
    ),
    "Al2O3": (
        "R-3c",
        Lattice.hexagonal(4.76, 12.99),
        ["Al", "O"],
        [[0, 0, 0.352], [0.306, 0, 0.25]],
    ),
    "SrTiO3": (
        "Pm-3m",
        Lattice.cubic(3.9),
        ["Sr", "Ti", "O"],
        [[0.5] * 3, [0, 0, 0], [0.5, 0, 0]],
    ),
}


def main() -> None:
    """Measure, and print tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--count", type=int, default=60, help="compounds of the embedded set")
    parser.add_argument(
        "--parts", nargs="*", default=["cost", "batch", "distance", "length", "compounds"]
    )
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    given = [Structure.from_spacegroup(*entry) for entry in TEXTBOOK.values()]
    found = relax([s.get_primitive_structure() for s in given], Relaxation(fmax=0.01))
    candidates = [
        Candidate(candidate_id=name, structure=item.structure, origin=Origin(generator="textbook"))
        for name, item in zip(TEXTBOOK, found, strict=True)
        if item.structure is not None
    ]
    if "cost" in options.parts:
        _cost(candidates)
    if "batch" in options.parts:
        _batch(candidates, options.repeats)
    if "distance" in options.parts:
        _series(candidates, "distance", (0.005, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1))
    if "compounds" in options.parts:
        _compounds(options.count)
    if "length" in options.parts:
        _series(candidates, "min_length", (6.0, 9.0, 12.0, 15.0))


def _cost(candidates: Sequence[Candidate]) -> None:
    for evaluator in (Phonons(), ElasticTensor()):
        print(f"\n{type(evaluator).__name__}: calls, atoms x calls, seconds, verdict")
        for item in evaluator.evaluate(candidates, Resources()):
            cost = item.cost
            print(
                f"{item.candidate_id:7} {cost.calls:5} {cost.work:8.0f} {cost.seconds:7.2f}", end=""
            )
            print(f"  {item.verdict}: {item.reason}")
            values = {name: quantity.value for name, quantity in item.quantities.items()}
            print("       ", ", ".join(f"{n} {v:.4g}" for n, v in values.items() if abs(v) > 1e-6))


def _batch(candidates: Sequence[Candidate], repeats: int) -> None:
    """Compare all at once with one by one, and forces with chgnet's own calculator."""
    print("\nseconds: together, one by one")
    for evaluator in (Phonons(), ElasticTensor()):
        together = _fastest(lambda e=evaluator: _judge(e, candidates), repeats)
        alone = _fastest(lambda e=evaluator: [_judge(e, [c]) for c in candidates], repeats)
        print(f"{type(evaluator).__name__:14} {together:.2f} {alone:.2f}")
    cells = [cell for candidate in candidates for cell in _cells(candidate)]
    atoms = sum(len(cell.numbers) for cell in cells)
    print(
        f"forces of {len(cells)} displaced supercells, {atoms} atoms: batched, chgnet's calculator"
    )
    batched = _fastest(lambda: _forces(cells), repeats)
    print(f"{batched:.2f} {_fastest(lambda: _forces_by_chgnet(cells), repeats):.2f}")


def _series(candidates: Sequence[Candidate], parameter: str, values: Sequence[float]) -> None:
    print(f"\nlowest and highest frequency (THz) against {parameter}")
    table: dict[str, list[str]] = {candidate.candidate_id: [] for candidate in candidates}
    for value in values:
        for item in _judge(Phonons(max_atoms=2000, **{parameter: value}), candidates):  # type: ignore[arg-type]
            ends = [
                item.quantities[name].value for name in ("lowest_frequency", "highest_frequency")
            ]
            table[item.candidate_id].append(f"{ends[0]:6.2f} {ends[1]:6.2f}")
    print(" " * 8 + " | ".join(f"{value:^13g}" for value in values))
    for name, row in table.items():
        print(f"{name:7} " + " | ".join(row))


def _compounds(count: int) -> None:
    """Judge real compounds: most of them exist, so most of them should pass."""
    known = [k for k in crystals() if len(k.structure.composition) > 1]
    small = [k for k in known if len(primitive_cell(k.structure)) <= 12]
    chosen = [small[i] for i in np.random.default_rng(1).permutation(len(small))[:count]]
    relaxed = relax([k.structure for k in chosen], Relaxation(fmax=0.01, max_steps=500))
    candidates = [
        Candidate(candidate_id=k.known_id, structure=r.structure, origin=Origin(generator="known"))
        for k, r in zip(chosen, relaxed, strict=True)
        if r.verdict == "pass" and r.structure is not None
    ]
    print(f"\n{len(candidates)} of {len(chosen)} known compounds relaxed")
    for evaluator in (Phonons(distance=0.01), Phonons(), ElasticTensor()):
        started = time.perf_counter()
        found = _judge(evaluator, candidates)
        seconds = time.perf_counter() - started
        counts = Counter(item.verdict for item in found)
        calls = sorted(item.cost.calls for item in found)
        print(f"{evaluator}\n  {dict(counts)}, {seconds:.0f} s, calls {calls[0]} to {calls[-1]}")
        print(f"  median {calls[len(calls) // 2]} calls")
        for item in found:
            if item.verdict != "pass":
                print(f"  {item.candidate_id}: {item.verdict}: {item.reason}")


def _judge(evaluator: Evaluator, candidates: Sequence[Candidate]) -> list[Evaluation]:
    return evaluator.evaluate(candidates, Resources())


def _cells(candidate: Candidate) -> list[Member]:
    primitive = primitive_cell(candidate.structure, 0.01)
    matrix = supercell_matrix(
        np.array(primitive.lattice.matrix), rotations(primitive), 9.0, max_cells=800
    )
    return Displacements(Member.from_structure(primitive), matrix, 0.05).cells


def _forces(cells: Sequence[Member]) -> Any:
    from matloop.evaluators.mlip.model import load_model
    from matloop.evaluators.mlip.single_points import single_points

    return single_points(load_model("chgnet", {}), cells, 384)


def _forces_by_chgnet(cells: Sequence[Member]) -> list[Any]:
    from chgnet.model import CHGNetCalculator

    calculator = CHGNetCalculator(use_device="cpu", verbose=False)
    found = []
    for cell in cells:
        atoms = ase.Atoms(cell.numbers, cell.positions, cell=cell.cell, pbc=True)
        atoms.calc = calculator
        found.append(atoms.get_forces())
    return found


def _fastest(run: Callable[[], Any], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return min(times)


if __name__ == "__main__":
    main()
