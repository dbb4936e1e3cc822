"""How much time is left, and whether a log wants another line: for training and generation alike."""

import datetime
import time


class Pace:
    """The pace of work of which `total` things are to be done, from the end of the first one on: the time of the first
    is compilation. A plain line is due every `line_seconds`."""

    def __init__(self, total: int, line_seconds: float):
        self._total, self._line_seconds = total, line_seconds
        self._first: tuple[int, float] | None = None
        self._shown = time.monotonic()

    def left(self, done: int) -> str:
        """h:mm:ss until all are done, "?" at the first call; to be called after each thing."""
        now = time.monotonic()
        first_done, first_time = self._first = self._first or (done, now)
        if done == first_done:
            return "?"
        each = (now - first_time) / (done - first_done)
        return str(datetime.timedelta(seconds=round(each * (self._total - done))))

    def due(self) -> bool:
        return time.monotonic() - self._shown >= self._line_seconds

    def shown(self) -> None:
        self._shown = time.monotonic()

    def again(self) -> None:
        """Some things will be done again: the pace is measured anew."""
        self._first = None
