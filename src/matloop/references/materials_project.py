"""Crystals and energies of a chemical system from the Materials Project, kept on disk."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, Protocol

from pymatgen.core import Structure

from matloop.atomic import whole_file
from matloop.documents.base import digest
from matloop.documents.phase import Known
from matloop.errors import ConfigurationError, MissingDependencyError
from matloop.references.entries import Imported, reference_entries
from matloop.settings import settings
from matloop.structures.entry_files import computed_entries
from matloop.structures.reading import ReadResult, SetAside, objection

MAX_HULL_DISTANCE = 0.05
"""Crystals further above the Materials Project hull (eV/atom) are not fetched. Twice the error of
DFT formation enthalpies between oxides (0.024 eV/atom, Hautier et al., Phys. Rev. B 85, 155208)."""

MAX_SITES = 60
"""Larger cells (sites) are set aside: relaxing one costs as much as a whole batch of candidates."""

_MAX_SYSTEMS = 1023  # chemical systems per query: all those of ten elements
_SYSTEMS_PER_REQUEST = 60  # keeps the address of a request below the usual limit


class Client(Protocol):
    """What is used of `mp_api.client.MPRester`."""

    materials: Any

    def get_database_version(self) -> str:
        """Return the version of the database, such as ``2025.09.25``."""
        ...


def fetch(
    elements: Sequence[str],
    most_elements: int,
    *,
    client: Client | None = None,
    cache: Path | None = None,
) -> ReadResult:
    """Return the crystals of all systems of some elements, without energies.

    Energies stay behind on purpose: they belong to another level of theory than the campaign's own
    method, which relaxes the crystals again. An answer is stored with its database version and used
    again by every later call; delete the file to ask anew.

    Parameters
    ----------
    elements
        Elements of the chemical space.
    most_elements
        Largest number of different elements in a crystal.
    client
        Client to ask; by default `MPRester` with the key of the settings.
    cache
        Folder of stored answers; by default ``~/.cache/matloop/materials_project``.

    Raises
    ------
    ConfigurationError
        If no key is set, or the elements span more than 1023 systems.
    MissingDependencyError
        If `mp_api` is not installed.
    """
    systems = _systems(elements, most_elements)
    file = _file(cache, elements, digest([systems, MAX_HULL_DISTANCE]))
    answer = _stored(file, "structures")
    if answer is None:
        answer = _ask(client or _client(), systems)
        _keep(file, answer)
    return _crystals(answer)


def fetch_entries(
    elements: Sequence[str],
    most_elements: int,
    *,
    client: Client | None = None,
    cache: Path | None = None,
) -> Imported:
    """Return the crystals of all systems of some elements with their GGA and GGA+U energies.

    The energies are put on one scale by the scheme ``mp2020`` of the installed pymatgen, as a
    user's own MP-compatible calculations are: on one hull, one version of the corrections. Other
    run types stay behind. An answer is stored with its database version and used again.

    Parameters
    ----------
    elements, most_elements, client, cache
        As for `fetch`.

    Raises
    ------
    ConfigurationError
        If no key is set, or the elements span more than 1023 systems.
    MissingDependencyError
        If `mp_api` is not installed.
    """
    systems = _systems(elements, most_elements)
    file = _file(cache, elements, digest([systems, MAX_HULL_DISTANCE, "entries"]))
    answer = _stored(file, "entries")
    if answer is None:
        answer = _ask_entries(client or _client(), systems)
        _keep(file, answer)
    version = str(answer["database_version"])
    rows = computed_entries(answer["entries"], file)
    return reference_entries(
        rows, source="Materials Project", database_version=version, mixing="mp2020"
    )


def _systems(elements: Sequence[str], most_elements: int) -> list[str]:
    systems = [
        "-".join(chosen)
        for size in range(1, most_elements + 1)
        for chosen in combinations(sorted(elements), size)
    ]
    if len(systems) > _MAX_SYSTEMS:
        raise ConfigurationError(
            f"the chemical space spans {len(systems)} systems, too many for one query of the "
            f"Materials Project ({_MAX_SYSTEMS}): lower space.max_elements or name fewer elements"
        )
    return systems


def _file(cache: Path | None, elements: Sequence[str], name: str) -> Path:
    folder = cache or Path.home() / ".cache/matloop/materials_project"
    return folder / f"{'-'.join(sorted(elements)[:6])}-{name[:16]}.json"


def _keep(file: Path, answer: dict[str, Any]) -> None:
    with whole_file(file) as partial:
        partial.write_text(json.dumps(answer), encoding="utf-8")


def _client() -> Client:
    key = settings().mp_api_key
    if key is None:
        raise ConfigurationError(
            "references.materials_project needs a key: set the environment variable MP_API_KEY "
            "(free, from next-gen.materialsproject.org/api), or turn the field off"
        )
    try:
        from mp_api.client import MPRester
    except ImportError as error:
        raise MissingDependencyError(
            "references.materials_project needs the package mp-api: pip install 'matloop[mp]'"
        ) from error
    client: Client = MPRester(key.get_secret_value())
    return client


def _ask(client: Client, systems: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for start in range(0, len(systems), _SYSTEMS_PER_REQUEST):
        documents = client.materials.summary.search(
            chemsys=list(systems[start : start + _SYSTEMS_PER_REQUEST]),
            energy_above_hull=(0, MAX_HULL_DISTANCE),
            deprecated=False,
            fields=["material_id", "structure"],
        )
        for document in documents:
            found[str(document.material_id)] = document.structure.as_dict(verbosity=0)
    return {
        "database_version": client.get_database_version(),
        "structures": {name: found[name] for name in sorted(found)},
    }


def _ask_entries(client: Client, systems: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for start in range(0, len(systems), _SYSTEMS_PER_REQUEST):
        documents = client.materials.thermo.search(
            chemsys=list(systems[start : start + _SYSTEMS_PER_REQUEST]),
            thermo_types=["GGA_GGA+U"],
            energy_above_hull=(0, MAX_HULL_DISTANCE),
            fields=["material_id", "entries"],
        )
        for document in documents:
            for run_type, entry in sorted(document.entries.items()):
                content = entry if isinstance(entry, dict) else entry.as_dict()
                found[f"{document.material_id}-{getattr(run_type, 'value', run_type)}"] = content
    return {
        "database_version": client.get_database_version(),
        "entries": {name: found[name] for name in sorted(found)},
    }


def _stored(file: Path, part: str) -> dict[str, Any] | None:
    """Return a stored answer; None if there is none, or it is damaged and worth asking again."""
    try:
        answer = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return answer if isinstance(answer, dict) and part in answer else None


def _crystals(answer: dict[str, Any]) -> ReadResult:
    crystals: list[Known] = []
    set_aside: list[SetAside] = []
    source = f"Materials Project {answer['database_version']}"
    for name, content in answer["structures"].items():
        structure = Structure.from_dict(content)
        structure.remove_oxidation_states()
        bare = Structure(
            structure.lattice, [site.specie for site in structure], structure.frac_coords
        )
        reason = objection(bare)
        if reason is None and len(bare) > MAX_SITES:
            reason = f"it has {len(bare)} sites; at most {MAX_SITES} are taken"
        if reason is not None:
            set_aside.append(SetAside(f"{source}: {name}", reason))
            continue
        formula = bare.composition.reduced_formula
        crystals.append(
            Known(known_id=f"{formula}-{name}", structure=bare, source=f"{source}: {name}")
        )
    return ReadResult(tuple(crystals), tuple(set_aside))
