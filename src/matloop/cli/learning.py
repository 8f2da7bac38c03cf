"""`matloop train` and `matloop sample`: generators that learn, from the command line."""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from matloop.cli.terminal import stderr, stdout
from matloop.errors import ConfigurationError, Mistake

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from matloop.generators.neural.architecture import Conditions
    from matloop.generators.neural.training import Epoch
    from matloop.generators.neural.training_settings import TrainingSettings

_FORMATS = (".zip", ".json", ".extxyz", ".csv")


def train(
    generator: Annotated[
        str, typer.Argument(help="Architecture, as `matloop plugins` lists them.")
    ],
    data: Annotated[
        list[Path],
        typer.Option(
            "--data",
            "-d",
            help="Structure files and folders; a CSV may hold properties and a split.",
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Model file; GENERATOR.safetensors else.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", "-c", help="YAML with `architecture:` and `training:`, each a mapping."
        ),
    ] = None,
    properties: Annotated[
        list[str] | None,
        typer.Option("--property", "-p", help="Column to condition on; may be given again."),
    ] = None,
    max_atoms: Annotated[int, typer.Option(help="Most atoms of a crystal to learn from.")] = 20,
    epochs: Annotated[int | None, typer.Option(help="Most passes over the data.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Time after which training ends.")] = None,
    seed: Annotated[int | None, typer.Option(help="The only source of randomness.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    licence: Annotated[str, typer.Option(help="Licence of the data, for the model card.")] = "",
) -> None:
    """Train a generator on your own crystals.

    Killed, it goes on where it was when called again. The model file holds the best weights so far
    and a card of what they were trained on.
    """
    from matloop.generators.neural.crystals import read_training_data
    from matloop.generators.neural.training import train as fit

    target = output or Path(f"{generator}.safetensors")
    if target.suffix != ".safetensors":
        raise ConfigurationError(f"{target}: a model file ends in .safetensors")
    declared = _config(config)
    given = {"epochs": epochs, "minutes": minutes, "seed": seed, "device": device}
    settings = _settings(declared.get("training", {}), given, config)
    wanted = list(properties or [])
    architecture = _architecture(generator, dict(declared.get("architecture", {})), wanted, config)
    with stderr().status("reading crystals"):
        found = read_training_data(data, max_atoms, wanted)
    lost = "".join(f" · {count} {reason}" for reason, count in found.left_out.items())
    stderr().print(
        f"{len(found.train)} crystals to learn from, {len(found.validation)} to validate"
        f"{escape(lost)}",
        soft_wrap=True,
    )
    with _bar() as on_step:
        card = fit(
            architecture,
            found,
            settings,
            target,
            licence=licence,
            properties=wanted,
            on_epoch=_tell,
            on_step=on_step,
        )
    loss = card.metrics["validation_loss"]
    stdout().print(
        f"[green]✓[/] {escape(str(target))}: {card.n_parameters:,} parameters, validation loss "
        f"{loss.value:.4f} over {loss.denominator} crystals, {card.epochs:g} epochs, "
        f"{card.seconds:.0f} s on {escape(card.device)}",
        soft_wrap=True,
    )


def sample(
    model: Annotated[str, typer.Argument(help="Model file, or name of a shipped model.")],
    count: Annotated[int, typer.Option("-n", "--count", min=1, help="Crystals wanted.")] = 100,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help=f"{', '.join(_FORMATS)}, or a new folder for CIFs."),
    ] = Path("sample.zip"),
    system: Annotated[str | None, typer.Option(help="Chemical system, as in Ca-Ti-O.")] = None,
    elements: Annotated[
        str | None, typer.Option(help="Only these elements, as in Ca,Ti,O.")
    ] = None,
    formula: Annotated[str | None, typer.Option(help="Formula, as in CaTiO3.")] = None,
    condition: Annotated[
        list[str] | None,
        typer.Option(help="NAME=VALUE: a property of the model, space_group or n_atoms."),
    ] = None,
    max_atoms: Annotated[int, typer.Option(min=1, help="Most atoms in the primitive cell.")] = 20,
    guidance: Annotated[float, typer.Option(min=0, help="Weight of the conditions.")] = 0.0,
    temperature: Annotated[float, typer.Option(min=0.05, help="1 for the model as it is.")] = 1.0,
    charge_balance: Annotated[
        bool, typer.Option("--charge-balance", help="Only compositions SMACT calls balanced.")
    ] = False,
    potential: Annotated[
        str | None,
        typer.Option(help="Potential whose energy guides or chooses cells and coordinates."),
    ] = None,
    penalty: Annotated[
        list[str] | None,
        typer.Option(
            help="What else guides or chooses them: minimum_distance=0.8 (sums of covalent radii), "
            "volume=11 (Å^3 per atom), density=5.2 (g/cm^3); may be given again."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="The only source of randomness.")] = 0,
) -> None:
    """Draw crystals from a trained model."""
    from matloop import registry
    from matloop.generators.neural.architecture import SampleRequest
    from matloop.generators.neural.guidance import named_penalty
    from matloop.generators.neural.model_file import load_model, model_path
    from matloop.generators.neural.sampling import draw

    if output.suffix and output.suffix not in _FORMATS:
        raise ConfigurationError(f"{output}: samples are written as {', '.join(_FORMATS)}")
    loaded = load_model(model_path(model))
    conditions = _conditions(system, elements, formula, condition or [], max_atoms)
    if potential is not None:
        registry.load("models", potential)
    request = SampleRequest(
        count,
        seed,
        conditions,
        temperature,
        guidance,
        charge_balance=charge_balance,
        penalty=named_penalty(_numbers("--penalty", penalty or [], "density=5.2"), potential or ""),
    )
    with _bar("drawing crystals") as on_progress:
        found = draw(loaded, request, on_progress=lambda done: on_progress(done, count))
    _write_structures(output, found.structures)
    lost = "".join(f" · {n} {reason}" for reason, n in found.rejected.items())
    stdout().print(
        f"[green]✓[/] {len(found.structures)} of {count} crystals in {escape(str(output))}; "
        f"{found.drawn} drawn{escape(lost)}",
        soft_wrap=True,
    )


