"""A throw-away, real Slurm on this machine: controller, authentication and nodes, all below one directory.

Needs Debian's slurmctld, slurmd, slurm-client and munge, util-linux's unshare, and root or user namespaces. A node is
a slurmd in UTS, mount and PID namespaces of its own: it has its own host name, and dies with all that it started when
its one process is killed. There is no accounting: nothing may need it.
"""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

PROGRAMS = ("sbatch", "srun", "squeue", "scontrol", "scancel", "sinfo", "/usr/sbin/slurmctld", "/usr/sbin/slurmd")
PROGRAMS += ("/usr/sbin/munged", "unshare", "setpriv")

# cred_expire is how long a requeued job waits before it may start again; at least 5.
CONFIGURATION = """\
ClusterName=sandbox
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={home}/run/munge.sock,cred_expire=5
CredType=cred/munge
StateSaveLocation={home}/state
SlurmdSpoolDir={home}/spool/%n
SlurmctldPidFile={home}/run/slurmctld.slurm.pid
SlurmdPidFile={home}/run/slurmd-%n.slurm.pid
SlurmctldLogFile={home}/log/slurmctld.log
SlurmdLogFile={home}/log/slurmd-%n.log
MailProg=/bin/true
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
PropagateResourceLimits=NONE
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0
PriorityType=priority/basic
TreeWidth=65533
KillWait=5
CompleteWait=0
MessageTimeout=10
SlurmctldTimeout=30
SlurmdTimeout=8
InactiveLimit=0
MinJobAge=86400
FirstJobId={first_job_id}
MaxJobId=60000000
ReturnToService=2
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
{user_signal}
SlurmdParameters=config_overrides
NodeName={names} NodeHostName={names} NodeAddr={addresses} Port={ports} CPUs=16 RealMemory=1000000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE DefaultTime=10 State=UP PriorityTier=10 PreemptMode=OFF
PartitionName=low Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=90
"""


