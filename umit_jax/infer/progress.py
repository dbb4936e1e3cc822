"""A bar on a terminal, plain lines with the time left in a log; of several processes the first one's."""

import logging

import jax
from tqdm import tqdm

from umit_jax.pace import Pace

log = logging.getLogger(__name__)
_LINE_SECONDS = 10.0


class Progress:
    """total: answers there will be; to_do: of them those still to be generated."""

    def __init__(self, total: int, to_do: int):
        hidden = None if jax.process_index() == 0 else True
        self._bar = tqdm(total=total, initial=total - to_do, desc="generate", unit="answer", disable=hidden)
        self._total, self._to_do, self._done, self._tokens = total, to_do, 0, 0
        self._pace = Pace(to_do, _LINE_SECONDS)

    def update(self, answers: int, tokens: int) -> None:
        self._done, self._tokens = self._done + answers, self._tokens + tokens
        left = self._pace.left(self._done)
        if not self._bar.disable:
            self._bar.update(answers)
        elif jax.process_index() == 0 and (self._pace.due() or self._done == self._to_do):
            self._pace.shown()
            there = self._total - self._to_do + self._done
            log.info("generate %d/%d answers  %d tokens  eta %s", there, self._total, self._tokens, left)

    def close(self) -> None:
        self._bar.close()
