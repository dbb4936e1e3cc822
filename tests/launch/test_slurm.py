"""The batch script of `umit launch slurm`, executed with stand-ins for Slurm's programs; test_slurm_cluster.py has the
real ones."""

import os
import pathlib
import subprocess

import pytest

from launch import cli
from tests.launch.conftest import CONFIGS

CONFIG = f"{CONFIGS / 'quickstart.py'}:stage1"
FLAGS = ("launch", "slurm", "--config", CONFIG, "--workdir", "/shared/run", "--nodes", "2", "--platform", "cpu")


@pytest.fixture
def job(tmp_path, monkeypatch):
    """Submits to a stand-in for sbatch, then executes the script; returns what it did, a line a command."""
    programs = {
        "sbatch": 'echo "Submitted batch job 7"',
        "srun": 'env > "$DIR/environment"; printf "%s\\n" "$@" > "$DIR/srun"; exit "$TASKS_END_WITH"',
        "squeue": 'case "$*" in *%T*) echo "$STATE" ;; *%k*) cat "$DIR/comment" ;; esac',
        "scontrol": 'echo "$@" >> "$DIR/did"; case $1 in update) echo "${3#Comment=}" > "$DIR/comment" ;; esac',
        "sleep": "",
    }
    for name, text in programs.items():
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
    (tmp_path / "comment").write_text("failures=0\n")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("DIR", str(tmp_path))

    def run(*flags, status=0, state="RUNNING"):
        (tmp_path / "did").write_text("")
        assert cli.main([*FLAGS, "--out", str(tmp_path / "out dir"), *flags]) == 0
        env = {**os.environ, "SLURM_JOB_ID": "7", "TASKS_END_WITH": str(status), "STATE": state}
        done = subprocess.run(["bash", tmp_path / "out dir/umit.sbatch"], env=env, capture_output=True, text=True)
        assert done.returncode == status, done.stderr
        return (tmp_path / "did").read_text().splitlines()

    return run


def test_the_tasks_get_the_command_and_the_environment_to_the_letter(job, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "from-the-submitter")
    value = "b 'c' \"d\" $HOME `id` \\ *\n#SBATCH --uid=0"
    assert job("--env", f"A={value}", "--config.model=ti'n y", "--secret", "HF_TOKEN", "--image", "a/b:1") == []
    srun = (tmp_path / "srun").read_text().splitlines()
    assert srun[srun.index("umit") :] == [
        *("umit", "train", "--config", CONFIG, "--workdir", "/shared/run", "--config.model=ti'n y"),
    ]
    assert "--container-image=a/b:1" in srun
    assert f"A={value}\n" in (tmp_path / "environment").read_text()
    assert "UMIT_PROCESSES=2\n" in (tmp_path / "environment").read_text()
    assert "from-the-submitter" not in (tmp_path / "out dir/umit.sbatch").read_text()


