"""A bar on a terminal, plain lines with the time left in a log."""

import logging
from typing import Any

from tqdm import tqdm

from umit_jax.pace import Pace

log = logging.getLogger(__name__)
LINE_SECONDS = 5.0  # plain lines come no more often, whatever log_every says


class Progress:
    """Progress of steps start+1..steps; `update` once per step with its line of metrics.jsonl."""

    def __init__(self, start: int, steps: int, every: int):
        self._bar = tqdm(total=steps, initial=start, unit="step", dynamic_ncols=True, disable=None)
        self._steps, self._every = steps, every
        self._pace = Pace(steps, LINE_SECONDS)

    def update(self, line: dict[str, Any]) -> None:
        step = line["step"]
        left = self._pace.left(step)
        if not self._bar.disable:
            self._bar.set_postfix(loss=f"{line['loss']:.4f}", lr=f"{line['learning_rate']:.1e}", refresh=False)
            self._bar.update()
            return
        due = step % self._every == 0 and self._pace.due()
        if not (due or left == "?" or step == self._steps):
            return
        self._pace.shown()
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
        self._pace.again()
        self._bar.n = step
        self._bar.refresh()

    def close(self) -> None:
        self._bar.close()