def card(
    model: Annotated[str, typer.Argument(help="Model file, or name of a shipped model.")],
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON.")] = False,
) -> None:
    """Show what a model is, what it was trained on, and how good it is."""
    from matloop.generators.neural.model_file import model_path, read_card

    found = read_card(model_path(model)).model_dump(exclude={"statistics"})
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), show_header=False)
    for name, value in found.items():
        if name != "history" and value not in ("", {}, [], ()):
            table.add_row(name, escape(_shown(value)))
    stdout().print(table)


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "\n".join(f"{key}: {_shown(inner)}" for key, inner in value.items())
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _config(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    import yaml

    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigurationError(f"{path} does not exist") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ConfigurationError(f"{path} cannot be read as YAML: {reason}") from None
    sections = {"architecture", "training"}
    if not isinstance(found, dict) or not set(found) <= sections:
        raise ConfigurationError([Mistake("", "expected `architecture:` and `training:`")], path)
    for name, value in found.items():
        if not isinstance(value, dict):
            raise ConfigurationError([Mistake(name, "must be a mapping of names to values")], path)
    return found


def _settings(
    declared: dict[str, Any], given: dict[str, Any], config: Path | None
) -> TrainingSettings:
    from pydantic import TypeAdapter, ValidationError

    from matloop.generators.neural.training_settings import TrainingSettings

    values = {**declared, **{name: value for name, value in given.items() if value is not None}}
    known = TrainingSettings.__dataclass_fields__
    strange = sorted(set(values) - set(known))
    if strange:
        message = f"there is no such setting; there are: {', '.join(known)}"
        raise ConfigurationError([Mistake(f"training.{strange[0]}", message)], config)
    try:
        return TypeAdapter(TrainingSettings).validate_python(values)
    except ValidationError as error:
        mistakes = [
            Mistake(f"training.{'.'.join(map(str, item['loc']))}", item["msg"].lower())
            for item in error.errors()
        ]
        raise ConfigurationError(mistakes, config) from None


def _architecture(
    name: str, parameters: dict[str, Any], properties: list[str], config: Path | None
) -> Any:
    from matloop import registry

    cls = registry.load("architectures", name)
    if properties:
        if "properties" not in cls.__dataclass_fields__:
            raise ConfigurationError(f"{name} cannot be conditioned on properties")
        parameters.setdefault("properties", properties)
    try:
        return registry.build("architectures", name, parameters)
    except ConfigurationError as error:
        mistakes = [Mistake(f"architecture.{m.field}", m.message) for m in error.mistakes]
        raise ConfigurationError(mistakes, config) from None


def _conditions(
    system: str | None,
    elements: str | None,
    formula: str | None,
    conditions: list[str],
    max_atoms: int,
) -> Conditions:
    from pymatgen.core import Composition

    from matloop.generators.neural.architecture import Conditions

    if sum(item is not None for item in (system, elements, formula)) > 1:
        raise ConfigurationError("give one of --system, --elements and --formula")
    counts: dict[str, int] = {}
    if formula is not None:
        try:
            reduced = Composition(formula).reduced_composition
            counts = {str(e): round(n) for e, n in reduced.items()}
        except ValueError:
            raise ConfigurationError(f"{formula!r} is no formula; write one as CaTiO3") from None
        _elements(tuple(counts))
        if sum(counts.values()) > max_atoms:
            raise ConfigurationError(f"{formula} has more than --max-atoms {max_atoms} atoms")
    numbers = _numbers("--condition", conditions, "band_gap=1.5")
    return Conditions(
        elements=_elements(tuple(elements.split(","))) if elements else (),
        system=_elements(tuple(system.split("-"))) if system else (),
        formula=counts,
        space_group=int(numbers.pop("space_group", 0)),
        n_atoms=int(numbers.pop("n_atoms", 0)),
        max_atoms=max_atoms,
        properties=numbers,
    )


def _numbers(option: str, texts: list[str], example: str) -> dict[str, float]:
    """Return what NAME=VALUE says, given several times."""
    numbers: dict[str, float] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        try:
            numbers[name] = float(value)
        except ValueError:
            separator = ""
        if not separator:
            raise ConfigurationError(f"{option} {text}: write NAME=VALUE, as in {example}")
    return numbers


def _elements(names: tuple[str, ...]) -> tuple[str, ...]:
    from pymatgen.core import Element

    for name in names:
        if not Element.is_valid_symbol(name):
            raise ConfigurationError(f"{name!r} is no chemical element; write symbols such as Ti")
    return tuple(str(element) for element in sorted({Element(name) for name in names}))


def _write_structures(path: Path, structures: tuple[Any, ...]) -> None:
    from matloop.structures.writing import write_structures

    try:
        write_structures(path, structures)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigurationError(f"{path} cannot be written: {reason}; name another") from None


def _tell(epoch: Epoch) -> None:
    mark = "[green]best[/]" if epoch.best else ""
    stderr().print(
        f"epoch {epoch.number:>3}  train {epoch.train:8.4f}  validation {epoch.validation:8.4f}  "
        f"{epoch.seconds:7.0f} s  {mark}"
    )


@contextmanager
def _bar(title: str = "training") -> Iterator[Callable[[int, int], None]]:
    """Show a bar on a terminal, and nothing elsewhere."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=stderr(), transient=True) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
