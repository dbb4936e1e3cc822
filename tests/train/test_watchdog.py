"""A process that hangs ends itself and says where it hung."""

import subprocess
import sys
import time

from umit_jax.train.phases import Phases

HANGS = """
import threading, time
from umit_jax.train.watchdog import Watchdog
def a_collective_that_waits_for_ever():
    threading.Event().wait()
with Watchdog({seconds}) as watchdog:
    watchdog.beat("step 7")
    {last}
"""


def run(seconds, last):
    code = HANGS.format(seconds=seconds, last=last)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)


def test_a_process_that_hangs_says_where_and_exits():
    done = run(0.4, "a_collective_that_waits_for_ever()")
    assert done.returncode == 70
    assert "watchdog: nothing happened for 0.4 s after step 7 (config.watchdog_seconds)" in done.stderr
    assert "in a_collective_that_waits_for_ever" in done.stderr


def test_a_process_that_goes_on_or_has_no_watchdog_is_left_alone():
    assert run(0.4, "[(time.sleep(0.1), watchdog.beat('step')) for _ in range(8)]").returncode == 0
    assert run(0, "time.sleep(0.5)").returncode == 0


def test_a_run_that_was_interrupted_counts_the_time_since_its_checkpoint_as_lost(monkeypatch):
    phases = Phases()
    saved = {"seconds": {"step": 100.0, "data": 3.0}, "at": time.time() - 100_000}  # longer ago than this process runs
    own = sum(phases.summary()["seconds"].values())
    phases.resume(saved)
    seconds = phases.summary()["seconds"]
    assert (seconds["step"], seconds["data"]) == (100.0, 3.0)
    assert abs(seconds["restart"] - (100_000 - own)) < 1
    finished = Phases()
    finished.resume({**saved, "at": None})
    assert finished.summary()["seconds"]["restart"] == 0


def test_every_second_is_in_one_phase():
    phases = Phases()
    phases.enter("step")
    phases.lap()
    began = time.monotonic()
    with phases.during("data"):
        time.sleep(0.2)
    time.sleep(0.1)
    lap, passed = phases.lap(), time.monotonic() - began
    assert set(lap) == {"data", "step"}
    assert lap["data"] >= 0.2
    assert lap["step"] >= 0.1
    assert abs(lap["data"] + lap["step"] - passed) < 0.01
