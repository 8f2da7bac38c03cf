"""Replay recorded VASP runs: copy the outputs of the run whose inputs are those in this folder.

This is no VASP and computes nothing. It takes the place of the VASP command in tests of everything
around VASP, custodian and the queue among it::

    export ATOMATE2_VASP_CMD="python -m matloop.testing.vasp_replay RECORDED_DIR"

A recorded run is a folder with ``inputs/`` (INCAR, KPOINTS, POSCAR, POTCAR.spec) and ``outputs/``.
Inputs that belong to no recorded run are refused, with the difference to the nearest.
"""

from __future__ import annotations

import argparse
import gzip
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pymatgen.core import Structure
from pymatgen.io.vasp import Incar, Kpoints, Poscar

from matloop.engines.vasp.engine import WITHOUT_EFFECT
from matloop.errors import MatloopError

TOLERANCE = 1e-3
"""How far cells (relative) and fractional coordinates may lie apart."""

_DEFAULTS = {"ISPIN": 1, "ISMEAR": 1, "SIGMA": 0.2, "NSW": 0}
_ALWAYS = ("CONTCAR", "OSZICAR", "OUTCAR", "CHGCAR", "WAVECAR")
_STREAMS = ("vasp.out", "std_err.txt")
_INPUTS = ("INCAR", "KPOINTS", "POSCAR", "POTCAR.spec")


class ReplayError(MatloopError):
    """No recorded run has these inputs; the message names the differences to the nearest."""


@dataclass(frozen=True)
class Inputs:
    """The inputs of one run.

    Attributes
    ----------
    incar
        Tags and values, without those of no effect.
    kpoints
        Style and first point or mesh; empty if the spacing is in INCAR.
    structure
        The crystal.
    potentials
        Names of the pseudopotentials, in order.
    """

    incar: dict[str, Any]
    kpoints: str
    structure: Structure
    potentials: tuple[str, ...]

    @classmethod
    def read(cls, folder: Path) -> Inputs:
        """Read the inputs in a folder."""
        kpoints = folder / "KPOINTS"
        incar = dict(Incar.from_file(folder / "INCAR"))
        return cls(
            incar={key: value for key, value in incar.items() if key not in WITHOUT_EFFECT},
            kpoints=_mesh(Kpoints.from_file(kpoints)) if kpoints.is_file() else "",
            structure=Poscar.from_file(folder / "POSCAR").structure,
            potentials=tuple((folder / "POTCAR.spec").read_text().split()),
        )

    def differences(self, other: Inputs, allowed: Sequence[str] = ()) -> list[str]:
        """Return where another run's inputs differ, one clause each.

        Parameters
        ----------
        other
            The recorded inputs.
        allowed
            INCAR tags, or INCAR, KPOINTS or POSCAR as a whole, in which they may differ; the atoms
            in POSCAR may not.
        """
        found = []
        tags = () if "INCAR" in allowed else sorted(self.incar.keys() | other.incar.keys())
        for key in tags:
            mine = self.incar.get(key, _DEFAULTS.get(key))
            theirs = other.incar.get(key, _DEFAULTS.get(key))
            if key not in allowed and not _same(mine, theirs):
                found.append(f"INCAR {key} is {mine}, recorded {theirs}")
        if "KPOINTS" not in allowed and self.kpoints != other.kpoints:
            found.append(
                f"KPOINTS is {self.kpoints or 'missing'}, recorded {other.kpoints or 'missing'}"
            )
        found += _geometry(self.structure, other.structure, "POSCAR" in allowed)
        if self.potentials != other.potentials:
            found.append(f"POTCAR.spec is {self.potentials}, recorded {other.potentials}")
        return found


def recorded_runs(recorded: Path) -> list[Path]:
    """Return the folders of all recorded runs below a folder, sorted.

    Raises
    ------
    ReplayError
        If there is none.
    """
    runs = sorted(
        path.parent
        for path in recorded.rglob("inputs")
        if all((path / name).is_file() for name in ("INCAR", "POSCAR", "POTCAR.spec"))
        and (path.parent / "outputs").is_dir()
    )
    if not runs:
        raise ReplayError(f"no recorded VASP run below {recorded}: folders inputs/ and outputs/")
    return runs


def find_run(folder: Path, recorded: Path, allowed: Sequence[str] = ()) -> Path:
    """Return the recorded run whose inputs are those in a folder.

    Raises
    ------
    ReplayError
        If there is none; the message names the nearest and its differences.
    """
    missing = [name for name in _INPUTS if name != "KPOINTS" and not (folder / name).is_file()]
    if missing:
        raise ReplayError(f"{folder} has no {', '.join(missing)}")
    given = Inputs.read(folder)
    nearest: tuple[int, int, Path, list[str]] | None = None
    for run in recorded_runs(recorded):
        known = Inputs.read(run / "inputs")
        differences = given.differences(known, allowed)
        # Among runs that may be taken, the one that needs least allowance.
        rank = (len(differences), len(given.differences(known)))
        if nearest is None or rank < nearest[:2]:
            nearest = (*rank, run, differences)
    assert nearest is not None
    if nearest[3]:
        raise ReplayError(
            f"no recorded run has these inputs; nearest is {nearest[2]}: {'; '.join(nearest[3])}"
        )
    return nearest[2]


