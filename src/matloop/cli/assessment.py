"""What `matloop evaluate` shows: one clear table, and a file with a line per sample."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from matloop.atomic import whole_file
from matloop.errors import ConfigurationError
from matloop.metrics.evaluation import Assessment
from matloop.metrics.figures import interval
from matloop.metrics.stability import is_metastable, is_new, is_stable
from matloop.metrics.verdicts import Verdict

# Title and keys of each part, with the words of each line.
_SHARES = (
    (
        "as given",
        (
            ("structural_validity", "structurally valid"),
            ("smact_validity", "charge-neutral, SMACT"),
            ("smact_validity_legacy", "charge-neutral, SMACT before 4"),
            ("unique", "unique"),
            ("novel", "novel"),
            ("p1", "of space group P1"),
            ("template_duplicates", "of a template seen before"),
            ("cov_recall", "coverage, recall"),
            ("cov_precision", "coverage, precision"),
            ("match_rate", "targets met"),
            ("match_rate_valid", "targets met, neutral too"),
        ),
    ),
    (
        "relaxed",
        (
            ("relaxed", "relaxed"),
            ("without_reference", "without an element's reference"),
            ("stable", "stable, on the hull or below"),
            ("metastable", "metastable, at most 0.1 eV/atom above"),
            ("stable_mattergen", "at most 0.1 eV/atom above or stable"),
            ("unique_relaxed", "unique"),
            ("novel_relaxed", "novel"),
            ("sun", "S.U.N.: stable, unique, novel"),
            ("msun", "M.S.U.N.: metastable, unique, novel"),
            ("sun_mattergen", "S.U.N. as in MatterGen (0.1)"),
        ),
    ),
)
_NUMBERS = (
    ("energy_drop_median", "energy drop on relaxing, median", "eV/atom"),
    ("rmsd_median", "distance to the relaxed, median", "Å"),
    ("rmsd_mean", "distance to the relaxed, mean", "Å"),
    ("e_above_hull_median", "distance to the hull, median", "eV/atom"),
    ("wdist_density", "Wasserstein distance of density", "g/cm^3"),
    ("wdist_elements", "Wasserstein distance of number of elements", ""),
    ("wdist_energy", "Wasserstein distance of formation energy", "eV/atom"),
    ("rmse", "RMSE of targets met", ""),
    ("samples_per_second", "samples per second", "1/s"),
    ("seconds_per_sun", "cost of a S.U.N. crystal", "s"),
    ("seconds_per_msun", "cost of a M.S.U.N. crystal", "s"),
)


def write_verdicts(path: Path, verdicts: Sequence[Verdict]) -> None:
    """Write one line per sample, with every verdict.

    Raises
    ------
    ConfigurationError
        If the file cannot be written.
    """
    stream = io.StringIO(newline="")
    derived = ("stable", "metastable", "sun", "msun")
    names = [item.name for item in fields(Verdict)]
    writer = csv.DictWriter(stream, [*names, *derived], lineterminator="\n")
    writer.writeheader()
    for verdict in verdicts:
        stable, metastable, new = is_stable(verdict), is_metastable(verdict), is_new(verdict)
        judged = {
            "stable": stable,
            "metastable": metastable,
            "sun": stable and new,
            "msun": metastable and new,
        }
        known = judged if verdict.relaxed is not None else {}
        writer.writerow({**asdict(verdict), **known})
    try:
        with whole_file(path) as partial:
            partial.write_text(stream.getvalue(), encoding="utf-8")
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigurationError(f"{path} cannot be written: {reason}; name another") from None


def show(found: Assessment, console: Console) -> None:
    """Print what was computed, with counts, and under what circumstances."""
    figures = found.figures
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), header_style="dim")
    table.add_column("")
    for title in ("share", "95 %", "count", "of"):
        table.add_column(title, justify="right", no_wrap=True)
    for title, lines in _SHARES:
        known = [(key, words) for key, words in lines if figures.get(key) is not None]
        if not known:
            continue
        table.add_row(f"[dim]{title}[/]", end_section=False)
        for key, words in known:
            share = figures[key]
            assert isinstance(share, float)
            count, denominator = figures[f"{key}_count"], figures[f"{key}_denominator"]
            assert isinstance(count, int)
            assert isinstance(denominator, int)
            low, high = interval(count, denominator)
            spread = f"{100 * low:.1f} to {100 * high:.1f}"
            table.add_row(f"  {words}", f"{share:.1%}", spread, str(count), str(denominator))
    console.print(table)
    numbers = Table(box=box.SIMPLE_HEAD, padding=(0, 1), header_style="dim")
    numbers.add_column("")
    for title in ("value", "of"):
        numbers.add_column(title, justify="right", no_wrap=True)
    for key, words, unit in _NUMBERS:
        value = figures.get(key)
        if isinstance(value, float | int):
            numbers.add_row(words, f"{value:.4g} {unit}", str(figures[f"{key}_denominator"]))
    if numbers.row_count:
        console.print(numbers)
    for line in circumstances(found):
        console.print(f"[dim]{escape(line)}[/]", soft_wrap=True)


def circumstances(found: Assessment) -> list[str]:
    """Return what the numbers rest on, a line each."""
    figures = found.figures
    lines = [
        f"{figures['n']} samples of {figures['samples']}; "
        f"{figures['templates']} templates in {figures['space_groups']} space groups "
        f"within {figures['symprec']:g} Å",
        f"reference {figures['reference']}: {figures['reference_count']} crystals, sha256 "
        f"{str(figures['reference_sha256'])[:12]}; the same within ltol "
        f"{figures['matcher_ltol']:g}, stol {figures['matcher_stol']:g}, angle "
        f"{figures['matcher_angle_tol']:g}°",
    ]
    if figures["held_out"] is not None:
        lines.append(
            f"distributions against {figures['held_out']}: {figures['held_out_count']} crystals"
        )
    if found.hull is None:
        return lines
    lines.append(
        f"relaxed with {figures['model']} to {figures['fmax']:g} eV/Å in at most "
        f"{figures['max_steps']} steps; hull of {figures['hull_phases']} reference phases relaxed "
        "alike"
    )
    if found.hull.given_up:
        lines.append(f"{len(found.hull.given_up)} reference crystals did not relax")
    if found.hull.filled:
        lines.append(
            f"the reference has no usable crystal of {', '.join(found.hull.filled)}; the embedded "
            "set's were taken"
        )
    return lines
