"""A run that makes no progress ends: a collective waits for ever for a process or a device that is gone.

Nothing in Python can interrupt it, and the scheduler sees a healthy process. So a thread looks at the time since the
last step; when that is too long, the stacks of all threads go to stderr and the process exits with HUNG.
"""

import faulthandler
import os
import sys
import threading
import time

HUNG = 70


class Watchdog:
    """Use as a context manager; `beat(what)` says that something was reached, and from the first one on the next must
    follow within `seconds` (0: whenever), or `pause` must be called before something that may take longer."""

    def __init__(self, seconds: float):
        self._seconds, self._what = seconds, ""
        self._last: float | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> "Watchdog":
        if self._seconds > 0:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def beat(self, what: str) -> None:
        self._last, self._what = time.monotonic(), what

    def pause(self) -> None:
        self._last = None

    def _watch(self) -> None:
        while not self._over.wait(min(1.0, self._seconds / 4)):
            last = self._last
            if last is not None and time.monotonic() - last > self._seconds:
                print(
                    f"watchdog: nothing happened for {self._seconds:g} s after {self._what} (config.watchdog_seconds): "
                    f"a process or a device hangs. Exit status {HUNG}; the stacks of all threads:",
                    file=sys.stderr,
                    flush=True,
                )
                faulthandler.dump_traceback(all_threads=True)
                os._exit(HUNG)
