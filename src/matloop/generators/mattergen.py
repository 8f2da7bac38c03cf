"""MatterGen, the diffusion model of Microsoft Research, run in an environment of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
from monty.json import MSONable

from matloop.documents.base import Scalar
from matloop.generators import programs
from matloop.generators.command import check_run
from matloop.protocols import Proposal, ProposalRequest

PUBLISHED: dict[str, tuple[str, ...]] = {
    "mattergen_base": (),
    "mp_20_base": (),
    "chemical_system": ("chemical_system",),
    "chemical_system_energy_above_hull": ("chemical_system", "energy_above_hull"),
    "space_group": ("space_group",),
    "dft_mag_density": ("dft_mag_density",),
    "dft_band_gap": ("dft_band_gap",),
    "ml_bulk_modulus": ("ml_bulk_modulus",),
    "dft_mag_density_hhi_score": ("dft_mag_density", "hhi_score"),
}
"""Published checkpoints and what each is conditioned on (MatterGen 1.0.3)."""

PROPERTIES = (
    "chemical_system", "energy_above_hull", "formation_energy_per_atom", "dft_band_gap",
    "dft_bulk_modulus", "dft_shear_modulus", "ml_bulk_modulus", "dft_mag_density", "hhi_score",
    "space_group",
)  # fmt: skip
"""Every property that MatterGen 1.0.3 can be fine-tuned on; energies in eV/atom, gaps in eV,
moduli in GPa, magnetic density in Å^-3."""

OUTPUTS = ("generated_crystals.extxyz", "generated_crystals_cif.zip")
"""What ``mattergen-generate`` writes into its folder, the more robust one first: what is whole of
a damaged extxyz file can be read, of a damaged archive nothing can."""

_SYSTEM = "chemical_system"


@dataclass(frozen=True)
class MatterGen(MSONable):
    """Propose what MatterGen samples, conditioned on the campaign's chemical system.

    Runs the command ``mattergen-generate`` of MatterGen 1.0.3 as the environment names it
    (``MATLOOP_PROGRAMS__MATTERGEN``), in its own Python environment: it pins another torch.
    Checkpoints without a chemical system sample from the whole periodic table, and what is outside
    of the campaign's space is left out and counted in the log. MatterGen 1.0.3 takes no seed: the
    same request gives other crystals, unless `seeded` says that the installed one does.

    Zeni et al., Nature 639, 624 (2025). Classifier-free guidance: Ho and Salimans,
    arXiv:2207.12598.

    Attributes
    ----------
    checkpoint
        A published one (``chemical_system``, ``chemical_system_energy_above_hull``,
        ``space_group``, ``dft_mag_density``, ``dft_band_gap``, ``ml_bulk_modulus``,
        ``dft_mag_density_hhi_score``, ``mattergen_base``, ``mp_20_base``), or the name of one of
        your own (``MATLOOP_CHECKPOINTS__<NAME>`` is its folder).
    conditions
        Target of each property the checkpoint was fine-tuned on, in MatterGen's units, such as
        ``{energy_above_hull: 0.05}``; the chemical system is filled in.
    properties
        What a checkpoint of your own was fine-tuned on; known for the published ones.
    guidance
        Strength of the conditions: 0 ignores them; higher obeys more, at the expense of diversity.
    systems
        Chemical systems drawn for one request, and so runs, in spaces that list `elements`.
    elements_per_system
        Most elements of a drawn system.
    batch_size
        Crystals sampled at once; as many as the GPU has memory for.
    oversample
        How many crystals are sampled for each that is wanted.
    seeded
        Pass ``--seed``, which versions after 1.0.3 take and 1.0.3 refuses.
    program
        Name under which the environment gives the command.
    timeout
        Longest time of one run (s). MatterGen writes at its end: what is cut off leaves nothing.
    """

    worker_kind: ClassVar[str] = "gpu"

    checkpoint: str = "chemical_system"
    conditions: dict[str, float] = field(default_factory=dict)
    properties: list[str] = field(default_factory=list)
    guidance: float = 2.0
    systems: int = 1
    elements_per_system: int = 3
    batch_size: int = 16
    oversample: float = 1.0
    seeded: bool = False
    program: str = "mattergen"
    timeout: float = 7200.0

    def __post_init__(self) -> None:
        """Refuse conditions the checkpoint does not know, and numbers that make no sense."""
        programs.check_name(self.program, "program")
        programs.check_name(self.checkpoint, "checkpoint")
        check_run(self.oversample, self.timeout)
        if self.checkpoint in PUBLISHED and self.properties:
            raise ValueError(f"properties are known for {self.checkpoint}; leave them out")
        for name in self.properties:
            if name not in PROPERTIES:
                raise ValueError(f"properties: {name!r} is not one of {', '.join(PROPERTIES)}")
        numeric = [name for name in self._takes() if name != _SYSTEM]
        for name, value in self.conditions.items():
            if name == _SYSTEM:
                raise ValueError("conditions: chemical_system is filled in from the space")
            if name not in numeric:
                takes = ", ".join(numeric) or "none"
                raise ValueError(
                    f"conditions: {self.checkpoint} is not conditioned on {name!r}; {takes}"
                )
            if not math.isfinite(value):
                raise ValueError(f"conditions: {name} must be a finite number")
        if numeric and not self.conditions and _SYSTEM not in self._takes():
            raise ValueError(
                f"conditions: {self.checkpoint} needs a value of {' or '.join(numeric)}"
            )
        for name in ("systems", "elements_per_system", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not 0.0 <= self.guidance <= 100.0:
            raise ValueError(f"guidance must be between 0 and 100, not {self.guidance:g}")

    def propose(self, request: ProposalRequest) -> list[Proposal]:
        """Return up to `request.count` sampled crystals that lie in the space.

        Raises
        ------
        ConfigurationError
            If the environment names no such program or checkpoint, or it is not there.
        ProgramError
            If every run failed, or wrote nothing that can be read.
        """
        command = programs.command_of(self.program)
        own = None if self.checkpoint in PUBLISHED else programs.checkpoint_of(self.checkpoint)
        if request.count == 0:
            return []
        rng = np.random.default_rng(request.seed)
        systems = self._systems(request, rng)
        shares = [len(part) for part in np.array_split(np.arange(request.count), len(systems))]
        outputs = []
        for system, share in zip(systems, shares, strict=True):
            if not share:
                continue
            seed = int(rng.integers(programs.SEEDS))
            with programs.working_folder(self.program) as folder:
                results = folder / "results"
                words = self.words(results, own, share, system, seed)
                ending = programs.run([*command, *words], folder, self.timeout)
                found = programs.read_output([results / name for name in OUTPUTS])
                outputs.append((ending, found))
        parameters: dict[str, Scalar] = {"checkpoint": self.checkpoint, "guidance": self.guidance}
        parameters |= {"seeded": self.seeded, **self.conditions}
        return programs.proposals(self.program, outputs, request, parameters)

    def words(
        self, results: Path, own: Path | None, count: int, system: str, seed: int
    ) -> list[str]:
        """Return the arguments of ``mattergen-generate`` for one run.

        Parameters
        ----------
        results
            Folder it writes to.
        own
            Folder of a checkpoint of the user's own; None for a published one.
        count
            Crystals wanted; what is sampled is rounded up to whole batches.
        system
            Chemical system to condition on; empty for none.
        seed
            Seed of the run, passed where the program takes one.
        """
        sampled = math.ceil(self.oversample * count)
        batches = math.ceil(sampled / self.batch_size)
        conditions: dict[str, float | str] = {
            name: round(value) if name == "space_group" else value  # an index there
            for name, value in self.conditions.items()
        }
        if system:
            conditions[_SYSTEM] = system
        words = [
            str(results),
            f"--model_path={own}" if own else f"--pretrained_name={self.checkpoint}",
            f"--batch_size={math.ceil(sampled / batches)}",
            f"--num_batches={batches}",
            "--record_trajectories=False",
        ]
        if conditions:
            written = ",".join(f"'{name}':{value!r}" for name, value in conditions.items())
            words += [
                f"--properties_to_condition_on={{{written}}}",
                f"--diffusion_guidance_factor={self.guidance!r}",
            ]
        return [*words, f"--seed={seed}"] if self.seeded else words

    def _takes(self) -> Sequence[str]:
        return PUBLISHED.get(self.checkpoint, tuple(self.properties))

    def _systems(self, request: ProposalRequest, rng: np.random.Generator) -> list[str]:
        """Return the systems to sample; one of no name where the checkpoint takes none.

        A declared chemical system is sampled whole. Where the space is a list of elements, systems
        are drawn from it, each once while there are enough.
        """
        space = request.space
        if _SYSTEM not in self._takes():
            return [""]
        size = min(space.most_elements, self.elements_per_system)
        if space.system and space.most_elements == len(space.allowed):
            size = len(space.allowed)
        size = max(size, space.min_elements)
        drawn: dict[str, None] = {}
        for _ in range(20 * self.systems):
            chosen = rng.choice(space.allowed, size=size, replace=False)
            drawn["-".join(sorted(str(name) for name in chosen))] = None
            if len(drawn) == self.systems:
                break
        return list(drawn)
