"""Samples of any generator, judged whole: all metrics of the field in one flat object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, median

from pymatgen.core import Structure

from matloop import __version__
from matloop.documents.base import Scalar
from matloop.documents.theory import LevelOfTheory
from matloop.evaluators.mlip.model import load_model
from matloop.metrics import distributions
from matloop.metrics.coverage import CutOffs, put_coverage
from matloop.metrics.figures import Figures
from matloop.metrics.hull import Judge, Notify, ReferenceHull
from matloop.metrics.prediction import TOLERANCES, predict
from matloop.metrics.reference import Reference
from matloop.metrics.stability import (
    METASTABLE,
    ROUNDING,
    is_metastable,
    is_new,
    is_stable,
    judge_energies,
)
from matloop.metrics.verdicts import (
    SHORTEST_DISTANCE,
    Verdict,
    judge_alone,
    mark_known,
    mark_repeats,
)
from matloop.structures import geometry
from matloop.structures.identity import Matcher
from matloop.structures.reading import Record

SCHEMA = 1
"""Version of the flat object; keys are added, never changed, within one version."""


def silent(step: str, done: int, total: int) -> None:
    """Say nothing of progress."""


@dataclass(frozen=True)
class Protocol:
    """What is asked of the samples, and within which tolerances.

    Attributes
    ----------
    matcher
        Decides what is unique and novel.
    symprec
        Tolerance within which symmetry is found (Å).
    judge
        What relaxes samples and references; None asks for no energies.
    coverage
        Cut-offs of coverage; None asks for none.
    held_out
        Test set that distributions and coverage are compared with; None for the reference.
    targets
        Crystals that were to be predicted; none if nothing was.
    seconds
        What making the samples took (s), if known.
    energies
        Most crystals of the test set whose energies are compared with those of the samples; of a
        larger one so many are drawn. CDVAE compares with about 1,000.
    seed
        Of that draw.
    cache
        Folder where fingerprints are kept; None keeps none.
    """

    matcher: Matcher = field(default_factory=Matcher)
    symprec: float = 0.1
    judge: Judge | None = None
    coverage: CutOffs | None = None
    held_out: Reference | None = None
    targets: Sequence[Record] = ()
    seconds: float | None = None
    energies: int = 1000
    seed: int = 0
    cache: Path | None = None


@dataclass(frozen=True)
class Assessment:
    """What was found of a set of samples.

    Attributes
    ----------
    verdicts
        One per sample, in order.
    figures
        The flat object: JSON scalars by stable keys.
    hull
        The hull of the reference; None where no energies were asked for.
    """

    verdicts: list[Verdict]
    figures: dict[str, Scalar]
    hull: ReferenceHull | None = None


def assess(
    records: Sequence[Record],
    reference: Reference,
    protocol: Protocol,
    name: str = "",
    notify: Notify = silent,
) -> Assessment:
    """Judge samples; all of them count, those that cannot be read or relaxed as failures.

    Parameters
    ----------
    records
        The samples, damaged ones among them.
    reference
        Known crystals.
    protocol
        What is asked.
    name
        Name of the samples.
    notify
        Told of progress.
    """
    n = len(records)
    matcher = protocol.matcher
    verdicts = judge_alone(records, protocol.symprec, lambda d: notify("judge alone", d, n))
    sound: list[Structure | None] = [
        record.structure
        if record.structure is not None and geometry.objection(record.structure) is None
        else None
        for record in records
    ]
    repeats = mark_repeats(sound, [verdict.name for verdict in verdicts], matcher)
    formulas = {verdict.formula for verdict in verdicts}
    known = mark_known(
        sound, reference.with_formulas(formulas), matcher, lambda d: notify("look up", d, n)
    )
    for verdict, repeat, match in zip(verdicts, repeats, known, strict=True):
        verdict.unique, verdict.repeats = repeat
        verdict.novel, verdict.matches = match
    hull = None
    if protocol.judge is not None:
        crystals = {
            verdict.name: structure
            for verdict, structure in zip(verdicts, sound, strict=True)
            if structure is not None
        }
        hull = judge_energies(verdicts, crystals, reference, protocol.judge, matcher, notify)
    figures = Figures()
    figures.put({"schema": SCHEMA, "matloop": __version__, "samples": name, "n": n})
    _put_samples(figures, verdicts)
    distributions.put_symmetry(figures, verdicts)
    test = protocol.held_out or reference
    distributions.put_distances(figures, verdicts, test)
    _put_energies(figures, verdicts, protocol.judge is not None)
    distributions.put_energy_distance(
        figures,
        verdicts,
        test,
        protocol.judge,
        protocol.energies,
        protocol.seed,
        protocol.cache,
        notify,
    )
    put_coverage(figures, sound, test, protocol.coverage, protocol.cache, notify)
    _put_prediction(figures, records, verdicts, protocol, notify)
    _put_cost(figures, protocol.seconds)
    _put_circumstances(figures, reference, protocol, hull)
    return Assessment(verdicts, figures.values, hull)


def _put_samples(figures: Figures, verdicts: Sequence[Verdict]) -> None:
    n = len(verdicts)
    shares = {
        "readable": [not v.problem for v in verdicts],
        "structural_validity": [v.structural_validity for v in verdicts],
        "smact_validity": [v.smact_validity for v in verdicts],
        "smact_validity_legacy": [v.smact_validity_legacy for v in verdicts],
        "valid": [v.structural_validity and v.smact_validity_legacy for v in verdicts],
        "unique": [v.unique for v in verdicts],
        "novel": [v.novel for v in verdicts],
        "unique_and_novel": [v.unique and v.novel for v in verdicts],
    }
    for key, flags in shares.items():
        figures.share(key, flags, n)


def _put_energies(figures: Figures, verdicts: Sequence[Verdict], asked: bool) -> None:
    n = len(verdicts)
    low = [is_stable(v) or is_metastable(v) for v in verdicts]
    shares: dict[str, Sequence[bool | None]] = {
        "relaxed": [v.relaxed for v in verdicts],
        "without_reference": [bool(v.no_reference) for v in verdicts],
        "stable": [is_stable(v) for v in verdicts],
        "metastable": [is_metastable(v) for v in verdicts],
        "stable_mattergen": low,
        "unique_relaxed": [v.unique_relaxed for v in verdicts],
        "novel_relaxed": [v.novel_relaxed for v in verdicts],
        "sun": [is_stable(v) and is_new(v) for v in verdicts],
        "msun": [is_metastable(v) and is_new(v) for v in verdicts],
        "sun_mattergen": [one and is_new(v) for one, v in zip(low, verdicts, strict=True)],
    }
    for key, flags in shares.items():
        figures.share(key, flags if asked else None, n)
    numbers = {
        "energy_drop": [v.energy_drop for v in verdicts],
        "rmsd": [v.rmsd for v in verdicts],
        "e_above_hull": [v.e_above_hull for v in verdicts],
    }
    for key, values in numbers.items():
        known = [value for value in values if value is not None]
        figures.statistic(f"{key}_mean", mean(known) if known else None, len(known))
        figures.statistic(f"{key}_median", median(known) if known else None, len(known))


def _put_prediction(
    figures: Figures,
    records: Sequence[Record],
    verdicts: Sequence[Verdict],
    protocol: Protocol,
    notify: Notify,
) -> None:
    count = len(protocol.targets)
    found = None
    if count:
        found = predict(
            records, verdicts, protocol.targets, lambda d: notify("compare with targets", d, count)
        )
    for key, matched in (
        ("match_rate", found.matched if found else None),
        ("match_rate_valid", found.matched_valid if found else None),
    ):
        flags = None if matched is None else [True] * matched
        figures.share(key, flags, count)
    figures.statistic("rmse", found.rmse if found else None, found.matched if found else 0)
    figures.put(
        {
            "samples_per_target": found.samples if found else None,
            "target_matcher": f"ltol {TOLERANCES.ltol:g}, stol {TOLERANCES.stol:g}, "
            f"angle {TOLERANCES.angle_tol:g}"
            if found
            else None,
        }
    )


def _put_cost(figures: Figures, seconds: float | None) -> None:
    figures.put({"seconds": seconds})
    n = figures.values["n"]
    assert isinstance(n, int)
    figures.statistic("samples_per_second", n / seconds if seconds else None, n)
    for key in ("sun", "msun", "sun_mattergen"):
        count = figures.values[f"{key}_count"]
        known = seconds is not None and isinstance(count, int) and count > 0
        cost = seconds / count if known and seconds and isinstance(count, int) else None
        figures.statistic(f"seconds_per_{key}", cost, count if isinstance(count, int) else 0)


def _put_circumstances(
    figures: Figures, reference: Reference, protocol: Protocol, hull: ReferenceHull | None
) -> None:
    figures.put(
        {
            "shortest_distance": SHORTEST_DISTANCE,
            "smallest_volume": geometry.SMALLEST_VOLUME,
            "matcher_ltol": protocol.matcher.ltol,
            "matcher_stol": protocol.matcher.stol,
            "matcher_angle_tol": protocol.matcher.angle_tol,
            "symprec": protocol.symprec,
            "reference": reference.name,
            "reference_sha256": reference.sha256,
            "reference_count": len(reference),
            "reference_set_aside": reference.set_aside,
            "held_out": protocol.held_out.name if protocol.held_out else None,
            "held_out_sha256": protocol.held_out.sha256 if protocol.held_out else None,
            "held_out_count": len(protocol.held_out) if protocol.held_out else None,
        }
    )
    relaxation = protocol.judge.relaxation if protocol.judge else None
    theory: LevelOfTheory | None = None
    if relaxation:
        theory = load_model(relaxation.model, relaxation.model_parameters).theory
    figures.put(
        {
            "stable_below": ROUNDING if relaxation else None,
            "metastable_below": METASTABLE if relaxation else None,
            "model": f"{theory.code} {theory.model}" if theory else None,
            "model_version": theory.version if theory else None,
            "model_sha256": theory.model_sha256 if theory else None,
            "optimizer": relaxation.optimizer if relaxation else None,
            "fmax": relaxation.fmax if relaxation else None,
            "max_steps": relaxation.max_steps if relaxation else None,
            "hull_theory": hull.theory if hull else None,
            "hull_phases": len(hull.points) if hull else None,
            "hull_given_up": len(hull.given_up) if hull else None,
            "hull_filled_elements": " ".join(hull.filled) if hull else None,
        }
    )
