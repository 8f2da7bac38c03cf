"""One kind of worker of a site: what its jobs ask the queue for, and how they prepare."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, field_validator

from matloop.campaign_file.fields import choice
from matloop.documents.base import Document

QUEUE_KEYS = frozenset(
    {
        "constraint", "core_spec", "cpus_per_task", "exclude_nodes", "gpu-bind", "gpus",
        "gpus_per_node", "gpus_per_task", "gres", "image", "license", "mail_type", "mail_user",
        "mem_per_cpu", "ntasks", "ntasks_per_core", "ntasks_per_node", "signal", "time_min",
        "volume",
    }
)  # fmt: skip
"""Keys of FireWorks' queue adapter for SLURM that `extra` may hold."""

FIELD_KEYS = {
    "account": "account", "mem": "memory", "nodes": "nodes", "qos": "qos", "queue": "queue",
    "walltime": "walltime",
}  # fmt: skip
"""Keys of the queue adapter that fields of a kind write, each with its field."""

VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
"""How an environment variable may be called."""

_WALLTIME = re.compile(r"(?:(\d{1,3})-)?(\d{1,4}):([0-5]\d):([0-5]\d)")
_MEMORY = re.compile(r"[1-9]\d*\s?[KMGT]B?", re.IGNORECASE)
_QUEUE_WORD = re.compile(r"[A-Za-z0-9_.,:@+-]*")


def seconds_of(walltime: str) -> int:
    """Return a walltime such as ``08:00:00`` or ``2-00:00:00`` in seconds.

    Raises
    ------
    ValueError
        If it is written otherwise, or is no time at all.
    """
    found = _WALLTIME.fullmatch(walltime)
    if not found:
        raise ValueError(f"{walltime!r} is no walltime; write HH:MM:SS or D-HH:MM:SS")
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    if found[1] is not None and hours > 23:
        raise ValueError(f"{walltime!r} has {hours} hours beside its days; write at most 23")
    total = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    if not total:
        raise ValueError("is no time at all; write HH:MM:SS or D-HH:MM:SS")
    return total


def _plain_text(value: Any) -> Any:
    # `OMP_NUM_THREADS: 4` is what people write; a fraction would change its spelling on the way
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _lines(value: Any) -> Any:
    return value.splitlines() if isinstance(value, str) else value


Text = Annotated[str, BeforeValidator(_plain_text)]
Lines = Annotated[tuple[str, ...], BeforeValidator(_lines)]
Word = Annotated[str, Field(max_length=200)]


class WorkerKind(Document):
    """One kind of worker: what a job of it asks the queue for, and how it prepares itself.

    Attributes
    ----------
    queue
        Partition; empty for the cluster's default.
    account
        Account that pays; empty for yours.
    qos
        Quality of service; empty for the default.
    nodes
        Nodes of one job.
    cores
        Cores on each node.
    gpus
        GPUs on each node.
    memory
        Memory on each node, such as ``8GB``; empty for what the partition gives.
    walltime
        Longest time of one job: ``HH:MM:SS`` or ``D-HH:MM:SS``.
    max_jobs
        Jobs of this kind that may be queued or running at the same time.
    idle_seconds
        How long a worker without work waits before it ends (s).
    setup
        Shell lines that a job runs first: ``module load ...``, ``source venv/bin/activate``.
    environment
        Environment variables of a job, taken as they stand: to use other variables, write
        ``export ...`` under `setup`. No place for secrets.
    extra
        Further keys of FireWorks' queue adapter for SLURM, such as ``constraint`` or ``gres``.
    max_launches
        How often a job is started before it is given up.
    """

    queue: Word = ""
    account: Word = ""
    qos: Word = ""
    nodes: int = Field(1, ge=1, le=10_000)
    cores: int = Field(1, ge=1, le=10_000)
    gpus: int = Field(0, ge=0, le=64)
    memory: str = ""
    walltime: str = "01:00:00"
    max_jobs: int = Field(1, ge=1, le=10_000)
    idle_seconds: float = Field(60, ge=0, le=86_400)
    setup: Lines = ()
    environment: dict[str, Text] = Field(default_factory=dict)
    extra: dict[str, Text] = Field(default_factory=dict)
    max_launches: int = Field(5, ge=1, le=100)

    @property
    def seconds(self) -> int:
        """Walltime (s)."""
        return seconds_of(self.walltime)

    @field_validator("queue", "account", "qos")
    @classmethod
    def _is_a_word(cls, value: str) -> str:
        if not _QUEUE_WORD.fullmatch(value):
            raise ValueError(f"{value!r} is no name: no spaces, quotes or line breaks")
        return value

    @field_validator("walltime")
    @classmethod
    def _is_a_time(cls, value: str) -> str:
        seconds_of(value)
        return value

    @field_validator("memory")
    @classmethod
    def _is_an_amount(cls, value: str) -> str:
        if value and not _MEMORY.fullmatch(value):
            raise ValueError(f"{value!r} is no amount of memory; write 8GB or 500MB")
        return value

    @field_validator("setup")
    @classmethod
    def _are_commands(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for line in value:
            if "\n" in line:
                raise ValueError("write one shell line per item")
            if "$$" in line:  # FireWorks marks what it fills in by $$, and drops the line
                raise ValueError("holds $$, which FireWorks takes for itself; write $BASHPID")
            if line.lstrip().startswith("#SBATCH"):
                raise ValueError(
                    "an #SBATCH line belongs under `extra`, such as `constraint: a100`"
                )
        return value

    @field_validator("environment")
    @classmethod
    def _are_variables(cls, value: dict[str, str]) -> dict[str, str]:
        for name, text in value.items():
            if not VARIABLE_NAME.fullmatch(name):
                raise ValueError(f"{name!r} is no name of an environment variable")
            if "\n" in text or "$$" in text:
                raise ValueError(f"{name} must be one line without $$")
        return value

    @field_validator("extra")
    @classmethod
    def _are_keys(cls, value: dict[str, str]) -> dict[str, str]:
        for name, text in value.items():
            if name in FIELD_KEYS:
                raise ValueError(f"write {name!r} beside `extra`, as `{FIELD_KEYS[name]}`")
            if name not in QUEUE_KEYS:
                near = choice(name, QUEUE_KEYS, "keys are")
                raise ValueError(f"{name!r} is no key of the queue adapter{near}")
            if not text or re.search(r"[\s$]", text):
                raise ValueError(f"{name} must be one word without spaces and $")
        return value
