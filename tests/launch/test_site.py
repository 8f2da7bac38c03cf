"""Site files: what they mean, and what is said of those that cannot be meant."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from matloop.errors import ConfigurationError
from matloop.launch.site import find_site, load_site, parse_site
from matloop.launch.worker_kind import FIELD_KEYS, QUEUE_KEYS, seconds_of

SOUND = """\
name: test
database: {name: campaigns, uri_file: uri}
directory: shared
kinds:
  cpu: {queue: main, cores: 8, memory: 16GB, walltime: 12:00:00, setup: "module load x"}
  gpu: {gpus: 4, environment: {OMP_NUM_THREADS: 2}, extra: {cpus_per_task: 4}}
"""
SECRET = "mongodb://ada:lovelace@db.example.org/"
EXAMPLE = Path(__file__).parents[2] / "workflows" / "cluster" / "site.yaml"

MISTAKES = {
    "no YAML": (None, "name: [a\n", ":1: this is no YAML: what begins here never ends: ' or \" or "
                "] or }"),
    "no fields": (None, "- 1\n", ":1: a site file holds fields, such as `name: my-cluster`"),
    "unknown field": ("directory:", "directroy:", "there is no such field here; did you mean "
                      "'directory'?"),
    "no directory": ("directory: shared\n", "", ":1: directory: missing; it says: folder that "
                     "every node sees: artifacts, logs, launch folders, FireWorks' files. "
                     "Relative to the site file"),
    "its own folder": ("shared", ".", ":3: directory: names no folder of its own; write one that "
                       "every node sees"),
    "a variable": ("shared", "$SCRATCH/m", ":3: directory: '$SCRATCH/m' holds a variable; write "
                   "the path out"),
    "no cpu": ("cpu:", "cpus:", ":4: kinds: 'cpu' is missing; it runs what asks for no other "
               "kind"),
    "another queue": ("directory:", "scheduler: pbs\ndirectory:", ":3: scheduler: 'pbs' is not "
                      "accepted; write 'slurm'"),
    "minutes": ("12:00:00", "12:00", ":5: kinds.cpu.walltime: '12:00' is no walltime; write "
                "HH:MM:SS or D-HH:MM:SS"),
    "61 minutes": ("12:00:00", "12:61:00", ":5: kinds.cpu.walltime: '12:61:00' is no walltime; "
                   "write HH:MM:SS or D-HH:MM:SS"),
    "30 hours of a day": ("12:00:00", "1-30:00:00", ":5: kinds.cpu.walltime: '1-30:00:00' has 30 "
                          "hours beside its days; write at most 23"),
    "no time": ("12:00:00", "00:00:00", ":5: kinds.cpu.walltime: is no time at all; write "
                "HH:MM:SS or D-HH:MM:SS"),
    "seconds": ("12:00:00", "43200", ":5: kinds.cpu.walltime: must be text, got 43200"),
    "memory": ("16GB", "plenty", ":5: kinds.cpu.memory: 'plenty' is no amount of memory; write "
               "8GB or 500MB"),
    "no cores": ("cores: 8", "cores: 0", ":5: kinds.cpu.cores: must be at least 1, got 0"),
    "truth": ("cores: 8", "cores: true", ":5: kinds.cpu.cores: must be a number, got True"),
    "a queue of two words": ("main", "'main --wrap=x'", ":5: kinds.cpu.queue: 'main --wrap=x' is "
                             "no name: no spaces, quotes or line breaks"),
    "a kind's name": ("  gpu:", "  GPU nodes:", ":6: kinds.GPU nodes: 'GPU nodes' must start with "
                      "a letter or digit and hold only a-z, 0-9, - and _"),
    "a fraction": ("OMP_NUM_THREADS: 2", "X: 1.50", ":6: kinds.gpu.environment.X: must be text, "
                   "got 1.5"),
    "a bad variable": ("OMP_NUM_THREADS: 2", "A-B: x", ":6: kinds.gpu.environment: 'A-B' is no "
                       "name of an environment variable"),
    "unknown key": ("cpus_per_task", "cpu_per_task", ":6: kinds.gpu.extra: 'cpu_per_task' is no "
                    "key of the queue adapter; did you mean 'cpus_per_task'?"),
    "a field as key": ("cpus_per_task: 4", "mem: 8GB", ":6: kinds.gpu.extra: write 'mem' beside "
                       "`extra`, as `memory`"),
    "two words as key": ("cpus_per_task: 4", "constraint: a b", ":6: kinds.gpu.extra: constraint "
                         "must be one word without spaces and $"),
    "sbatch lines": ('"module load x"', '"#SBATCH --exclusive"', ":5: kinds.cpu.setup: an #SBATCH "
                     "line belongs under `extra`, such as `constraint: a100`"),
    "FireWorks' sign": ('"module load x"', '"echo $$"', ":5: kinds.cpu.setup: holds $$, which "
                        "FireWorks takes for itself; write $BASHPID"),
    "two sources": ("uri_file: uri", "uri_file: uri, uri_variable: U", ":2: database.uri_file: is "
                    "given beside uri_variable; keep one of them"),
    "a bad database": ("campaigns", "a/b", ":2: database.name: must hold only letters, digits, - "
                       "and _, at most 63 of them"),
    "twice": ("  gpu:", "  cpu:", ":6: kinds.cpu: given twice (first in line 5); keep one"),
}  # fmt: skip


def test_a_site_is_read_with_its_paths_beside_the_file(tmp_path: Path) -> None:
    """Relative paths start at the site file; text and numbers are what was meant."""
    file = tmp_path / "site.yaml"
    file.write_text(SOUND)
    site = load_site(file)
    assert site.directory == tmp_path / "shared"
    assert site.database.uri_file == tmp_path / "uri"
    assert (site.file, site.fireworks) == (file, tmp_path / "shared" / "fireworks")
    assert site.kind("cpu").setup == ("module load x",)
    assert site.kind("cpu").seconds == 12 * 3600
    assert site.kind("gpu").environment == {"OMP_NUM_THREADS": "2"}
    assert site.kind("gpu").extra == {"cpus_per_task": "4"}


def test_every_kind_has_somebody_who_runs_it(tmp_path: Path) -> None:
    """What asks for a kind the site has not runs on cpu; to name such a kind is a mistake."""
    site = parse_site(SOUND, tmp_path / "site.yaml")
    assert [site.resolve_kind(kind) for kind in ("gpu", "dft", "")] == ["gpu", "cpu", "cpu"]
    with pytest.raises(
        ConfigurationError, match="has no kind of worker 'gpus'; did you mean 'gpu'"
    ):
        site.kind("gpus")


def test_jobs_are_told_where_the_ledger_is_without_the_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger's address in a job document names the file of the URI, and never the URI."""
    secret = tmp_path / "uri"
    secret.touch(mode=0o600)
    secret.write_text(SECRET)
    monkeypatch.setenv("MATLOOP_MONGODB_URI", SECRET)
    site = parse_site(SOUND, tmp_path / "site.yaml")
    document = json.dumps(site.ledger().as_dict())
    assert "lovelace" not in document + repr(site)
    assert str(secret) in document
    assert site.uri() == SECRET


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("00:00:01", 1), ("01:30:00", 5400), ("120:00:00", 432_000), ("2-12:00:00", 216_000)],
)
def test_walltimes(text: str, seconds: int) -> None:
    """Hours may exceed a day where no days are given."""
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("name", MISTAKES)
def test_one_mistake_is_one_line(name: str, tmp_path: Path) -> None:
    """Every mistake is named with its line and its field, and with what would be right."""
    before, after, line = MISTAKES[name]
    text = after if before is None else SOUND.replace(before, after, 1)
    file = tmp_path / "site.yaml"
    with pytest.raises(ConfigurationError) as caught:
        parse_site(text, file)
    said = caught.value.lines()
    if name == "unknown field":
        assert any(item.endswith(line) for item in said)
    else:
        assert said == [f"{file}{line}"]


