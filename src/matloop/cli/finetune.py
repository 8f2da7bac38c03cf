"""`matloop finetune`: tune a potential on labelled crystals, and say whether it got better."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from matloop.cli.places import CampaignName, Directory, SiteFile, opened
from matloop.cli.terminal import stdout
from matloop.errors import ConfigurationError, MatloopError

if TYPE_CHECKING:
    from matloop.documents.labelled import Labelled, ModelCard


def finetune(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Potential: chgnet or mace.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="File to write.", show_default=False)
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            "--data", help="Labelled crystals, as extended XYZ; otherwise those of a campaign."
        ),
    ] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option("--with", metavar="NAME=VALUE", help="Parameter of the potential."),
    ] = None,
    theory: Annotated[
        str, typer.Option("--theory", help="Level of theory of the labels, or its start.")
    ] = "",
    steps: Annotated[int, typer.Option("--steps", min=0, help="Optimiser steps.")] = 200,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Crystals per step.")] = 8,
    rate: Annotated[float, typer.Option("--rate", help="Learning rate.")] = 1e-4,
    frozen: Annotated[
        float, typer.Option("--frozen", help="Share of the crystals that judge, unseen.")
    ] = 0.2,
    margin: Annotated[
        float, typer.Option("--margin", help="Least relative fall of the energy error.")
    ] = 0.05,
    device: Annotated[str, typer.Option("--device", help="cpu or cuda.")] = "cpu",
    seed: Annotated[int, typer.Option("--seed", help="The only source of randomness.")] = 0,
    directory: Directory = None,
    site: SiteFile = None,
    campaign: CampaignName = None,
) -> None:
    """Tune a potential on labelled crystals, judged on crystals it has not seen.

    A model that did not get better is written all the same, and the exit code is 1.
    """
    from matloop.potentials import Tuning
    from matloop.surrogates.finetuning import Gate
    from matloop.surrogates.finetuning import finetune as tune

    if not 0.0 < frozen < 1.0 or not 0.0 <= margin < 1.0 or not rate > 0.0:
        raise ConfigurationError(
            "--frozen must lie between 0 and 1, --margin from 0 to 1, and --rate above 0"
        )
    if data is not None and (directory or site or campaign):
        raise ConfigurationError("labels come from a file or from a campaign: give --data or --dir")
    labels = read_labels(data) if data is not None else _of_campaign(directory, site, campaign)
    tuned = tune(
        model,
        _parameters(parameter or []),
        labels,
        settings=Tuning(steps=steps, batch=batch, rate=rate, device=device),
        gate=Gate(margin),
        frozen_share=frozen,
        theory=theory,
        seed=seed,
    )
    try:
        output.write_bytes(tuned.to_bytes())
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigurationError(f"{output} cannot be written: {reason}; name another") from None
    _show(tuned.card, output)
    if not tuned.card.accepted:
        raise MatloopError(tuned.card.reason)


def read_labels(path: Path) -> list[Labelled]:
    """Return the labelled crystals of an extended XYZ file.

    Each frame has an energy (eV) and forces (eV/Å), and may have a stress (eV/Å^3), a ``theory``, a
    ``group`` (what must not be split) and ``converged``.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    ConfigurationError
        If it cannot be read, or a frame has no energy or forces.
    """
    import ase.io
    from ase.stress import voigt_6_to_full_3x3_stress
    from pymatgen.io.ase import AseAtomsAdaptor

    from matloop.documents.labelled import Frame, Labelled
    from matloop.documents.theory import LevelOfTheory

    try:
        frames = ase.io.read(path, index=":", format="extxyz")
    except FileNotFoundError:
        raise ConfigurationError(f"there is no file {path}; give one with --data") from None
    except Exception as error:  # ase's readers raise whatever their parsing trips over
        raise ConfigurationError(f"{path} is no extended XYZ file: {error}") from None
    labels = []
    for number, atoms in enumerate(frames):
        found = atoms.calc.results if atoms.calc is not None else {}
        if "energy" not in found or "forces" not in found or not atoms.pbc.all():
            raise ConfigurationError(
                f"{path}, frame {number + 1}: a label needs a periodic cell, energy and forces"
            )
        stress = found.get("stress")
        full = voigt_6_to_full_3x3_stress(stress) if stress is not None else None
        name = str(atoms.info.get("theory", "as given"))
        structure = AseAtomsAdaptor.get_structure(atoms)
        labels.append(
            Labelled(
                label_id=f"{path.name}/{number}",
                group=str(atoms.info.get("group", number)),
                frame=Frame(
                    structure=structure.copy(site_properties={}),
                    energy=float(found["energy"]),
                    forces=tuple(map(tuple, found["forces"].tolist())),
                    stress=None if full is None else tuple(map(tuple, full.tolist())),
                ),
                theory=LevelOfTheory(kind="stated", code="file", version="", model=name),
                converged=bool(atoms.info.get("converged", True)),
            )
        )
    return labels


def _of_campaign(directory: Path | None, site: Path | None, campaign: str | None) -> list[Labelled]:
    from matloop.jobs.reading import observations
    from matloop.ledger.past import read_past

    with opened(directory, campaign, site) as (ledger, record, _):
        past = read_past(ledger, record.campaign_id, record.campaign)
        seen = observations(past, record.campaign)
    labels = [label for item in seen for label in item.labels]
    if not labels:
        raise ConfigurationError(
            f"campaign {record.campaign_id!r} has no labels: none of its stages has calculated "
            "energies and forces with an engine"
        )
    return labels


def _parameters(given: list[str]) -> dict[str, object]:
    import yaml

    found: dict[str, object] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            raise ConfigurationError(f"--with {text}: write it as name=value")
        found[name] = yaml.safe_load(value)
    return found


def _show(card: ModelCard, path: Path) -> None:
    out = stdout()
    left = sum(card.excluded.values())
    out.print(
        f"{len(card.training)} labels to train on, {len(card.frozen)} to judge by, {left} left out"
        + (f" ({', '.join(f'{n} {why}' for why, n in card.excluded.items())})" if left else ""),
        soft_wrap=True,
    )
    for name, found in (
        ("as it was", card.before),
        ("elements refitted", card.shifted),
        ("tuned", card.after),
    ):
        stress = "" if found.stress_mae is None else f", {1000 * found.stress_mae:.1f} meV/Å³"
        relative = (
            ""
            if found.relative_mae is None
            else f" ({1000 * found.relative_mae:.1f} relative to the elements)"
        )
        out.print(
            f"  {name:<18} {1000 * found.energy_mae:10.1f} meV/atom{relative}, "
            f"{1000 * found.force_mae:.1f} meV/Å{stress}",
            soft_wrap=True,
        )
    mark = "[green]✓[/]" if card.accepted else "[yellow]![/]"
    out.print(f"{mark} {card.reason}", soft_wrap=True)
    out.print(f"wrote {escape(str(path))}", soft_wrap=True)
