"""Changes to workflows in a LaunchPad that FireWorks has no safe call for.

Each is made under FireWorks' own lock of the workflow and looks, under it, whether it is still
called for, so that any number of processes may ask for it at once.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from fireworks.core.launchpad import LockedWorkflowError, WFLock

from matloop.jobs.placement import TAG

if TYPE_CHECKING:
    from fireworks import LaunchPad, Workflow

LOCK_SECONDS = 30.0
"""A lock that one holder keeps for longer belongs to a dead process (s)."""

MOST_LAUNCHES = 5
"""Launches of a firework, where its kind of worker says nothing else."""

AT_WORK = ("RESERVED", "RUNNING")
TO_DO = ("WAITING", "READY")
ENDED = ("COMPLETED", "FIZZLED", "DEFUSED", "ARCHIVED")

LOST = "_lost"
"""Field of a launch's stored data: why the launch was given up from outside."""

Outcome = Literal["rerun", "given up", ""]
Json = dict[str, Any]

_TURNS = 4  # waits for a lock that others keep taking
_URI = re.compile(r"mongodb(\+srv)?://\S+")


@contextmanager
def locked(launchpad: LaunchPad, fw_id: int) -> Iterator[None]:
    """Hold a firework's workflow, taking the lock from a holder that died with it.

    A living holder changes the workflow's ``updated_on`` within moments; a lock under which it has
    stood still for `LOCK_SECONDS` is broken.

    Raises
    ------
    fireworks.core.launchpad.LockedWorkflowError
        If the workflow is too busy: others have changed it `_TURNS` times while this one waited.
    ValueError
        If the firework belongs to no workflow.
    """
    lock = WFLock(launchpad, fw_id, expire_secs=LOCK_SECONDS, kill=False)
    for turn in range(_TURNS):
        seen = launchpad.workflows.find_one({"nodes": fw_id}, {"updated_on": 1})
        if seen is None:
            raise ValueError(f"firework {fw_id} belongs to no workflow")
        try:
            lock.__enter__()
            break
        except LockedWorkflowError:  # by one that died, or by many that live
            broken = unlock(launchpad, seen["_id"], seen["updated_on"])
            if turn == _TURNS - 1 and not broken:
                raise
    else:
        lock.__enter__()
    try:
        yield
    finally:
        lock.__exit__(None, None, None)


def unlock(launchpad: LaunchPad, workflow: object, updated_on: object) -> bool:
    """Break the lock of a workflow that has not changed since; False if it has."""
    query = {"_id": workflow, "updated_on": updated_on, "locked": {"$exists": True}}
    done = launchpad.workflows.find_one_and_update(query, {"$unset": {"locked": True}})
    return done is not None


@contextmanager
def _editing(launchpad: LaunchPad, fw_id: int) -> Iterator[tuple[Workflow, set[int]]]:
    """Yield a workflow and the set to put the ids of changed fireworks into; store it if any."""
    with locked(launchpad, fw_id):
        workflow = launchpad.get_wf_by_fw_id_lzyfw(fw_id)
        changed: set[int] = set()
        yield workflow, changed
        if changed:
            launchpad._update_wf(workflow, changed)


def end_run(launchpad: LaunchPad, fw_id: int, launch_id: int, most: int) -> Outcome:
    """Let a firework whose last launch was lost run again, unless it has run too often.

    Parameters
    ----------
    launchpad
        The LaunchPad.
    fw_id, launch_id
        The firework, and the launch that was lost. If it has another one by now, nothing is done.
    most
        Launches after which it is fizzled instead.
    """
    with _editing(launchpad, fw_id) as (workflow, changed):
        known = launchpad.fireworks.find_one({"fw_id": fw_id})
        if known is None or known["state"] not in (*AT_WORK, "FIZZLED"):
            return ""
        if known["launches"] not in ([launch_id], []) or not (known["launches"] or _torn(known)):
            return ""
        if known["state"] == "FIZZLED" and _moved_on(launchpad, workflow.links[fw_id]):
            return ""
        if launches_of(known) >= most:
            changed.update(_tolerant(workflow, fw_id))
            changed.update({fw_id}, workflow.refresh(fw_id))
            return "given up" if known["state"] != "FIZZLED" else ""
        changed.update(workflow.rerun_fw(fw_id))
        return "rerun"


