"""`matloop evaluate`: the field's metrics for the samples of anybody's generator."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from multiprocessing import active_children
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from matloop.cli.terminal import stderr, stdout
from matloop.errors import ConfigurationError

if TYPE_CHECKING:
    from matloop.evaluators.mlip.relaxation import Relaxation
    from matloop.metrics.hull import Notify
    from matloop.structures.reading import Record

CACHE = Path(".cache/matloop/evaluate")
"""Folder below the user's home where results are kept unless another is named."""

_INTERRUPTED = 130


def evaluate(
    structures: Annotated[
        list[Path],
        typer.Argument(
            help="Samples: CIF, POSCAR, extxyz, JSON, CSV with a cif column, zip of CIFs, npz of "
            "CDVAE's layout, or folders.",
            show_default=False,
        ),
    ],
    reference: Annotated[
        list[Path],
        typer.Option(
            "--reference",
            "-r",
            help="Known crystals, for novelty and the hull: structure files, or the word embedded.",
            show_default=False,
        ),
    ],
    relax: Annotated[
        str | None,
        typer.Option(
            "--relax", help="Potential that relaxes samples and references, such as chgnet."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write one flat JSON object.")] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write every verdict, one line per sample (.csv)."),
    ] = None,
    targets: Annotated[
        Path | None,
        typer.Option("--targets", help="Structure prediction: the crystals to be predicted."),
    ] = None,
    held_out: Annotated[
        Path | None,
        typer.Option(
            "--held-out",
            help="Test set for coverage and distributions; by default the reference.",
        ),
    ] = None,
    coverage: Annotated[
        str | None,
        typer.Option(
            "--coverage", help="Compute coverage: mp-20, perov-5, carbon-24, or cut-offs 0.4,10."
        ),
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option("--seconds", min=0, help="What making the samples took (s)."),
    ] = None,
    ltol: Annotated[float, typer.Option("--ltol", help="Tolerance of lattice lengths.")] = 0.2,
    stol: Annotated[float, typer.Option("--stol", help="Tolerance of sites.")] = 0.3,
    angle_tol: Annotated[
        float, typer.Option("--angle-tol", help="Tolerance of angles (degrees).")
    ] = 5.0,
    symprec: Annotated[float, typer.Option("--symprec", help="Tolerance of symmetry (Å).")] = 0.1,
    fmax: Annotated[float, typer.Option("--fmax", help="Converged below this force (eV/Å).")] = 0.1,
    max_steps: Annotated[
        int, typer.Option("--max-steps", min=1, help="Steps of a relaxation at most.")
    ] = 500,
    model_options: Annotated[
        list[str] | None,
        typer.Option("--model-option", help="Parameter of the potential, as in device=cuda."),
    ] = None,
    workers: Annotated[
        int, typer.Option("--workers", min=0, help="Worker processes; 0 for none.")
    ] = 0,
    cache: Annotated[
        Path | None,
        typer.Option(
            "--cache",
            help="Folder of results, used again by later calls; by default ~/.cache/matloop.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of what is drawn at random.")] = 0,
) -> None:
    """Compute validity, uniqueness, novelty, stability and more.

    Shares are of all samples; what cannot be read or relaxed counts as a failure. Stability needs
    --relax: samples and reference crystals are relaxed alike, and a killed call goes on where it
    was.
    """
    folder = cache or Path.home() / CACHE
    _require_writable(output, folder)
    for name, value in (("ltol", ltol), ("stol", stol), ("angle-tol", angle_tol)):
        _require_positive(name, value)
    _require_positive("symprec", symprec)
    from matloop.cli.assessment import show, write_verdicts
    from matloop.metrics.coverage import cut_offs
    from matloop.metrics.evaluation import Protocol, assess
    from matloop.metrics.hull import Judge
    from matloop.metrics.reference import load_reference
    from matloop.structures.identity import Matcher
    from matloop.structures.reading import read_records

    limits = cut_offs(coverage) if coverage else None
    relaxation = _relaxation(relax, model_options or [], fmax, max_steps)
    try:
        with _progress() as notify, warnings.catch_warnings():
            warnings.filterwarnings("ignore", "No Pauling electronegativity")  # of noble gases
            records = _samples(read_records(structures), structures)
            goals = _samples(read_records([targets]), [targets]) if targets else []
            known = load_reference(reference, folder, lambda: notify("read references", 0, 0))
            test = load_reference([held_out], folder) if held_out else None
            with _shelf(folder) if relaxation else nullcontext() as shelf:
                judge = Judge(relaxation, shelf, workers) if relaxation and shelf else None
                protocol = Protocol(
                    matcher=Matcher(ltol, stol, angle_tol),
                    symprec=symprec,
                    judge=judge,
                    coverage=limits,
                    held_out=test,
                    targets=goals,
                    seconds=seconds,
                    seed=seed,
                    cache=folder,
                )
                found = assess(records, known, protocol, ", ".join(map(str, structures)), notify)
    except KeyboardInterrupt:
        for worker in active_children():  # waiting for their chunks would keep the user
            worker.kill()
        stderr().print("\n[yellow]interrupted[/]; what was relaxed is kept: give the same command")
        raise typer.Exit(_INTERRUPTED) from None
    if output is not None:
        write_verdicts(output, found.verdicts)
    if as_json:
        typer.echo(json.dumps(found.figures, indent=2, ensure_ascii=False))
        return
    show(found, stdout())
    if output is not None:
        stdout().print(f"[green]✓[/] wrote {escape(str(output))}", soft_wrap=True)


