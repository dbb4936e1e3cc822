"""Which processes join which others; how they then train together is in tests/sharding."""

import subprocess
import sys

import pytest

from launch import processes
from launch.processes import ProcessError
from tests.launch.conftest import ROOT

STUCK = """
import sys, threading, jax
from launch import cli
threading.Thread(target=threading.Event().wait).start()  # as a save whose bucket is gone
sys.argv[1:] = ["inspect", "nothing/here"]
cli.entry()
"""


@pytest.fixture
def environment(monkeypatch):
    for name in (processes.COORDINATOR, processes.COUNT, processes.INDEX):
        monkeypatch.delenv(name, raising=False)
    asked = []
    monkeypatch.setattr("jax.distributed.initialize", lambda *args, **kwargs: asked.append(args))

    def joined(**variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        processes.join()
        return asked

    return joined


def test_a_process_without_others_joins_none(environment):
    assert environment() == []
    assert environment(UMIT_PROCESSES="1") == []


def test_a_process_joins_as_it_is_told(environment):
    told = {"UMIT_COORDINATOR": "localhost:1", "UMIT_PROCESSES": "4", "UMIT_PROCESS": "3"}
    assert environment(**told) == [("localhost:1", 4, 3)]


def test_a_slurm_step_of_several_tasks_is_left_to_jax_to_detect(environment):
    assert environment(SLURM_STEP_NUM_TASKS="1") == []
    assert environment(SLURM_STEP_NUM_TASKS="2") == [()]


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"UMIT_PROCESSES": "2"}, "UMIT_PROCESSES: expected 2 processes, found 1"),
        ({"UMIT_PROCESSES": "two"}, "UMIT_PROCESSES: expected a number, found 'two'"),
        ({"UMIT_COORDINATOR": "a:1"}, "UMIT_COORDINATOR: expected UMIT_COORDINATOR, UMIT_PROCESSES and UMIT_PROCESS"),
        ({"UMIT_COORDINATOR": "a:1", "UMIT_PROCESSES": "2", "UMIT_PROCESS": "2"}, r"UMIT_PROCESS: expected 0\.\.1"),
    ],
)
def test_processes_that_would_each_train_alone_are_refused(environment, variables, said):
    with pytest.raises(ProcessError, match=said):
        environment(**variables)


def test_a_process_that_failed_waits_for_no_thread():
    done = subprocess.run([sys.executable, "-c", STUCK], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "nothing/here" in done.stderr.strip().splitlines()[-1]
