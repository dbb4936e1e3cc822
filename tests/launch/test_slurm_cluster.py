"""`umit launch slurm` on a real Slurm cluster of two nodes: start, SIGTERM, requeue, resume, time limit, crash, cancel.

What the jobs run is `umit train` in one test; in the others a program that only prints, waits and exits.
"""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from launch import cli
from launch.pods import slurm
from tests.launch import slurm_cluster
from tests.launch.conftest import CONFIGS, ROOT, train_arguments, umit

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(slurm_cluster.missing()), reason=slurm_cluster.missing() or "runs"),
]
CONFIG = f"{CONFIGS / 'quickstart.py'}:stage1"
WAITS = """
import os, signal, sys, time
restart, process = int(os.environ.get("SLURM_RESTART_COUNT", "0")), os.environ["SLURM_PROCID"]
def stop(*_):
    print("process", process, "stopped", flush=True)
    os._exit(75)
signal.signal(signal.SIGTERM, stop)
print("process", process, "of", os.environ["UMIT_PROCESSES"], "restart", restart, *sys.argv[1:], flush=True)
"""


@pytest.fixture(scope="module")
def cluster():
    with slurm_cluster.running() as env:
        yield env


@pytest.fixture
def submit(cluster, tmp_path, monkeypatch):
    """Submits a run whose `umit` is this Python program; returns the job."""
    monkeypatch.setenv("SLURM_CONF", cluster["SLURM_CONF"])
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.delenv("XLA_FLAGS", raising=False)

    def run(program, *arguments, workdir="/shared/run", config=CONFIG):
        path = tmp_path / "bin" / "umit"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!{sys.executable}\n{program}")
        path.chmod(0o755)
        flags = ["--config", config, "--workdir", str(workdir), "--nodes", "2", "--platform", "cpu"]
        assert cli.main(["launch", "slurm", *flags, "--out", str(tmp_path / "out"), *arguments]) == 0
        (script,) = (tmp_path / "out").glob("*.sbatch")
        name = script.stem
        return Job(_said("squeue", "-h", "--name", name, "--format", "%i"), tmp_path / "out", name)

    return run


class Job:
    def __init__(self, number: str, out: pathlib.Path, name: str):
        self.number = number
        self._log = out / f"{name}-{number}.log"

    def log(self) -> str:
        return self._log.read_text() if self._log.exists() else ""

    def field(self, name: str) -> str:
        fields = dict(word.partition("=")[::2] for word in _said("scontrol", "show", "job", self.number).split())
        return fields[name]

    def wait(self, what, seconds=120):
        deadline = time.monotonic() + seconds
        while not what(self):
            assert time.monotonic() < deadline, f"{self.field('JobState')}: {self.log()}"
            time.sleep(0.2)

    def wait_for_end(self, seconds=120):
        self.wait(lambda job: job.field("JobState") not in ("PENDING", "RUNNING", "COMPLETING"), seconds)
        return self.field("JobState")

    def pid(self, process: int) -> int:
        """Of umit on one node, found by the environment that Slurm gave it."""
        wanted = {f"SLURM_JOB_ID={self.number}", f"SLURM_PROCID={process}"}
        for path in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                environment = set((path / "environ").read_text(errors="replace").split("\0"))
                command = (path / "cmdline").read_text(errors="replace").split("\0")
            except OSError:
                continue
            if wanted <= environment and "train" in command and "srun" not in command[0]:
                return int(path.name)
        raise AssertionError(f"no process {process} of job {self.number}")