def why_not() -> str | None:
    """Why no cluster can be started here; None where one can."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        return f"not installed: {', '.join(missing)} (apt-get install slurmctld slurmd slurm-client munge)"
    done = subprocess.run(["unshare", *_user_namespace(), "--uts", "--mount", "--pid", "--fork", "true"])
    return None if done.returncode == 0 else "this user may not make namespaces"


class Cluster:
    """``nodes`` nodes n1, n2, ... with 16 pretended cores each; ``home`` holds all its files.

    first_job: its first job's number; between two clusters expected 1000 apart, since ports of jobs follow from it.
    user_signal: what is about to be preempted gets the signal that it asked for, and TERM otherwise. ``main`` preempts
    what runs in ``low``.
    """

    def __init__(self, home: Path, *, nodes: int, user_signal: bool = True, first_job: int = 1000) -> None:
        assert len(str(home)) < 70, f"too long for the Unix sockets under it: {home}"
        self.home = home
        self._names = [f"n{number + 1}" for number in range(nodes)]
        self._user_signal, self._first_job = user_signal, first_job
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def environment(self) -> dict[str, str]:
        """What a user of the cluster has in the environment."""
        outside = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM", "SBATCH", "SRUN"))}
        return {**outside, "SLURM_CONF": f"{self.home}/slurm.conf"}

    def __enter__(self) -> "Cluster":
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def _start(self) -> None:
        for folder in ("log", "state", "spool", "run"):
            (self.home / folder).mkdir(parents=True)
        for folder, mode in ((".", 0o755), ("run", 0o755), ("log", 0o700)):  # munged insists on them
            (self.home / folder).chmod(mode)
        self._configure()
        key, sock = self.home / "munge.key", self.home / "run/munge.sock"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        files = [f"--{name}={self.home}/run/munge.{name}" for name in ("pid-file", "seed-file")]
        log = f"--log-file={self.home}/log/munged.log"
        daemon = ["/usr/sbin/munged", "--foreground", "--force", "--num-threads=2", log]
        self._spawn("munged", [*daemon, f"--key-file={key}", f"--socket={sock}", *files])
        self.until(sock.exists, "munged")
        self._spawn("slurmctld", ["/usr/sbin/slurmctld", "-D", "-f", f"{self.home}/slurm.conf"])
        for name in self._names:
            self._start_node(name)
        self.until(
            lambda: self.ask("sinfo", "-h", "-N", "-p", "main", "-o", "%T").split().count("idle") == len(self._names),
            "all nodes",
        )

    def _configure(self) -> None:
        controller_port, *ports = _free_ports(1 + len(self._names))
        addresses = [f"127.0.1.{number + 1}" for number in range(len(self._names))]
        hosts = "".join(f"{address} {name}\n" for address, name in zip(addresses, self._names, strict=True))
        (self.home / "hosts").write_text("127.0.0.1 localhost\n" + hosts)
        text = CONFIGURATION.format(
            home=self.home,
            user=pwd.getpwuid(os.getuid()).pw_name,
            controller_port=controller_port,
            names=",".join(self._names),
            addresses=",".join(addresses),
            ports=",".join(map(str, ports)),
            first_job_id=self._first_job,
            user_signal="SlurmctldParameters=preempt_send_user_signal" if self._user_signal else "",
        )
        (self.home / "slurm.conf").write_text(text)

    def _start_node(self, name: str) -> None:
        rootless = [] if os.getuid() == 0 else ["--user", "--map-current-user", "--keep-caps"]
        namespaces = ["--uts", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc"]
        # bash stays as process 1 of the node, to reap what slurmd's steps leave.
        inside = (
            f'hostname {name} && mount --bind "{self.home}/hosts" /etc/hosts'
            f' && /usr/sbin/slurmd -D -f "{self.home}/slurm.conf" -N {name}; exit $?'
        )
        command = ["unshare", *rootless, *namespaces, "--propagation", "slave", "bash", "-c", inside]
        self._spawn(f"node-{name}", command)

    def _spawn(self, name: str, command: list[str]) -> None:
        with (self.home / f"log/{name}.out").open("ab") as out:
            # Nothing outlives the tests, however they end.
            self._processes[name] = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
                env=self.environment,
                cwd=self.home,
            )

    def kill_node(self, name: str) -> None:
        """As if it had lost power: its daemon, its steps and their processes die at once."""
        process = self._processes.pop(f"node-{name}")
        process.kill()
        process.wait()

    def ask(self, *command: str, check: bool = True) -> str:
        """Output of a command of Slurm's."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0 or not check, f"{command}: {done.stderr}"
        return done.stdout.strip()

    def until(self, happened: Callable[[], bool], what: str, timeout_s: float = 60.0) -> None:
        """Return once ``happened()``; fail with the ends of all logs after ``timeout_s``, or if a daemon has ended."""
        deadline = time.monotonic() + timeout_s
        while not happened():
            dead = [name for name, process in self._processes.items() if process.poll() is not None]
            if dead or time.monotonic() > deadline:
                why = f"{', '.join(dead)} ended" if dead else f"not within {timeout_s:g} s"
                raise AssertionError(f"{what}: {why}\n{self._ends_of_logs()}")
            time.sleep(0.1)

    def _ends_of_logs(self) -> str:
        logs = sorted((self.home / "log").glob("*.log"))
        return "\n".join(f"--- {log.name}\n{log.read_text(errors='replace')[-600:]}" for log in logs)

    def stop(self) -> None:
        """End everything; nodes first, which takes with them what they run."""
        for name in sorted(self._processes, key=lambda name: not name.startswith("node-")):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._processes[name].pid, signal.SIGKILL)
            self._processes[name].wait()
        self._processes.clear()


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _user_namespace() -> list[str]:
    return [] if os.getuid() == 0 else ["--user", "--map-current-user", "--keep-caps"]
