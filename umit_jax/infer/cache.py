"""The key-value cache of one generation: slots for the prompt, then one slot for each new token.

    slot      0 ........ S-1 | S ............ S+N-1
    holds     the prompt,    | the new tokens, in
              right-padded   | step for all rows

Rows have prompts of different lengths and so holes between prompt and answer. That is no loss of exactness: keys are
cached rotated by their own position, and filled_BT says which slots hold anything. Each layer has arrays of its own,
heads before slots: a step then writes in place and reads without copying (see ops/cached_attention.py).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from umit_jax.model.decoder import Caches


class Cache(NamedTuple):
    """layers: rotated keys and values (k_BKTH, v_BKTH) of each layer. filled_BT: 1 = filled, 0 = empty."""

    layers: Caches
    filled_BT: jax.Array


def make_cache(k_LBSKH: jax.Array, v_LBSKH: jax.Array, filled_BS: jax.Array, new_slots: int) -> Cache:
    """The cache after a prefill, with room for `new_slots` more tokens."""

    def room(x_BSKH: jax.Array) -> jax.Array:
        return jnp.pad(x_BSKH.swapaxes(1, 2), ((0, 0), (0, 0), (0, new_slots), (0, 0)))

    layers = tuple((room(k), room(v)) for k, v in zip(k_LBSKH, v_LBSKH, strict=True))
    return Cache(layers, jnp.pad(filled_BS, ((0, 0), (0, new_slots))))


def mark_filled(filled_BT: jax.Array, slot: jax.Array) -> jax.Array:
    """filled_BT with one slot of every row counted as filled."""
    return jax.lax.dynamic_update_slice(filled_BT, jnp.ones_like(filled_BT[:, :1]), (0, slot))
