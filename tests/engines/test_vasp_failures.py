"""Failures that VASP users meet: each is a retry that custodian names, or a named verdict."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("atomate2")

from custodian.vasp.handlers import VaspErrorHandler

from matloop.engines.vasp.failures import Failure, Remedy, classify, handlers, remedies
from matloop.engines.vasp.words import WORDS

from .vasp_data import unpacked

PAGE = Path(__file__).resolve().parents[2] / "docs" / "dft-vasp.md"

BASE = {"INCAR": "INCAR", "KPOINTS": "KPOINTS", "POSCAR": "POSCAR"}
OWN = {  # messages recorded with an input of their own
    "vasp.algo_tet_only": {"INCAR": "INCAR.algo_tet_only"},
    "vasp.too_few_bands_round_error": {"INCAR": "INCAR.too_few_bands_round_error"},
}
FOLDERS = {
    "fermi_smearing": {}, "large_cell_real_optlay": {}, "poscar_error": {}, "positive_energy": {},
    "postprocess": {}, "potim": {}, "scan_metal": {}, "static_smearing": {}, "zpotrf": {},
    "zpotrf_small": {}, "lrf_comm": {}, "nonconv": {}, "bad_vasprun": {},
    "large_sigma": {"OUTCAR": "OUTCAR_fail_sigma_check.gz"},
    "too_few_bands": {"vasp.out": "vasp.too_few_bands"},
    "aliasing": {"vasp.out": "vasp.aliasing"},
}  # fmt: skip
UNCONVERGED = ("electronic", "ionic", "scan", "unconverged_unfixable")
NO_FAILURE = {"vasp.auto_nbands.gz"}  # a remark of VASP's, which custodian passes over
DIED = RuntimeError("custodian gave up")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = unpacked("vasp_failures.tar.xz", tmp_path_factory.mktemp("failures"))
    return next(path.parent for path in folder.rglob("vasp.brmix"))


def cases(data: Path) -> dict[str, dict[str, Path]]:
    """Return the files of each recorded failure, under the names they have in a folder of VASP."""
    found = {}
    for path in sorted(data.glob("vasp*.*")):
        if path.name.startswith("vasprun") or path.name in NO_FAILURE:
            continue
        files = {**BASE, **OWN.get(path.name, {})}
        found[path.name] = {k: data / v for k, v in files.items()} | {"vasp.out": path}
    for path in sorted(data.glob("std_err.txt.*")):
        found[path.name] = {k: data / v for k, v in BASE.items()} | {"std_err.txt": path}
    for name, renamed in FOLDERS.items():
        folder = data / name
        files = {path.name: path for path in sorted(folder.iterdir()) if path.is_file()}
        found[name] = files | {target: folder / source for target, source in renamed.items()}
    for name in UNCONVERGED:
        folder = data / "unconverged"
        files = {k: folder / k for k in ("INCAR", "KPOINTS", "POSCAR", "CONTCAR")}
        found[f"vasprun.xml.{name}"] = files | {"vasprun.xml": folder / f"vasprun.xml.{name}"}
    return found


def lay_out(files: dict[str, Path], target: Path) -> Path:
    target.mkdir(parents=True)
    for name, path in files.items():
        content = path.read_bytes()
        packed = content[:2] == b"\x1f\x8b"
        (target / name).write_bytes(gzip.decompress(content) if packed else content)
    return target


@pytest.fixture(scope="module")
def outcomes(
    data: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[list[Remedy], Failure]]:
    root = tmp_path_factory.mktemp("cases")
    found = {}
    for name, files in cases(data).items():
        folder = lay_out(files, root / name)
        failure = classify(folder, None, DIED)
        assert failure is not None
        found[name] = remedies(folder), failure
    return found


def test_every_recorded_failure_is_named(
    outcomes: dict[str, tuple[list[Remedy], Failure]],
) -> None:
    """None of them ends as output that could not be read: each has a kind with words of its own."""
    assert len(outcomes) > 40
    for name, (_, failure) in outcomes.items():
        assert failure.kind in WORDS, name
        assert failure.kind != "unparsed", name
        assert failure.kind in failure.reason


def test_the_table_in_the_documentation_is_what_happens(
    outcomes: dict[str, tuple[list[Remedy], Failure]],
) -> None:
    """The page's table of failures is the one that the recorded failures give today."""
    table = "\n".join(_row(name, *outcome) for name, outcome in outcomes.items())
    assert table in PAGE.read_text(), f"docs/dft-vasp.md should hold:\n{table}"


def _row(name: str, found: list[Remedy], failure: Failure) -> str:
    cures = [f"{r.handler}: {'; '.join(r.changes)}" for r in found if r.changes]
    retry = "<br>".join(cures) or "none"
    return f"| `{name}` | {retry} | {failure.reason}{' *' if failure.continues else ''} |"


