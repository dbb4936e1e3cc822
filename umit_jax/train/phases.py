"""Where the wall time of a run goes, over all its starts: what share of it made steps that were kept (goodput).

| phase   | time                                                                                                   |
| init    | process start to first step: imports, lengths and plan of the data, new parameters                     |
| compile | the compilation of the step                                                                            |
| data    | waiting for a batch                                                                                    |
| step    | steps that count, with whatever is not listed here                                                     |
| evaluate | asking held-out questions, with what that compiles                                                     |
| save    | waiting for a checkpoint: its copy to the host, the end of the one before                              |
| restart | lost to an interruption: steps after the last checkpoint, the time until the run was started again,    |
|         | reading the checkpoint; steps that were taken back because the loss was bad                            |
"""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import psutil

PHASES = ("init", "compile", "data", "step", "evaluate", "save", "restart")


class Phases:
    """A clock that is always in one phase, from "init" on. All values in seconds."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = dict.fromkeys(PHASES, 0.0)
        self._phase, self._since = "init", time.monotonic() - (time.time() - psutil.Process().create_time())
        self._lap = dict(self.seconds)

    def enter(self, phase: str) -> str:
        """Counts the time from now on as `phase`; returns the one before."""
        now = time.monotonic()
        self.seconds[self._phase] += now - self._since
        before, self._phase, self._since = self._phase, phase, now
        return before

    @contextlib.contextmanager
    def during(self, phase: str) -> Iterator[None]:
        before = self.enter(phase)
        try:
            yield
        finally:
            self.enter(before)

    def lap(self) -> dict[str, float]:
        """Seconds in each phase since the last call, without those that took none."""
        self.enter(self._phase)
        passed = {phase: round(self.seconds[phase] - self._lap[phase], 4) for phase in PHASES}
        self._lap = dict(self.seconds)
        return {phase: seconds for phase, seconds in passed.items() if seconds > 0}

    def to_json(self, over: bool) -> dict[str, Any]:
        """What a checkpoint keeps. over: the run ends here, so that time until another start is nobody's loss."""
        self.enter(self._phase)
        return {"seconds": dict(self.seconds), "at": None if over else time.time()}

    def resume(self, saved: dict[str, Any] | None) -> None:
        """The run goes on from a checkpoint that holds `saved`: what was done since then was lost."""
        if not saved:
            return
        self.enter(self._phase)
        if saved["at"] is not None:
            own = sum(self.seconds.values())  # of this process: not lost
            self.seconds["restart"] += max(0.0, time.time() - saved["at"] - own)
        for phase in PHASES:
            self.seconds[phase] += saved["seconds"].get(phase, 0.0)
        self._lap = dict(self.seconds)

    def take_back(self, saved: dict[str, Any] | None) -> None:
        """As `resume`, for a process that goes back to a checkpoint by itself."""
        self.enter(self._phase)
        for phase in ("data", "step", "evaluate", "save"):
            kept = saved["seconds"].get(phase, 0.0) if saved else 0.0
            self.seconds["restart"] += self.seconds[phase] - kept
            self.seconds[phase] = kept
        self._lap = dict(self.seconds)

    def summary(self) -> dict[str, Any]:
        """{"seconds": per phase, "share": of all time, that went into steps}."""
        self.enter(self._phase)
        total = sum(self.seconds.values())
        seconds = {phase: round(value, 2) for phase, value in self.seconds.items()}
        return {"seconds": seconds, "share": round(self.seconds["step"] / total, 4)}