def test_directives_are_those_of_the_run_and_the_users_come_last(job, tmp_path):
    job("--grace-seconds", "90", "--time", "2-12:00:00", "--sbatch=--partition=long", "--sbatch=--nodes=3")
    lines = (tmp_path / "out dir/umit.sbatch").read_text().splitlines()
    directives = [line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH")]
    for option in ("--nodes=2", "--ntasks-per-node=1", "--requeue", "--signal=TERM@90", "--time=2-12:00:00"):
        assert option in directives
    assert directives[-2:] == ["--partition=long", "--nodes=3"]
    # Slurm stops to look for directives at the first line that is none.
    assert not any(line.startswith("#SBATCH") for line in lines[1 + len(directives) :])


@pytest.mark.parametrize("status", [75, 143])
def test_a_job_that_was_told_to_stop_is_queued_again_however_often(job, status):
    """143: it was told before it had anything to save."""
    for _ in range(2):
        assert job("--max-restarts", "0", status=status) == ["requeue 7"]


def test_a_failed_job_is_queued_again_until_it_has_failed_too_often(job):
    assert job("--max-restarts", "2", status=1) == ["update JobId=7 Comment=failures=1", "requeue 7"]
    assert job("--max-restarts", "2", status=75) == ["requeue 7"]
    assert job("--max-restarts", "2", status=137) == ["update JobId=7 Comment=failures=2", "requeue 7"]
    assert job("--max-restarts", "2", status=1) == []


@pytest.mark.parametrize(("status", "state"), [(0, "RUNNING"), (2, "RUNNING"), (75, "COMPLETING"), (75, "")])
def test_a_job_that_is_done_or_wrong_or_was_cancelled_stays_where_it_is(job, status, state):
    assert job(status=status, state=state) == []


def test_a_gpu_node_gives_all_its_gpus_to_one_process(job, tmp_path):
    job("--platform", "gpu", "--devices-per-node", "4")
    assert "#SBATCH --gpus-per-node=4\n" in (tmp_path / "out dir/umit.sbatch").read_text()
    environment = (tmp_path / "environment").read_text()
    assert "JAX_LOCAL_DEVICE_IDS=0,1,2,3\n" in environment
    assert "JAX_PLATFORMS=cuda,cpu\n" in environment


def test_a_process_has_the_cores_and_the_memory_of_its_node_or_as_many_cores_as_are_asked_for(job, tmp_path):
    job()
    script = (tmp_path / "out dir/umit.sbatch").read_text()
    assert "#SBATCH --exclusive\n#SBATCH --mem=0\n" in script
    assert "--cpus-per-task" not in script
    job("--cpus-per-node", "16", "--sbatch=--mem=64G")
    script = (tmp_path / "out dir/umit.sbatch").read_text()
    assert "#SBATCH --cpus-per-task=16\n#SBATCH --mem=64G\n" in script
    assert "--exclusive" not in script
    assert "--cpus-per-task=16" in (tmp_path / "srun").read_text().splitlines()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--nodes", "0"], "--nodes: expected at least 1, found 0"),
        (["--time", "a day"], "--time: expected as in 24:00:00 or 2-12:00:00, found 'a day'"),
        (["--sbatch", "gpu"], "--sbatch: expected an option of sbatch as in --partition=NAME, found 'gpu'"),
        (["--sbatch=--comment=a\nrm -rf /"], "--sbatch: expected one line"),
        (["--setup", "a\nb"], "--setup: expected one line"),
        (["--workdir", "run"], "--workdir: expected gs://... or an absolute path all hosts see, found 'run'"),
    ],
)
def test_wrong_flags_are_one_line_and_nothing_is_written(flags, said, tmp_path, capsys):
    assert cli.main([*FLAGS, "--out", str(tmp_path / "out"), *flags]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_dry_run_shows_the_script_and_leaves_the_directory_as_it_is(tmp_path, capsys):
    assert cli.main([*FLAGS, "--out", str(tmp_path), "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"# {tmp_path}/umit.sbatch\n#!/bin/bash\n#SBATCH --job-name=umit\n")
    assert shown.endswith(f"\nsbatch {tmp_path}/umit.sbatch\n")
    assert list(tmp_path.iterdir()) == []


def test_a_machine_without_slurm_is_told_so_before_anything_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert cli.main([*FLAGS, "--out", str(tmp_path / "out")]) == 2
    assert "umit launch slurm needs the program sbatch; --dry-run does without" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_secret_that_is_not_there_is_missed_before_anything_is_written(job, tmp_path, monkeypatch, capsys):
    del job
    monkeypatch.delenv("HF_TOKEN", raising=False)
    assert cli.main([*FLAGS, "--out", str(tmp_path / "out"), "--secret", "HF_TOKEN"]) == 2
    assert "--secret: HF_TOKEN is not in the environment" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_refused_submission_fails_with_one_line(tmp_path, monkeypatch, capsys):
    program = pathlib.Path(tmp_path, "bin", "sbatch")
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho 'sbatch: error: invalid partition' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    assert cli.main([*FLAGS, "--out", str(tmp_path / "out")]) == 1
    assert "ended with exit status 1" in capsys.readouterr().err
