"""`matloop site`, and results read from a site's database: the same as from a folder."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from matloop.documents.campaign import IterationState
from matloop.documents.operation import Control, Order
from matloop.launch.site import load_site
from matloop.ledger.interface import Ledger
from matloop.ledger.opening import read_ledger
from matloop.testing.mongodb.process import ServerProcess

from .conftest import Matloop, Said

pytestmark = pytest.mark.mongo


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with ServerProcess() as running:
        yield running


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: ServerProcess) -> Path:
    """Return a user's folder: no site yet, the URI in the environment, and no SLURM."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MATLOOP_MONGODB_URI", server.uri)
    monkeypatch.delenv("MATLOOP_SITE", raising=False)
    monkeypatch.delenv("SLURM_CONF", raising=False)
    return tmp_path


@pytest.fixture(scope="module")
def held(finished: Path, server: ServerProcess, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file of a site whose database holds what the finished run's folder holds."""
    directory = tmp_path_factory.mktemp("held")
    file, secret = directory / "site.yaml", directory / "uri"
    secret.touch(mode=0o600)
    secret.write_text(server.uri)
    file.write_text(
        "name: far\ndatabase: {name: held, uri_file: uri}\ndirectory: shared\nkinds: {cpu: {}}\n"
    )
    source, target = read_ledger(finished), load_site(file).ledger().open()
    copy(source, target)
    source.close()
    target.close()
    return file


def copy(source: Ledger, target: Ledger) -> None:
    """Copy all campaigns of a ledger, through what every ledger offers."""
    for record in source.campaigns():
        name = record.campaign_id
        target.add_campaign(record)
        target.add_candidates(source.candidates(name))
        target.add_decisions(source.decisions(name))
        for state in source.states(name):
            copy_artifacts(state, source, target)
            target.add_state(state)
        keys = {key for item in source.decisions(name) for key in item.evaluations}
        target.add_evaluations(list(source.evaluations(keys).values()))


def copy_artifacts(state: IterationState, source: Ledger, target: Ledger) -> None:
    """Copy the files that a state names."""
    for item in state.resources.values():
        content = source.artifact_path(item.sha256).read_bytes()
        target.put_artifact(item.kind, content, item.media_type)


def said_line(said: Said) -> str:
    """Return the only line of a refusal."""
    (line,) = said.err.splitlines()
    assert (said.code, said.out) == (2, "")
    return line


def init(matloop: Matloop, *more: object) -> Said:
    return matloop("site", "init", "--directory", "shared", "--kind", "cpu:cores=2", *more)


def test_init_writes_a_site_that_can_be_read(matloop: Matloop, home: Path) -> None:
    """Flags become a commented file and FireWorks' files; the URI stays out of all but two."""
    said = init(
        matloop, "--name", "here", "--uri-file", "secret", "--setup", "module load x: y # z",
        "--kind", "gpu:queue=gpu,gpus=4,walltime=1-00:00:00,memory=8 GB,extra.constraint=a100",
    )  # fmt: skip
    assert said.code == 0, said.err
    assert said.out.splitlines()[-1] == "  Look it over, then: matloop site doctor"
    site = load_site()
    assert site.file == home / "config" / "matloop" / "site.yaml"
    assert (site.name, site.directory) == ("here", home / "shared")
    assert site.kind("cpu").cores == 2
    assert site.kind("cpu").setup == ("module load x: y # z",)
    gpu = site.kind("gpu")
    assert (gpu.queue, gpu.gpus, gpu.walltime, gpu.memory) == ("gpu", 4, "1-00:00:00", "8 GB")
    assert gpu.extra == {"constraint": "a100"}
    assert (home / "secret").stat().st_mode & 0o777 == 0o600
    uri = site.uri()
    holders = [p.name for p in home.rglob("*") if p.is_file() and uri in p.read_text()]
    assert sorted(holders) == ["my_launchpad.yaml", "secret"]
    assert "# " in site.file.read_text()


def test_init_does_not_replace_a_site_unasked(matloop: Matloop, home: Path) -> None:
    """A site file that is there stays as it is, unless --force is given."""
    assert init(matloop, "--name", "first").code == 0
    before = load_site().file.read_bytes()
    line = said_line(init(matloop, "--name", "second"))
    assert line.endswith("is there already; replace it with --force, or edit it")
    assert load_site().file.read_bytes() == before
    assert init(matloop, "--name", "second", "--force").code == 0
    assert load_site().name == "second"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--kind", "cpu"], "--directory: missing; name a folder that every node sees"),
        (["-d", "s", "-k", "gpu:gpus=1"], "kinds: 'cpu' is missing; it runs what asks for no other "
         "kind"),
        (["-d", "s", "-k", "cpu:cores=no"], "kinds.cpu.cores: must be a whole number, got 'no'"),
        (["-d", "s", "-k", "cpu:cores=0"], "kinds.cpu.cores: must be at least 1, got 0"),
        (["-d", "s", "-k", "cpu:walltime=12:00"], "kinds.cpu.walltime: '12:00' is no walltime; "
         "write HH:MM:SS or D-HH:MM:SS"),
        (["-d", "s", "-k", "cpu", "-k", "cpu"], "--kind: 'cpu' is given twice; keep one"),
        (["-d", "s", "-k", "cpu:extra.gras=1"], "kinds.cpu.extra: 'gras' is no key of the queue "
         "adapter; did you mean 'gres'?"),
        (["-d", "s", "-k", "cpu", "--name", "A B"], "name: 'A B' must start with a letter or digit "
         "and hold only a-z, 0-9, - and _"),
        (["-d", "s", "-k", "cpu", "--database", "a.b"], "database.name: must hold only letters, "
         "digits, - and _, at most 63 of them"),
        (["-d", "s", "-k", "cpu", "--uri-variable", "NO_SUCH_URI"], "the environment variable "
         "NO_SUCH_URI is not set; it must hold the URI of the MongoDB server"),
        (["-d", "s", "-k", "cpu", "--uri-file", "a", "--uri-variable", "NO_SUCH_URI"], "there is "
         "no {home}/a: write the URI of the MongoDB server into it, then `chmod 600` it; or set "
         "NO_SUCH_URI, and it is made"),
        (["-d", "s", "-k", "cpu", "--uri-file", "open"], "{home}/open holds a secret, but others "
         "may read or change it (mode 0644); run `chmod 600 {home}/open`"),
        (["-d", "s", "-k", "cpu:setup=x"], "--kind: 'setup=x' is not understood; write "
         "NAME:FIELD=VALUE,... with queue, account, qos, nodes, cores, gpus, memory, walltime, "
         "max_jobs, idle_seconds, max_launches or extra.KEY"),
    ],
)  # fmt: skip
def test_init_refuses_what_cannot_be_meant(
    matloop: Matloop, home: Path, arguments: list[str], line: str
) -> None:
    """Each mistake is one line, with exit code 2, and nothing is written."""
    (home / "open").write_text("mongodb://h/")
    (home / "open").chmod(0o644)
    before = sorted(home.rglob("*"))
    assert said_line(matloop("site", "init", *arguments)) == "error: " + line.format(home=home)
    assert sorted(home.rglob("*")) == before


