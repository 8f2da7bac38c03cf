"""FireWorks' own files, written from the site: ``lpad``, ``qlaunch`` and ``rlaunch`` go on working.

The site file is what people edit. These files follow it, and say so in their first line; they are
written whole or not at all, and the one that holds the connection string is its owner's alone.
"""

from __future__ import annotations

import os
import shlex
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from matloop.atomic import whole_file
from matloop.errors import ConfigurationError, MatloopError
from matloop.launch.site import DEFAULT_KIND, Site
from matloop.launch.worker_kind import WorkerKind

LAUNCHPAD = "my_launchpad.yaml"
CONFIG = "FW_config.yaml"

PING_SECONDS = 60
"""How often a worker tells the LaunchPad that it is alive (s)."""

NOTICE_SECONDS = 120
"""How long before the end of its walltime a worker is sent SIGTERM (s)."""

_SHORTEST_WITH_NOTICE = 600  # SLURM may send the signal up to a minute early
_HEADER = "# Written by matloop from {file}; edit that and run `matloop site update`.\n"
_OWN_GPU_KEYS = {"gres", "gpus", "gpus_per_node", "gpus_per_task"}

Queue = dict[str, str | int]


def write_fireworks_files(site: Site) -> list[Path]:
    """Write FireWorks' files of a site; those that say the same already are left alone.

    Parameters
    ----------
    site
        A site read from its file.

    Returns
    -------
    list[Path]
        All files, written or left alone.

    Raises
    ------
    ConfigurationError
        If the URI cannot be had, or if the file that holds it can be read by others.
    MatloopError
        If the folder cannot be written.
    """
    texts = fireworks_files(site)  # before anything is written
    _refuse_exposed(site.fireworks / LAUNCHPAD)
    try:
        site.fireworks.mkdir(parents=True, exist_ok=True)
        for kind in site.kinds:
            log_directory(site, kind).mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            _write(site.fireworks / name, text)
    except OSError as error:
        raise MatloopError(
            f"{error.filename or site.directory} cannot be written: {error.strerror}"
        ) from None
    return [site.fireworks / name for name in texts]


def fireworks_files(site: Site) -> dict[str, str]:
    """Return what FireWorks' files of a site say, by name; `LAUNCHPAD` holds a secret.

    Raises
    ------
    ConfigurationError
        If the URI cannot be had.
    """
    contents: dict[str, Mapping[str, Any]] = {
        LAUNCHPAD: site.launchpad_settings(),
        CONFIG: _configuration(site),
    }
    for kind in site.kinds:
        contents[f"my_fworker_{kind}.yaml"] = worker(site, kind)
        contents[f"my_qadapter_{kind}.yaml"] = queue_adapter(site, kind)
    contents["my_fworker.yaml"] = worker(site, DEFAULT_KIND)  # what `-c` finds by itself
    contents["my_qadapter.yaml"] = queue_adapter(site, DEFAULT_KIND)
    header = _HEADER.format(file=site.file)
    return {
        name: header + yaml.dump(dict(content), Dumper=_Dumper, sort_keys=False, width=10_000)
        for name, content in contents.items()
    }


def outdated(site: Site) -> list[str]:
    """Return the names of FireWorks' files that are missing or do not follow the site file.

    Raises
    ------
    ConfigurationError
        If the URI cannot be had, or if the file that holds it can be read by others.
    """
    _refuse_exposed(site.fireworks / LAUNCHPAD)
    return [
        name for name, text in fireworks_files(site).items() if _read(site.fireworks / name) != text
    ]


def worker(site: Site, kind: str) -> dict[str, Any]:
    """Return a kind of worker as FireWorks describes it: it takes jobs of its own category."""
    return {"name": f"{site.name}-{kind}", "category": kind, "query": "{}", "env": {}}


