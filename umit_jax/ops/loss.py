"""Cross-entropy over the vocabulary in blocks of tokens by vocabulary, so that the logits never exist whole.

8,192 tokens times a vocabulary of 151,936 are 5 GB of float32 logits; a block needs its share of that, and the
backward pass computes it again. Most tokens of a packed row are prompt, image or padding and carry no loss: each row's
tokens that do are moved to its front, and chunks in which no row has one are never computed. The number of chunks thus
depends on the data, which reverse-mode differentiation cannot follow, so the backward pass is written out.

On a mesh (parallel/loss.py) each device runs these functions on its rows, its part of the vocabulary and its part of
the head's width. The outer loop is over tiles of the vocabulary: a tile of the head is gathered once for all tokens,
and its gradient leaves reduced and scattered, so that neither the head nor its gradient exists whole on a device.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

_MASKED = -1e30  # logit of an entry that pads the vocabulary


class Layout(NamedTuple):
    """How a device takes part. chunk: tokens of each row at once. tiles: parts of its vocabulary, one after the other.
    vocab_size: entries that are no padding. Mesh axes, or None: vocab splits the vocabulary, width the head's width;
    rows are those that split tokens beside width."""

    chunk: int
    tiles: int
    vocab_size: int
    vocab: str | None = None
    width: tuple[str, ...] | None = None
    rows: str | None = None


def token_nll(
    x_BSD: jax.Array, head_VD: jax.Array, targets_BS: jax.Array, weights_BS: jax.Array, chunk: int = 256
) -> jax.Array:
    """-log p(target) of each token, float32 (B, S); 0 where weights_BS is 0.

    The caller makes (sum, weight) from it: jnp.sum(nll * weights), jnp.sum(weights). chunk: tokens of each row per
    chunk (of each row, so that a chunk is spread over devices as the rows are). The matmul is in the dtype of x with
    float32 results; log-sum-exp is float32, as is the gradient of head_VD.
    """
    if chunk < 1:
        raise ValueError(f"chunk: expected at least 1 token, found {chunk}")
    return _token_nll(x_BSD, head_VD, targets_BS, weights_BS, Layout(chunk, 1, head_VD.shape[0]))


def _keep(
    x: jax.Array, head: jax.Array, targets: jax.Array, weights: jax.Array, layout: Layout
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    nll, log_total = forward(x, head, targets, weights, layout)
    return nll, (x, head, targets, weights, log_total)


def _pull(layout: Layout, kept: tuple[jax.Array, ...], d_nll: jax.Array) -> tuple[jax.Array | None, ...]:
    x, head, targets, weights, log_total = kept
    return *backward(x, head, targets, weights, log_total, d_nll, layout), None, None


_token_nll = jax.custom_vjp(lambda *args: _keep(*args)[0], nondiff_argnums=(4,))
_token_nll.defvjp(_keep, _pull)


def forward(
    x_BSD: jax.Array, head_VD: jax.Array, targets_BS: jax.Array, weights_BS: jax.Array, layout: Layout
) -> tuple[jax.Array, jax.Array]:
    """(-log p(target) float32 (B, S), 0 where the weight is 0; log-sum-exp of the logits, as _split gives it)."""
    order_BS, rank_BS, needed, chunk = _order(weights_BS, layout.chunk)
    x, targets = _split(_take(x_BSD, order_BS), chunk), _split(_take(targets_BS, order_BS), chunk)
    heads, ids = _tiles(head_VD.astype(x.dtype), layout)

    def tile(carry: tuple[jax.Array, ...], inputs: tuple[jax.Array, jax.Array]) -> tuple[tuple[jax.Array, ...], None]:
        head, ids_V = _gather(inputs[0], layout), inputs[1]

        def step(i: jax.Array, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            top, total, picked = carry
            logits = _logits(x[i], head, ids_V)
            new_top = jnp.maximum(top[i], logits.max(-1))
            new_total = total[i] * jnp.exp(top[i] - new_top) + jnp.exp(logits - new_top[..., None]).sum(-1)
            at = jnp.clip(targets[i] - ids_V[0], 0, len(ids_V) - 1)
            here = ids_V[at] == targets[i]
            logit = jnp.take_along_axis(logits, at[..., None], axis=-1)[..., 0]
            return top.at[i].set(new_top), total.at[i].set(new_total), picked.at[i].add(jnp.where(here, logit, 0))

        return jax.lax.fori_loop(0, needed, step, carry), None

    zeros = jnp.zeros(targets.shape, jnp.float32)
    (top, total, picked), _ = jax.lax.scan(tile, (zeros + _MASKED, zeros, zeros), (heads, ids))
    if layout.vocab is not None:
        highest = jax.lax.pmax(top, layout.vocab)
        total, picked = jax.lax.psum((total * jnp.exp(top - highest), picked), layout.vocab)
        top = highest
    log_total = jnp.where(total > 0, top + jnp.log(jnp.where(total > 0, total, 1.0)), 0.0)  # chunks that were left out
    nll_BS = _take(_join(log_total - picked, x_BSD.shape[1]), rank_BS)
    return jnp.where(weights_BS > 0, nll_BS, 0.0), log_total


def backward(
    x_BSD: jax.Array,
    head_VD: jax.Array,
    targets_BS: jax.Array,
    weights_BS: jax.Array,
    log_total: jax.Array,
    d_nll_BS: jax.Array,
    layout: Layout,
) -> tuple[jax.Array, jax.Array]:
    """Gradients of x_BSD and of this device's part of the head."""
    order_BS, rank_BS, needed, chunk = _order(weights_BS, layout.chunk)
    d_nll_BS = jnp.where(weights_BS > 0, d_nll_BS, 0.0)
    x, targets = _split(_take(x_BSD, order_BS), chunk), _split(_take(targets_BS, order_BS), chunk)
    d_nll = _split(_take(d_nll_BS, order_BS), chunk)
    heads, ids = _tiles(head_VD.astype(x.dtype), layout)

    def tile(d_x: jax.Array, inputs: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        head, ids_V = _gather(inputs[0], layout), inputs[1]

        def step(i: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            d_x, d_head = carry
            probability = jnp.exp(_logits(x[i], head, ids_V) - log_total[i][..., None])
            hit = targets[i][..., None] == ids_V
            d_logits = ((probability - hit) * d_nll[i][..., None]).astype(head.dtype)
            d_head += jnp.einsum("bcv,bcd->vd", d_logits, x[i], preferred_element_type=jnp.float32)
            part = jnp.einsum("bcv,vd->bcd", d_logits, head, preferred_element_type=jnp.float32)
            return d_x.at[i].add(part), d_head

        d_x, d_head = jax.lax.fori_loop(0, needed, step, (d_x, jnp.zeros(head.shape, jnp.float32)))
        if layout.width is not None:
            d_head = jax.lax.psum_scatter(d_head, layout.width, scatter_dimension=1, tiled=True)
        return d_x, d_head

    d_x, d_heads = jax.lax.scan(tile, jnp.zeros(x.shape, jnp.float32), (heads, ids))
    d_head_VD = d_heads.reshape(-1, head_VD.shape[1])[: head_VD.shape[0]]
    if layout.rows is not None:
        d_head_VD = jax.lax.psum(d_head_VD, layout.rows)
    if layout.vocab is not None:
        d_x = jax.lax.psum(d_x, layout.vocab)
    d_x_BSD = _take(_join(d_x, x_BSD.shape[1]), rank_BS)
    return d_x_BSD.astype(x_BSD.dtype), d_head_VD.astype(head_VD.dtype)


def _order(weights_BS: jax.Array, chunk: int) -> tuple[jax.Array, jax.Array, jax.Array, int]:
    """(each row's tokens, those with weight first; where each token of a row went; chunks that some row of this device
    needs; tokens of a chunk). Counted, not sorted: the TPU compiler takes seconds over a sort."""
    counted_BS = weights_BS > 0
    chunk = min(chunk, weights_BS.shape[1])
    counts_B1 = jnp.sum(counted_BS, axis=1, keepdims=True)
    rank_BS = jnp.where(counted_BS, jnp.cumsum(counted_BS, axis=1), counts_B1 + jnp.cumsum(~counted_BS, axis=1)) - 1
    numbers = jnp.arange(weights_BS.shape[1])
    order_BS = jax.vmap(lambda rank: jnp.zeros_like(rank).at[rank].set(numbers, unique_indices=True))(rank_BS)
    return order_BS, rank_BS, -(-jnp.max(counts_B1) // chunk), chunk


def _tiles(head_VD: jax.Array, layout: Layout) -> tuple[jax.Array, jax.Array]:
    """The head in tiles (tiles, v, D) and the vocabulary entry of each line (tiles, v); -1 is padding."""
    size = -(-head_VD.shape[0] // layout.tiles)
    local = jnp.arange(layout.tiles * size)
    start = 0 if layout.vocab is None else jax.lax.axis_index(layout.vocab) * head_VD.shape[0]
    real = (local < head_VD.shape[0]) & (local + start < layout.vocab_size)
    ids = jnp.where(real, local + start, -1)
    padded = jnp.pad(head_VD, ((0, layout.tiles * size - head_VD.shape[0]), (0, 0)))
    return padded.reshape(layout.tiles, size, -1), ids.reshape(layout.tiles, size)


def _gather(head: jax.Array, layout: Layout) -> jax.Array:
    return head if layout.width is None else jax.lax.all_gather(head, layout.width, axis=1, tiled=True)


def _logits(x_BCD: jax.Array, head_VD: jax.Array, ids_V: jax.Array) -> jax.Array:
    logits = jnp.einsum("bcd,vd->bcv", x_BCD, head_VD, preferred_element_type=jnp.float32)
    return jnp.where(ids_V >= 0, logits, _MASKED)


def _take(x: jax.Array, order_BS: jax.Array) -> jax.Array:
    """The tokens of each row in another order."""
    return jax.vmap(lambda row, order: row[order])(x, order_BS)


def _split(x: jax.Array, chunk: int) -> jax.Array:
    """(B, S, ...) -> (chunks, B, chunk, ...), zeros at the end."""
    x = jnp.pad(x, ((0, 0), (0, -x.shape[1] % chunk)) + ((0, 0),) * (x.ndim - 2))
    return jnp.moveaxis(x.reshape(x.shape[0], -1, chunk, *x.shape[2:]), 1, 0)


def _join(x: jax.Array, tokens: int) -> jax.Array:
    """Undoes _split for rows of this many tokens."""
    x = jnp.moveaxis(x, 0, 1)
    return x.reshape(x.shape[0], -1, *x.shape[3:])[:, :tokens]
