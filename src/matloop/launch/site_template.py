"""A commented site file, from a few answers and from what SLURM says of its partitions."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from matloop.errors import SchedulerError
from matloop.launch import slurm
from matloop.launch.site import DEFAULT_KIND
from matloop.launch.worker_kind import WorkerKind

_LONGEST = 8 * 3600  # s; of a walltime nobody asked for
_MOST_CORES = 8
_PLAIN = re.compile(r"[A-Za-z/~][A-Za-z0-9_./~ -]*[A-Za-z0-9_./~-]|[A-Za-z/~]")
_WORDS = {"true", "false", "null", "nan", "inf"}
_NUMBERS = {"nodes", "cores", "gpus", "max_jobs", "idle_seconds", "max_launches"}
_COMMENTS = {
    "queue": "partition; without it the cluster's default",
    "account": "who pays",
    "cores": "on each node",
    "gpus": "on each node; a worker uses all of them, one process each",
    "memory": "on each node",
    "walltime": "longest time of one job; work is cut to fit and handed on",
    "max_jobs": "queued or running at the same time",
    "idle_seconds": "a worker without work ends after this",
}
_KINDS = {
    "cpu": "runs what asks for no other kind",
    "gpu": "relaxation and training",
    "dft": "density-functional theory, one job per crystal",
}
_FIELDS = tuple(name for name in WorkerKind.model_fields if name not in ("setup", "environment"))

Kind = dict[str, str]
"""Fields of a kind of worker as text; those of `extra` are written ``extra.KEY``."""


@dataclass
class Answers:
    """What a site file is written from, still unchecked.

    Attributes
    ----------
    name
        Name of the site.
    directory
        The shared folder.
    database
        Name of the database.
    uri_file, uri_variable
        Where the URI is; the file is preferred.
    kinds
        Kinds of workers.
    setup
        Shell lines that every kind's jobs run first.
    """

    name: str
    directory: str
    database: str = "matloop"
    uri_file: str = ""
    uri_variable: str = ""
    kinds: dict[str, Kind] = field(default_factory=dict)
    setup: tuple[str, ...] = ()


def site_text(answers: Answers) -> str:
    """Return a site file with comments; it may hold mistakes of the answers."""
    secret = (
        f"  uri_file: {_text(answers.uri_file)}"
        if answers.uri_file
        else f"  uri_variable: {_text(answers.uri_variable or 'MATLOOP_MONGODB_URI')}"
    )
    lines = [
        "# Where campaigns run. `matloop site doctor` checks it; after a change, run",
        "# `matloop site update`, which writes FireWorks' own files from it.",
        "",
        f"name: {_text(answers.name)}",
        "",
        "# The MongoDB server. Its URI is a secret and no part of this file: uri_file names a file",
        "# that only you can read (chmod 600), uri_variable an environment variable.",
        "database:",
        f"  name: {_text(answers.database)}",
        secret,
        "",
        "# A folder that every node sees: artifacts, logs, launch folders, FireWorks' files.",
        f"directory: {_text(answers.directory)}",
        "",
        "scheduler: slurm",
        "",
        "# Kinds of workers, and what a job of each asks the queue for. A campaign file chooses",
        "# with `worker_kind`; what asks for a kind that is not here runs on cpu.",
        "kinds:",
    ]
    told: set[str] = set()
    for name, kind in answers.kinds.items():
        lines.append(f"  {_text(name)}:" + _comment(_KINDS.get(name, "")))
        lines += [f"    {line}" for line in _kind(kind, answers.setup, told)]
    return "\n".join(lines) + "\n"


def read_kind(text: str) -> tuple[str, Kind]:
    """Return name and fields of a kind written as ``gpu:queue=gpu,gpus=4,extra.constraint=a100``.

    Raises
    ------
    ValueError
        If it is written otherwise.
    """
    name, _, rest = text.partition(":")
    kind: Kind = {}
    for part in filter(None, re.split(r",(?=\s*[a-z_.-]+=)", rest)):
        key, equals, value = part.strip().partition("=")
        known = key in _FIELDS or key.startswith("extra.")
        if not equals or not known or key == "extra":
            raise ValueError(
                f"{part.strip()!r} is not understood; write NAME:FIELD=VALUE,... with "
                f"{', '.join(item for item in _FIELDS if item != 'extra')} or extra.KEY"
            )
        kind[key] = value.strip()
    return name.strip(), kind


def proposed_kinds() -> dict[str, Kind]:
    """Return kinds that suit the cluster: cpu, and gpu where a partition has GPUs.

    Without SLURM there is only a cpu kind of one core.
    """
    try:
        known, usual_name = slurm.partitions(), slurm.default_partition()
    except SchedulerError:
        known, usual_name = {}, ""
    if not known:
        return {DEFAULT_KIND: {"cores": "1", "walltime": "01:00:00"}}
    usual = known.get(usual_name) or next(iter(known.values()))
    kinds = {DEFAULT_KIND: proposed_kind(usual)}
    with_gpus = [partition for partition in known.values() if _gpus(partition)]
    if with_gpus:
        kinds["gpu"] = proposed_kind(with_gpus[0], gpus=True)
    return kinds


def proposed_kind(partition: slurm.Partition, gpus: bool = False) -> Kind:
    """Return a kind of worker that a partition takes."""
    seconds = int(min(_LONGEST, partition.limit or _LONGEST))
    kind = {
        "queue": partition.name,
        "cores": str(min(_MOST_CORES, partition.cores)),
        "walltime": f"{seconds // 3600:02d}:{seconds % 3600 // 60:02d}:{seconds % 60:02d}",
        "max_jobs": "2",
    }
    if gpus:
        kind["gpus"] = str(_gpus(partition))
    return kind


def active_environment(prefix: Path, base: Path) -> str:
    """Return the shell line that enters the environment in use; empty outside of one.

    Parameters
    ----------
    prefix, base
        What Python says of itself: ``sys.prefix`` and ``sys.base_prefix``.
    """
    script = prefix / "bin" / "activate"
    return f"source {script}" if prefix != base and script.exists() else ""


def _gpus(partition: slurm.Partition) -> int:
    """Return the GPUs of one node, from ``gpu:a100:4(S:0-1),nvme:1``."""
    found = re.findall(r"(?:^|,)gpu(?::[\w.-]+)?:(\d+)", partition.gpus)
    return sum(int(number) for number in found)


def _kind(kind: Mapping[str, str], setup: tuple[str, ...], told: set[str]) -> list[str]:
    extra = {key.removeprefix("extra."): kind[key] for key in kind if key.startswith("extra.")}
    lines = []
    for key in (name for name in _FIELDS if name in kind and kind[name] != ""):
        value = kind[key] if key in _NUMBERS else _text(kind[key])
        lines.append(f"{key}: {value}" + _comment("" if key in told else _COMMENTS.get(key, "")))
        told.add(key)
    if setup:
        lines.append("setup:" + _comment("" if "setup" in told else "what a job runs first"))
        told.add("setup")
        lines += [f"  - {_text(line)}" for line in setup]
    if extra:
        lines.append("extra:" + _comment("" if "extra" in told else "for FireWorks' queue adapter"))
        told.add("extra")
        lines += [f"  {_text(key)}: {json.dumps(value)}" for key, value in extra.items()]
    return lines or ["cores: 1"]


def _text(value: str) -> str:
    """Return text as YAML writes it, quoted only where it must be."""
    plain = _PLAIN.fullmatch(value) and value.lower() not in _WORDS
    return value if plain else json.dumps(value, ensure_ascii=False)


def _comment(text: str) -> str:
    return f"  # {text}" if text else ""
