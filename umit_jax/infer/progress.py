"""A bar on a terminal, plain lines with the time left in a log; of several processes the first one's."""

import datetime
import logging
import time

import jax
from tqdm import tqdm

log = logging.getLogger(__name__)
_LINE_SECONDS = 10.0


class Progress:
    """total: answers there will be; to_do: of them those still to be generated."""

    def __init__(self, total: int, to_do: int):
        hidden = None if jax.process_index() == 0 else True
        self._bar = tqdm(total=total, initial=total - to_do, desc="generate", unit="answer", disable=hidden)
        self._total, self._to_do, self._done, self._tokens = total, to_do, 0, 0
        self._first: tuple[int, float] | None = None
        self._shown = time.monotonic()

    def update(self, answers: int, tokens: int) -> None:
        now = time.monotonic()
        self._done, self._tokens = self._done + answers, self._tokens + tokens
        first_done, first_time = self._first = self._first or (self._done, now)  # the first batch's time is compilation
        if not self._bar.disable:
            self._bar.update(answers)
        elif jax.process_index() == 0 and (now - self._shown >= _LINE_SECONDS or self._done == self._to_do):
            self._shown, left = now, "?"
            if self._done > first_done:
                each = (now - first_time) / (self._done - first_done)
                left = str(datetime.timedelta(seconds=round(each * (self._to_do - self._done))))
            there = self._total - self._to_do + self._done
            log.info("generate %d/%d answers  %d tokens  eta %s", there, self._total, self._tokens, left)

    def close(self) -> None:
        self._bar.close()
