"""Attention in blocks with an online softmax, forward and backward (FlashAttention, arXiv 2205.14135, in plain JAX).

Scores exist one block of queries by one block of keys at a time. Which blocks of keys a block of queries can see at
all is computed first, from causality and from the segments of all rows, and only those are visited: on packed rows
the work grows with the samples' lengths, not with the square of the row's. The loops have data-dependent bounds,
which reverse-mode differentiation cannot follow, so the backward pass is written out.

Inside, heads are grouped by the key-value head they share and folded into the query axis: Q = (N/K) * block.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

BLOCK = 64
_MASKED = -1e30  # finite, so that a block without any key of a query gives weight 0 and not nan
_LOWEST = -1e29  # starting maximum: above _MASKED, so that exp(_MASKED - maximum) is 0


def blockwise_attention(
    q_BSNH: jax.Array,
    k_BTKH: jax.Array,
    v_BTKH: jax.Array,
    q_segments: jax.Array,
    k_segments: jax.Array,
    causal: bool,
    block: int = BLOCK,
    start: jax.Array | int = 0,
) -> jax.Array:
    """As ops.attention.attention. block: queries and keys per block; rows are padded to a multiple of it. start: the
    first query's place among the keys, for causality."""
    queries = q_BSNH.shape[1]
    q_block, k_block = min(block, queries), min(block, k_BTKH.shape[1])
    q, q_segments = _pad(q_BSNH, q_block), _pad(q_segments, q_block)
    k, v, k_segments = _pad(k_BTKH, k_block), _pad(v_BTKH, k_block), _pad(k_segments, k_block)
    return _attention(q, k, v, q_segments, k_segments, jnp.int32(start), causal, q_block, k_block)[:, :queries]


def _pad(x: jax.Array, multiple: int) -> jax.Array:
    extra = -x.shape[1] % multiple
    return jnp.pad(x, ((0, 0), (0, extra)) + ((0, 0),) * (x.ndim - 2)) if extra else x