def test_init_asks_on_a_terminal(home: Path) -> None:
    """Answers typed on a terminal become the site; the URI is not echoed."""
    environment = {**os.environ, "TERM": "dumb", "COLUMNS": "200"}
    del environment["MATLOOP_MONGODB_URI"]
    controller, terminal = pty.openpty()
    command = [sys.executable, "-m", "matloop", "site", "init"]
    asker = subprocess.Popen(
        command, stdin=terminal, stdout=terminal, stderr=terminal, env=environment, cwd=home
    )
    os.close(terminal)
    answers = {
        "Name of the cluster": "typed",
        "Folder that every node sees": "~/all nodes",
        "URI of the MongoDB server": "mongodb://ada:lovelace@h/",
        "Account that pays": "mat-42",
        "cores": "3",
        "walltime": "02:00:00",
        "Shell line": "module load z",
    }
    shown = _talk(controller, answers)
    assert asker.wait(20) == 0, shown
    assert "lovelace" not in shown
    site = load_site(home / "config" / "matloop" / "site.yaml")
    assert (site.name, site.directory) == ("typed", home / "all nodes")
    assert site.uri() == "mongodb://ada:lovelace@h/"
    cpu = site.kind("cpu")
    assert (cpu.account, cpu.cores, cpu.walltime) == ("mat-42", 3, "02:00:00")
    assert cpu.setup == ("module load z",)


