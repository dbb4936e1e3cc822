"""The key-value cache of one generation: slots for the prompt, then one slot for each new token.

    slot      0 ........ S-1 | S ............ S+N-1
    holds     the prompt,    | the new tokens, in
              right-padded   | step for all rows

Where prompts share a prefix, the slots of the prompt are those of the prefix and those of the rest, each right-padded.
Rows have prompts of different lengths and so holes between prompt and answer. That is no loss of exactness: keys are
cached rotated by their own position, and filled_BT says which slots hold anything. Each layer has arrays of its own,
heads before slots and keys with slots last: a step then writes in place and reads without copying or turning (see
ops/cached_attention.py). It reads every slot, filled or not, so N may begin small and grow (generate.py).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from umit_jax.model.decoder import Caches, as_cached


class Cache(NamedTuple):
    """layers: rotated keys and values (k_BKHT, v_BKTH) of each layer. filled_BT: 1 = filled, 0 = empty."""

    layers: Caches
    filled_BT: jax.Array


def make_cache(k_LBSKH: jax.Array, v_LBSKH: jax.Array, filled_BS: jax.Array) -> Cache:
    """The cache after a prefill."""
    return Cache(tuple(as_cached(k, v) for k, v in zip(k_LBSKH, v_LBSKH, strict=True)), filled_BS)


def with_room(cache: Cache, new_slots: int) -> Cache:
    """The cache and, behind it, empty slots for `new_slots` more tokens."""
    empty, whole = (0, new_slots), (0, 0)
    layers = tuple(
        (jnp.pad(k_BKHT, (whole, whole, whole, empty)), jnp.pad(v_BKTH, (whole, whole, empty, whole)))
        for k_BKHT, v_BKTH in cache.layers
    )
    return Cache(layers, jnp.pad(cache.filled_BT, (whole, empty)))


def rows_of(cache: Cache, rows_B: jax.Array) -> Cache:
    """The cache whose row b is row rows_B[b] of another."""
    return jax.tree.map(lambda x: x[rows_B], cache)


def joined(first: Cache, then: Cache) -> Cache:
    """The slots of two caches one after the other."""

    def join(a: jax.Array, b: jax.Array, axis: int) -> jax.Array:
        return jnp.concatenate([a, b.astype(a.dtype)], axis=axis)

    pairs = zip(first.layers, then.layers, strict=True)
    layers = tuple((join(k, k_more, 3), join(v, v_more, 2)) for (k, v), (k_more, v_more) in pairs)
    return Cache(layers, jnp.concatenate([first.filled_BT, then.filled_BT], axis=1))


def mark_filled(filled_BT: jax.Array, slot: jax.Array) -> jax.Array:
    """filled_BT with one slot of every row counted as filled."""
    return jax.lax.dynamic_update_slice(filled_BT, jnp.ones_like(filled_BT[:, :1]), (0, slot))
