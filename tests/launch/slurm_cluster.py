"""A Slurm cluster of two nodes on loopback, for tests: real daemons of the Debian packages slurm-wlm and munge.

It needs root, names for the two nodes in /etc/hosts and a munge key, which stay there; everything else is gone
afterwards. Two clusters cannot run at once: their ports are fixed.
"""

import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator

NODES = ("umit-node0", "umit-node1")
_HOSTS = pathlib.Path("/etc/hosts")
_KEY = pathlib.Path("/etc/munge/munge.key")
_CONTROLLER_PORT = 26817
_PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "setpriv")
_KILL_SECONDS = 20  # between SIGTERM and SIGKILL of a job that is cancelled or requeued


def missing() -> str:
    """Why no cluster can be started here; empty where one can."""
    absent = [name for name in _PROGRAMS if shutil.which(name) is None]
    if absent:
        return f"{', '.join(absent)}: not installed (Debian packages slurm-wlm and munge)"
    if os.geteuid() != 0:
        return "a Slurm cluster of two nodes on one machine needs root"
    return ""


@contextlib.contextmanager
def running() -> Iterator[dict[str, str]]:
    """The environment in which sbatch, squeue and scontrol speak to the cluster, until the end of the block."""
    directory = pathlib.Path(tempfile.mkdtemp(prefix="umit_slurm_", dir="/tmp"))  # short: it holds a socket
    directory.chmod(0o755)  # munged runs as another user
    for name in ("state", "log", "munge", *(f"spool.{node}" for node in NODES)):
        (directory / name).mkdir(parents=True)
    _name_nodes()
    socket = _start_munge(directory / "munge")
    configuration = directory / "slurm.conf"
    configuration.write_text(_configuration(directory, socket))
    env = {**os.environ, "SLURM_CONF": str(configuration)}
    try:
        subprocess.run(["slurmctld", "-c"], env=env, check=True)
        for node in NODES:
            subprocess.run(["slurmd", "-N", node], env=env, check=True)
        _wait_for_nodes(env)
        yield env
    finally:
        _stop(directory, env)
        shutil.rmtree(directory, ignore_errors=True)


def _name_nodes() -> None:
    known = _HOSTS.read_text().split()
    with _HOSTS.open("a") as hosts:
        hosts.writelines(f"127.0.0.1 {node}\n" for node in NODES if node not in known)


def _start_munge(directory: pathlib.Path) -> pathlib.Path:
    """munged has to run as its own user to be trusted."""
    if not _KEY.is_file() or not _KEY.stat().st_size:
        _KEY.write_bytes(os.urandom(128))
        _KEY.chmod(0o600)
        shutil.chown(_KEY, "munge", "munge")
    shutil.chown(directory, "munge", "munge")
    directory.chmod(0o755)
    options = [f"--{name}-file={directory / name}" for name in ("pid", "log", "seed")]
    user = ["setpriv", "--reuid", "munge", "--regid", "munge", "--clear-groups"]
    subprocess.run([*user, "munged", f"--socket={directory / 'socket'}", f"--key-file={_KEY}", *options], check=True)
    return directory / "socket"


def _configuration(directory: pathlib.Path, socket: pathlib.Path) -> str:
    lines = [
        "ClusterName=umit",
        "SlurmctldHost=localhost(127.0.0.1)",
        f"SlurmctldPort={_CONTROLLER_PORT}",
        f"SrunPortRange={_CONTROLLER_PORT + 10}-{_CONTROLLER_PORT + 100}",
        "CommunicationParameters=NoCtldInAddrAny,NoInAddrAny",  # loopback only
        "SlurmUser=root",
        "SlurmdUser=root",
        "AuthType=auth/munge",
        f"AuthInfo=socket={socket},cred_expire=5",  # also how long a requeued job waits; less is not taken
        "CredType=cred/munge",
        "MpiDefault=none",
        "ProctrackType=proctrack/linuxproc",
        "TaskPlugin=task/none",
        "JobAcctGatherType=jobacct_gather/none",
        "AccountingStorageType=accounting_storage/none",
        "SelectType=select/cons_tres",
        "SelectTypeParameters=CR_Core",
        "SwitchType=switch/none",
        "SchedulerParameters=sched_interval=2,batch_sched_delay=0",
        "ReturnToService=2",
        "PreemptType=preempt/partition_prio",
        "PreemptMode=REQUEUE",
        f"KillWait={_KILL_SECONDS}",
        "SlurmdParameters=config_overrides",
        f"StateSaveLocation={directory / 'state'}",
        f"SlurmdSpoolDir={directory / 'spool.%n'}",
        f"SlurmctldPidFile={directory / 'controller.pid'}",
        f"SlurmdPidFile={directory / 'node.%n.pid'}",
        f"SlurmctldLogFile={directory / 'log/controller'}",
        f"SlurmdLogFile={directory / 'log/%n'}",
    ]
    for index, node in enumerate(NODES):
        port = _CONTROLLER_PORT + 1 + index
        lines.append(f"NodeName={node} NodeHostname={node} NodeAddr=127.0.0.1 Port={port} CPUs=2 RealMemory=4000")
    nodes = f"Nodes={','.join(NODES)} MaxTime=INFINITE State=UP"
    lines.append(f"PartitionName=main {nodes} Default=YES PriorityTier=1 GraceTime={_KILL_SECONDS}")
    lines.append(f"PartitionName=urgent {nodes} PriorityTier=9")  # preempts the jobs of main
    return "\n".join(lines) + "\n"


def _wait_for_nodes(env: dict[str, str]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        idle = subprocess.run(["sinfo", "-h", "-t", "idle", "-o", "%D"], env=env, capture_output=True, text=True).stdout
        if idle.strip() == str(len(NODES)):
            return
        time.sleep(0.5)
    raise RuntimeError("the nodes of the Slurm cluster did not come up")


def _stop(directory: pathlib.Path, env: dict[str, str]) -> None:
    """The jobs first, so that no process of theirs is left; then the daemons, by the ids they wrote down."""
    subprocess.run(["scancel", "--user", "root"], env=env, check=False)
    deadline = time.monotonic() + _KILL_SECONDS + 20
    while time.monotonic() < deadline:
        if not subprocess.run(["squeue", "-h"], env=env, capture_output=True, text=True, check=False).stdout.strip():
            break
        time.sleep(0.5)
    daemons = []
    for path in (*directory.glob("node.*.pid"), directory / "controller.pid", directory / "munge/pid"):
        with contextlib.suppress(OSError, ValueError):
            daemons.append(int(path.read_text()))
            os.kill(daemons[-1], signal.SIGTERM)
    deadline = time.monotonic() + 20  # until then they write into the directory
    while time.monotonic() < deadline and any(pathlib.Path(f"/proc/{pid}").exists() for pid in daemons):
        time.sleep(0.1)