def replay(folder: Path, recorded: Path, allowed: Sequence[str] = ()) -> Path:
    """Copy the outputs of the run with these inputs into the folder, and return the run.

    Inputs in the folder stay as they are. Compressed outputs are unpacked, as VASP leaves them.
    """
    run = find_run(folder, recorded, allowed)
    _copy_outputs(run, folder, streams=True)
    return run


def _copy_outputs(
    run: Path, folder: Path, *, streams: bool, names: Sequence[str] | None = None
) -> None:
    # All outputs, or those of some names; without the streams that custodian holds open.
    for path in sorted((run / "outputs").iterdir()):
        name = path.name.removesuffix(".gz")
        if not path.is_file() or name in _INPUTS or name.endswith(".orig") or "custodian" in name:
            continue
        if (name in _STREAMS and not streams) or (names is not None and name not in names):
            continue
        content = path.read_bytes()
        whole = folder / f".{name}.part"  # custodian reads along: no file is ever seen half written
        whole.write_bytes(gzip.decompress(content) if path.suffix == ".gz" else content)
        whole.replace(folder / name)
    for name in _ALWAYS if names is None else ():
        (folder / name).touch()  # VASP always leaves these, if only empty


@contextmanager
def in_process(recorded: Path, allowed: Sequence[str] = ()) -> Iterator[list[Path]]:
    """Replay runs in this process, without custodian, in place of atomate2's call of VASP.

    Yields
    ------
    list
        The recorded runs taken so far, in order.
    """
    import atomate2.vasp.jobs.base as atomate2_jobs

    taken: list[Path] = []

    def replayed(**_: object) -> None:
        taken.append(replay(Path.cwd(), recorded, allowed))
        if not Path("vasp.out").is_file():
            Path("vasp.out").write_text("")

    original = atomate2_jobs.run_vasp
    atomate2_jobs.run_vasp = replayed
    try:
        yield taken
    finally:
        atomate2_jobs.run_vasp = original


def main(arguments: Sequence[str] | None = None) -> int:
    """Replay in the current folder; return 1, with a line on standard error, if nothing fits."""
    parser = argparse.ArgumentParser(
        prog="python -m matloop.testing.vasp_replay",
        description="Copy the outputs of a recorded VASP run with the inputs in this folder. "
        "This is a replay, not VASP.",
    )
    parser.add_argument("recorded", type=Path, help="folder with recorded runs")
    parser.add_argument(
        "--allow",
        default="",
        metavar="TAGS",
        help="comma-separated INCAR tags, or INCAR, KPOINTS or POSCAR, that may differ; the atoms "
        "in POSCAR may not",
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=0.0,
        help="time to take; OUTCAR and CONTCAR are there at once, as in a run under way",
    )
    given = parser.parse_args(arguments)
    allowed = tuple(tag for tag in given.allow.split(",") if tag)
    try:
        run = find_run(Path.cwd(), given.recorded, allowed)
        if given.seconds:
            _copy_outputs(run, Path.cwd(), streams=False, names=("OUTCAR", "CONTCAR"))
            time.sleep(given.seconds)
        _copy_outputs(run, Path.cwd(), streams=False)
    except ReplayError as error:
        sys.stderr.write(f"replay refused: {error}\n")
        return 1
    sys.stderr.write(f"replay of {run}, not a VASP run\n")
    for name, stream in zip(_STREAMS, (sys.stdout, sys.stderr), strict=True):
        for path in (run / "outputs" / name, run / "outputs" / f"{name}.gz"):
            if path.is_file():
                content = path.read_bytes()
                content = gzip.decompress(content) if path.suffix == ".gz" else content
                stream.write(content.decode(errors="replace"))
    return 0


def _mesh(kpoints: Kpoints) -> str:
    points = [" ".join(f"{float(x):g}" for x in point) for point in kpoints.kpts]
    return f"{kpoints.style.name} {', '.join(points)}"


def _same(mine: Any, theirs: Any) -> bool:
    if isinstance(mine, str) and isinstance(theirs, str):
        return mine.lower() == theirs.lower()
    try:
        first, second = np.asarray(mine, dtype=float), np.asarray(theirs, dtype=float)
    except (TypeError, ValueError):
        return bool(mine == theirs)
    return first.shape == second.shape and bool(np.allclose(first, second, atol=TOLERANCE))


def _geometry(mine: Structure, theirs: Structure, allowed: bool) -> list[str]:
    if [site.specie for site in mine] != [site.specie for site in theirs]:
        return [f"POSCAR holds {mine.formula}, recorded {theirs.formula}"]
    if allowed:
        return []
    cell = np.abs(np.array(mine.lattice.parameters) / np.array(theirs.lattice.parameters) - 1)
    if cell.max() > TOLERANCE:
        return [f"POSCAR's cell differs by {100 * cell.max():.2g} %"]
    shift = np.abs(mine.frac_coords - theirs.frac_coords + 0.5) % 1.0 - 0.5
    if np.abs(shift).max() > TOLERANCE:
        return [f"POSCAR's coordinates differ by {np.abs(shift).max():.2g}"]
    return []


if __name__ == "__main__":
    sys.exit(main())
