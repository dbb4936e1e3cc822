"""Evaluation while training: every N steps the live parameters answer held-out questions, and the best step is kept.

What is asked and how it is scored is the caller's (HeldOut); here is when, on which parameters, and which step is the
best so far. That is saved with every checkpoint, so that a run that was interrupted goes on comparing with it.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from umit_jax.eval.named import Named
from umit_jax.model.config import ModelConfig
from umit_jax.train.state import Params, TrainState, merge, shardings_of

log = logging.getLogger(__name__)
PROGRAMS = ("prefill", "decode", "option_logps", "evaluated_weights")  # what an evaluation compiles


class HeldOut(Protocol):
    """every: steps. best: name of the metric whose best step is kept, or "". settings: a hash of what the numbers
    depend on but the parameters. Called by every process with the parameters over the mesh; `alive` is called
    whenever something was reached. Returns the same numbers in every process."""

    every: int
    best: str
    settings: str

    def __call__(self, config: ModelConfig, params: Params, alive: Callable[[], None]) -> Mapping[str, Named]: ...


class Evaluations:
    """Those of one run. best: {"metric", "value", "direction", "step", "settings"} so far, or None."""

    def __init__(self, held_out: HeldOut | None, config: ModelConfig, abstract: TrainState, dtype: Any):
        self._held_out, self._config = held_out, config

        def evaluated_weights(params: Params) -> Params:
            return jax.tree.map(lambda x: x.astype(dtype), params)

        self._in_dtype = jax.jit(evaluated_weights, out_shardings=shardings_of(abstract.params))
        self._copy = any(x.dtype != jnp.dtype(dtype) for x in jax.tree.leaves(abstract.params))
        self.best: dict[str, Any] | None = None
        self.compiled = False  # whether this process has evaluated before
        self._last: dict[str, Any] = {}

    def take(self, saved: dict[str, Any] | None) -> None:
        """Goes on from what a checkpoint holds."""
        self.best, self._last = (saved or {}).get("best"), (saved or {}).get("last", {})

    def to_json(self) -> dict[str, Any]:
        """What a checkpoint keeps: {"evaluation": {"best", "last": {"step", "scores"}}}, {} before the first one."""
        return {"evaluation": {"best": self.best, "last": self._last}} if self._last else {}

    @property
    def best_step(self) -> int | None:
        return self.best["step"] if self.best else None

    def due(self, step: int) -> bool:
        return self._held_out is not None and step > 0 and step % self._held_out.every == 0

    def owed(self, step: int) -> bool:
        """Whether the evaluation of `step`, to which the run has come, was left out because it had to stop."""
        return self.due(step) and self._last.get("step") != step

    def run(self, step: int, state: TrainState, alive: Callable[[], None]) -> dict[str, float]:
        """Evaluates the state of a step, which stays as it is; returns {name: value}. Collective."""
        assert self._held_out is not None
        params = self._in_dtype(state.params) if self._copy else state.params
        scores = self._held_out(self._config, merge(params, state.frozen), alive)
        self.compiled = True
        values = {name: score.value for name, score in scores.items()}
        self._last = {"step": step, "scores": values}
        self._compare(step, scores)
        return values

    def _compare(self, step: int, scores: Mapping[str, Named]) -> None:
        assert self._held_out is not None
        metric, settings, best = self._held_out.best, self._held_out.settings, self.best
        if not metric:
            return
        score = scores.get(metric)
        if score is None:
            log.warning("step %d: %s is undefined on these answers: not compared", step, metric)
            return
        if best is not None and (best["metric"], best["settings"]) != (metric, settings):
            log.warning("step %d: the evaluation has changed: no longer compared with step %d", step, best["step"])
            best = None
        sign = 1 if score.higher_is_better else -1
        if self._agreed(best is None or sign * score.value > sign * best["value"]):
            direction = "higher" if score.higher_is_better else "lower"
            self.best = {"metric": metric, "value": score.value, "direction": direction}
            self.best |= {"step": step, "settings": settings}

    def _agreed(self, better: bool) -> bool:
        """What the first process found: whether a checkpoint is saved must be the same in all."""
        return bool(multihost_utils.broadcast_one_to_all(np.array(better))) if jax.process_count() > 1 else better
