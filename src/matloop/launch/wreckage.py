"""What a process leaves in a LaunchPad that dies in the middle of a write.

FireWorks writes a change of state to several documents, one after another. Between them another
process sees what looks like wreckage, so everything found is looked at again for a while, and only
what stays as it is gets repaired.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from matloop.jobs.placement import TAG
from matloop.launch import transitions
from matloop.launch.transitions import AT_WORK, LOCK_SECONDS, LOST, TO_DO

if TYPE_CHECKING:
    from fireworks import LaunchPad

OPEN = ("READY", "WAITING", "RESERVED", "RUNNING", "PAUSED", "FIZZLED")
"""States of workflows in which something may still happen."""

_PAUSE = 0.5


@dataclass(frozen=True)
class Wreck:
    """Something that no living process would leave as it is.

    Attributes
    ----------
    what
        ``lock``: a locked workflow; ``orphan``: a firework without a workflow; ``torn``: one
        whose state differs between the documents that hold it; ``reserved``: one that a worker
        took without noting a launch; ``ended``: one that runs although its launch has ended.
    fw_id
        The firework, or the first one of a workflow.
    campaign_id
        Its campaign.
    evidence
        What must not change while it is looked at.
    """

    what: Literal["lock", "orphan", "torn", "reserved", "ended"]
    fw_id: int
    campaign_id: str
    evidence: tuple[object, ...]


def wrecks(launchpad: LaunchPad, seconds: float = LOCK_SECONDS) -> list[Wreck]:
    """Return what has been left behind; nothing is changed.

    Parameters
    ----------
    launchpad
        The LaunchPad.
    seconds
        How long it is looked at before it counts as left behind; without any, this returns at once.
    """
    found = set(_look(launchpad))
    end = time.monotonic() + seconds
    while found and time.monotonic() < end:
        time.sleep(_PAUSE)
        found &= set(_look(launchpad))
    return sorted(found, key=lambda wreck: (wreck.what != "lock", wreck.fw_id))


def repair(launchpad: LaunchPad, wreck: Wreck, most: int) -> str:
    """Repair one, and return in words what was done; empty if somebody else did it.

    Parameters
    ----------
    launchpad
        The LaunchPad.
    wreck
        As `wrecks` found it.
    most
        Launches of a firework after which it is fizzled.
    """
    if wreck.what == "lock":
        if transitions.unlock(launchpad, *wreck.evidence):
            return "a process died while it held the workflow's lock; it is free again"
        return ""
    if wreck.what == "orphan":
        query = {"fw_id": wreck.fw_id, "launches": [], "state": wreck.evidence[0]}
        if launchpad.fireworks.delete_one(query).deleted_count:
            return "a process died while it added this firework; it was removed, to be added anew"
        return ""
    if wreck.what == "torn":
        transitions.refresh(launchpad, wreck.fw_id, redo=True)
        return "a process died while it changed the state; what follows from it was done again"
    if wreck.what == "reserved":
        transitions.refresh(launchpad, wreck.fw_id)
        return "its worker died while it took the firework; it is ready again"
    lost = _lost_launch(launchpad, wreck.fw_id)
    if lost is not None:
        done = transitions.end_run(launchpad, wreck.fw_id, lost, most)
        return "its lost launch was only half ended; that was finished" if done else ""
    transitions.refresh(launchpad, wreck.fw_id)
    return "its worker died while it recorded the end; that was finished"


def _look(launchpad: LaunchPad) -> Iterator[Wreck]:
    query = {f"metadata.{TAG}": {"$exists": True}, "state": {"$in": [*OPEN, "DEFUSED"]}}
    names = ("state", "nodes", "fw_states", "locked", "updated_on", f"metadata.{TAG}")
    fields = dict.fromkeys(names, 1)
    for workflow in launchpad.workflows.find(query, fields):
        if workflow["state"] == "DEFUSED" and not {*AT_WORK} & {*workflow["fw_states"].values()}:
            continue  # stopped, and nothing of it runs any more
        campaign = workflow["metadata"][TAG]["campaign"]
        if workflow.get("locked"):
            evidence = (workflow["_id"], workflow["updated_on"])
            yield Wreck("lock", min(workflow["nodes"]), campaign, evidence)
        yield from _states(launchpad, workflow["fw_states"], workflow["nodes"], campaign)
    yield from _orphans(launchpad)


def _states(
    launchpad: LaunchPad, known: dict[str, str], nodes: list[int], campaign: str
) -> Iterator[Wreck]:
    fields = {"fw_id": 1, "state": 1, "launches": 1}
    working = {}
    for firework in launchpad.fireworks.find({"fw_id": {"$in": nodes}}, fields):
        fw_id, state = firework["fw_id"], firework["state"]
        if state in AT_WORK:
            working[fw_id] = firework
        elif state != known.get(str(fw_id)):
            yield Wreck("torn", fw_id, campaign, (state, known.get(str(fw_id))))
    launches = [one for firework in working.values() for one in firework["launches"]]
    query = {"launch_id": {"$in": launches}}
    states = {
        item["launch_id"]: item["state"]
        for item in launchpad.launches.find(query, {"launch_id": 1, "state": 1})
    }
    for fw_id, firework in working.items():
        own = [states.get(one, "RUNNING") for one in firework["launches"]]
        if any(state in AT_WORK for state in own):
            if firework["state"] != known.get(str(fw_id)):
                yield Wreck("torn", fw_id, campaign, (firework["state"], known.get(str(fw_id))))
        elif firework["state"] == "RUNNING":
            yield Wreck("ended", fw_id, campaign, tuple(firework["launches"]))
        else:
            yield Wreck("reserved", fw_id, campaign, tuple(firework["launches"]))


def _orphans(launchpad: LaunchPad) -> Iterator[Wreck]:
    query = {
        "state": {"$in": [*TO_DO, "RESERVED", "PAUSED", "FIZZLED"]},
        f"spec.{TAG}": {"$exists": True},
        "launches": [],
    }
    fields = {"fw_id": 1, "state": 1, f"spec.{TAG}.campaign": 1}
    loose = {item["fw_id"]: item for item in launchpad.fireworks.find(query, fields)}
    if not loose:
        return
    held = {"nodes": {"$in": [*loose]}}
    for workflow in launchpad.workflows.find(held, {"nodes": 1}):
        for fw_id in workflow["nodes"]:
            loose.pop(fw_id, None)
    for fw_id, item in loose.items():
        yield Wreck("orphan", fw_id, item["spec"][TAG]["campaign"], (item["state"],))


def _lost_launch(launchpad: LaunchPad, fw_id: int) -> int | None:
    firework = launchpad.fireworks.find_one({"fw_id": fw_id}, {"launches": 1})
    if firework is None or len(firework["launches"]) != 1:
        return None
    (launch_id,) = firework["launches"]
    query = {"launch_id": launch_id, f"action.stored_data.{LOST}": {"$exists": True}}
    return launch_id if launchpad.launches.find_one(query, {"launch_id": 1}) else None
