"""Sites on real SLURM: the doctor's jobs, and FireWorks' own programs with the files it wrote."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from matloop.launch.doctor import diagnose
from matloop.launch.fireworks_files import write_fireworks_files
from matloop.launch.site import load_site
from matloop.launch.site_template import proposed_kinds

from .conftest import Place

pytestmark = [pytest.mark.slurm, pytest.mark.mongo]


def told(place: Place, *kinds: str) -> dict[str, list[dict[str, str]]]:
    """Return what `matloop site doctor` says of each machine."""
    words = [word for kind in kinds for word in ("--kind", kind)]
    answer = json.loads(place.matloop("site", "doctor", "--json", *words).stdout)
    return {machine["kind"]: machine["checks"] for machine in answer["machines"]}


def edit(place: Place, before: str, after: str) -> None:
    """Change the site file, and FireWorks' files with it."""
    text = place.site.file.read_text()
    assert before in text
    place.site.file.write_text(text.replace(before, after))
    place.site = load_site(place.site.file)
    write_fireworks_files(place.site)


def test_the_doctor_finds_a_sound_site_well(place: Place) -> None:
    """A job of the kind looks at its node and answers through the shared folder."""
    edit(place, "  nowhere:\n    queue: no-such-partition\n", "")
    done = place.matloop("site", "doctor", "--kind", "cpu", "--kind", "brief", "--json")
    answer = json.loads(done.stdout)
    assert done.returncode == 0, done.stdout
    assert [machine["kind"] for machine in answer["machines"]] == ["", "cpu", "brief"]
    for machine in answer["machines"]:
        assert {check["state"] for check in machine["checks"]} == {"ok"}, machine
        assert machine["versions"] == answer["machines"][0]["versions"]
    assert list((place.site.directory / "doctor").iterdir()) == [], "nothing is left behind"
    assert not place.stack.squeue()


def test_the_doctor_names_what_is_wrong(place: Place) -> None:
    """A partition that is not there, a set-up that fails and GPUs torch cannot use are told."""
    edit(place, "  nowhere:", "  broken:\n    setup: [exit 7]\n  nowhere:")
    machines = told(place, "nowhere", "broken", "gpu")
    here = {check["subject"]: check for check in machines[""]}
    assert here["queue of nowhere"]["state"] == "failure"
    assert "choose of debug" in here["queue of nowhere"]["text"]
    (refused,) = machines["nowhere"]
    assert refused["text"].startswith("SLURM refuses such a job:")
    (silent,) = machines["broken"]
    assert re.match(r"job \d+ ended as FAILED and wrote nothing", silent["text"]), silent
    gpus = next(check for check in machines["gpu"] if check["subject"] == "GPUs")
    assert "kind asks for 2" in gpus["text"]


def test_a_walltime_over_the_partitions_is_told(place: Place) -> None:
    """SLURM would let such a job wait for ever; the doctor says so before one is sent."""
    edit(place, '"00:01:00"', "2-00:00:00")
    checks = {check["subject"]: check for check in told(place, "cpu")[""]}
    assert checks["queue of brief"]["text"] == "2-00:00:00 is more than debug allows: 01:00:00"


def test_a_job_that_does_not_start_is_given_up(place: Place) -> None:
    """When nodes are full the doctor waits as long as told, then cancels its job and says so."""
    blockers = [place.stack.sbatch("sleep 100", "--exclusive") for _ in range(2)]
    for blocker in blockers:
        place.stack.wait_for(blocker, "RUNNING")
    heard: list[str] = []
    found = diagnose(place.site, ["cpu"], 3, heard.append)
    (check,) = found.machines[1].checks
    assert re.match(r"job \d+ was pending \(\w+\) after 3 s and is cancelled", check.text), check
    assert "cpu (pending)" in heard
    assert set(place.stack.squeue()) <= set(blockers)


def test_what_only_a_node_lacks_is_told(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The look from the node counts: a variable that is wrong there fails there and only there."""
    for environment in (place.stack.environment, os.environ):
        monkeypatch.setitem(environment, "NODE_URI", place.stack.uri)
    text = place.site.file.read_text().replace("uri_file: uri", "uri_variable: NODE_URI")
    wrong = "cores: 1\n    environment: {NODE_URI: none}\n"
    place.site.file.write_text(text.replace("cores: 1\n", wrong, 1))
    assert place.matloop("site", "update").returncode == 0
    states = {
        kind: [check["state"] for check in checks if check["subject"] == "database"]
        for kind, checks in told(place, "cpu").items()
    }
    assert states == {"": ["ok"], "cpu": ["failure"]}


def test_qlaunch_submits_a_worker(place: Place) -> None:
    """FireWorks' `qlaunch -c` sends the kind's job to SLURM, which will not start it twice."""
    write_fireworks_files(place.site)
    place.add("cpu", "work", "one", seconds=0.1)
    folder = place.site.directory / "by-hand"
    folder.mkdir()
    place.stack.command(
        "qlaunch", "-c", str(place.site.fireworks), "--launch_dir", str(folder), "rapidfire",
        "-m", "1", "--nlaunches", "1",
    )  # fmt: skip
    (job_id,) = place.stack.squeue()
    shown = place.stack.command("scontrol", "show", "job", job_id)
    assert "Requeue=0" in shown
    assert "JobName=matloop-cpu" in shown
    place.wait_until_done()
    assert place.stack.wait_for(job_id, "COMPLETED") == "COMPLETED"
    (block,) = folder.glob("block_*/launcher_*")
    assert (block / "FW_submit.script").exists()


def test_kinds_are_proposed_from_what_slurm_has(place: Place) -> None:
    """Partition, cores, walltime and GPUs of a new site are those of the cluster."""
    kinds = proposed_kinds()
    assert kinds["cpu"] | {"walltime": ""} == {
        "queue": "debug", "cores": "2", "walltime": "", "max_jobs": "2",
    }  # fmt: skip
    assert kinds["gpu"]["gpus"] == "2"


def test_init_from_slurm_passes_the_doctor(place: Place, tmp_path: Path) -> None:
    """What `matloop site init` writes without any kind given is accepted by the queue."""
    secret = place.site.database.uri_file
    file = tmp_path / "fresh.yaml"
    place.stack.command(
        "matloop", "site", "init", "-o", str(file), "-d", str(tmp_path / "fresh"),
        "--uri-file", str(secret),
    )  # fmt: skip
    answer = place.stack.command(
        "matloop", "site", "doctor", "--kind", "cpu", "--json", "--site", str(file)
    )
    assert json.loads(answer)["failed"] is False
