"""What a process that dies in the middle of a write leaves behind is finished or undone."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

pytest.importorskip("fireworks")

from matloop.launch.recovery import heal, lost

from .lab import Lab

pytestmark = pytest.mark.mongo


def test_a_lock_whose_owner_died_is_broken(lab: Lab) -> None:
    """FireWorks would wait for it for ever; here the workflow is free after a look."""
    lab.campaign("one")
    lab.add([lab.firework("propose")])
    launch_id = lab.take("cpu@7")
    lab.launchpad.workflows.update_one({}, {"$set": {"locked": True}})
    assert lost(lab.launchpad, 1, launch_id, "killed while it held the lock") == "rerun"
    lab.launchpad.workflows.update_one({}, {"$set": {"locked": True}})
    (finding,) = heal(lab.site, lab.launchpad, lab.ledger).findings
    assert "lock" in finding.reason
    assert "locked" not in lab.launchpad.workflows.find_one()


def test_half_an_insertion_is_undone(lab: Lab) -> None:
    """Fireworks whose process died before it wrote their workflow are removed."""
    lab.campaign("one")
    lab.add([lab.firework("propose")])
    insert = lab.launchpad.workflows.insert_one
    try:
        lab.launchpad.workflows.insert_one = _die
        with pytest.raises(SystemError):
            lab.add([lab.firework("learn"), lab.firework("advance")])
    finally:
        lab.launchpad.workflows.insert_one = insert
    assert set(lab.states()) == {"propose", "learn", "advance"}
    assert heal(lab.site, lab.launchpad, lab.ledger).count("repaired") == 2
    assert set(lab.states()) == {"propose"}


@pytest.mark.parametrize("written", range(5))
def test_an_end_that_was_half_recorded_is_finished(lab: Lab, written: int) -> None:
    """After a death at any write of a completion with a detour, all of it runs, and once."""
    from fireworks import Firework, FWAction, PyTask, Workflow

    lab.campaign("one")
    evaluate, decide = lab.firework("evaluate relax"), lab.firework("decide relax")
    lab.add([evaluate, decide], {evaluate: [decide]})
    lab.alive("7", started_ago=10_000)
    launch_id = lab.take("cpu@7")
    log = lab.directory / "log"
    spec = {"_category": "cpu", "matloop": {"campaign": "one", "iteration": 0, "stage": "relax"}}
    task = PyTask(func="subprocess.check_call", args=[["sh", "-c", f"echo ran >> {log}"]])
    shards = [Firework(task, spec, name=f"evaluate relax 0.{n}") for n in range(2)]
    action = FWAction(detours=Workflow(shards))
    code = (
        "import sys, os, pickle\n"
        "from matloop.launch.site import load_site\n"
        "lp = load_site(__import__('pathlib').Path(sys.argv[1])).launchpad()\n"
        "count = 0\n"
        "def dying(function):\n"
        "    def call(*arguments, **options):\n"
        "        global count\n"
        f"        if count == {written}: os.kill(os.getpid(), 9)\n"
        "        count += 1\n"
        "        return function(*arguments, **options)\n"
        "    return call\n"
        "lp.fireworks.find_one_and_replace = dying(lp.fireworks.find_one_and_replace)\n"
        "lp.workflows.find_one_and_replace = dying(lp.workflows.find_one_and_replace)\n"
        "from fireworks import FWAction\n"
        "action = FWAction.from_dict(pickle.load(open(sys.argv[2], 'rb')))\n"
        f"lp.complete_launch({launch_id}, action, 'COMPLETED')\n"
    )
    import pickle

    (lab.directory / "action").write_bytes(pickle.dumps(action.to_dict()))
    command = [sys.executable, "-c", code, str(lab.site.file), str(lab.directory / "action")]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == (-signal.SIGKILL if written < 4 else 0), done.stderr
    healed = heal(lab.site, lab.launchpad, lab.ledger)
    assert bool(healed.findings) == (written < 4)
    lab.run_all()
    states = lab.launchpad.fireworks.find({}, {"name": 1, "state": 1})
    names = sorted((item["name"], item["state"]) for item in states)
    assert names == [
        ("decide relax", "COMPLETED"),
        ("evaluate relax", "COMPLETED"),
        ("evaluate relax 0.0", "COMPLETED"),
        ("evaluate relax 0.1", "COMPLETED"),
    ]
    assert log.read_text().split() == ["ran", "ran"]
    assert heal(lab.site, lab.launchpad, lab.ledger).findings == ()


@pytest.mark.parametrize("written", range(4))
def test_a_death_while_taking_a_firework(lab: Lab, written: int) -> None:
    """A worker that dies after any write of a checkout leaves nothing that nobody can take."""
    lab.campaign("one")
    lab.add([lab.firework("propose")])
    code = (
        "import sys, os\n"
        "from fireworks import FWorker\n"
        "from matloop.launch.site import load_site\n"
        "lp = load_site(__import__('pathlib').Path(sys.argv[1])).launchpad()\n"
        "count = 0\n"
        "def dying(function):\n"
        "    def call(*arguments, **options):\n"
        "        global count\n"
        "        result = function(*arguments, **options)\n"
        f"        if count == {written}: os.kill(os.getpid(), 9)\n"
        "        count += 1\n"
        "        return result\n"
        "    return call\n"
        "update, replace = 'find_one_and_update', 'find_one_and_replace'\n"
        "for c, n in ((lp.fireworks, update), (lp.launches, replace),\n"
        "             (lp.fireworks, replace), (lp.workflows, update)):\n"
        "    setattr(c, n, dying(getattr(c, n)))\n"
        "lp.checkout_fw(FWorker('cpu@7', 'cpu', env={'slot': 0}), '/')\n"
    )
    command = [sys.executable, "-c", code, str(lab.site.file)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    lab.ended("7")
    assert heal(lab.site, lab.launchpad, lab.ledger).findings
    assert lab.states() == {"propose": "READY"}
    assert lab.run_all() == 1
    assert lab.states() == {"propose": "COMPLETED"}
    assert heal(lab.site, lab.launchpad, lab.ledger).findings == ()


def _die(*_: object) -> None:
    raise SystemError("killed")