def queue_adapter(site: Site, kind: str, command: str = "", walltime: str = "") -> Queue:
    """Return the settings of FireWorks' ``CommonAdapter`` for jobs of one kind.

    Parameters
    ----------
    site
        The site.
    kind
        One of its kinds.
    command
        What a job runs after its set-up; by default a worker of matloop.
    walltime
        Instead of the kind's own.

    Raises
    ------
    ConfigurationError
        If the site has no such kind.
    """
    wanted = site.kind(kind)
    queue: Queue = {
        "_fw_name": "CommonAdapter",
        "_fw_q_type": "SLURM",
        "_fw_timeout": 60,
        "job_name": f"matloop-{kind}",
        "nodes": wanted.nodes,
        "ntasks_per_node": wanted.cores,
        "walltime": walltime or wanted.walltime,
    }
    queue |= {
        key: value
        for key, value in (
            ("queue", wanted.queue), ("account", wanted.account), ("qos", wanted.qos),
            ("mem", _megabytes(wanted)),
        )
        if value
    }  # fmt: skip
    if wanted.gpus and not _OWN_GPU_KEYS & wanted.extra.keys():
        queue["gres"] = f"gpu:{wanted.gpus}"
    if wanted.seconds >= _SHORTEST_WITH_NOTICE and not walltime:
        queue["signal"] = f"B:TERM@{NOTICE_SECONDS}"
    queue |= wanted.extra
    queue["logdir"] = str(log_directory(site, kind))
    queue["pre_rocket"] = preamble(site, kind)
    # `exec`: the signal before the end goes to the process of the script, which waits otherwise
    queue["rocket_launch"] = command or f"exec {worker_command(site, kind)}"
    return queue


def script(site: Site, kind: str, launch_directory: Path, command: str, walltime: str = "") -> str:
    """Return the text that ``sbatch`` takes, with the same head as the workers of this kind have.

    Parameters
    ----------
    site
        The site.
    kind
        One of its kinds.
    launch_directory
        Where the job runs.
    command
        What the job runs after its set-up.
    walltime
        Instead of the kind's own.
    """
    from fireworks.user_objects.queue_adapters.common_adapter import CommonAdapter

    adapter = CommonAdapter.from_dict(queue_adapter(site, kind, command, walltime))
    return str(adapter.get_script_str(str(launch_directory)))


def worker_command(site: Site, kind: str) -> str:
    """Return the command that starts a worker of one kind."""
    return shlex.join(["matloop", "workers", "run", "--kind", kind, "--site", str(site.file)])


def log_directory(site: Site, kind: str) -> Path:
    """Return where the workers of one kind write their logs and are launched."""
    return site.logs / kind


def preamble(site: Site, kind: str) -> str:
    """Return the shell lines of a job before its command, the last ``#SBATCH`` lines first.

    This matloop's own folder of programs comes first on the path, so that a job finds it where
    the set-up activates nothing; what the set-up activates comes before it. The kind's variables
    are set last and so prevail.
    """
    wanted = site.kind(kind)
    variables = {"FW_CONFIG_FILE": str(site.fireworks / CONFIG), **wanted.environment}
    lines = [
        "#SBATCH --no-requeue",  # a job that SLURM starts again would find its work taken
        "",
        f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH",
        *wanted.setup,
        *(f"export {name}={shlex.quote(value)}" for name, value in variables.items()),
    ]
    return "\n".join(lines)


class _Dumper(yaml.SafeDumper):
    """Writes shell lines as lines."""


_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style="|" if "\n" in text else None
    ),
)


def _configuration(site: Site) -> dict[str, Any]:
    return {
        "CONFIG_FILE_DIR": str(site.fireworks),
        "LAUNCHPAD_LOC": str(site.fireworks / LAUNCHPAD),
        "PING_TIME_SECS": PING_SECONDS,
        "RUN_EXPIRATION_SECS": 10 * PING_SECONDS,
        "SORT_FWS": "FIFO",
    }


def _megabytes(kind: WorkerKind) -> str:
    """Return the memory of a node as SLURM writes it: ``8G``."""
    return kind.memory.replace(" ", "").upper().removesuffix("B")


def _refuse_exposed(path: Path) -> None:
    """Refuse a file with a secret that others have been able to read or write."""
    try:
        found = path.stat()
    except OSError:
        return
    if found.st_uid != os.geteuid():
        raise ConfigurationError(f"{path} holds a secret, but belongs to another user")
    if found.st_mode & 0o077:
        raise ConfigurationError(
            f"{path} holds a secret, but others may read or change it "
            f"(mode {stat.S_IMODE(found.st_mode):04o}); run `chmod 600 {path}`"
        )


def _write(path: Path, text: str) -> None:
    if _read(path) == text:
        return
    with whole_file(path, 0o600 if path.name == LAUNCHPAD else 0o644) as partial:
        partial.write_text(text, encoding="utf-8")


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
