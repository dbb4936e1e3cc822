"""Batches that a run leaves out because the loss was not finite or jumped on them, and how steps are numbered then.

workdir/skipped.jsonl has one line a batch: {"batch" (from 0), "step", "why", "sample_ids", "back_to" (step)}. It is
written before the run goes back, so that a run killed on the way leaves the same batches out. Every step takes the next
batch that is not among them: the position of the data stays a function of the step alone.
"""

import collections
import json
import math
import pathlib
from collections.abc import Sequence
from typing import Any

import jax

NAME = "skipped.jsonl"
WINDOW = 64  # steps that a jump is measured against


class SkippedError(ValueError):
    """skipped.jsonl cannot be read; the message names the line."""


class Skipped:
    """The left-out batches of a workdir. Every process holds the same; the first one writes."""

    def __init__(self, workdir: pathlib.Path):
        self._path = workdir / NAME
        self.batches: list[int] = []
        if self._path.exists():
            for number, line in enumerate(self._path.read_text(encoding="utf-8").splitlines(), 1):
                try:
                    self.batches.append(int(json.loads(line)["batch"]))
                except (ValueError, KeyError, TypeError) as error:
                    raise SkippedError(f"{self._path}:{number}: expected a line with a batch: {error}") from error
        self.batches.sort()

    def include(self, batches: Sequence[int]) -> None:
        """Those that a checkpoint was made without, whatever became of the file."""
        self.batches = sorted({*self.batches, *batches})

    def batch_of(self, step: int) -> int:
        """The batch (from 0) that a step (from 1) takes."""
        batch = step - 1
        for left_out in self.batches:
            batch += left_out <= batch
        return batch

    def add(self, entry: dict[str, Any]) -> None:
        """Notes one more; `entry` is its line."""
        self.include([entry["batch"]])
        if jax.process_index() == 0:
            before = self._path.read_text(encoding="utf-8") if self._path.exists() else ""
            aside = self._path.with_name(f".{NAME}.aside")
            aside.write_text(before + json.dumps(entry, ensure_ascii=False) + "\n", encoding="utf-8")
            aside.replace(self._path)


class Judge:
    """Whether a step's numbers are bad. spike: so many times the largest loss of the last WINDOW jumps; 0: none."""

    def __init__(self, spike: float, recent: Sequence[float] = ()):
        self.spike, self.recent = spike, collections.deque(recent, WINDOW)

    def why(self, line: dict[str, Any]) -> str | None:
        """What is wrong with a step, in words, or None; a good one is remembered."""
        bad = [f"{name} is {line[name]}" for name in ("loss", "grad_norm") if not math.isfinite(line[name])]
        if bad:
            return ", ".join(bad)
        if self.jumped(line["loss"]):
            return f"loss is {line['loss']:.4g}, more than {self.spike:g} times {max(self.recent):.4g}"
        self.recent.append(line["loss"])
        return None

    def jumped(self, loss: float) -> bool:
        return self.spike > 0 and len(self.recent) == WINDOW and loss > self.spike * max(self.recent)
