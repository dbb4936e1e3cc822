"""`umit launch local`: what it renders, and how it watches its processes (here ones that only sleep and exit)."""

import argparse
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from launch import cli
from launch.pods import local
from launch.pods.local import LaunchError
from launch.pods.run import Command, Rendered, Run, Topology
from tests.launch.conftest import CONFIGS, umit

CONFIG = f"{CONFIGS / 'quickstart.py'}:stage1"


def test_a_dry_run_shows_the_command_of_every_process(tmp_path):
    flags = ["--processes", 3, "--devices-per-process", 2, "--config", CONFIG, "--workdir", tmp_path / "run"]
    summary = umit("launch", "local", *flags, "--config.steps=3", "--env", "A=b c", "--dry-run", "--json").summary
    commands = summary["commands"]
    assert {tuple(command["argv"][1:]) for command in commands} == {
        ("-m", "launch", "train", "--config", CONFIG, "--workdir", str(tmp_path / "run"), "--config.steps=3")
    }
    environments = [command["env"] for command in commands]
    assert [env["UMIT_PROCESS"] for env in environments] == ["0", "1", "2"]
    assert len({env["UMIT_COORDINATOR"] for env in environments}) == 1
    for env in environments:
        assert (env["UMIT_PROCESSES"], env["A"], env["JAX_PLATFORMS"]) == ("3", "b c", "cpu")
        assert env["XLA_FLAGS"].endswith("--xla_force_host_platform_device_count=2")
    assert not (tmp_path / "run").exists()


def test_a_shown_command_is_one_a_shell_understands():
    command = Command((sys.executable, "-c", "import os; print(os.environ['A'])"), (("A", "b 'c'"),))
    assert subprocess.run(["sh", "-c", str(command)], capture_output=True, text=True).stdout == "b 'c'\n"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--processes", "0"], "--processes: expected at least 1, found 0"),
        (["--name", "My Run"], "--name: expected lower case letters, digits and dashes, found 'My Run'"),
        (["--env", "A"], "--env: expected NAME=VALUE, found 'A'"),
        (["--config.stepz=3"], "(did you mean steps?)"),
        (["--proceses", "2"], "unknown argument --proceses (did you mean --processes?)"),
        (["--max-restarts", "-1"], "--max-restarts: expected at least 0, found -1"),
    ],
)
def test_wrong_flags_are_refused_before_anything_is_started(flags, said, tmp_path, capsys):
    assert cli.main(["launch", "local", "--config", CONFIG, "--workdir", str(tmp_path / "run"), *flags]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.fixture
def start(monkeypatch, tmp_path):
    """Runs one Python program a process in place of `umit train`; returns how `umit launch local` ends."""

    def run(*programs, **settings):
        def render(run, args):
            return Rendered(tuple(Command((sys.executable, "-c", textwrap.dedent(text))) for text in programs))

        (tmp_path / "summary.json").write_text('{"step": 6, "command": "train"}')
        monkeypatch.setattr(local, "render", render)
        described = Run("toy", ("train",), str(tmp_path), Topology("cpu", len(programs), 1), **settings)
        return local.start(described, argparse.Namespace())

    return run


WAITS = "import time; time.sleep(600)"


def test_all_done_is_done_with_the_summary_of_the_run(start):
    assert start("", "") == {"processes": 2, "restarts": 0, "step": 6}


@pytest.mark.parametrize(
    ("program", "status", "said"),
    [
        ("raise SystemExit(2)", 2, "process 1 ended with exit status 2"),
        ("import os; os.kill(os.getpid(), 9)", 1, "process 1 was ended by SIGKILL"),
    ],
)
def test_where_one_fails_the_others_do_not_wait_for_ever(start, monkeypatch, program, status, said):
    monkeypatch.setattr(local, "_NOTICE_SECONDS", 0.2)
    began = time.monotonic()
    with pytest.raises(LaunchError, match=said) as caught:
        start(WAITS, program)
    assert caught.value.exit_status == status
    assert time.monotonic() - began < 60


def test_preempted_processes_start_again_until_they_are_done(start, tmp_path):
    once = f"""
        import pathlib
        marker = pathlib.Path({str(tmp_path / "marker")!r})
        if not marker.exists():
            marker.touch()
            raise SystemExit(75)
    """
    with pytest.raises(LaunchError, match="process 0 was preempted; the same command resumes") as caught:
        start(once)
    assert caught.value.exit_status == 75
    (tmp_path / "marker").unlink()
    assert start(once, max_restarts=2)["restarts"] == 1


def test_bad_usage_is_not_tried_again(start, tmp_path):
    counts = f"open({str(tmp_path / 'count')!r}, 'a').write('x'); raise SystemExit(2)"
    with pytest.raises(LaunchError, match="exit status 2"):
        start(counts, max_restarts=3)
    assert (tmp_path / "count").read_text() == "x"


def test_a_signal_reaches_every_process(start, tmp_path):
    saves = f"""
        import os, pathlib, signal, sys, time
        def stop(*_):
            sys.exit(75)
        signal.signal(signal.SIGTERM, stop)
        pathlib.Path({str(tmp_path)!r}, str(os.getpid())).touch()
        time.sleep(600)
    """

    def terminate():
        while sum(path.name.isdigit() for path in tmp_path.iterdir()) < 2:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=terminate, daemon=True).start()
    with pytest.raises(LaunchError, match="was preempted") as caught:
        start(saves, saves, max_restarts=3)
    assert caught.value.exit_status == 75
