"""FireWorks' own files: its own programs take them, and nobody else reads the secret."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from matloop.errors import ConfigurationError, MatloopError
from matloop.launch.fireworks_files import (
    LAUNCHPAD,
    fireworks_files,
    outdated,
    queue_adapter,
    script,
    write_fireworks_files,
)
from matloop.launch.site import Site, load_site
from matloop.testing.mongodb.process import ServerProcess

TEXT = """\
name: test
database: {name: fw, uri_file: uri}
directory: shared
kinds:
  cpu:
    queue: main
    account: mat-42
    cores: 8
    memory: 16 GB
    walltime: 12:00:00
    setup: [module load gcc, source env/bin/activate]
    environment: {NOTE: "it's $5", OMP_NUM_THREADS: 1}
  gpu: {gpus: 4, extra: {constraint: a100}}
  typed: {gpus: 4, extra: {gres: "gpu:h100:4"}}
  brief: {walltime: 00:02:00}
"""


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with ServerProcess() as running:
        yield running


@pytest.fixture
def site(server: ServerProcess, tmp_path: Path) -> Site:
    file, secret = tmp_path / "site.yaml", tmp_path / "uri"
    file.write_text(TEXT)
    secret.touch(mode=0o600)
    secret.write_text(server.uri)
    return load_site(file)


def fireworks(site: Site, program: str, *words: str) -> str:
    """Run one of FireWorks' programs as its users do."""
    command = [Path(sys.executable).parent / program, "-c", str(site.fireworks), *words]
    environment = {k: v for k, v in os.environ.items() if k != "FW_CONFIG_FILE"}
    done = subprocess.run(
        command, cwd=site.directory, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.mongo
def test_lpad_and_rlaunch_work_with_the_files(site: Site) -> None:
    """`lpad -c` adds a firework, `rlaunch -c` runs it as a cpu worker, `lpad` sees it completed."""
    write_fireworks_files(site)
    site.launchpad().reset("", require_password=False)
    assert "COMPLETED" not in fireworks(site, "lpad", "get_fws")
    spec = site.directory / "fw.yaml"
    spec.write_text(
        "spec:\n  _category: cpu\n  _tasks:\n"
        "    - {_fw_name: ScriptTask, script: [echo done > result.txt]}\n"
    )
    other = site.directory / "other.yaml"
    other.write_text(spec.read_text().replace("cpu", "gpu"))
    fireworks(site, "lpad", "add", str(spec))
    fireworks(site, "lpad", "add", str(other))
    fireworks(site, "rlaunch", "rapidfire")
    assert [path.read_text() for path in site.directory.glob("launcher_*/result.txt")] == ["done\n"]
    assert fireworks(site, "lpad", "get_wflows", "-s", "COMPLETED", "-d", "count").strip() == "1"
    assert fireworks(site, "lpad", "get_wflows", "-s", "READY", "-d", "count").strip() == "1"


def test_only_the_owner_reads_the_launchpad_file(site: Site) -> None:
    """The file with the connection string is 0600 from its first moment; no other holds it."""
    mask = os.umask(0)
    try:
        written = write_fireworks_files(site)
    finally:
        os.umask(mask)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in written}
    assert modes[LAUNCHPAD] == 0o600
    holders = [path.name for path in site.directory.rglob("*") if _holds(path, site.uri())]
    assert holders == [LAUNCHPAD]


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o620, 0o604])
def test_an_open_file_is_refused(site: Site, mode: int) -> None:
    """A secret that others could read is refused with the command that mends it."""
    write_fireworks_files(site)
    for path in (site.fireworks / LAUNCHPAD, site.database.uri_file):
        assert path is not None
        before = path.read_bytes()
        path.chmod(mode)
        with pytest.raises(ConfigurationError, match=f"chmod 600 {path}") as caught:
            write_fireworks_files(site)
        assert "\n" not in str(caught.value)
        assert path.read_bytes() == before
        path.chmod(0o600)
    assert not outdated(site)