def test_update_follows_the_site_file(matloop: Matloop, home: Path) -> None:
    """After an edit, `update` makes FireWorks' files say what the site says."""
    assert init(matloop).code == 0
    site = load_site()
    site.file.write_text(site.file.read_text().replace("cores: 2", "cores: 7"))
    assert "ntasks_per_node: 7" not in (site.fireworks / "my_qadapter_cpu.yaml").read_text()
    assert matloop("site", "update").code == 0
    assert "ntasks_per_node: 7" in (site.fireworks / "my_qadapter_cpu.yaml").read_text()


def test_doctor_tells_people_and_programs(matloop: Matloop, home: Path) -> None:
    """The table and the JSON say the same; the exit code is 1 if something failed."""
    assert init(matloop).code == 0
    shown = matloop("site", "doctor", "--here", "--kind", "cpu")
    assert shown.code == 0
    assert "✓  database" in shown.out
    file = home / "answer.json"
    assert matloop("site", "doctor", "--here", "--kind", "cpu", "-o", file) == Said(0, "", "")
    (machine,) = json.loads(file.read_text())["machines"]
    assert {item["state"] for item in machine["checks"]} <= {"ok", "warning"}
    secret = load_site().fireworks / "my_launchpad.yaml"
    secret.chmod(0o640)
    broken = matloop("site", "doctor", "--here", "--json")
    assert broken.code == 1
    assert f"run `chmod 600 {secret}`" in broken.out
    assert json.loads(broken.out)["failed"] is True


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--site", "nowhere.yaml"], "nowhere.yaml: cannot be read: no such file or directory"),
        (["--kind", "gpus"], "config/matloop/site.yaml: the site 'here' has no kind of worker "
         "'gpus'; kinds are: cpu"),
        (["--here", "-k", "cpu", "-k", "cpu"], "--here looks at one kind of worker at a time"),
    ],
)  # fmt: skip
def test_doctor_refuses_what_cannot_be_meant(
    matloop: Matloop, home: Path, arguments: list[str], words: str
) -> None:
    """A site or a kind that is not there is named in one line."""
    assert init(matloop, "--name", "here").code == 0
    assert words in said_line(matloop("site", "doctor", *arguments))


def test_results_are_the_same_from_a_database(
    matloop: Matloop, finished: Path, held: Path, home: Path
) -> None:
    """Status, export and the story of a candidate do not depend on where the ledger is."""
    options = [["--dir", finished], ["--site", held]]
    status = [json.loads(matloop("status", "--json", *place).out) for place in options]
    assert status[0] == status[1]
    assert status[0]["status"] == "finished"
    tables = []
    for number, place in enumerate(options):
        file = home / f"{number}.csv"
        assert matloop("export", "-f", "csv", "-o", file, *place).code == 0
        tables.append(file.read_bytes())
    assert tables[0] == tables[1]
    candidate = tables[0].decode().splitlines()[1].split(",")[0]
    stories = [matloop("show", candidate, *place).out for place in options]
    assert stories[0] == stories[1]
    assert candidate in stories[0]


def test_the_report_of_a_site_lies_in_its_folder(matloop: Matloop, held: Path, home: Path) -> None:
    """Without -o the report is written below the shared folder, one folder per campaign."""
    said = matloop("report", "--site", held)
    assert said.code == 0, said.err
    (report,) = (held.parent / "shared" / "reports").glob("*/report.html")
    assert str(report) in said.out