def rerun(launchpad: LaunchPad, fw_id: int, launches: Collection[int]) -> bool:
    """Let a fizzled firework run again; False if it is not what it was.

    Parameters
    ----------
    launchpad
        The LaunchPad.
    fw_id
        The firework.
    launches
        Its launches when it was looked at.
    """
    with _editing(launchpad, fw_id) as (workflow, changed):
        known = launchpad.fireworks.find_one({"fw_id": fw_id})
        if known is None or known["state"] != "FIZZLED" or known["launches"] != list(launches):
            return False
        if _moved_on(launchpad, workflow.links[fw_id]):
            return False
        count = {f"spec.{TAG}.reruns": 1}
        launchpad.fireworks.update_one({"fw_id": fw_id}, {"$inc": count})
        changed.update(workflow.rerun_fw(fw_id))
        return True


def refresh(launchpad: LaunchPad, fw_id: int, *, redo: bool = False) -> None:
    """Bring a workflow in line with the state of one of its fireworks.

    Parameters
    ----------
    launchpad
        The LaunchPad.
    fw_id
        The firework.
    redo
        Whether what follows from its end has to be done again: its process died meanwhile.
    """
    with _editing(launchpad, fw_id) as (workflow, changed):
        known = launchpad.fireworks.find_one({"fw_id": fw_id}, {"state": 1, "launches": 1})
        if known is None:
            return
        if redo and known["state"] in ("COMPLETED", "FIZZLED"):
            # FireWorks acts on a change of state only.
            launchpad.fireworks.update_one({"fw_id": fw_id}, {"$set": {"state": "RUNNING"}})
        if known["state"] == "RESERVED" and not _alive(launchpad, known["launches"]):
            changed.update(workflow.rerun_fw(fw_id))
        else:
            changed.update({fw_id}, workflow.refresh(fw_id))


def release_join(launchpad: LaunchPad, join: int) -> list[int]:
    """Let a firework that waits for others begin without those that have not ended.

    What is not begun is fizzled, which a join tolerates. What runs is cut off from it instead, for
    it may end at any time, and must not touch a join that has gone on. Returns the ids of both.
    """
    with _editing(launchpad, join) as (workflow, changed):
        state = launchpad.fireworks.find_one({"fw_id": join}, {"state": 1})
        parents = workflow.links.parent_links.get(join, [])
        if state is None or state["state"] != "WAITING":
            return []
        left = [fw_id for fw_id in parents if workflow.fw_states[fw_id] not in ENDED]
        for fw_id in left:
            idle = {"fw_id": fw_id, "state": {"$in": ["READY", "PAUSED"]}}
            gone = {"$set": {"state": "FIZZLED"}}
            if launchpad.fireworks.find_one_and_update(idle, gone) is not None:
                workflow.fw_states[fw_id] = "FIZZLED"
            else:
                workflow.links[fw_id] = [child for child in workflow.links[fw_id] if child != join]
        for fw_id in left:
            changed.update(_tolerant(workflow, fw_id))
        changed.update({join}, workflow.refresh(join))
        return left


def end_branch(launchpad: LaunchPad, fw_id: int) -> list[int]:
    """Fizzle what waits for a fizzled firework, up to those that tolerate it; return their ids."""
    with _editing(launchpad, fw_id) as (workflow, changed):
        if workflow.fw_states[fw_id] != "FIZZLED":
            return []
        found: list[int] = []
        front = [fw_id]
        while front:
            parent = front.pop()
            for child in workflow.links[parent]:
                firework = workflow.id_fw[child]
                if firework.spec.get("_allow_fizzled_parents"):
                    changed.update(_tolerant(workflow, parent))
                    changed.update(workflow.refresh(child))
                elif firework.state == "WAITING":
                    firework.state = "FIZZLED"
                    workflow.fw_states[child] = "FIZZLED"
                    found.append(child)
                    front.append(child)
        changed.update(set(found))
        return found