def _require_positive(name: str, value: float) -> None:
    if not value > 0:
        raise ConfigurationError(f"--{name} must be positive, got {value:g}")


def _require_writable(output: Path | None, cache: Path) -> None:
    """Refuse now what would be refused after hours."""
    if output is not None and output.suffix != ".csv":
        raise ConfigurationError(f"{output}: verdicts are written as .csv")
    for path in filter(None, (output and output.parent, cache)):
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise ConfigurationError(f"{path} cannot be made: {reason}; name another") from None
        if not os.access(path, os.W_OK | os.X_OK):
            raise ConfigurationError(f"{path} cannot be written; name another")


def _samples(records: list[Record], paths: list[Path]) -> list[Record]:
    if not any(record.structure is not None for record in records):
        reason = records[0].problem if records else "they hold no structure"
        raise ConfigurationError(f"{', '.join(map(str, paths))}: nothing can be read: {reason}")
    return records


def _relaxation(
    model: str | None, options: list[str], fmax: float, max_steps: int
) -> Relaxation | None:
    if model is None:
        if options:
            raise ConfigurationError("--model-option needs --relax MODEL")
        return None
    _require_positive("fmax", fmax)
    from matloop.evaluators.mlip.model import load_model
    from matloop.evaluators.mlip.relaxation import Relaxation

    parameters: dict[str, bool | int | float | str] = {}
    for option in options:
        key, equals, text = option.partition("=")
        if not (key and equals):
            raise ConfigurationError(f"--model-option {option!r}: write it as KEY=VALUE")
        parameters[key] = _value(text)
    load_model(model, parameters)  # refuses what is wrong before anything is read
    return Relaxation(model=model, model_parameters=parameters, fmax=fmax, max_steps=max_steps)


def _value(text: str) -> bool | int | float | str:
    try:
        value: Any = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, bool | int | float | str) else text


@contextmanager
def _shelf(folder: Path) -> Iterator[Any]:
    from matloop.ledger.opening import open_ledger

    with closing(open_ledger(folder, create=True)) as ledger:
        yield ledger


@contextmanager
def _progress() -> Iterator[Notify]:
    """Show one moving line per step on a terminal, and nothing elsewhere."""
    if not stderr().is_terminal:
        yield lambda step, done, total: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=stderr(), transient=True) as bar:
        tasks: dict[str, Any] = {}

        def notify(step: str, done: int, total: int) -> None:
            if step not in tasks:
                for other in tasks.values():
                    bar.update(other, visible=False)
                tasks[step] = bar.add_task(step, total=None)
            bar.update(tasks[step], completed=done, total=total or None, visible=True)

        yield notify
