"""Crystals into files that other programs read: CIF, extxyz, JSON, CSV."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path

from pymatgen.core import Structure

from matloop.atomic import whole_file


def write_structures(path: Path, structures: Sequence[Structure]) -> None:
    """Write crystals, whole or not at all.

    Parameters
    ----------
    path
        ``.zip`` of CIFs, ``.json`` list of structures, ``.extxyz``, ``.csv`` with a column ``cif``;
        a name without ending is a folder of CIFs.
    structures
        The crystals.

    Raises
    ------
    ValueError
        If the ending is none of these.
    OSError
        If it cannot be written.
    """
    names = [f"{n:05d}-{one.composition.reduced_formula}" for n, one in enumerate(structures)]
    if path.suffix == "":
        path.mkdir(parents=True, exist_ok=True)
        for name, structure in zip(names, structures, strict=True):
            with whole_file(path / f"{name}.cif") as partial:
                partial.write_text(_cif(structure))
        return
    content = _content(path.suffix, names, structures)
    with whole_file(path) as partial:
        partial.write_bytes(content)


def _content(suffix: str, names: Sequence[str], structures: Sequence[Structure]) -> bytes:
    if suffix == ".json":
        return json.dumps([one.as_dict() for one in structures]).encode()
    if suffix == ".zip":
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, structure in zip(names, structures, strict=True):
                archive.writestr(zipfile.ZipInfo(f"{name}.cif"), _cif(structure))
        return buffer.getvalue()
    if suffix == ".csv":
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["name", "formula", "cif"])
        for name, structure in zip(names, structures, strict=True):
            writer.writerow([name, structure.composition.reduced_formula, _cif(structure)])
        return text.getvalue().encode()
    if suffix == ".extxyz":
        from ase.io import write
        from pymatgen.io.ase import AseAtomsAdaptor

        text = io.StringIO()
        frames = [AseAtomsAdaptor.get_atoms(one, msonable=False) for one in structures]
        write(text, frames, format="extxyz")
        return text.getvalue().encode()
    raise ValueError(f"{suffix} is none of .zip, .json, .csv, .extxyz")


def _cif(structure: Structure) -> str:
    from pymatgen.io.cif import CifWriter

    return str(CifWriter(structure))