def test_the_files_of_a_failure_are_left_alone(data: Path, tmp_path: Path) -> None:
    """Asking the handlers for their remedies changes nothing in the folder."""
    folder = lay_out(cases(data)["vasp.brmix"], tmp_path / "case")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert remedies(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_every_error_that_custodian_knows_has_words() -> None:
    """A new message in custodian's table needs a sentence here."""
    assert not [name for name in VaspErrorHandler.error_msgs if name not in WORDS
                and name != "auto_nbands"]  # fmt: skip


def test_handlers_share_no_memory() -> None:
    """Each run gets handlers of its own: errors of one crystal do not count for the next."""
    first, second = handlers(), handlers(3600)
    assert not {id(handler) for handler in first} & {id(handler) for handler in second}
    assert [type(handler).__name__ for handler in second][-1] == "WalltimeHandler"
    assert len(first) == len(second) - 1 >= 10


def _log(**entry: Any) -> list[dict[str, Any]]:
    return [{"corrections": [], "handler": None, "validator": None, **entry}]


def _handler(name: str) -> dict[str, str]:
    return {"@module": "custodian.vasp.handlers", "@class": name}


@pytest.mark.parametrize(
    ("log", "files", "kind", "said", "continues"),
    [
        (
            _log(
                max_errors=True,
                corrections=[
                    {"errors": ["brmix"], "actions": [1], "handler": _handler("VaspErrorHandler")}
                ]
                * 5,
            ),
            {},
            "brmix",
            "VaspErrorHandler gave up after 5 corrections",
            False,
        ),
        (
            _log(
                handler=_handler("VaspErrorHandler"),
                corrections=[
                    {"errors": ["zbrent"], "actions": [], "handler": _handler("VaspErrorHandler")}
                ],
            ),
            {},
            "zbrent",
            "knows no remedy",
            True,
        ),
        (
            _log(corrections=[{"errors": ["Walltime reached"], "actions": None}]),
            {},
            "walltime",
            "time was nearly over",
            True,
        ),
        (_log(nonzero_return_code=True), {"vasp.out": "forrtl: SIGSEGV, segmentation fault"},
         "crash", "crashed", True),
        (_log(nonzero_return_code=True), {"std_err.txt": "slurmstepd: Detected 1 oom-kill event"},
         "memory", "out of memory", False),
        (_log(validator=_handler("VaspFilesValidator")), {"vasprun.xml": "</modeling>"},
         "no_output", "no CONTCAR", False),
        (_log(validator=_handler("VasprunXMLValidator")), {"std_err.txt": "srun: error: n1 died"},
         "incomplete", "srun: error: n1 died", True),
        (_log(nonzero_return_code=True), {"vasprun.xml": "</modeling>"}, "crash", "crashed", True),
        (_log(), {"vasprun.xml": "</modeling>"}, "unparsed", "custodian gave up", False),
    ],
)  # fmt: skip
def test_a_log_of_custodian_gives_a_verdict(
    log: list[dict[str, Any]],
    files: dict[str, str],
    kind: str,
    said: str,
    continues: bool,
    tmp_path: Path,
) -> None:
    """Who gave up and why is read from custodian's log first, then from VASP's own words."""
    (tmp_path / "custodian.json").write_text(json.dumps(log))
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    failure = classify(tmp_path, None, DIED)
    assert failure is not None
    assert (failure.kind, failure.continues) == (kind, continues)
    assert said in failure.reason


_SCRIPT = """
import json
from jobflow import JobStore, run_locally
from maggma.stores import MemoryStore
from pymatgen.core import Structure
from matloop.engines.vasp.engine import Vasp
engine = Vasp(potcar_spec=True, user_kpoints_settings={"reciprocal_density": 64},
              custodian={"polling_time_step": 1, "monitor_freq": 1})
job = engine.calculation(Structure.from_file("POSCAR"), "si")
store = JobStore(MemoryStore(), additional_stores={"data": MemoryStore()})
run_locally(job, store=store, create_folders=True, ensure_success=True, log=False)
found = engine.evaluation("c", store.get_output(job.uuid))
outputs = [d["output"] for d in store.query({"uuid": job.uuid}, sort={"index": 1})]
corrections = [c for d in outputs for e in d["custodian"] or [] for c in e["corrections"]]
print(json.dumps({"verdict": found.verdict, "reason": found.reason,
                  "errors": [c["errors"] for c in corrections]}, default=str))
"""


def _run(recorded: Path, tmp_path: Path) -> dict[str, Any]:
    shutil.copyfile(recorded / "failing" / "inputs" / "POSCAR", tmp_path / "POSCAR")
    script = tmp_path / "script.py"
    script.write_text(_SCRIPT)
    command = f"{sys.executable} -m matloop.testing.vasp_replay {recorded} --allow ISMEAR,SIGMA"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(script)], cwd=tmp_path, timeout=180, check=False,
        env={**os.environ, "ATOMATE2_VASP_CMD": command, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _recorded(data: Path, message: str, tmp_path: Path) -> Path:
    """Lay out recorded runs in which the first relaxation fails, and its cured self succeeds."""
    source = unpacked("vasp_recorded.tar.xz", tmp_path / "source")
    silicon = next(path.parent for path in source.rglob("GGA_Relax_1"))
    recorded = tmp_path / "recorded"
    shutil.copytree(silicon, recorded)
    failing = recorded / "failing"
    shutil.copytree(recorded / "GGA_Relax_1" / "inputs", failing / "inputs")
    (failing / "outputs").mkdir()
    shutil.copyfile(data / message, failing / "outputs" / "vasp.out")
    incar = recorded / "GGA_Relax_1" / "inputs" / "INCAR"
    incar.write_text(incar.read_text() + "ISYM = 0\n")
    return recorded


@pytest.mark.slow
def test_a_failure_that_custodian_cures_passes(data: Path, tmp_path: Path) -> None:
    """Symmetry trouble in the first run: custodian switches symmetry off, and an energy comes."""
    answer = _run(_recorded(data, "vasp6.point_group", tmp_path), tmp_path)
    assert answer["errors"] == [["point_group"]]
    assert answer["verdict"] == "pass", answer["reason"]


def test_a_failure_without_cure_is_a_verdict(data: Path, tmp_path: Path) -> None:
    """Without a remedy the flow still ends, and the verdict names handler and kind."""
    answer = _run(_recorded(data, "vasp.harris", tmp_path), tmp_path)
    assert answer["verdict"] == "fail"
    assert "spin_polarized_harris" in answer["reason"]
    assert "VaspErrorHandler knows no remedy" in answer["reason"]
