"""Run atomate2's VASP jobs one after another, continuing what was interrupted.

Each run is one of atomate2's own jobs, called unchanged. What this Maker adds is what happens
between them: a failed run ends as a task document that names the failure, not as a broken workflow,
and an interrupted one is begun again from its last geometry, in a new folder, a limited number of
times.

The next run, or the restart, *replaces* the job, so that every task document is stored under the
same uuid with the next index, and whoever waits for the output gets the last one. Custodian's own
``auto_continue`` needs the same folder again, which no queue gives; a fixed chain of jobs would
leave its last job waiting for ever behind one that failed.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from atomate2.vasp.jobs.base import BaseVaspMaker, vasp_job
from emmet.core.tasks import TaskDoc
from emmet.core.types.enums import TaskState
from jobflow import Job, Maker, Response
from pymatgen.core import Structure

from matloop.engines.vasp.continuation import (
    Progress,
    earlier_launches,
    last_geometry,
    seconds_left,
)
from matloop.engines.vasp.failures import (
    Failure,
    classify,
    custodian_log,
    handlers,
    running,
)

RECORD = "matloop"
"""Key of ``TaskDoc.additional_json`` under which the chain's progress and failure are kept."""


@dataclass
class VaspChainMaker(Maker):
    """Run VASP jobs one after another; failures and interruptions are data.

    Parameters
    ----------
    steps
        atomate2's Makers of the single runs; each starts from the structure and folder of the last.
    title
        Start of the jobs' names.
    max_restarts
        Restarts from the last geometry allowed in the whole chain.
    walltime_margin
        Time before the end of the SLURM job at which VASP is asked to stop after its ionic step
        (s).
    custodian
        Keyword arguments for custodian itself.
    objection
        Why the crystal must not be calculated; the first job then ends at once with this reason.
    """

    steps: list[BaseVaspMaker] = field(default_factory=list)
    title: str = "vasp"
    max_restarts: int = 3
    walltime_margin: int = 600
    custodian: dict[str, Any] = field(default_factory=dict)
    objection: str = ""
    name: str = "vasp"

    @vasp_job
    def make(
        self,
        structure: Structure,
        prev_dir: str | None = None,
        progress: Progress | None = None,
    ) -> Response:
        """Run the step at hand, and say what follows.

        Parameters
        ----------
        structure
            The crystal to start from.
        prev_dir
            Folder of the step before.
        progress
            How far the chain has come; nothing was done if None.
        """
        folder, progress = Path.cwd(), progress or Progress()
        step = self.steps[progress.step]
        if self.objection:
            refused = Failure("refused", self.objection)
            return Response(output=_ended(folder, step.name, None, refused, progress))

        lost = earlier_launches(folder)
        if lost:
            geometry = last_geometry(lost[-1], structure)
            reason = f"{len(lost)} earlier launch{'es' if len(lost) > 1 else ''} lost"
            progress = replace(
                progress,
                restarts=progress.restarts + len(lost),
                restarted_after=(*progress.restarted_after, reason),
            )
            if progress.restarts > self.max_restarts:
                killed = Failure("lost", f"{reason}: killed, or its node died")
                return Response(output=_ended(folder, step.name, None, killed, progress))
            structure = geometry or structure

        document, error = self._run(step, structure, prev_dir)
        progress = _spent(progress, document)
        failure = classify(folder, document, error)
        if failure is None and document is not None:
            if progress.step + 1 == len(self.steps):
                return Response(output=_ended(folder, step.name, document, None, progress))
            following = self.begin(
                document.structure, document.dir_name, replace(progress, step=progress.step + 1)
            )
            passing = _ended(folder, step.name, document, None, progress, followed=True)
            return Response(output=passing, replace=following)

        assert failure is not None
        geometry = last_geometry(folder, structure) if failure.continues else None
        if geometry is None or progress.restarts >= self.max_restarts:
            return Response(output=_ended(folder, step.name, document, failure, progress))
        ended = _ended(folder, step.name, document, failure, progress, followed=True)
        progress = replace(
            progress,
            restarts=progress.restarts + 1,
            restarted_after=(*progress.restarted_after, failure.reason),
        )
        return Response(output=ended, replace=self.begin(geometry, prev_dir, progress))

    def begin(
        self,
        structure: Structure,
        prev_dir: str | None = None,
        progress: Progress | None = None,
    ) -> Job:
        """Return the job of `make` under the name of its step."""
        step = self.steps[progress.step if progress else 0]
        return replace(self, name=f"{self.title} {step.name}").make(
            structure, prev_dir=prev_dir, progress=progress
        )

    def _run(
        self, step: BaseVaspMaker, structure: Structure, prev_dir: str | None
    ) -> tuple[TaskDoc | None, Exception | None]:
        # atomate2's Makers note things in their own fields while they run
        step = copy.deepcopy(step)
        left = seconds_left()
        os.environ.pop("CUSTODIAN_WALLTIME_START", None)  # else it counts from an earlier run
        step.run_vasp_kwargs = {
            "handlers": handlers(left, self.walltime_margin),
            # a handler that itself fails, on a file half written, is no reason to give up
            "custodian_kwargs": {"skip_over_errors": True, **self.custodian},
            **step.run_vasp_kwargs,
        }
        step.stop_children_kwargs = {**step.stop_children_kwargs, "handle_unsuccessful": True}
        try:
            response = step.make.original(step, structure, prev_dir=prev_dir)
        except Exception as error:
            # A missing command, file or right is the machine's fault, not the crystal's.
            if not running(Path.cwd(), error):
                raise
            return None, error
        return response.output, None


def record(document: TaskDoc | Mapping[str, object]) -> dict[str, Any]:
    """Return what the chain noted in a task document: ``progress``, ``failure``, ``followed``.

    What is followed is not the last run: the next one starts where it ended, or begins it again.
    """
    extra = (
        document.get("additional_json")
        if isinstance(document, Mapping)
        else document.additional_json
    )
    return dict(extra.get(RECORD) or {}) if isinstance(extra, Mapping) else {}


def _ended(
    folder: Path,
    label: str,
    document: TaskDoc | None,
    failure: Failure | None,
    progress: Progress,
    *,
    followed: bool = False,
) -> TaskDoc:
    # The task document of a run, or of one that left none, with the chain's note in it.
    note = {
        "progress": asdict(progress),
        "failure": asdict(failure) if failure else None,
        "followed": followed,
    }
    if document is None:
        return TaskDoc(
            dir_name=str(folder),
            task_label=label,
            state=TaskState.FAILED,
            custodian=custodian_log(folder) or None,
            calcs_reversed=[],  # emmet cannot read back a document with none
            additional_json={RECORD: note},
        )
    extra = {**(document.additional_json or {}), RECORD: note}
    update: dict[str, Any] = {"additional_json": extra}
    if failure:
        update["state"] = TaskState.FAILED
    return document.model_copy(update=update)


def _spent(progress: Progress, document: TaskDoc | None) -> Progress:
    if document is None or not document.calcs_reversed:
        return progress
    overall = (document.run_stats or {}).get("overall")
    seconds = float(overall.elapsed_time or 0.0) if overall else 0.0
    cores = int(overall.cores or 1) if overall else 1
    return replace(
        progress,
        seconds=progress.seconds + seconds,
        core_seconds=progress.core_seconds + seconds * cores,
        calls=progress.calls
        + sum(len(calc.output.ionic_steps or ()) for calc in document.calcs_reversed),
    )
