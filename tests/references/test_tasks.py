"""Task documents of atomate2 as reference phases: emmet's own documents, stores, failures."""

from __future__ import annotations

import copy
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest
from maggma.stores import MemoryStore
from pymatgen.core import Lattice, Structure
from pymatgen.core.entries import ComputedEntry
from pymongo import MongoClient

from matloop.errors import ConfigurationError
from matloop.references.tasks import (
    task_entries,
    tasks_from_file,
    tasks_from_mongodb,
    tasks_from_store,
)
from matloop.testing.mongodb.process import ServerProcess

RECORDED = Path(os.environ.get("MATLOOP_TEST_DATA", "no folder")) / "vasp_recorded.tar.xz"


def task(name: str, energy: float = -10.84, **changes: Any) -> dict[str, Any]:
    """Return a task document of silicon, with the fields that emmet's `TaskDoc` has."""
    structure = Structure(Lattice.cubic(3.9), ["Si", "Si"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    parameters = {
        "run_type": "GGA",
        "hubbards": {},
        "is_hubbard": False,
        "potcar_spec": [{"titel": "PAW_PBE Si 05Jan2001", "hash": None}],
    }
    entry = ComputedEntry(structure.composition, energy, parameters=parameters)
    incar = {"ENCUT": 520, "KSPACING": 0.22, "ISMEAR": 0, "SIGMA": 0.05}
    return {
        "task_id": name,
        "state": "successful",
        "task_type": "Static",
        "entry": entry.as_dict(),
        "structure": structure.as_dict(),
        "output": {"energy": energy},
        "calcs_reversed": [{"vasp_version": "6.3.2", "input": {"incar": incar}}],
        **changes,
    }


def test_a_task_brings_its_level_of_theory() -> None:
    """Energy per atom, version, cutoff, spacing and smearing come from the document."""
    found = task_entries([task("mp-1")], source="tasks")
    (one,) = found.entries
    assert (one.entry_id, one.energy, one.source) == ("mp-1", -5.42, "tasks")
    assert (one.theory.code, one.theory.version, one.theory.model) == ("vasp", "6.3.2", "GGA")
    dft = one.theory.dft
    assert dft is not None
    assert (dft.cutoff, dft.k_density) == (520, "KSPACING 0.22")
    assert dft.smearing == "ISMEAR 0, SIGMA 0.05 eV"
    assert dft.pseudopotentials == {"Si": "PBE Si 05Jan2001"}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"state": "failed"}, "its state is failed"),
        ({"task_type": "NSCF Line"}, "it is a NSCF Line"),
        ({"entry": None}, "no entry"),
        ({"structure": None}, "no structure"),
        ({"entry": {"energy": 1.0}}, "cannot be read (KeyError)"),
        ({"entry": {"energy": float("nan"), "composition": {"Si": 1}}}, "no finite number"),
    ],
)
def test_a_task_that_cannot_be_used_is_named(changes: dict[str, Any], reason: str) -> None:
    """Failed runs, other task types and damaged documents are set aside; the rest goes on."""
    found = task_entries([task("bad", **changes), task("good")], source="tasks")
    assert [one.entry_id for one in found.entries] == ["good"]
    (aside,) = found.set_aside
    assert aside.name == "tasks: bad"
    assert reason in aside.reason


def test_a_store_of_tasks_and_a_job_store_give_the_same() -> None:
    """Documents may stand alone or inside job outputs, of which the last replaces the others."""
    alone, jobs = MemoryStore(key="task_id"), MemoryStore(key="key")
    alone.connect()
    jobs.connect()
    alone.update([task("b", -10.0), task("a")])
    wrapped = [
        {"key": "1", "uuid": "b", "index": 1, "output": task("b", -9.0, task_id=None)},
        {"key": "2", "uuid": "b", "index": 2, "output": task("b", -10.0, task_id=None)},
        {"key": "3", "uuid": "a", "index": 1, "output": task("a", task_id=None)},
    ]
    jobs.update(copy.deepcopy(wrapped))
    first = tasks_from_store(alone, source="tasks")
    second = tasks_from_store(jobs, source="tasks")
    assert [(one.entry_id, one.energy) for one in first.entries] == [("a", -5.42), ("b", -5.0)]
    assert first == second
    chosen = tasks_from_store(alone, source="tasks", criteria={"task_id": "a"})
    assert [one.entry_id for one in chosen.entries] == ["a"]
    with pytest.raises(ConfigurationError, match="holds no task document"):
        tasks_from_store(alone, source="tasks", criteria={"task_id": "none"})


