"""Relaxation throughput: matloop against atomate2 jobs and chgnet's own optimiser, one thread each.

Run ``OMP_NUM_THREADS=1 python -m benchmarks.relaxation --count 32 --repeats 3``. All sides relax
the same crystals with the same model, optimiser (FIRE, cell and atoms) and limit (0.1 eV/Å), in
turns. The crystals are real ones when ``--structures`` names a CSV file with a column ``cif``, and
otherwise prototypes built here, perturbed by 0.1 Å and a few per cent of strain either way. Ratios
are those of processor time, which other load on the machine disturbs less than wall time.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure

from matloop.evaluators.mlip.relaxation import Relaxation, relax

FMAX, STEPS = 0.1, 300

Side = Callable[[list[Structure]], list[tuple[float, Structure]]]
"""Takes crystals, returns final energies (eV/atom) and crystals."""


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--structures", type=Path, help="CSV file with a column cif")
    parser.add_argument("--count", type=int, default=32)
    parser.add_argument("--max-atoms", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--sides", nargs="*", default=["atomate2", "chgnet", "fire", "bfgs"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch-atoms", type=int, default=384)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    crystals = perturbed(options.structures, options.count, options.max_atoms)
    atoms = sum(len(crystal) for crystal in crystals)
    print(f"{len(crystals)} crystals, {atoms / len(crystals):.1f} atoms on average")

    sides: dict[str, Side] = {
        "atomate2": _atomate2(options.device),
        "chgnet": _chgnet(options.device),
        "fire": _matloop("fire", options.device, options.batch_atoms),
        "bfgs": _matloop("bfgs", options.device, options.batch_atoms),
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in options.sides}
    ends: dict[str, list[tuple[float, Structure]]] = {}
    for name in options.sides:
        sides[name](crystals[:1])  # load models, compile nothing, measure nothing
    for _ in range(options.repeats):
        for name in options.sides:
            wall, cpu = time.perf_counter(), time.process_time()
            ends[name] = sides[name](crystals)
            times[name].append((time.perf_counter() - wall, time.process_time() - cpu))
            print(f"  {name}: {times[name][-1][0]:.1f} s wall, {times[name][-1][1]:.1f} s cpu")
    report(times, ends, len(crystals))


def report(
    times: dict[str, list[tuple[float, float]]],
    ends: dict[str, list[tuple[float, Structure]]],
    count: int,
) -> None:
    """Print throughput, ratios to the first side with their spread, and how the ends compare."""
    first = next(iter(times))
    matcher = StructureMatcher()
    print(f"\n{'side':10} {'wall s':>8} {'cpu s':>8} {'per second':>10}  ratio to {first} (range)")
    for name, measured in times.items():
        wall = float(np.median([t[0] for t in measured]))
        cpu = float(np.median([t[1] for t in measured]))
        ratios = [a[1] / b[1] for a, b in zip(times[first], measured, strict=True)]
        print(
            f"{name:10} {wall:8.1f} {cpu:8.1f} {count / cpu:10.2f}  "
            f"{np.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        )
    print("\nEnds compared with", first)
    for name in list(times)[1:]:
        differences = np.array([a[0] - b[0] for a, b in zip(ends[name], ends[first], strict=True)])
        same = [matcher.fit(a[1], b[1]) for a, b in zip(ends[name], ends[first], strict=True)]
        print(
            f"{name:10} |dE| median {np.median(np.abs(differences)) * 1e3:.4f}, largest "
            f"{np.abs(differences).max() * 1e3:.3f} meV/atom; same crystal {sum(same)} of {count}; "
            f"within 0.1 meV/atom {int((np.abs(differences) < 1e-4).sum())}; "
            f"worse by over 5 meV/atom {int((differences > 5e-3).sum())}"
        )


def perturbed(path: Path | None, count: int, max_atoms: int) -> list[Structure]:
    """Return the same perturbed crystals each time."""
    rng = np.random.default_rng(0)
    crystals = _real(path, count, max_atoms) if path else _built(count)
    for crystal in crystals:
        strain = np.eye(3) + rng.normal(0.0, 0.02, (3, 3))
        fractional = crystal.frac_coords.copy()
        crystal.lattice = Lattice(crystal.lattice.matrix @ strain)
        moves = rng.normal(0.0, 0.1 / np.sqrt(3.0), (len(crystal), 3))
        for site, position, move in zip(crystal, fractional, moves, strict=True):
            site.frac_coords = position + crystal.lattice.get_fractional_coords(move)
    return crystals


def _real(path: Path, count: int, max_atoms: int) -> list[Structure]:
    import pandas as pd

    table = pd.read_csv(path)
    if "n_sites" in table:
        table = table[table["n_sites"] <= max_atoms]
    texts = table["cif"].sample(count, random_state=0)
    return [Structure.from_str(text, fmt="cif") for text in texts]


def _built(count: int) -> list[Structure]:
    def rocksalt(a: float, pair: Sequence[str]) -> Structure:
        places = [[0, 0, 0], [0.5, 0.5, 0.5]]
        return Structure.from_spacegroup("Fm-3m", Lattice.cubic(a), pair, places)

    def perovskite(a: float, triple: Sequence[str]) -> Structure:
        places = [[0.5, 0.5, 0.5], [0, 0, 0], [0.5, 0, 0]]
        return Structure.from_spacegroup("Pm-3m", Lattice.cubic(a), triple, places)

    crystals = [
        rocksalt(4.2, ["Mg", "O"]),
        rocksalt(5.6, ["Na", "Cl"]),
        rocksalt(4.8, ["Ca", "O"]),
        perovskite(3.9, ["Sr", "Ti", "O"]),
        perovskite(4.0, ["Ba", "Ti", "O"]),
        Structure.from_spacegroup("Fd-3m", Lattice.cubic(5.43), ["Si"], [[0, 0, 0]]),
        Structure.from_spacegroup(
            "F-43m", Lattice.cubic(5.65), ["Ga", "As"], [[0, 0, 0], [0.25, 0.25, 0.25]]
        ),
        Structure.from_spacegroup(
            "P4_2/mnm", Lattice.tetragonal(4.6, 2.96), ["Ti", "O"], [[0, 0, 0], [0.305, 0.305, 0]]
        ),
    ]
    return [crystals[k % len(crystals)].copy() for k in range(count)]


def _matloop(optimizer: str, device: str, batch_atoms: int) -> Side:
    relaxation = Relaxation(
        model_parameters={"device": device},
        optimizer=optimizer,  # type: ignore[arg-type]
        fmax=FMAX,
        max_steps=STEPS,
        batch_atoms=batch_atoms,
    )

    def run(crystals: list[Structure]) -> list[tuple[float, Structure]]:
        found = relax(crystals, relaxation)
        return [
            (item.quantities["energy_per_atom"].value, item.structure)
            for item in found
            if item.structure is not None
        ]

    return run


def _chgnet(device: str) -> Side:
    def run(crystals: list[Structure]) -> list[tuple[float, Structure]]:
        from chgnet.model import CHGNet, StructOptimizer

        with contextlib.redirect_stdout(io.StringIO()):
            optimizer = StructOptimizer(CHGNet.load(use_device=device, verbose=False))
            ends = []
            for crystal in crystals:
                found = optimizer.relax(crystal.copy(), fmax=FMAX, steps=STEPS, verbose=False)
                end = found["final_structure"]
                ends.append((float(found["trajectory"].energies[-1]) / len(end), end))
        return ends

    return run


def _atomate2(device: str) -> Side:
    def run(crystals: list[Structure]) -> list[tuple[float, Structure]]:
        from atomate2.forcefields.jobs import ForceFieldRelaxMaker
        from jobflow import run_locally

        maker = ForceFieldRelaxMaker(
            force_field_name="CHGNet",
            steps=STEPS,
            relax_kwargs={"fmax": FMAX},
            optimizer_kwargs={"optimizer": "FIRE"},
            calculator_kwargs={"use_device": device},
        )
        ends = []
        folder = Path(os.environ.get("TMPDIR", "/tmp")) / f"matloop-benchmark-{os.getpid()}"
        with contextlib.redirect_stdout(io.StringIO()):
            for crystal in crystals:
                job = maker.make(crystal.copy())
                found = run_locally(job, log=False, root_dir=folder, ensure_success=True)
                output = found[job.uuid][1].output.output
                ends.append((output.energy / len(crystal), output.structure))
        return ends

    return run


if __name__ == "__main__":
    main()