def test_all_mistakes_are_named_at_once(tmp_path: Path) -> None:
    """A file with three mistakes gets three lines, in the order of the file."""
    text = SOUND.replace("cores: 8", "cores: 0").replace("gpus: 4", "gpus: -1")
    with pytest.raises(ConfigurationError) as caught:
        parse_site(text.replace("campaigns", "'a b'"), tmp_path / "site.yaml")
    assert [mistake.line for mistake in caught.value.mistakes] == [2, 5, 6]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("name: test", f"name: {SECRET}"),
        ("{name: campaigns, uri_file: uri}", SECRET),
        ("uri_file: uri", f"uri_file: {SECRET}"),
        ("uri_file: uri", f"uri_variable: {SECRET}"),
        ("OMP_NUM_THREADS: 2", f"URI: '{SECRET}'"),
        ('"module load x"', f"'export URI={SECRET}'"),
        ("directory: shared", f"'{SECRET}': shared"),
        ("directory: shared", "directory: 'ada:lovelace@db.example.org'"),
    ],
)
def test_a_connection_string_is_refused_and_not_repeated(
    before: str, after: str, tmp_path: Path
) -> None:
    """Wherever the URI is written, the message names the place and not the password."""
    assert before in SOUND
    with pytest.raises(ConfigurationError) as caught:
        parse_site(SOUND.replace(before, after, 1), tmp_path / "site.yaml")
    assert "lovelace" not in str(caught.value)
    if "mongodb" in after:
        assert "a connection string does not belong here; use database.uri_file" in str(
            caught.value
        )


def test_the_site_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is given comes before the variable, the variable before the user's own."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("MATLOOP_SITE", raising=False)
    with pytest.raises(ConfigurationError, match="write one with `matloop site init`"):
        find_site()
    mine = tmp_path / "matloop" / "site.yaml"
    mine.parent.mkdir()
    mine.write_text(SOUND)
    assert find_site() == mine
    monkeypatch.setenv("MATLOOP_SITE", "/elsewhere/site.yaml")
    assert find_site() == Path("/elsewhere/site.yaml")
    assert find_site(Path("given.yaml")) == Path("given.yaml")
    with pytest.raises(ConfigurationError, match=r"given\.yaml: cannot be read: no such file"):
        load_site(Path("given.yaml"))


def test_the_keys_are_those_of_the_installed_adapter() -> None:
    """What `extra` accepts, and what the fields write, is all that FireWorks' template takes."""
    from fireworks.user_objects.queue_adapters.common_adapter import CommonAdapter

    template = Path(CommonAdapter._get_default_template_file("SLURM")).read_text()
    keys = set(re.findall(r"\$\$\{([\w-]+)\}", template))
    own = {"job_name", "launch_dir", "pre_rocket", "rocket_launch", "post_rocket"}
    assert keys - own == QUEUE_KEYS | FIELD_KEYS.keys()


def test_the_example_is_sound() -> None:
    """The commented example can be read, and has a kind for CPUs, for GPUs and for DFT."""
    site = load_site(EXAMPLE)
    assert {"cpu", "gpu", "dft"} <= site.kinds.keys()
    assert site.kind("gpu").gpus > 0
