"""A whole small cluster on one machine: SLURM with two nodes, and a database that can be killed."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

NODES = ("n1", "n2")
CPUS = 2  # offered by each node, however many the machine has
GPUS = 2  # devices that SLURM hands out, and on which nothing computes
_SECONDS = 30.0  # for any daemon to answer
_PROGRAMS = (
    "munged",
    "slurmctld",
    "slurmd",
    "sbatch",
    "squeue",
    "scontrol",
    "scancel",
    "sinfo",
    "setpriv",
)

_SLURM_CONF = """\
ClusterName=ci
SlurmctldHost={host}(127.0.0.1)
AuthType=auth/munge
AuthInfo=socket={directory}/munge.sock,cred_expire=5
SlurmUser=root
SlurmdUser=root
SlurmctldPort={ports[0]}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation={directory}/state
SlurmdSpoolDir={directory}/spool/%n
SlurmctldPidFile={directory}/slurmctld.pid
SlurmdPidFile={directory}/slurmd.%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc={directory}/log/jobcomp.log
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0
SlurmctldTimeout=10
MessageTimeout=3
SlurmdTimeout=10
MinJobAge=300
KillWait=15
ReturnToService=2
GresTypes=gpu
PropagateResourceLimits=NONE
{nodes}
PartitionName=debug Nodes={names} Default=YES MaxTime=60 State=UP
"""


def missing() -> str:
    """Return why no cluster can be started here; empty if one can."""
    if os.geteuid() != 0:
        return "slurmd starts jobs as root only"
    absent = [name for name in _PROGRAMS if _program(name) is None]
    if absent:
        return f"not installed: {', '.join(absent)} (Debian: slurm-wlm and munge)"
    return ""


@dataclass
class Stack:
    """A running cluster; `start` makes it, `close` leaves nothing of it behind.

    Attributes
    ----------
    directory
        Everything the daemons write, and a shared file system for the jobs.
    environment
        Variables a process needs to talk to this cluster.
    """

    directory: Path
    environment: dict[str, str] = field(default_factory=dict)
    _daemons: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _database_port: int = 0

    @classmethod
    def start(cls, directory: Path) -> Stack:
        """Start munge, the controller, both nodes and the database, and wait until all answer."""
        stack = cls(directory)
        with ExitStack() as cleanup:
            cleanup.callback(stack.close)
            stack._start_slurm()
            stack.start_database()
            cleanup.pop_all()
        return stack

    def close(self) -> None:
        """Stop every daemon and every job."""
        with suppress(subprocess.SubprocessError):
            self.command("scancel", "--user=root", check=False)
            self.wait(lambda: not self.squeue(), "jobs to end", seconds=10)
        for name in [*self._daemons][::-1]:
            self._stop(name, signal.SIGKILL if name == "database" else signal.SIGTERM)

    # --- SLURM, as a user of it types

    def command(self, *words: str, check: bool = True) -> str:
        """Run a command of the cluster and return what it prints."""
        done = subprocess.run(
            words, env=self.environment, text=True, capture_output=True, timeout=60, check=False
        )
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip()}")
        return done.stdout

    def sbatch(self, script: str, *options: str) -> str:
        """Submit shell lines as a job and return its id."""
        log = self.directory / "log" / "job-%j.out"
        words = ["sbatch", "--parsable", f"--output={log}", *options, "--wrap", script]
        return self.command(*words).strip()

    def scancel(self, *words: str) -> None:
        """Cancel jobs."""
        self.command("scancel", *words)

    def squeue(self) -> dict[str, str]:
        """Return the state of every job in the queue by id, such as ``RUNNING``."""
        lines = self.command("squeue", "-h", "-o", "%i %T", check=False).splitlines()
        return dict(line.split(maxsplit=1) for line in lines)

    def state(self, job_id: str) -> str:
        """Return a job's state, also after its end."""
        shown = self.command("scontrol", "show", "job", job_id)
        found = re.search(r"JobState=(\S+)", shown)
        assert found is not None
        return found[1]

    def wait_for(self, job_id: str, *states: str, seconds: float = _SECONDS) -> str:
        """Wait until a job is in one of these states, and return it."""
        self.wait(lambda: self.state(job_id) in states, f"job {job_id} to be {states}", seconds)
        return self.state(job_id)

    # --- faults

    def stop_node(self, name: str) -> None:
        """Let a node die with all that runs on it, before any of it can say so."""
        self._stop(f"slurmd-{name}", signal.SIGKILL)
        for pid in _job_processes(name):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def start_node(self, name: str) -> None:
        """Start a node, and wait until it takes jobs."""
        self._spawn(f"slurmd-{name}", [_path("slurmd"), "-D", "-N", name])
        self.command("scontrol", "update", f"nodename={name}", "state=resume", check=False)
        self.wait(lambda: self._node(name) in {"idle", "mixed", "allocated"}, f"node {name}")

    def stop_controller(self) -> None:
        """Stop the controller, which first writes down what it knows; running jobs go on."""
        self._stop("slurmctld", signal.SIGTERM)

    def start_controller(self) -> None:
        """Start the controller again, with all the jobs it knew."""
        self._spawn("slurmctld", [_path("slurmctld"), "-D"])
        self.wait(self._answers, "slurmctld")

    def kill_database(self) -> None:
        """Kill the database server at once, as `kill -9` does."""
        self._stop("database", signal.SIGKILL)

    def start_database(self) -> None:
        """Start the database server on its port, with everything it had acknowledged."""
        self._database_port = self._database_port or _free_port()
        command = [sys.executable, "-m", "matloop.testing.mongodb_server"]
        command += ["--port", str(self._database_port)]
        command += ["--journal", str(self.directory / "database.journal")]
        self._spawn("database", command)
        self.wait(lambda: _listens(self._database_port), "the database server")

    @property
    def uri(self) -> str:
        """Connection string of the database."""
        return f"mongodb://127.0.0.1:{self._database_port}"

    # --- waiting

    def wait(
        self,
        condition: Callable[[], bool],
        what: str,
        seconds: float = _SECONDS,
        pause: float = 0.2,
    ) -> None:
        """Wait until a condition holds; fail with the daemons' last words if it never does."""
        end = time.monotonic() + seconds
        while not condition():
            dead = [name for name, daemon in self._daemons.items() if daemon.poll() is not None]
            if dead or time.monotonic() > end:
                raise TimeoutError(
                    f"waited {seconds:.0f} s for {what}; died: {dead or 'none'}\n{self._tails()}"
                )
            time.sleep(pause)

    # --- daemons

    def _start_slurm(self) -> None:
        for name in ("state", "log", *(f"spool/{node}" for node in NODES)):
            (self.directory / name).mkdir(parents=True)
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "SBATCH_"))},
            "SLURM_CONF": str(self.directory / "slurm.conf"),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin",
            "OMP_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
        }
        self._write_configuration()
        key = self.directory / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(1024))
        files = {"socket": "sock", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        options = [f"--{option}={self.directory}/munge.{end}" for option, end in files.items()]
        munged = [_path("munged"), "--foreground", "--force", f"--key-file={key}", *options]
        self._spawn("munged", munged)
        self.wait((self.directory / "munge.sock").exists, "munged")
        self._spawn("slurmctld", [_path("slurmctld"), "-D", "-i"])
        self.wait(self._answers, "slurmctld")
        for name in NODES:
            self._spawn(f"slurmd-{name}", [_path("slurmd"), "-D", "-N", name])
        for name in NODES:
            self.wait(lambda name=name: self._node(name) == "idle", f"node {name}")

    def _write_configuration(self) -> None:
        host = socket.gethostname().split(".")[0]
        ports = [_free_port() for _ in range(1 + len(NODES))]
        nodes = [
            f"NodeName={name} NodeAddr=127.0.0.1 NodeHostname={host} Port={port}"
            f" CPUs={CPUS} Gres=gpu:{GPUS} RealMemory=8000 State=UNKNOWN"
            for name, port in zip(NODES, ports[1:], strict=True)
        ]
        text = _SLURM_CONF.format(
            host=host,
            directory=self.directory,
            ports=ports,
            nodes="\n".join(nodes),
            names=",".join(NODES),
        )
        (self.directory / "slurm.conf").write_text(text)
        devices = [self.directory / f"gpu{number}" for number in range(GPUS)]
        for device in devices:
            os.mknod(device, 0o600 | stat.S_IFCHR, os.makedev(1, 3))  # another /dev/null
        lines = [f"Name=gpu File={device}" for device in devices]
        (self.directory / "gres.conf").write_text("\n".join([*lines, ""]))
        (self.directory / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")

    def _spawn(self, name: str, command: list[str]) -> None:
        with (self.directory / "log" / f"{name}.log").open("ab") as log:
            self._daemons[name] = subprocess.Popen(
                [_path("setpriv"), "--pdeathsig=KILL", *command],  # a killed test run leaves none
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=self.environment,
                cwd=self.directory,
            )

    def _stop(self, name: str, number: signal.Signals) -> None:
        daemon = self._daemons.pop(name)
        daemon.send_signal(number)
        try:
            daemon.wait(10)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()

    def _answers(self) -> bool:
        return "is UP" in self.command("scontrol", "ping", check=False)

    def _node(self, name: str) -> str:
        return self.command("sinfo", "-h", "-N", "-n", name, "-o", "%T", check=False).strip()

    def _tails(self) -> str:
        logs = sorted((self.directory / "log").glob("*.log"))
        return "\n".join(f"--- {log.name}\n{log.read_text()[-1500:]}" for log in logs)


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _path(name: str) -> str:
    found = _program(name)
    assert found is not None
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _job_processes(node: str) -> list[int]:
    """Return the processes of a node's jobs, those first that would report the end of others."""
    parents: dict[int, int] = {}
    daemons, own = set(), []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError):
            pid = int(entry.name)
            parents[pid] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            if (entry / "comm").read_text().startswith("slurmstepd"):
                daemons.add(pid)
            elif f"SLURMD_NODENAME={node}\0" in (entry / "environ").read_text() + "\0":
                own.append(pid)
    holding = {parents[pid] for pid in own} & daemons
    return [*holding, *own]
