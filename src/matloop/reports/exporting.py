"""Exports: candidates of a campaign as CIF, extxyz, JSON, CSV or Parquet."""

from __future__ import annotations

import csv
import json
import math
import re
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from matloop.atomic import whole_file
from matloop.documents.base import Scalar
from matloop.documents.candidate import Quantity
from matloop.errors import ConfigurationError
from matloop.ledger.interface import Ledger
from matloop.reports.discoveries import judge, reference_crystals, utilities_of
from matloop.reports.history import Followed, read_history, read_phases
from matloop.reports.pareto import pareto_front
from matloop.reports.stability import Energies, final_phases
from matloop.structures.geometry import objection

Format = Literal["cif", "extxyz", "json", "csv", "parquet"]
Selection = Literal["all", "passed", "novel", "stable", "discoveries", "front"]

ON_HULL = 0.001
"""Distance to the final hull below which a crystal counts as stable (eV/atom); relaxations that
stop at 0.1 eV/Å leave about as much undecided."""


@dataclass(frozen=True)
class Exported:
    """A candidate ready to be written.

    Attributes
    ----------
    followed
        The candidate and its history.
    quantities
        All that is known of it, with the distance to the final hull.
    utility
        Utility with those quantities; None where one is missing. With several goals it is less the
        number of relaxed candidates that dominate it.
    discovery
        Whether it is a discovery.
    """

    followed: Followed
    quantities: dict[str, Quantity]
    utility: float | None
    discovery: bool

    @property
    def name(self) -> str:
        """Candidate id."""
        return self.followed.candidate_id

    @property
    def formula(self) -> str:
        """Reduced formula."""
        return str(self.followed.final.structure.composition.reduced_formula)


def select(ledger: Ledger, campaign_id: str, selection: Selection) -> list[Exported]:
    """Return candidates of a campaign, in the order they were proposed.

    Parameters
    ----------
    selection
        ``all`` candidates; those that ``passed`` the last stage; of these, ``novel`` match neither
        a reference phase nor one another, and ``stable`` lie on the final hull; ``discoveries`` as
        the report counts them; the Pareto ``front`` of several goals, whatever stage it passed.

    Raises
    ------
    LedgerError
        If the ledger holds no such campaign, or it has not started.
    """
    history = read_history(ledger, campaign_id)
    resources = history.states[-1].resources
    hulls = [read_phases(ledger, resources.get(level.resource)) for level in history.levels]
    energies = Energies(final_phases(history, hulls[-1]))
    references = reference_crystals(*hulls)
    discoveries = set(judge(history, references, energies).discoveries)
    chosen = history.candidates
    if selection == "discoveries":
        chosen = tuple(item for item in chosen if item.candidate_id in discoveries)
    elif selection != "all":
        last = history.record.campaign.stages[-1].name
        chosen = tuple(item for item in chosen if item.passed(last))
    if selection == "novel":
        new = []
        for item in chosen:
            structure = item.final.structure
            if references.match(structure) is None:
                references.add(item.candidate_id, structure)
                new.append(item)
        chosen = tuple(new)
    if selection == "front":
        front = pareto_front(history, discoveries, references, energies)
        names = {point.candidate_id for point in front.points} if front else set()
        chosen = tuple(item for item in history.candidates if item.candidate_id in names)
    if selection == "stable":
        chosen = tuple(item for item in chosen if _is_stable(item, energies))
    utilities = utilities_of(history, energies)
    return [_exported(item, utilities, energies, discoveries) for item in chosen]


def export(candidates: Sequence[Exported], form: Format, path: Path) -> int:
    """Write candidates so that the target is there whole or not at all.

    Parameters
    ----------
    candidates
        What to write, as `select` returns it.
    form
        ``cif`` writes a folder with one file per candidate, or a zip archive of the same if `path`
        ends in .zip; every other format is one file, which replaces an older one.
    path
        Target.

    Returns
    -------
    int
        How many were written: CIF and extxyz hold crystals only, so that proposals that are none,
        disordered or with coordinates that are no numbers, are left out of them.

    Raises
    ------
    ConfigurationError
        If the format is unknown, or the target folder is there and not empty.
    """
    if form not in get_args(Format):
        known = ", ".join(get_args(Format))
        raise ConfigurationError(f"{form!r} is no export format; choose from {known}")
    if form in ("cif", "extxyz"):
        candidates = [c for c in candidates if objection(c.followed.final.structure) is None]
    if form == "cif" and path.suffix != ".zip":
        _write_folder(candidates, path)
        return len(candidates)
    writers: dict[str, Callable[[Sequence[Exported], Path], None]] = {
        "cif": _write_zip,
        "extxyz": _write_extxyz,
        "json": _write_json,
        "csv": _write_csv,
        "parquet": _write_parquet,
    }
    if path.is_dir():
        raise ConfigurationError(f"{path} is a folder; name a file")
    with whole_file(path) as temporary:
        writers[form](candidates, temporary)
    return len(candidates)


def record(item: Exported) -> dict[str, Any]:
    """Return everything known of a candidate as JSON-serialisable data."""
    source, final = item.followed.record, item.followed.final
    return {
        "candidate_id": item.name,
        "formula": item.formula,
        "campaign_id": source.campaign_id,
        "iteration": source.iteration,
        "index": source.index,
        "discovery": item.discovery,
        "utility": item.utility,
        "quantities": {name: q.model_dump() for name, q in item.quantities.items()},
        "structure": final.model_dump(mode="json")["structure"],
        "proposed": source.candidate.model_dump(mode="json")["structure"],
        "origin": source.candidate.origin.model_dump(mode="json"),
        "evaluations": [
            {
                "key": result.key,
                "evaluator": result.evaluator,
                **result.evaluation.model_dump(mode="json", exclude={"candidate_id", "structure"}),
            }
            for result in item.followed.evaluations
        ],
        "decisions": [
            decision.model_dump(mode="json", exclude={"campaign_id", "candidate_id"})
            for decision in item.followed.decisions.values()
        ],
    }