def hold(launchpad: LaunchPad, fw_id: int, state: Literal["PAUSED", "DEFUSED"]) -> int:
    """Take every firework of a workflow that is not begun out of the workers' reach.

    Parameters
    ----------
    launchpad
        The LaunchPad.
    fw_id
        Any firework of the workflow.
    state
        What they become; what failed is defused as well.

    Returns
    -------
    int
        How many they were. What runs goes on to its end.
    """
    more = () if state == "PAUSED" else ("PAUSED", "FIZZLED")
    with locked(launchpad, fw_id):
        workflow = launchpad.workflows.find_one({"nodes": fw_id}, {"nodes": 1})
        mine = {"fw_id": {"$in": workflow["nodes"]}}
        idle = {**mine, "state": {"$in": [*TO_DO, *more]}}
        if state == "PAUSED":
            mark = {"$set": {f"metadata.{TAG}.held": True}}
            launchpad.workflows.update_one({"_id": workflow["_id"]}, mark)
        # One atomic step for each: whatever a worker takes at this moment it keeps.
        done = launchpad.fireworks.update_many(idle, {"$set": {"state": state}})
        if not done.modified_count:
            return 0
        held = launchpad.fireworks.find({**mine, "state": state}, {"fw_id": 1})
        new = {f"fw_states.{item['fw_id']}": state for item in held}
        launchpad.workflows.update_one({"_id": workflow["_id"]}, {"$set": {**new, "state": state}})
        return int(done.modified_count)


def let_go(launchpad: LaunchPad, fw_id: int) -> int:
    """Return what `hold` has paused in a workflow to what it was; return how many."""
    with _editing(launchpad, fw_id) as (workflow, changed):
        if not workflow.metadata[TAG].pop("held", False):
            return 0
        paused = [one for one, state in workflow.fw_states.items() if state == "PAUSED"]
        for one in paused:
            workflow.id_fw[one].state = "WAITING"
            workflow.fw_states[one] = "WAITING"
        changed.update(set(paused))
        for one in paused:
            changed.update(workflow.refresh(one, set(changed)))
        changed.add(fw_id)
        return len(paused)


def launches_of(firework: Mapping[str, Any]) -> int:
    """Return how often a firework has been launched since it was last forgiven."""
    launches = {*firework.get("launches", []), *firework.get("archived_launches", [])}
    tag = firework["spec"].get(TAG) or {}
    return len(launches) - int(tag.get("forgiven", 0))


def failure(launchpad: LaunchPad, firework: Mapping[str, Any]) -> str:
    """Return why a firework failed the last time, in one line without secrets."""
    said = ""
    for launch_id in [*firework.get("archived_launches", []), *firework.get("launches", [])]:
        launch = launchpad.launches.find_one({"launch_id": launch_id}, {"action.stored_data": 1})
        stored = ((launch or {}).get("action") or {}).get("stored_data") or {}
        said = stored.get(LOST) or (stored.get("_exception") or {}).get("_stacktrace") or said
    details = firework["spec"].get("_exception_details") or {}
    said = said or details.get("_stacktrace") or details.get("_message") or ""
    lines = [line for line in str(said).splitlines() if line.strip()]
    return without_secrets(lines[-1].strip()) if lines else "no reason is known"


def without_secrets(text: str) -> str:
    """Return one line of somebody else's message, short and without connection strings."""
    return _URI.sub("mongodb://...", text)[:300]


def _alive(launchpad: LaunchPad, launches: Collection[int]) -> bool:
    query = {"launch_id": {"$in": list(launches)}, "state": {"$in": [*AT_WORK]}}
    return launchpad.launches.find_one(query, {"launch_id": 1}) is not None


def _tolerant(workflow: Workflow, fw_id: int) -> set[int]:
    """Keep FireWorks from copying a fizzled firework's whole document into its children."""
    found = set()
    for child in workflow.links[fw_id]:
        spec = workflow.id_fw[child].spec
        if spec.get("_allow_fizzled_parents") and "_fizzled_parents" not in spec:
            spec["_fizzled_parents"] = []
            found.add(child)
    return found


def _torn(firework: Mapping[str, Any]) -> bool:
    """Whether a worker died between taking a firework and noting its launch with it."""
    return firework["state"] == "RESERVED" and not firework["launches"]


def _moved_on(launchpad: LaunchPad, children: Collection[int]) -> bool:
    """Whether a child that tolerates its parent's failure has begun without it."""
    query = {"fw_id": {"$in": list(children)}, "state": {"$in": [*AT_WORK, "COMPLETED"]}}
    return launchpad.fireworks.find_one(query, {"fw_id": 1}) is not None
