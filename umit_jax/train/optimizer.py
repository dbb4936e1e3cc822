"""AdamW whose learning rate depends on a parameter's path, and which parameters it leaves alone.

A path is the keys of a parameter joined by "/", as in "vision/blocks/attn/qkv/kernel". Patterns are regular
expressions matched from the start of the path; the first that matches wins:

    (("vision/.*", None),          frozen: no gradient, no optimizer state, no weight decay
     ("decoder/embed/.*", 0.1),    a tenth of the learning rate
     (".*", 1.0))                  what no pattern matches has the full learning rate as well
"""

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict, unflatten_dict

Params = dict[str, Any]
Schedule = Callable[[Any], jax.Array]
SCHEDULES = ("cosine", "constant")
NO_DECAY = ("bias", "scale")  # last key of the path: biases, and the scales of norms


class OptimizerError(ValueError):
    """An optimizer setting that cannot be used; the message names it."""


def multipliers(
    paths: Iterable[str],
    patterns: Sequence[tuple[str, float | None]],
    trainable: Collection[str] | None = None,
) -> tuple[dict[str, float], frozenset[str]]:
    """(learning-rate multiplier of each trained path, frozen paths).

    trainable: of a LoRA run, its adapters and what it trains whole; the rest is frozen whatever the patterns say.
    Raises OptimizerError for a pattern that decides nothing (it matches no path, or only paths that earlier patterns
    took), that is no regular expression, that freezes what a LoRA run trains, or where nothing is left to train.
    """
    chosen: dict[str, float | None] = dict.fromkeys(paths, 1.0)
    left = set(chosen)
    for i, (pattern, multiplier) in enumerate(patterns):
        name = f"optimizer.patterns[{i}] {pattern!r}"
        try:
            matched = {path for path in chosen if re.match(pattern, path)}
        except re.error as error:
            raise OptimizerError(f"{name}: not a regular expression: {error}") from error
        if not matched & left:
            groups = " | ".join(sorted({path.split("/")[0] for path in chosen}))
            why = "earlier patterns match the same ones" if matched else f"paths start with {groups}"
            raise OptimizerError(f"{name}: decides no parameter: {why}")
        chosen.update(dict.fromkeys(matched & left, multiplier))
        left -= matched
    for path in sorted(path for path in trainable or () if chosen[path] is None):
        raise OptimizerError(f"optimizer.patterns: freeze {path}, which config.lora trains")
    trained = {
        path: float(m) for path, m in chosen.items() if m is not None and (trainable is None or path in trainable)
    }
    if not trained:
        raise OptimizerError("optimizer.patterns: every parameter is frozen")
    return trained, frozenset(chosen.keys() - trained.keys())


def schedule(config: Any, steps: int) -> Schedule:
    """Step number (from 0) -> learning rate: linear warm-up over warmup_steps, then cosine to final_fraction of the
    peak at `steps`, or constant. With warmup_steps >= steps it is the first part of the warm-up."""
    if config.schedule not in SCHEDULES:
        raise OptimizerError(f"optimizer.schedule: expected {' | '.join(SCHEDULES)}, found {config.schedule!r}")
    peak, warmup, final = config.learning_rate, config.warmup_steps, config.final_fraction

    def learning_rate(step: Any) -> jax.Array:
        rate = jnp.float32(peak) * jnp.minimum((step + 1) / max(warmup, 1), 1.0)
        if config.schedule == "constant":
            return rate
        progress = jnp.clip((step - warmup) / max(steps - warmup, 1), 0.0, 1.0)
        return rate * (final + (1 - final) * 0.5 * (1 + jnp.cos(jnp.pi * progress)))

    return learning_rate


def adamw(config: Any, rate: Schedule, trained: dict[str, float]) -> optax.GradientTransformation:
    """Clip by the global norm of the trained gradients, Adam, decay of all but biases and norms, learning rate.

    trained: multiplier of each trained path. The gradients are a nested dict of exactly these paths.
    """
    decayed = unflatten_dict({path: path.split("/")[-1] not in NO_DECAY for path in trained}, sep="/")

    def by_path(updates: Params, params: Params | None = None) -> Params:
        flat = flatten_dict(updates, sep="/")
        return unflatten_dict({path: flat[path] * trained[path] for path in flat}, sep="/")

    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity(),
        optax.scale_by_adam(config.b1, config.b2),
        optax.add_decayed_weights(config.weight_decay, mask=decayed),
        optax.stateless(by_path),
        optax.scale_by_learning_rate(rate),
    )