def test_a_file_of_tasks(tmp_path: Path) -> None:
    """A JSON list is read; what is no JSON is one line with the file."""
    file = tmp_path / "tasks.json"
    file.write_text(json.dumps([task("a"), task("b")]))
    assert [one.source for one in tasks_from_file(file).entries] == [str(file)] * 2
    file.write_text("[{")
    with pytest.raises(ConfigurationError, match="it is no JSON"):
        tasks_from_file(file)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        tasks_from_file(tmp_path / "gone.json")


def test_the_address_of_the_server_stays_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that cannot be read is named by its variable; the password appears nowhere."""
    with pytest.raises(ConfigurationError, match="MINE is not set"):
        tasks_from_mongodb("db", "tasks", uri_variable="MINE")
    monkeypatch.setenv("MINE", "mongodb://me:swordfish@localhost:notaport/")
    with pytest.raises(ConfigurationError) as refused:
        tasks_from_mongodb("db", "tasks", uri_variable="MINE")
    assert "named by MINE" in str(refused.value)
    assert "swordfish" not in str(refused.value)
    assert refused.value.__suppress_context__
    with pytest.raises(ConfigurationError, match="not the URI itself") as refused:
        tasks_from_mongodb("db", "tasks", uri_variable="mongodb://me:swordfish@localhost/")
    assert "swordfish" not in str(refused.value)


@pytest.mark.mongo
def test_a_collection_on_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over the MongoDB protocol: documents chosen by a query come back, in the order of ids."""
    with ServerProcess(tmp_path / "journal") as server:
        client: MongoClient[dict[str, Any]] = MongoClient(server.uri)
        energies = {"c": -9.0, "b": -10.0, "a": -8.0}
        client["runs"]["tasks"].insert_many([task(name, e) for name, e in energies.items()])
        client.close()
        monkeypatch.setenv("MINE", server.uri)
        found = tasks_from_mongodb(
            "runs", "tasks", uri_variable="MINE", criteria={"task_id": {"$in": ["b", "c"]}}
        )
        with pytest.raises(ConfigurationError, match=r"runs\.nothing holds no task document"):
            tasks_from_mongodb("runs", "nothing", uri_variable="MINE")
    assert [(one.entry_id, one.energy) for one in found.entries] == [("b", -5.0), ("c", -4.5)]
    assert found.entries[0].source == "runs.tasks"
    assert found.entries[0].theory.version == "6.3.2"


@pytest.mark.skipif(
    not RECORDED.exists(), reason="set MATLOOP_TEST_DATA to a folder with VASP runs"
)
def test_recorded_runs_become_reference_phases(tmp_path: Path) -> None:
    """What emmet makes of recorded runs, dumped as jobflow does: energy and settings of the run."""
    tasks = pytest.importorskip("emmet.core.tasks")
    from monty.json import jsanitize

    with tarfile.open(RECORDED) as archive:
        archive.extractall(tmp_path, filter="data")
    folder = tmp_path / "vasp/Si_double_relax/relax_2/outputs"
    document = tasks.TaskDoc.from_directory(folder)
    stored = jsanitize(document, strict=True, enum_values=True)
    found = task_entries([{"uuid": "x", "index": 1, "output": stored}], source="jobs")
    assert found.set_aside == []
    (one,) = found.entries
    assert one.energy == pytest.approx(document.structure_entry.energy_per_atom)
    assert one.structure == document.structure
    assert one.theory.version == document.vasp_version
    assert one.theory.dft is not None
    assert one.theory.dft.cutoff == 680
    assert one.theory.dft.pseudopotentials == {"Si": "PBE Si 05Jan2001"}
