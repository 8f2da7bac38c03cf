"""The verdict on a candidate, derived from the task document of its calculation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from emmet.core.tasks import TaskDoc
from pymatgen.core import Structure

from matloop.documents.candidate import Quantity
from matloop.documents.evaluation import Cost, Evaluation
from matloop.documents.theory import LevelOfTheory
from matloop.engines.frames import frames_of
from matloop.engines.vasp.chain import record
from matloop.engines.vasp.specification import Specification
from matloop.structures.mixing import mix


def read(document: TaskDoc | Mapping[str, object]) -> TaskDoc:
    """Return a task document as emmet's model, from the model or its dictionary."""
    if isinstance(document, TaskDoc):
        return document
    stated = {key: value for key, value in document.items() if not key.startswith("@")}
    if stated.get("calcs_reversed") is None:  # emmet reads none only where there is no such key
        stated.pop("calcs_reversed", None)
    return TaskDoc(**stated)


def failed(candidate_id: str, reason: str, document: TaskDoc | None = None) -> Evaluation:
    """Return the verdict on a calculation that gave no energy, with what it cost."""
    return Evaluation(
        candidate_id=candidate_id,
        verdict="fail",
        reason=reason,
        cost=_cost(document) if document is not None else Cost(),
    )


def failure_of(document: TaskDoc) -> str:
    """Return why a calculation failed, in words; empty if it did not."""
    note = record(document)
    failure, progress = note.get("failure"), note.get("progress") or {}
    restarts = int(progress.get("restarts") or 0)
    after = f", after {restarts} restart{'s' if restarts > 1 else ''}" if restarts else ""
    if failure:
        return f"{document.task_label or 'VASP'}: {failure['reason']}{after}"
    state = str(getattr(document.state, "value", document.state))
    if state != "successful":
        return f"{document.task_label or 'VASP'}: the task document says {state}"
    return ""


def passed(
    candidate_id: str,
    document: TaskDoc,
    raw: LevelOfTheory,
    corrected: LevelOfTheory | None,
) -> Evaluation:
    """Return the verdict on a calculation that is what it was meant to be.

    Parameters
    ----------
    candidate_id
        The candidate.
    document
        Task document of the static run.
    raw
        Level of theory of the energy as computed.
    corrected
        Level of theory of the energy with the corrections of the Materials Project; None if it
        is not to be corrected.
    """
    entry, output = document.entry, document.output
    if entry is None or output is None or not math.isfinite(float(entry.energy)):
        return failed(candidate_id, "the task document holds no finite energy", document)
    atoms = len(document.structure)
    uncorrected = float(entry.energy_per_atom)
    energy = uncorrected
    if corrected is not None:
        mixed = mix([entry], "mp2020")
        if mixed.energies[0] is None:
            return failed(candidate_id, f"no MP2020 correction: {mixed.reasons[0]}", document)
        energy = mixed.energies[0]
    theory = corrected or raw
    quantities = {
        "energy_per_atom": Quantity(value=energy, unit="eV/atom", theory=theory.key),
        "uncorrected_energy": Quantity(value=uncorrected, unit="eV/atom", theory=raw.key),
    }
    calculation = (document.calcs_reversed or [None])[0]
    gap = getattr(output, "bandgap", None)
    if gap is not None and math.isfinite(gap):
        quantities["band_gap"] = Quantity(value=float(gap), unit="eV", theory=raw.key)
    moment = _total_moment(calculation)
    if moment is not None:
        quantities["magnetization"] = Quantity(value=moment / atoms, unit="µB", theory=raw.key)
    return Evaluation(
        candidate_id=candidate_id,
        verdict="pass",
        reason=f"converged with VASP {document.vasp_version or 'of unknown version'}",
        quantities=quantities,
        structure=_plain(document.structure),
        theory=theory,
        cost=_cost(document),
        frames=frames_of(output, document.structure, atoms * energy - float(output.energy)),
    )


def strayed(plan: Specification, was: Specification) -> str:
    """Return how a run differs from the plan, in one clause; empty if it does not."""
    clauses: Sequence[str] = plan.differences(was)
    return f"not the planned level of theory: {'; '.join(clauses)}" if clauses else ""


def _cost(document: TaskDoc) -> Cost:
    progress: dict[str, Any] = record(document).get("progress") or {}
    overall = (document.run_stats or {}).get("overall")
    seconds = progress.get("seconds")
    calls = int(progress.get("calls") or 0)
    core_seconds = float(progress.get("core_seconds") or 0.0)
    if seconds is None:
        seconds = float(overall.elapsed_time or 0.0) if overall else 0.0
        core_seconds = seconds * int(overall.cores or 1) if overall else 0.0
        calls = sum(
            len(calc.output.ionic_steps or ())
            for calc in document.calcs_reversed or ()
            if calc.output
        )
    threads = max(1, round(core_seconds / seconds)) if seconds else 1
    atoms = len(document.structure) if document.structure is not None else 0
    return Cost(seconds=float(seconds), work=float(atoms * calls), calls=calls, threads=threads)


def _total_moment(calculation: Any) -> float | None:
    outcar = getattr(getattr(calculation, "output", None), "outcar", None) or {}
    moment = outcar.get("total_magnetization") if isinstance(outcar, Mapping) else None
    return abs(float(moment)) if moment is not None else None


def _plain(structure: Structure) -> Structure:
    # Positions, cell and moments; what else VASP noted per site stays in the task document.
    plain = structure.copy()
    for name in list(plain.site_properties):
        if name != "magmom":
            plain.remove_site_property(name)
    return plain