def _forward(q_BSNH, k_BTKH, v_BTKH, q_segments, k_segments, start, causal: bool, q_block: int, k_block: int) -> Any:
    kv_heads = k_BTKH.shape[2]
    q, k, v = _fold(q_BSNH, kv_heads, q_block), _fold(k_BTKH, kv_heads, k_block), _fold(v_BTKH, kv_heads, k_block)
    mask = _Mask(q_segments, k_segments, start, causal, q_block, k_block)

    def one_query_block(_: None, inputs: tuple[jax.Array, ...]) -> tuple[None, tuple[jax.Array, jax.Array]]:
        i, q_BKQH, first, last = inputs

        def one_key_block(j: jax.Array, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            out, top, total = carry
            k_BKTH, v_BKTH = _at(k, j), _at(v, j)
            scores = mask.scores(q_BKQH, k_BKTH, i, j)
            new_top = jnp.maximum(top, scores.max(-1))
            weights = jnp.exp(scores - new_top[..., None])
            keep = jnp.exp(top - new_top)
            out = out * keep[..., None] + _dot("bkqt,bkth->bkqh", weights.astype(v_BKTH.dtype), v_BKTH)
            return out, new_top, total * keep + weights.sum(-1)

        top = jnp.full(q_BKQH.shape[:-1], _LOWEST, jnp.float32)
        start = jnp.zeros(q_BKQH.shape, jnp.float32), top, jnp.zeros_like(top)
        out, top, total = jax.lax.fori_loop(first, last, one_key_block, start)
        total = jnp.where(total > 0, total, 1.0)  # a query that sees nothing gives zeros
        return None, ((out / total[..., None]).astype(q_BSNH.dtype), top + jnp.log(total))

    _, (out, log_total) = jax.lax.scan(one_query_block, None, (jnp.arange(len(q)), q, *mask.visits()))
    out, log_total = checkpoint_name(out, "attention"), checkpoint_name(log_total, "attention")
    residuals = q_BSNH, k_BTKH, v_BTKH, q_segments, k_segments, start, out, log_total
    return _unfold(out, q_BSNH.shape), residuals


def _backward(causal: bool, q_block: int, k_block: int, residuals: tuple[jax.Array, ...], d_out_BSNH: jax.Array):
    q_BSNH, k_BTKH, v_BTKH, q_segments, k_segments, start, out, log_total = residuals
    kv_heads, dtype = k_BTKH.shape[2], q_BSNH.dtype
    q, k, v = _fold(q_BSNH, kv_heads, q_block), _fold(k_BTKH, kv_heads, k_block), _fold(v_BTKH, kv_heads, k_block)
    d_out = _fold(d_out_BSNH, kv_heads, q_block)
    d_total = jnp.sum(d_out.astype(jnp.float32) * out.astype(jnp.float32), axis=-1)
    mask = _Mask(q_segments, k_segments, start, causal, q_block, k_block)

    def one_query_block(carry: tuple[jax.Array, jax.Array], inputs: tuple[jax.Array, ...]) -> Any:
        i, q_BKQH, d_out_BKQH, log_total, d_total, first, last = inputs

        def one_key_block(j: jax.Array, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            d_q, d_k, d_v = carry
            k_BKTH, v_BKTH = _at(k, j), _at(v, j)
            weights = jnp.exp(mask.scores(q_BKQH, k_BKTH, i, j) - log_total[..., None])
            d_weights = _dot("bkqh,bkth->bkqt", d_out_BKQH, v_BKTH)
            d_scores = (weights * (d_weights - d_total[..., None]) * q.shape[-1] ** -0.5).astype(dtype)
            d_q = d_q + _dot("bkqt,bkth->bkqh", d_scores, k_BKTH)
            d_k = _add_at(d_k, j, _dot("bkqt,bkqh->bkth", d_scores, q_BKQH))
            d_v = _add_at(d_v, j, _dot("bkqt,bkqh->bkth", weights.astype(dtype), d_out_BKQH))
            return d_q, d_k, d_v

        start = jnp.zeros(q_BKQH.shape, jnp.float32), *carry
        d_q, d_k, d_v = jax.lax.fori_loop(first, last, one_key_block, start)
        return (d_k, d_v), d_q.astype(dtype)

    zeros = jnp.zeros(k.shape, jnp.float32), jnp.zeros(v.shape, jnp.float32)
    inputs = jnp.arange(len(q)), q, d_out, log_total, d_total, *mask.visits()
    (d_k, d_v), d_q = jax.lax.scan(one_query_block, zeros, inputs)
    d_k, d_v = _unfold(d_k, k_BTKH.shape).astype(k_BTKH.dtype), _unfold(d_v, v_BTKH.shape).astype(v_BTKH.dtype)
    return _unfold(d_q, q_BSNH.shape), d_k, d_v, None, None, None


_attention = jax.custom_vjp(lambda *args: _forward(*args)[0], nondiff_argnums=(6, 7, 8))
_attention.defvjp(_forward, _backward)


class _Mask:
    """Who sees whom, for one pair of blocks at a time; i and j are the numbers of a query and a key block."""

    def __init__(
        self,
        q_segments: jax.Array,
        k_segments: jax.Array,
        start: jax.Array,
        causal: bool,
        q_block: int,
        k_block: int,
    ):
        self.start = start
        self.causal, self.q_block, self.k_block = causal, q_block, k_block
        self.q_segments = _blocks(q_segments, q_block)  # (number, B, block)
        self.k_segments = _blocks(k_segments, k_block)

    def visits(self) -> tuple[jax.Array, jax.Array]:
        """First and one past the last key block that each query block must visit, for any row."""
        (q_low, q_high), (k_low, k_high) = _span(self.q_segments), _span(self.k_segments)
        overlap = (q_low[:, None] <= k_high[None]) & (k_low[None] <= q_high[:, None])
        overlap &= (q_high[:, None] > 0) & (k_high[None] > 0)
        seen = overlap.any(-1)
        queries, keys = seen.shape
        if self.causal:
            seen &= jnp.arange(keys) * self.k_block < self.start + (jnp.arange(queries)[:, None] + 1) * self.q_block
        some = seen.any(1)
        first = jnp.where(some, jnp.argmax(seen, axis=1), 0)
        last = jnp.where(some, keys - jnp.argmax(seen[:, ::-1], axis=1), 0)
        return first, last

    def scores(self, q_BKQH: jax.Array, k_BKTH: jax.Array, i: jax.Array, j: jax.Array) -> jax.Array:
        """Scaled float32 scores (B, K, Q, T) of a pair of blocks, _MASKED where the query does not see the key."""
        q_segments, k_segments = _at(self.q_segments, i), _at(self.k_segments, j)
        seen = (q_segments[:, :, None] == k_segments[:, None, :]) & (q_segments[:, :, None] > 0)
        if self.causal:
            queries, keys = i * self.q_block + jnp.arange(self.q_block), j * self.k_block + jnp.arange(self.k_block)
            seen &= self.start + queries[:, None] >= keys[None, :]
        seen = jnp.tile(seen, (1, q_BKQH.shape[2] // self.q_block, 1))[:, None]
        return jnp.where(seen, _dot("bkqh,bkth->bkqt", q_BKQH, k_BKTH) * q_BKQH.shape[-1] ** -0.5, _MASKED)


def _span(segments: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Lowest and highest segment of each block and row; of padding alone, (a large number, 0)."""
    large = jnp.iinfo(segments.dtype).max
    return jnp.where(segments > 0, segments, large).min(-1), segments.max(-1)


def _blocks(segments_BS: jax.Array, block: int) -> jax.Array:
    return segments_BS.reshape(segments_BS.shape[0], -1, block).swapaxes(0, 1)


def _fold(x_BSNH: jax.Array, kv_heads: int, block: int) -> jax.Array:
    """(B, S, N, H) -> (blocks, B, K, Q, H)."""
    b, s, n, h = x_BSNH.shape
    x = x_BSNH.reshape(b, s // block, block, kv_heads, n // kv_heads, h)
    return x.transpose(1, 0, 3, 4, 2, 5).reshape(s // block, b, kv_heads, -1, h)


def _unfold(x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Undoes _fold for an array of this shape (B, S, N, H)."""
    (blocks, b, kv_heads, _, h), (_, s, n, _) = x.shape, shape
    x = x.reshape(blocks, b, kv_heads, n // kv_heads, s // blocks, h)
    return x.transpose(1, 0, 4, 2, 3, 5).reshape(shape)


def _at(x: jax.Array, i: jax.Array) -> jax.Array:
    return jax.lax.dynamic_index_in_dim(x, i, keepdims=False)


def _add_at(x: jax.Array, i: jax.Array, value: jax.Array) -> jax.Array:
    return jax.lax.dynamic_update_index_in_dim(x, _at(x, i) + value, i, 0)


def _dot(spec: str, a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.einsum(spec, a, b, preferred_element_type=jnp.float32)
