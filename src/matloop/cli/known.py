"""`matloop known`: a library of known crystals that campaigns share."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated

import typer

from matloop.cli.terminal import stderr, stdout


def known(
    library: Annotated[
        Path, typer.Argument(help="Folder of the library; made if it is not there.")
    ],
    files: Annotated[
        list[Path] | None,
        typer.Argument(help="Structure files or folders to add: CIF, POSCAR, extxyz, JSON."),
    ] = None,
) -> None:
    """Add crystals to a library of known ones, or say how many it holds.

    Campaigns that name the folder under references.known take its crystals for known when they
    judge novelty; their energies are not needed. Adding the same files again changes nothing, and
    several processes may add at the same time.
    """
    from matloop.references.library import Library
    from matloop.structures.reading import read_structures

    shelf = Library(library)
    if files:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of CIF files, which are named below where unread
            read = read_structures(files)
        for name, reason in read.set_aside:
            stderr().print(f"{name} is set aside: {reason}", markup=False)
        added = shelf.add(read.crystals)
        stdout().print(f"{added} of {len(read.crystals)} crystals are new", markup=False)
    stdout().print(f"{library} holds {len(shelf)} crystals", markup=False)
