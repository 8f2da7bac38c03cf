"""The programs that `benchmarks.relaxation` compares: each takes crystals and relaxes them."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pymatgen.core import Structure

from matloop.documents.candidate import Candidate, Origin
from matloop.evaluators.mlip.relaxation import Relaxation, relax
from matloop.jobs.workers import evaluate_chunks
from matloop.protocols import Resources

Ends = list[tuple[float, Structure]]
"""Final energies (eV/atom) and crystals, in order; NaN where there is none."""

Side = Callable[[list[Structure]], Ends]


@dataclass(frozen=True)
class Limits:
    """What all sides are told.

    Attributes
    ----------
    fmax
        Largest force of a converged crystal (eV/Å).
    steps
        Most steps.
    device
        Where the model computes.
    batch_atoms
        Atoms that matloop has in flight.
    mace
        Model file of the sides with MACE.
    """

    fmax: float = 0.1
    steps: int = 300
    device: str = "cpu"
    batch_atoms: int = 384
    mace: str = ""


def side(name: str, limits: Limits, cores: int) -> Side:
    """Return a side by name; ``*-cores`` runs in so many processes of one thread each."""
    plain, _, spread = name.partition("-cores")
    if name.endswith("-cores"):
        assert not spread
        if plain in ("fire", "bfgs"):
            return _matloop_on_cores(plain, limits, cores)
        return _on_cores(plain, limits, cores)
    sides: dict[str, Callable[[], Side]] = {
        "atomate2": lambda: _atomate2(limits),
        "chgnet": lambda: _chgnet(limits),
        "fire": lambda: _matloop("fire", limits),
        "bfgs": lambda: _matloop("bfgs", limits),
        "fresh": lambda: _fresh(limits),
        "mace-ase": lambda: _mace_ase(limits),
        "mace-torchsim": lambda: _mace_torchsim(limits),
        "mace-fire": lambda: _matloop("fire", limits, "mace"),
        "mace-bfgs": lambda: _matloop("bfgs", limits, "mace"),
    }
    return sides[name]()


def _relaxation(optimizer: str, limits: Limits, model: str = "chgnet") -> Relaxation:
    parameters: dict[str, Any] = {"device": limits.device}
    if model == "mace":
        parameters["path"] = limits.mace
    kind: Literal["fire", "bfgs"] = "bfgs" if optimizer == "bfgs" else "fire"
    return Relaxation(
        model=model,
        model_parameters=parameters,
        optimizer=kind,
        fmax=limits.fmax,
        max_steps=limits.steps,
        batch_atoms=limits.batch_atoms,
    )


def _ends(evaluations: Sequence[Any], crystals: list[Structure]) -> Ends:
    return [
        (item.quantities["energy_per_atom"].value, item.structure)
        if item.structure is not None
        else (float("nan"), crystal)
        for item, crystal in zip(evaluations, crystals, strict=True)
    ]


def _matloop(optimizer: str, limits: Limits, model: str = "chgnet") -> Side:
    relaxation = _relaxation(optimizer, limits, model)
    return lambda crystals: _ends(relax(crystals, relaxation), crystals)


def _matloop_on_cores(optimizer: str, limits: Limits, cores: int) -> Side:
    """Relax in the product's own worker processes, chunk by chunk."""
    relaxation = _relaxation(optimizer, limits)

    def run(crystals: list[Structure]) -> Ends:
        origin = Origin(generator="benchmark")
        candidates = [
            Candidate(candidate_id=str(k), structure=crystal, origin=origin)
            for k, crystal in enumerate(crystals)
        ]
        # Four chunks per core, at most as large as a campaign's.
        size = max(1, min(64, len(crystals) // (4 * cores)))
        chunks = [candidates[k : k + size] for k in range(0, len(candidates), size)]
        found = dict(evaluate_chunks(relaxation, chunks, Resources(), cores))
        return _ends([item for k in sorted(found) for item in found[k]], crystals)

    return run


def _on_cores(name: str, limits: Limits, cores: int) -> Side:
    """Run another side in processes of one thread each, which keep their models."""
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[variable] = "1"
    pool = ProcessPoolExecutor(cores, mp_context=multiprocessing.get_context("spawn"))

    def run(crystals: list[Structure]) -> Ends:
        jobs = [pool.submit(_one, name, limits, crystal) for crystal in crystals]
        return [job.result() for job in jobs]

    return run


def _one(name: str, limits: Limits, crystal: Structure) -> tuple[float, Structure]:
    return side(name, limits, 1)([crystal])[0]


def _fresh(limits: Limits) -> Side:
    """Start a process for each crystal, as a workflow of one job per structure does."""

    def run(crystals: list[Structure]) -> Ends:
        ends: Ends = []
        for crystal in crystals:
            with tempfile.TemporaryDirectory() as folder:
                given, found = Path(folder) / "given", Path(folder) / "found"
                given.write_bytes(pickle.dumps((limits, crystal)))
                command = [sys.executable, "-m", "benchmarks.relaxation_sides"]
                subprocess.run([*command, str(given), str(found)], check=True)
                ends.append(pickle.loads(found.read_bytes()))
        return ends

    return run


def _chgnet(limits: Limits) -> Side:
    def run(crystals: list[Structure]) -> Ends:
        from chgnet.model import CHGNet, StructOptimizer

        with contextlib.redirect_stdout(io.StringIO()):
            optimizer = StructOptimizer(CHGNet.load(use_device=limits.device, verbose=False))
            ends = []
            for crystal in crystals:
                found = optimizer.relax(
                    crystal.copy(), fmax=limits.fmax, steps=limits.steps, verbose=False
                )
                end = found["final_structure"]
                ends.append((float(found["trajectory"].energies[-1]) / len(end), end))
        return ends

    return run


def _atomate2(limits: Limits) -> Side:
    def run(crystals: list[Structure]) -> Ends:
        from atomate2.forcefields.jobs import ForceFieldRelaxMaker
        from jobflow import run_locally

        maker = ForceFieldRelaxMaker(
            force_field_name="CHGNet",
            steps=limits.steps,
            relax_kwargs={"fmax": limits.fmax},
            optimizer_kwargs={"optimizer": "FIRE"},
            calculator_kwargs={"use_device": limits.device},
        )
        ends = []
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            for crystal in crystals:
                job = maker.make(crystal.copy())
                found = run_locally(job, log=False, root_dir=folder, ensure_success=True)
                output = found[job.uuid][1].output.output
                ends.append((output.energy / len(crystal), output.structure))
        return ends

    return run


def _mace_ase(limits: Limits) -> Side:
    from matloop.evaluators.mlip.mace_file import import_mace

    import_mace()
    from ase.filters import FrechetCellFilter
    from ase.optimize import FIRE
    from mace.calculators import MACECalculator
    from pymatgen.io.ase import AseAtomsAdaptor

    calculator = MACECalculator(model_paths=limits.mace, device=limits.device)

    def run(crystals: list[Structure]) -> Ends:
        ends = []
        for crystal in crystals:
            atoms: Any = AseAtomsAdaptor.get_atoms(crystal)
            atoms.calc = calculator
            FIRE(FrechetCellFilter(atoms), logfile=None).run(fmax=limits.fmax, steps=limits.steps)
            energy = float(atoms.get_potential_energy()) / len(crystal)
            ends.append((energy, AseAtomsAdaptor.get_structure(atoms)))
        return ends

    return run


def _mace_torchsim(limits: Limits) -> Side:
    from matloop.evaluators.mlip.mace_file import import_mace, read_model

    try:
        import torch_sim
    except ImportError:
        sys.exit("the side mace-torchsim needs torch-sim: pip install torch-sim-atomistic==0.3.0")
    import_mace()
    import torch
    from torch_sim.models.mace import MaceModel

    network = read_model(Path(limits.mace))
    dtype = next(network.parameters()).dtype
    model = MaceModel(network, device=torch.device(limits.device), dtype=dtype)
    converged = torch_sim.generate_force_convergence_fn(limits.fmax, include_cell_forces=True)

    def run(crystals: list[Structure]) -> Ends:
        state = torch_sim.optimize(
            system=crystals,
            model=model,
            optimizer=torch_sim.frechet_cell_fire,
            convergence_fn=converged,
            max_steps=limits.steps,
            steps_between_swaps=1,
            autobatcher=limits.device != "cpu",  # it measures the memory of accelerators only
        )
        energies = state.energy.tolist()
        ends = state.to_structures()
        return [(e / len(end), end) for e, end in zip(energies, ends, strict=True)]

    return run


def main() -> None:
    """Relax one pickled crystal with atomate2: what a fresh process does."""
    given, found = (Path(argument) for argument in sys.argv[1:3])
    limits, crystal = pickle.loads(given.read_bytes())
    found.write_bytes(pickle.dumps(_atomate2(limits)([crystal])[0]))


if __name__ == "__main__":
    main()
