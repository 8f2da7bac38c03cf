"""What an interrupted VASP run left behind, and how much time this one still has."""

from __future__ import annotations

import json
import math
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from monty.json import MSONable
from pymatgen.core import Structure


@dataclass(frozen=True)
class Progress(MSONable):
    """How far a chain of VASP runs has come.

    Attributes
    ----------
    step
        Number of the run at hand, from 0.
    restarts
        How often a run was begun again from its last geometry.
    seconds
        Wall time of the runs so far (s).
    core_seconds
        The same times cores (s).
    calls
        Ionic steps so far.
    restarted_after
        Reason of each restart.
    """

    step: int = 0
    restarts: int = 0
    seconds: float = 0.0
    core_seconds: float = 0.0
    calls: int = 0
    restarted_after: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # JSON knows no tuples
        object.__setattr__(self, "restarted_after", tuple(self.restarted_after))


def last_geometry(folder: Path, like: Structure) -> Structure | None:
    """Return the last geometry that a run wrote; None if there is none that can be used.

    VASP writes CONTCAR after each ionic step. It is empty before the first, and may be cut short
    where the run was killed.

    Parameters
    ----------
    folder
        Where VASP ran.
    like
        The crystal it was given: another composition or number of atoms is not trusted.
    """
    for name in ("CONTCAR", "CONTCAR.gz"):
        path = folder / name
        if not path.is_file() or path.stat().st_size == 0:
            continue
        try:
            found = Structure.from_file(path)
        except Exception:  # pymatgen fails in many ways on a file cut short
            return None
        mine, theirs = found.composition, like.composition
        same = mine.element_composition.almost_equals(theirs.element_composition)
        sound = bool(np.all(np.isfinite(found.frac_coords))) and math.isfinite(found.volume)
        return found if same and sound and found.volume > 0 else None
    return None


def earlier_launches(folder: Path) -> list[Path]:
    """Return the folders of earlier launches of this firework in which VASP had begun, in order.

    FireWorks writes its document of the job into the launch folder. A rerun, whether asked for or
    after a lost run, keeps the launches that came before as archived ones.

    Parameters
    ----------
    folder
        The folder of this launch.
    """
    try:
        document = json.loads((folder / "FW.json").read_text())
    except (OSError, ValueError):
        return []
    found = []
    for launch in document.get("archived_launches") or []:
        place = Path(str(launch.get("launch_dir") or ""))
        begun = any((place / name).is_file() for name in ("OUTCAR", "OUTCAR.gz"))
        if begun and place.resolve() != folder.resolve() and place not in found:
            found.append(place)
    return found


def seconds_left() -> int | None:
    """Return how long the SLURM job around this process may still run (s); None without SLURM."""
    end = os.environ.get("SLURM_JOB_END_TIME", "")
    if end.isdigit():
        return max(int(end) - int(time.time()), 0)
    job = os.environ.get("SLURM_JOB_ID", "")
    if not job.isdigit():
        return None
    try:
        answer = subprocess.run(
            ["squeue", "--noheader", "--job", job, "--format", "%L"],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return _seconds(answer.strip())


def _seconds(text: str) -> int | None:
    # SLURM's D-HH:MM:SS, HH:MM:SS or MM:SS; words such as UNLIMITED have no number.
    days, _, rest = text.rpartition("-")
    parts = rest.split(":")
    if not all(part.isdigit() for part in parts) or not (days.isdigit() or not days):
        return None
    seconds = 0
    for part in parts:
        seconds = 60 * seconds + int(part)
    return seconds + 86400 * int(days or 0)
