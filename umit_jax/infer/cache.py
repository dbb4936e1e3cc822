"""The key-value cache of one generation: slots for the prompt, then one slot for each new token.

    slot      0 ........ S-1 | S ............ S+N-1
    holds     the prompt,    | the new tokens, in
              right-padded   | step for all rows

Where prompts share a prefix, the slots of the prompt are those of the prefix and those of the rest, each right-padded.
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


def rows_of(cache: Cache, rows_B: jax.Array) -> Cache:
    """The cache whose row b is row rows_B[b] of another."""
    return jax.tree.map(lambda x: x[rows_B], cache)


def joined(first: Cache, then: Cache, new_slots: int) -> Cache:
    """The slots of two caches one after the other, and room for `new_slots` more tokens."""

    def join(a_BKSH: jax.Array, b_BKMH: jax.Array) -> jax.Array:
        both_BKTH = jnp.concatenate([a_BKSH, b_BKMH.astype(a_BKSH.dtype)], axis=2)
        return jnp.pad(both_BKTH, ((0, 0), (0, 0), (0, new_slots), (0, 0)))

    filled_BT = jnp.concatenate([first.filled_BT, then.filled_BT], axis=1)
    return Cache(jax.tree.map(join, first.layers, then.layers), jnp.pad(filled_BT, ((0, 0), (0, new_slots))))


def mark_filled(filled_BT: jax.Array, slot: jax.Array) -> jax.Array:
    """filled_BT with one slot of every row counted as filled."""
    return jax.lax.dynamic_update_slice(filled_BT, jnp.ones_like(filled_BT[:, :1]), (0, slot))
