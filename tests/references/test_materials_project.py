"""The Materials Project: what is asked, kept and refused, with a client of recorded shape."""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pymatgen.analysis.compatibility import MaterialsProject2020Compatibility
from pymatgen.core import Lattice, Structure
from pymatgen.core.entries import ComputedStructureEntry

from matloop.documents.campaign import References
from matloop.documents.space import ChemicalSpace
from matloop.errors import ConfigurationError, MissingDependencyError
from matloop.references import materials_project
from matloop.references.gathering import gather
from matloop.references.materials_project import fetch, fetch_entries
from matloop.settings import settings


def cubic(length: float, species: list[str]) -> Structure:
    """Return a CsCl-like crystal, or a simple cubic one."""
    places = [[0, 0, 0], [0.5, 0.5, 0.5]][: len(species)]
    return Structure(Lattice.cubic(length), species, places)


class Recorded:
    """Answers as `MPRester` does: documents with `material_id` and `structure`."""

    def __init__(self) -> None:
        self.queries: list[dict[str, Any]] = []
        summary = SimpleNamespace(search=self.search)
        thermo = SimpleNamespace(search=self.search_thermo)
        self.materials = SimpleNamespace(summary=summary, thermo=thermo)

    def get_database_version(self) -> str:
        """Return a version as the database writes it."""
        return "2025.09.25"

    def search(self, **query: Any) -> list[SimpleNamespace]:
        """Return what the database holds of the systems asked for."""
        self.queries.append(query)
        held = {
            "mp-2": cubic(3.0, ["Al", "Ni"]),
            "mp-1": cubic(2.9, ["Al", "Ni"]).add_oxidation_state_by_element({"Al": 3, "Ni": -3}),
            "mp-3": cubic(4.0, ["Al"]) * (5, 5, 3),
            "mp-4": cubic(3.1, ["Cu"]),
        }
        return [
            SimpleNamespace(material_id=name, structure=structure)
            for name, structure in held.items()
            if structure.chemical_system in query["chemsys"]
        ]

    def search_thermo(self, **query: Any) -> list[SimpleNamespace]:
        """Return entries by run type, corrected by an older version, as the database does."""
        self.queries.append(query)
        return [
            SimpleNamespace(material_id=name, entries={entry.parameters["run_type"]: entry})
            for name, entry in thermo_entries().items()
            if entry.structure.chemical_system in query["chemsys"]
        ]


def thermo_entries() -> dict[str, ComputedStructureEntry]:
    """Return entries as the database holds them: GGA and GGA+U."""
    symbols = {"Fe": "Fe_pv", "O": "O"}

    def entry(species: list[str], energy: float, u: float) -> ComputedStructureEntry:
        titles = [{"titel": f"PAW_PBE {symbols[name]} 08Apr2002"} for name in species]
        parameters = {
            "run_type": "GGA+U" if u else "GGA",
            "hubbards": {"Fe": u} if u else {},
            "potcar_spec": titles,
        }
        return ComputedStructureEntry(
            cubic(3.0, species), energy, correction=-0.1 if u else 0.0, parameters=parameters
        )

    return {
        "mp-9": entry(["O"], -4.9, 0),
        "mp-13": entry(["Fe"], -8.3, 0),
        "mp-7": entry(["Fe", "O"], -13.0, 5.3),
    }


