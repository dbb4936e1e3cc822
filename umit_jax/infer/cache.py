"""The key-value cache of one generation: slots for the prompt, then one slot for each new token.

    slot      0 ........ S-1 | S ............ S+N-1
    holds     the prompt,    | the new tokens, in
              right-padded   | step for all rows

Rows have prompts of different lengths and so holes between prompt and answer. That is no loss of exactness: keys are
cached rotated by their own position, and segments_BT says which slots hold anything.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Cache(NamedTuple):
    """k_LBTKH, v_LBTKH: rotated keys, and values, of every layer. segments_BT: 1 = filled, 0 = empty."""

    k_LBTKH: jax.Array
    v_LBTKH: jax.Array
    segments_BT: jax.Array


def make_cache(k_LBSKH: jax.Array, v_LBSKH: jax.Array, segments_BS: jax.Array, new_slots: int) -> Cache:
    """The cache after a prefill, with room for `new_slots` more tokens."""
    pad = ((0, 0), (0, 0), (0, new_slots), (0, 0), (0, 0))
    return Cache(jnp.pad(k_LBSKH, pad), jnp.pad(v_LBSKH, pad), jnp.pad(segments_BS, ((0, 0), (0, new_slots))))


def mark_filled(cache: Cache, slot: jax.Array) -> Cache:
    """The cache with one slot of every row counted as filled (decode_step writes its keys and values)."""
    ones = jnp.ones_like(cache.segments_BT[:, :1])
    return cache._replace(segments_BT=jax.lax.dynamic_update_slice(cache.segments_BT, ones, (0, slot)))
