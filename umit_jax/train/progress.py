"""A bar on a terminal, plain lines with the time left in a log."""

import datetime
import logging
import time
from typing import Any

from tqdm import tqdm

log = logging.getLogger(__name__)
LINE_SECONDS = 5.0  # plain lines come no more often, whatever log_every says


class Progress:
    """Progress of steps start+1..steps; `update` once per step with its line of metrics.jsonl."""

    def __init__(self, start: int, steps: int, every: int):
        self._bar = tqdm(total=steps, initial=start, unit="step", dynamic_ncols=True, disable=None)
        self._steps, self._every = steps, every
        self._first: tuple[int, float] | None = None
        self._shown = 0.0

    def update(self, line: dict[str, Any]) -> None:
        step, now = line["step"], time.monotonic()
        first_step, first_time = self._first = self._first or (step, now)  # the first step's time is compilation
        if not self._bar.disable:
            self._bar.set_postfix(loss=f"{line['loss']:.4f}", lr=f"{line['learning_rate']:.1e}", refresh=False)
            self._bar.update()
            return
        due = step % self._every == 0 and now - self._shown >= LINE_SECONDS
        if not (due or step == first_step or step == self._steps):
            return
        self._shown = now
        left = "?"
        if step > first_step:
            per_step = (now - first_time) / (step - first_step)
            left = str(datetime.timedelta(seconds=round(per_step * (self._steps - step))))
        log.info(
            "step %d/%d  loss %.4f  lr %.2e  gradient %.3g  %d tokens in %.2f s  eta %s",
            *(step, self._steps, line["loss"], line["learning_rate"], line["grad_norm"]),
            *(line["tokens"], line["seconds"], left),
        )

    def evaluated(self, step: int, scores: dict[str, float], best: dict[str, Any] | None) -> None:
        """Says the metric that chooses among steps, or else the first of each task."""
        shown = {name.split("/")[0]: name for name in reversed(scores)}.values() if best is None else [best["metric"]]
        values = "  ".join(f"{name} {scores[name]:.4f}" for name in shown if name in scores)
        note = "" if best is None else f"  best {best['value']:.4f} at step {best['step']}"
        log.info("evaluation of step %d  %s%s", step, values, note)

    def go_back(self, step: int) -> None:
        self._first = None
        self._bar.n = step
        self._bar.refresh()

    def close(self) -> None:
        self._bar.close()
