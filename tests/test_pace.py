"""The time left, by a clock that the test moves."""

import pytest

from umit_jax import pace


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(pace.time, "monotonic", lambda: now[0])
    return now


def test_the_time_of_the_first_thing_does_not_count(clock):
    work = pace.Pace(10, 5.0)
    clock[0] += 60  # compiling
    assert work.left(2) == "?"
    clock[0] += 4
    assert work.left(4) == "0:00:12"  # six more at two seconds each
    clock[0] += 12
    assert work.left(10) == "0:00:00"


def test_what_is_done_again_is_measured_anew(clock):
    work = pace.Pace(10, 5.0)
    work.left(8)
    work.again()
    clock[0] += 50
    assert work.left(4) == "?"
    clock[0] += 1
    assert work.left(5) == "0:00:05"


def test_a_line_is_due_so_long_after_the_one_before(clock):
    work = pace.Pace(10, 5.0)
    assert not work.due()
    clock[0] += 5
    assert work.due()
    work.shown()
    assert not work.due()