@pytest.fixture
def no_key(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run without any key in the environment."""
    for name in ("MATLOOP_MP_API_KEY", "MP_API_KEY", "PMG_MAPI_KEY"):
        monkeypatch.delenv(name, raising=False)
    settings.cache_clear()
    yield
    settings.cache_clear()


def test_crystals_carry_no_energy_and_name_their_source(tmp_path: Path) -> None:
    """Bare crystals come back in the order of ids, with the database's version as source."""
    found = fetch(("Ni", "Al"), 2, client=Recorded(), cache=tmp_path)
    assert [crystal.known_id for crystal in found.crystals] == ["AlNi-mp-1", "AlNi-mp-2"]
    assert found.crystals[0].source == "Materials Project 2025.09.25: mp-1"
    assert all(site.species_string in {"Al", "Ni"} for site in found.crystals[0].structure)


def test_large_cells_are_set_aside_with_a_reason(tmp_path: Path) -> None:
    """A cell too large to relax is named and the rest goes on."""
    (aside,) = fetch(("Ni", "Al"), 2, client=Recorded(), cache=tmp_path).set_aside
    assert aside.name.endswith("mp-3")
    assert "75 sites" in aside.reason


def test_all_systems_are_asked_for_once(tmp_path: Path) -> None:
    """Every subsystem is in the query, and a second call needs no client at all."""
    client = Recorded()
    first = fetch(("Ni", "Al"), 2, client=client, cache=tmp_path)
    assert client.queries[0]["chemsys"] == ["Al", "Ni", "Al-Ni"]
    assert client.queries[0]["energy_above_hull"] == (0, materials_project.MAX_HULL_DISTANCE)
    second = fetch(("Al", "Ni"), 2, client=client, cache=tmp_path)
    assert len(client.queries) == 1
    assert [c.structure for c in second.crystals] == [c.structure for c in first.crystals]


def test_a_damaged_answer_is_asked_for_again(tmp_path: Path) -> None:
    """A stored answer cut short is replaced; it never becomes an empty reference set."""
    client = Recorded()
    fetch(("Ni", "Al"), 2, client=client, cache=tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_text(file.read_text()[:100])
    assert len(fetch(("Ni", "Al"), 2, client=client, cache=tmp_path).crystals) == 2
    assert len(client.queries) == 2


def test_many_systems_are_asked_for_in_parts(tmp_path: Path) -> None:
    """Sixty-three systems of six elements take two requests; those of eleven are refused."""
    client = Recorded()
    fetch(("Al", "Ni", "Cu", "Ti", "O", "N"), 6, client=client, cache=tmp_path)
    assert [len(query["chemsys"]) for query in client.queries] == [60, 3]
    many = ("H", "Li", "Na", "K", "Be", "Mg", "Ca", "Al", "Si", "O", "N")
    with pytest.raises(ConfigurationError, match=r"space\.max_elements"):
        fetch(many, 11, client=client, cache=tmp_path)


@pytest.mark.usefixtures("no_key")
def test_a_missing_key_names_the_variable(tmp_path: Path) -> None:
    """Without a key the error says which variable to set."""
    with pytest.raises(ConfigurationError, match="MP_API_KEY"):
        fetch(("Al",), 1, cache=tmp_path)


@pytest.mark.usefixtures("no_key")
def test_a_missing_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a key but without mp-api the error names the extra that brings it."""
    monkeypatch.setenv("MP_API_KEY", "0" * 32)
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("mp_api"):
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingDependencyError, match=r"matloop\[mp\]"):
        fetch(("Al",), 1, cache=tmp_path)


def test_fetched_phases_join_the_hull(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A campaign that asks gets the fetched crystals, and the embedded ones they do not repeat."""
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    references = References(materials_project=True)
    found = gather(references, ChemicalSpace(system="Al-Ni"), tmp_path, client=Recorded())
    names = {phase.known_id for phase in found.phases}
    assert "AlNi-mp-1" in names
    assert "AlNi-mp-2" not in names  # the same crystal, only larger
    assert "AlNi-cscl" not in names
    assert "Al3Ni-cementite" in names
    assert list((tmp_path / ".cache/matloop/materials_project").glob("Al-Ni-*.json"))


def test_energies_come_at_one_level_of_theory_with_the_version(tmp_path: Path) -> None:
    """GGA and GGA+U are put on one scale by the installed scheme; the answer is stored."""
    client = Recorded()
    found = fetch_entries(("O", "Fe"), 2, client=client, cache=tmp_path)
    assert found.set_aside == []
    assert [one.entry_id for one in found.entries] == ["mp-13-GGA", "mp-7-GGA+U", "mp-9-GGA"]
    assert {one.database_version for one in found.entries} == {"2025.09.25"}
    assert {one.source for one in found.entries} == {"Materials Project"}
    assert len({one.theory.key for one in found.entries}) == 1
    (corrected,) = MaterialsProject2020Compatibility().process_entries([thermo_entries()["mp-7"]])
    assert found.entries[1].energy == corrected.energy_per_atom
    assert client.queries[0]["thermo_types"] == ["GGA_GGA+U"]
    again = fetch_entries(("Fe", "O"), 2, cache=tmp_path)
    assert again == found
    assert len(client.queries) == 1