def table(candidates: Sequence[Exported]) -> tuple[dict[str, str], list[dict[str, Scalar]]]:
    """Return candidates as a flat table: the unit of each column, and one row per candidate.

    A quantity that comes in two units has two columns.
    """
    units = dict.fromkeys(
        (
            "candidate_id", "formula", "generator", "iteration", "index", "stage", "outcome",
            "reason", "discovery", "utility", "atoms",
        ),
        "",
    )  # fmt: skip
    rows: list[dict[str, Scalar]] = []
    for item in candidates:
        source = item.followed.record
        last = list(item.followed.decisions.values())[-1:]
        row: dict[str, Scalar] = {
            "candidate_id": item.name,
            "formula": item.formula,
            "generator": source.candidate.origin.generator,
            "iteration": source.iteration,
            "index": source.index,
            "stage": last[0].stage if last else "",
            "outcome": last[0].outcome if last else "",
            "reason": last[0].reason if last else "",
            "discovery": item.discovery,
            "utility": item.utility,
            "atoms": len(item.followed.final.structure),
        }
        for name, quantity in item.quantities.items():
            column = name
            if units.setdefault(name, quantity.unit) != quantity.unit:
                column = f"{name} in {quantity.unit}"
                units[column] = quantity.unit
            row[column] = quantity.value
            if quantity.uncertainty is not None:
                units[f"{column} uncertainty"] = quantity.unit
                row[f"{column} uncertainty"] = quantity.uncertainty
        rows.append(row)
    return units, rows


def _is_stable(item: Followed, energies: Energies) -> bool:
    distance = energies.above_hull(item)
    return distance is not None and distance <= ON_HULL


def _exported(
    item: Followed, utilities: Mapping[str, float], energies: Energies, discoveries: set[str]
) -> Exported:
    name = item.candidate_id
    return Exported(item, energies.refreshed(item), utilities.get(name), name in discoveries)


def _cif(item: Exported) -> tuple[str, str]:
    """Return file name and text."""
    from pymatgen.io.cif import CifWriter

    name = re.sub(r"[^\w.-]", "_", f"{item.formula}_{item.name}.cif")
    return name, str(CifWriter(item.followed.final.structure))


def _write_folder(candidates: Sequence[Exported], path: Path) -> None:
    if path.is_file():
        raise ConfigurationError(
            f"{path} is a file; CIF needs a folder, or a name that ends in .zip"
        )
    if path.exists() and any(path.iterdir()):
        raise ConfigurationError(f"{path} is there already and not empty; name a new folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        for item in candidates:
            name, text = _cif(item)
            (temporary / name).write_text(text)
        temporary.chmod(0o755)
        temporary.replace(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _write_zip(candidates: Sequence[Exported], path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for item in candidates:
            archive.writestr(*_cif(item))


def _write_extxyz(candidates: Sequence[Exported], path: Path) -> None:
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.io import write
    from pymatgen.io.ase import AseAtomsAdaptor

    images = []
    for item in candidates:
        atoms = AseAtomsAdaptor.get_atoms(item.followed.final.structure, msonable=False)
        atoms.info = {
            "candidate_id": item.name,
            "formula": item.formula,
            "generator": item.followed.record.candidate.origin.generator,
            **{name: quantity.value for name, quantity in item.quantities.items()},
        }
        energy = item.quantities.get("energy_per_atom")
        if energy is not None:
            atoms.info["theory"] = energy.theory or ""
            atoms.calc = SinglePointCalculator(atoms, energy=energy.value * len(atoms))
        images.append(atoms)
    with path.open("w") as file:
        if images:
            write(file, images, format="extxyz")


def _write_json(candidates: Sequence[Exported], path: Path) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write("[")
        for number, item in enumerate(candidates):
            file.write(",\n" if number else "\n")
            file.write(_json_text(record(item)))
        file.write("\n]\n")


def _json_text(value: Any) -> str:
    """Return JSON that every parser reads: it has no word for what is no number."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except ValueError:
        return json.dumps(_without_nan(value), ensure_ascii=False)


def _without_nan(value: Any) -> Any:
    match value:
        case float() if not math.isfinite(value):
            return None
        case dict():
            return {key: _without_nan(item) for key, item in value.items()}
        case list() | tuple():
            return [_without_nan(item) for item in value]
    return value


def _write_csv(candidates: Sequence[Exported], path: Path) -> None:
    units, rows = table(candidates)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([f"{name} ({unit})" if unit else name for name, unit in units.items()])
        writer.writerows([row.get(name) for name in units] for row in rows)


def _write_parquet(candidates: Sequence[Exported], path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    units, rows = table(candidates)
    kinds = {
        "iteration": pa.int64(), "index": pa.int64(), "atoms": pa.int64(), "discovery": pa.bool_(),
    }  # fmt: skip
    texts = ("candidate_id", "formula", "generator", "stage", "outcome", "reason")
    kinds |= dict.fromkeys(texts, pa.string())
    schema = pa.schema(
        [
            pa.field(name, kinds.get(name, pa.float64()), metadata={"unit": unit})
            for name, unit in units.items()
        ]
    )
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)