def _said(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _all_started(restart):
    return lambda job: job.log().count(f" of 2 restart {restart} ") == 2


def test_sigterm_before_the_end_of_the_grace_period_queues_the_job_again(submit):
    job = submit(
        f"{WAITS}\nif restart == 0: time.sleep(600)", "--env", "A=b c", "--config.steps=3", "--max-restarts", "0"
    )
    job.wait(_all_started(0))
    assert f"process 1 of 2 restart 0 train --config {CONFIG} --workdir /shared/run --config.steps=3" in job.log()
    _said("scancel", "--signal=TERM", job.number)
    assert job.wait_for_end() == "COMPLETED"
    assert (job.field("Restarts"), job.field("Comment")) == ("1", "failures=0")
    assert job.log().count("stopped") == 2


def test_sigterm_while_it_starts_is_no_failure(submit):
    job = submit(f"{WAITS}\nsignal.signal(signal.SIGTERM, signal.SIG_DFL)\nif restart == 0: time.sleep(600)")
    job.wait(_all_started(0))
    time.sleep(1)
    _said("scancel", "--signal=TERM", job.number)
    assert job.wait_for_end() == "COMPLETED"
    assert (job.field("Restarts"), job.field("Comment")) == ("1", "failures=0")
    assert "stopped" not in job.log()


def test_a_time_limit_is_announced_and_the_job_goes_on_afterwards(submit):
    """The limit is a minute, the notice 55 s before it: Slurm looks at limits every half minute."""
    job = submit(f"{WAITS}\nif restart == 0: time.sleep(600)", "--time", "00:01:00", "--grace-seconds", "55")
    assert job.wait_for_end(200) == "COMPLETED"
    assert job.field("Restarts") == "1"
    assert job.log().count("stopped") == 2


def test_requeued_from_outside_it_runs_once_more_and_no_more(submit):
    job = submit(f"{WAITS}\nif restart == 0: time.sleep(600)")
    job.wait(_all_started(0))
    _said("scontrol", "requeue", job.number)
    assert job.wait_for_end() == "COMPLETED"
    assert job.field("Restarts") == "1"


def test_a_job_that_is_preempted_saves_in_its_grace_time_and_comes_back(submit):
    job = submit(f"{WAITS}\nif restart == 0: time.sleep(600)", "--max-restarts", "0")
    job.wait(_all_started(0))
    _said("sbatch", "--partition=urgent", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap", "srun sleep 1")
    assert job.wait_for_end() == "COMPLETED"
    assert (job.field("Restarts"), job.field("Comment")) == ("1", "failures=0")
    assert job.log().count("stopped") == 2


def test_a_crash_on_one_node_starts_both_again_until_it_has_crashed_too_often(submit, monkeypatch):
    monkeypatch.setattr(slurm, "_NOTICE_SECONDS", 3)
    job = submit(f"{WAITS}\nif process == '1': os.kill(os.getpid(), 9)\ntime.sleep(600)", "--max-restarts", "1")
    assert job.wait_for_end() == "FAILED"
    assert (job.field("Restarts"), job.field("Comment")) == ("1", "failures=1")
    assert "failed 2 times, the last time with exit status 137; not queued again" in job.log()


def test_wrong_usage_is_not_tried_again(submit):
    job = submit(f"{WAITS}\nsys.exit(2)")
    assert job.wait_for_end() == "FAILED"
    assert (job.field("Restarts"), job.field("ExitCode")) == ("0", "2:0")


def test_a_cancelled_job_saves_and_stays_cancelled(submit):
    job = submit(f"{WAITS}\ntime.sleep(600)")
    job.wait(_all_started(0))
    _said("scancel", job.number)
    assert job.wait_for_end() == "CANCELLED"
    job.wait(lambda job: job.log().count("stopped") == 2)
    assert job.field("Restarts") == "0"


def test_training_goes_on_through_sigterm_and_the_death_of_one_node(submit, shards, tmp_path, monkeypatch):
    """The losses of every step are those of a run of two local processes that nothing happened to."""
    monkeypatch.setattr(slurm, "_NOTICE_SECONDS", 20)
    monkeypatch.chdir(ROOT)
    _, config, _, _, *overrides = train_arguments("stage1", shards, "", 20)
    overrides = [text for text in overrides if text.startswith("--config.")]
    alone = tmp_path / "alone"
    umit("launch", "local", "--processes", 2, config, "--workdir", alone, *overrides)

    program = "import os, sys\nos.execv(sys.executable, [sys.executable, '-m', 'launch', *sys.argv[1:]])"
    workdir = tmp_path / "run"
    job = submit(program, *overrides, workdir=workdir, config=config.removeprefix("--config="))
    job.wait(lambda job: len(_losses(workdir)) >= 3, 240)
    _said("scancel", "--signal=TERM", job.number)
    job.wait(lambda job: job.field("Restarts") == "1", 120)
    stopped_at = len(_losses(workdir))
    assert stopped_at < 15
    job.wait(lambda job: len(_losses(workdir)) >= stopped_at + 2, 240)
    os.kill(job.pid(1), signal.SIGKILL)
    assert job.wait_for_end(400) == "COMPLETED", job.log()
    assert (job.field("Restarts"), job.field("Comment")) == ("2", "failures=1")
    assert _losses(workdir) == pytest.approx(_losses(alone), rel=1e-6)
    assert len(_losses(alone)) == 20


def _losses(workdir: pathlib.Path) -> list[float]:
    path = workdir / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line)["loss"] for line in lines]
