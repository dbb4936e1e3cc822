"""SIGTERM asks a run to stop: finish the step, save, leave with the status that says "run me again".

With several processes all must stop at the same step, and the signal may reach only some of them: jax.distributed's
preemption service, which takes the signal itself, makes them agree on one.
"""

import signal
import threading
from types import TracebackType
from typing import Any

import jax
from jax.experimental import multihost_utils


class Preempted(RuntimeError):  # noqa: N818
    """The run was asked to stop and has saved its last step."""


class StopRequest:
    """Context manager; `reached(step)` after every step says whether to save and leave now."""

    def __init__(self) -> None:
        self._asked = False
        self._before: Any = None
        self._mine = jax.process_count() == 1 and threading.current_thread() is threading.main_thread()

    def __enter__(self) -> "StopRequest":
        if self._mine:
            self._before = signal.signal(signal.SIGTERM, self._ask)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._mine:
            signal.signal(signal.SIGTERM, self._before)

    def _ask(self, *_: Any) -> None:
        self._asked = True

    def reached(self, step: int) -> bool:
        """Must be called by every process at every step."""
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self._asked