def test_files_follow_the_site(site: Site) -> None:
    """A change of the site file makes its files outdated; what is current is not written again."""
    write_fireworks_files(site)
    stamps = {path: path.stat().st_mtime_ns for path in site.fireworks.iterdir()}
    write_fireworks_files(site)
    assert {path: path.stat().st_mtime_ns for path in site.fireworks.iterdir()} == stamps
    site.file.write_text(TEXT.replace("cores: 8", "cores: 9"))
    changed = load_site(site.file)
    assert outdated(changed) == ["my_qadapter_cpu.yaml", "my_qadapter.yaml"]
    write_fireworks_files(changed)
    assert outdated(changed) == []


def test_nothing_is_written_without_the_secret(site: Site) -> None:
    """A missing URI is found before the first file."""
    assert site.database.uri_file is not None
    site.database.uri_file.unlink()
    with pytest.raises(ConfigurationError, match="cannot read"):
        write_fireworks_files(site)
    assert not site.directory.exists()


def test_a_folder_that_cannot_be_made_is_named(site: Site) -> None:
    """A file where the shared folder should be is said in one line."""
    site.directory.write_text("")
    with pytest.raises(MatloopError, match=f"{site.directory}.* cannot be written") as caught:
        write_fireworks_files(site)
    assert "\n" not in str(caught.value)


def test_the_script_says_what_the_kind_says(site: Site, tmp_path: Path) -> None:
    """The head asks SLURM for what the kind needs; the lines after it run in bash as written."""
    text = script(site, "cpu", tmp_path, 'printf "%s|%s|%s" "$NOTE" "$OMP_NUM_THREADS" "$PWD"')
    head = [line for line in text.splitlines() if line.startswith("#SBATCH")]
    assert set(head) == {
        "#SBATCH --nodes=1",
        "#SBATCH --ntasks-per-node=8",
        "#SBATCH --time=12:00:00",
        "#SBATCH --partition=main",
        "#SBATCH --account=mat-42",
        "#SBATCH --mem=16G",
        "#SBATCH --signal=B:TERM@120",
        "#SBATCH --job-name=matloop-cpu",
        "#SBATCH --output=matloop-cpu-%j.out",
        "#SBATCH --error=matloop-cpu-%j.error",
        "#SBATCH --no-requeue",
    }
    before = text[: text.index("export PATH")]
    assert all(not line or line.startswith("#") for line in before.splitlines()), "sbatch reads on"
    done = subprocess.run(["bash", "-c", text], capture_output=True, text=True, check=False)
    assert done.stdout == f"it's $5|1|{tmp_path}"


def test_what_a_kind_leaves_open_is_not_asked_for(site: Site) -> None:
    """GPUs are asked for once, and a job too short for a signal before its end gets none."""
    assert queue_adapter(site, "gpu")["gres"] == "gpu:4"
    assert queue_adapter(site, "gpu")["constraint"] == "a100"
    assert queue_adapter(site, "typed")["gres"] == "gpu:h100:4"
    brief = queue_adapter(site, "brief")
    assert {"signal", "gres", "mem", "queue", "account", "qos"}.isdisjoint(brief)
    assert "signal" in queue_adapter(site, "cpu")


def test_fireworks_reads_back_what_was_meant(site: Site) -> None:
    """Walltimes and shell lines survive FireWorks' own reader unchanged."""
    from fireworks.user_objects.queue_adapters.common_adapter import CommonAdapter
    from fireworks.utilities.fw_serializers import load_object_from_file

    write_fireworks_files(site)
    for kind in site.kinds:
        adapter = load_object_from_file(str(site.fireworks / f"my_qadapter_{kind}.yaml"))
        assert isinstance(adapter, CommonAdapter)
        meant = queue_adapter(site, kind)
        assert dict(adapter) == {k: v for k, v in meant.items() if not k.startswith("_fw")}


def test_the_same_site_gives_the_same_files(site: Site) -> None:
    """What is written depends on the site file alone."""
    assert fireworks_files(site) == fireworks_files(load_site(site.file))


def _holds(path: Path, secret: str) -> bool:
    return path.is_file() and secret in path.read_text(errors="replace")