def test_which_ledger_is_read(
    matloop: Matloop, finished: Path, held: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--dir and --site exclude each other; then comes the variable, a run at hand, your site."""
    line = said_line(matloop("status", "--dir", finished, "--site", held))
    assert line == "error: a campaign is in a folder or at a site: give --dir or --site"
    assert "no run found here" in said_line(matloop("status"))
    mine = home / "config" / "matloop" / "site.yaml"
    mine.parent.mkdir(parents=True)
    mine.symlink_to(held)
    (home / "config" / "matloop" / "uri").symlink_to(held.parent / "uri")
    assert "site far, database held" in matloop("status").out
    monkeypatch.chdir(finished)
    assert "site far" not in matloop("status").out
    monkeypatch.setenv("MATLOOP_SITE", str(held))
    assert "site far, database held" in matloop("status").out


def test_a_database_that_is_away_is_said_in_one_line(
    matloop: Matloop, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading results does not wait for minutes, and names what does not answer."""
    from matloop.cli import places

    monkeypatch.setattr(places, "_PATIENCE", 0.1)
    monkeypatch.setenv(
        "MATLOOP_MONGODB_URI", "mongodb://ada:lovelace@127.0.0.1:1/?serverSelectionTimeoutMS=200"
    )
    assert init(matloop).code == 0
    started = time.monotonic()
    said = matloop("status", "--site", load_site().file)
    assert (said.code, said.out) == (1, "")
    assert "MATLOOP_MONGODB_URI did not answer" in said.err
    assert "lovelace" not in said.err
    assert time.monotonic() - started < 30


def test_status_says_what_is_in_force(
    matloop: Matloop, finished: Path, held: Path, home: Path, server: ServerProcess
) -> None:
    """A pause is told with who gave it; going on ends it; `list` shows the same status."""
    source = read_ledger(finished)
    (record,) = source.campaigns()
    states = source.states(record.campaign_id)
    file = held.parent / "orders.yaml"
    file.write_text(held.read_text().replace("held", "orders"))
    target = load_site(file).ledger().open()
    target.add_campaign(record)
    assert json.loads(matloop("status", "--site", file, "--json").out)["status"] == "preparing"
    copy_artifacts(states[0], source, target)
    target.add_state(states[0])
    source.close()
    expected: list[tuple[Order, str]] = [
        ("pause", "paused"), ("resume", "running"), ("stop", "stopping"),
    ]  # fmt: skip
    for number, (order, status) in enumerate(expected):
        given = Control(
            campaign_id=record.campaign_id, number=number, order=order, given_by="ada",
            given_at=datetime(2026, 5, 4, 3, 2, tzinfo=UTC),
        )  # fmt: skip
        assert target.add_control(given)
        said = matloop("status", "--site", file, "--json")
        assert said.code == 0, said.err
        told = json.loads(said.out)
        (row,) = json.loads(matloop("list", "--site", file, "--json").out)
        assert told["status"] == row["status"] == status
        assert (told["order"] or {}).get("order", "resume") == order
        shown = matloop("status", "--site", file).out
        assert ("by ada, 2026-05-04 03:02 UTC" in shown) == (order != "resume")
        assert status in matloop("list", "--site", file).out
    target.close()


def _talk(controller: int, answers: dict[str, str]) -> str:
    """Answer each prompt when it appears; return everything the terminal showed."""
    shown, waiting = "", dict(answers)
    end = time.monotonic() + 30
    fresh = ""
    while time.monotonic() < end:
        if not select.select([controller], [], [], 0.5)[0]:
            continue
        try:
            text = os.read(controller, 4096).decode(errors="replace")
        except OSError:
            break
        if not text:
            break
        shown += text
        fresh += text
        for prompt in list(waiting):
            if prompt in fresh and fresh.rstrip(" ").endswith(":"):
                time.sleep(0.1)
                os.write(controller, waiting.pop(prompt).encode() + b"\n")
                fresh = ""
                break
    os.close(controller)
    assert not waiting, shown
    return shown
