"""Which token comes next: the likeliest, or one drawn.

A draw depends on the seed and the example, not on its place: each row has a key of its own, folded with the number of
the token, so the other rows of a batch, the order of batches and the mesh make no difference. Temperature first, then
top_k, then top_p, in the order of transformers' generate.
"""

import dataclasses
import hashlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np


class SamplingError(ValueError):
    """A setting out of its range; the message names it."""


@dataclasses.dataclass(frozen=True)
class Sampling:
    """temperature: 0 takes the likeliest token. top_k: draws among so many of the likeliest, 0: all. top_p: among the
    fewest likeliest whose probabilities reach it."""

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        checks = {
            "temperature": (self.temperature >= 0, "0 or more"),
            "top_k": (self.top_k >= 0, "0 or more"),
            "top_p": (0 < self.top_p <= 1, "above 0, at most 1"),
        }
        for name, (fine, expected) in checks.items():
            if not fine:
                raise SamplingError(f"{name}: expected {expected}, found {getattr(self, name)}")


GREEDY = Sampling()


def row_keys(seed: int, ids: Sequence[str]) -> np.ndarray:
    """keys_B2 uint32: one for each example, of the seed and its id."""
    digests = [hashlib.sha256(f"{seed}\x1f{name}".encode()).digest()[:8] for name in ids]
    return np.frombuffer(b"".join(digests), "<u4").reshape(-1, 2).astype(np.uint32)


def choose(logits_BV: jax.Array, sampling: Sampling, keys_B2: jax.Array, count: jax.Array) -> jax.Array:
    """token_B int32, the `count`-th of each row."""
    if not sampling.temperature:
        return jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)
    logits_BV = kept(logits_BV / sampling.temperature, sampling)

    def draw(key_2: jax.Array, logits_V: jax.Array) -> jax.Array:
        key = jax.random.fold_in(jax.random.wrap_key_data(key_2, impl="threefry2x32"), count)
        return jax.random.categorical(key, logits_V)

    return jax.vmap(draw)(keys_B2, logits_BV).astype(jnp.int32)


def kept(logits_BV: jax.Array, sampling: Sampling) -> jax.Array:
    """Logits of which those that top_k and top_p leave out are -inf; equal ones stay or go together."""
    vocabulary = logits_BV.shape[-1]
    if not 0 < sampling.top_k < vocabulary and sampling.top_p == 1:
        return logits_BV
    falling_BV = jnp.sort(logits_BV, axis=-1, descending=True)
    if 0 < sampling.top_k < vocabulary:
        falling_BV = jnp.where(jnp.arange(vocabulary) < sampling.top_k, falling_BV, -jnp.inf)
    share_BV = jax.nn.softmax(falling_BV, axis=-1)
    before_BV = jnp.cumsum(share_BV, axis=-1) - share_BV
    inside_BV = (before_BV < sampling.top_p) & jnp.isfinite(falling_BV)
    least_B1 = jnp.min(jnp.where(inside_BV, falling_BV, jnp.inf), axis=-1, keepdims=True)
    return jnp.where(logits_BV >= least_B1, logits_BV, -jnp.inf)
