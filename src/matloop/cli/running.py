"""`matloop run`: a campaign from its file to its end, in one process."""

from __future__ import annotations

import os
import shlex
from multiprocessing import active_children
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from matloop.cli.campaigns import CampaignFile
from matloop.cli.places import LEDGER
from matloop.cli.terminal import stderr
from matloop.errors import ConfigurationError, Mistake

if TYPE_CHECKING:
    from matloop.documents.campaign import Campaign

_INTERRUPTED = 130


def run(
    campaign_file: CampaignFile,
    directory: Annotated[
        Path | None,
        typer.Option("--dir", "-d", help="Folder of the run; by default ./runs/NAME."),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option("--seed", min=0, max=10**18 - 1, help="Instead of the file's seed."),
    ] = None,
    iterations: Annotated[
        int | None,
        typer.Option("--iterations", min=1, max=100_000, help="Instead of the file's budget."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue a run that was interrupted.")
    ] = False,
) -> None:
    """Run a campaign; Ctrl-C, or a kill at any time, loses nothing."""
    from matloop.campaign_file import load
    from matloop.cli.display import Display

    campaign = _with(load(campaign_file), seed, iterations)
    directory = directory or Path("runs") / campaign.name
    base = campaign_file.resolve().parent
    _refuse_unusable(directory)
    _refuse_conflict(campaign.located(base), directory, resume)
    try:
        with Display(directory / "run.log"):
            from matloop.launch.local import run as launch

            state = launch(campaign, directory, resume=resume, base=base)
    except KeyboardInterrupt:
        for worker in active_children():  # waiting for their chunks would keep the user
            worker.kill()
        again = _again(campaign_file, directory, seed, iterations)
        stderr().print(
            "\n[yellow]interrupted[/]; nothing is lost. Go on with:\n"
            f"  [bold]{escape(shlex.join(again))}[/]",
            soft_wrap=True,
        )
        raise typer.Exit(_INTERRUPTED) from None
    from matloop.cli.results import conclude

    conclude(directory, state.campaign_id)
    if state.status == "running":
        where = shlex.quote(str(directory))
        stderr().print(
            f"[yellow]paused[/] before iteration {state.iteration}; nothing is lost. Go on with:\n"
            f"  [bold]{escape(f'matloop resume {state.campaign_id} --dir {where}')}[/], then\n"
            f"  [bold]{escape(shlex.join(_again(campaign_file, directory, seed, iterations)))}[/]",
            soft_wrap=True,
        )


def _again(
    campaign_file: Path, directory: Path, seed: int | None, iterations: int | None
) -> list[str]:
    """Return the command that continues a run."""
    words = ["matloop", "run", str(campaign_file), "--dir", str(directory)]
    words += ["--seed", str(seed)] if seed is not None else []
    words += ["--iterations", str(iterations)] if iterations is not None else []
    return [*words, "--resume"]


def _with(campaign: Campaign, seed: int | None, iterations: int | None) -> Campaign:
    if seed is not None:
        campaign = campaign.model_copy(update={"seed": seed})
    if iterations is not None:
        budget = campaign.budget.model_copy(update={"iterations": iterations})
        campaign = campaign.model_copy(update={"budget": budget})
    return campaign


def _refuse_unusable(directory: Path) -> None:
    """Refuse a folder that cannot be written; it is made later, by a campaign that can start."""
    nearest = next(path for path in (directory, *directory.parents) if os.path.exists(path))
    if not nearest.is_dir():
        raise ConfigurationError(f"{nearest} is a file; name a folder with --dir")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise ConfigurationError(f"{nearest} cannot be written; choose another --dir")


def _refuse_conflict(campaign: Campaign, directory: Path, resume: bool) -> None:
    """Refuse to start twice, and to continue as another campaign."""
    if not (directory / LEDGER).exists():
        return
    from matloop.ledger.opening import read_ledger

    ledger = read_ledger(directory)
    try:
        record = ledger.campaign(campaign.name)
        states = ledger.states(campaign.name) if record else []
    finally:
        ledger.close()
    if record is None:
        return
    if not resume:
        if states and states[-1].status == "finished":
            raise ConfigurationError(
                f"campaign {campaign.name!r} has finished in {directory}: see it with "
                f"`matloop report --dir {directory}`, or choose another --dir"
            )
        return  # it may be running: who runs it, or how to continue it, is said under its lock
    changed = _differences(
        record.campaign.model_dump(mode="json", by_alias=True),
        campaign.model_dump(mode="json", by_alias=True),
    )
    if changed:
        raise ConfigurationError(
            [
                Mistake(field, f"was {before!r} when this campaign was started, is {now!r} now")
                for field, before, now in changed
            ]
            + [Mistake("", "restore the file to resume, or give the changed campaign a new name")]
        )


def _differences(before: Any, now: Any, path: str = "") -> list[tuple[str, Any, Any]]:
    """Return the smallest differing fields, as (dotted path, before, now)."""
    if isinstance(before, dict) and isinstance(now, dict):
        return [
            difference
            for key in dict.fromkeys([*before, *now])
            for difference in _differences(
                before.get(key), now.get(key), f"{path}.{key}" if path else key
            )
        ]
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        return [
            difference
            for index, pair in enumerate(zip(before, now, strict=True))
            for difference in _differences(*pair, f"{path}[{index}]")
        ]
    return [] if before == now else [(path, before, now)]
