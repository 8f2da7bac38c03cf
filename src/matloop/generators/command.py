"""Any program that writes crystals, in an environment of its own, as a generator."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
from monty.json import MSONable

from matloop.generators import programs
from matloop.protocols import Parent, Proposal, ProposalRequest

CONTRACT = 1
"""Version of what ``request.json`` holds."""

_PLACEHOLDER = re.compile(r"\{([^{}\s\"':,]*)\}")
_KNOWN = (
    "count", "seed", "output", "request", "system", "elements", "min_atoms", "max_atoms", "found",
    "references",
)  # fmt: skip


@dataclass(frozen=True)
class Command(MSONable):
    """Propose what another program makes: any that writes CIF, extxyz, or another known format.

    The program is one that the environment of matloop names (``MATLOOP_PROGRAMS__<NAME>``); a
    campaign file chooses among them and gives arguments. It runs without a shell in a fresh folder,
    and nothing of it outlives the request. Crystals outside of the campaign's space are left out
    and counted in the log; whole crystals count even where the program failed after writing them.

    Attributes
    ----------
    program
        Name of the program.
    arguments
        Its arguments. Filled in are ``{count}``, ``{seed}`` (below 2^32), ``{output}``,
        ``{request}`` (a JSON file with all that is wanted), ``{system}`` (``Sr-Ti-O``),
        ``{elements}`` (``Sr,Ti,O``), ``{min_atoms}``, ``{max_atoms}``, ``{found}`` and
        ``{references}`` (extxyz files of the parents).
    output
        Name of what it writes: with an ending one file (``.extxyz``, ``.zip`` of CIFs, ``.cif``,
        ``.json``, ``.csv``), without one a folder of such files.
    oversample
        How many crystals are asked of it for each that is wanted, where some will be outside of the
        space.
    timeout
        Longest time it may take (s).
    """

    program: str
    arguments: list[str] = field(
        default_factory=lambda: ["--count={count}", "--seed={seed}", "--output={output}"]
    )
    output: str = "crystals"
    oversample: float = 1.0
    timeout: float = 3600.0

    def __post_init__(self) -> None:
        """Refuse paths, unknown placeholders, an output outside of the folder, bad numbers."""
        programs.check_name(self.program, "program")
        for argument in self.arguments:
            for name in _PLACEHOLDER.findall(argument):
                if name not in _KNOWN:
                    raise ValueError(
                        f"arguments: {{{name}}} is not known; known are "
                        f"{', '.join(f'{{{known}}}' for known in _KNOWN)}"
                    )
        if len(PurePosixPath(self.output).parts) != 1 or self.output in (".", "..", "/", "tmp"):
            raise ValueError(f"output must be a plain file or folder name, not {self.output!r}")
        check_run(self.oversample, self.timeout)

    def propose(self, request: ProposalRequest) -> list[Proposal]:
        """Return up to `request.count` crystals of the program that lie in the space.

        Raises
        ------
        ConfigurationError
            If the environment does not name the program, or it is not there.
        ProgramError
            If it failed, or wrote nothing that can be read.
        """
        command = programs.command_of(self.program)
        if request.count == 0:
            return []
        with programs.working_folder(self.program) as folder:
            words = [*command, *self._arguments(request, folder)]
            ending = programs.run(words, folder, self.timeout)
            found = programs.read_output([folder / self.output])
            parameters = {"seeded": self._seeded()}
            return programs.proposals(self.program, [(ending, found)], request, parameters)

    def _seeded(self) -> bool:
        """Tell whether the program is told the seed at all."""
        text = " ".join(self.arguments)
        return "{seed}" in text or "{request}" in text

    def _arguments(self, request: ProposalRequest, folder: Path) -> list[str]:
        """Write the files that the arguments name, and return the arguments."""
        space, output = request.space, folder / self.output
        if not output.suffix:
            output.mkdir()
        plain: dict[str, str | int] = {
            "count": math.ceil(self.oversample * request.count),
            "seed": request.seed % programs.SEEDS,
            "output": str(output),
            "system": "-".join(space.allowed),
            "elements": ",".join(space.allowed),
            "min_atoms": space.min_atoms,
            "max_atoms": space.max_atoms,
        }
        wanted: dict[str, object] = {
            **plain,
            "contract": CONTRACT,
            "elements": list(space.allowed),
            "min_elements": space.min_elements,
            "max_elements": space.most_elements,
            "charge_balance": space.charge_balance,
        }
        files: dict[str, Callable[[Path], None]] = {
            "request": lambda path: _write_json(path, wanted),
            "found": lambda path: _write_parents(path, request.found),
            "references": lambda path: _write_parents(path, request.references),
        }
        used = {name for text in self.arguments for name in _PLACEHOLDER.findall(text)}
        for name in used & files.keys():
            path = folder / ("request.json" if name == "request" else f"{name}.extxyz")
            files[name](path)
            plain[name] = str(path)
        return [
            _PLACEHOLDER.sub(lambda match: str(plain[match[1]]), argument)
            for argument in self.arguments
        ]


def check_run(oversample: float, timeout: float) -> None:
    """Refuse numbers no run can have.

    Raises
    ------
    ValueError
        Naming the field and what it takes.
    """
    if not 1.0 <= oversample <= 1000.0:
        raise ValueError(f"oversample must be between 1 and 1000, not {oversample:g}")
    if not 0.0 < timeout < math.inf:
        raise ValueError(f"timeout must be a number of seconds above 0, not {timeout:g}")


def _write_json(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content, indent=1))


def _write_parents(path: Path, parents: Sequence[Parent]) -> None:
    """Write parents as extxyz, with ``parent_id`` and, where it is known, ``utility``."""
    from ase import Atoms
    from ase.io import write

    frames = []
    for parent in parents:
        crystal = parent.structure
        numbers = np.concatenate([crystal.lattice.matrix.ravel(), crystal.frac_coords.ravel()])
        if not crystal.is_ordered or len(crystal) == 0 or not np.isfinite(numbers).all():
            continue
        info: dict[str, object] = {"parent_id": parent.parent_id}
        if parent.utility is not None:
            info["utility"] = parent.utility
        frames.append(
            Atoms(
                [specie.symbol for specie in crystal.species],
                scaled_positions=crystal.frac_coords,
                cell=crystal.lattice.matrix,
                pbc=True,
                info=info,
            )
        )
    path.touch()
    if frames:
        write(path, frames, format="extxyz")
