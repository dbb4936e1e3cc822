"""Cross-entropy over the vocabulary in chunks of tokens, so that the logits never exist whole.

8,192 tokens times a vocabulary of 151,936 are 5 GB of float32 logits; a chunk needs its share of that, and the
backward pass computes it again. Most tokens of a packed row are prompt, image or padding and carry no loss: each row's
tokens that do are moved to its front, and chunks in which no row has one are never computed. The number of chunks thus
depends on the data, which reverse-mode differentiation cannot follow, so the backward pass is written out.
"""

import jax
import jax.numpy as jnp


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
    counted_BS = weights_BS > 0
    order_BS = jnp.argsort(~counted_BS, axis=1, stable=True)
    chunk = min(chunk, x_BSD.shape[1])
    needed = -(-jnp.max(jnp.sum(counted_BS, axis=1)) // chunk)
    with jax.named_scope("vocabulary_loss"):
        nll_BS = _nll(x_BSD, head_VD, targets_BS, order_BS, needed, chunk)
    return jnp.where(counted_BS, nll_BS, 0.0)


def _forward(
    x_BSD: jax.Array, head_VD: jax.Array, targets_BS: jax.Array, order_BS: jax.Array, needed: jax.Array, chunk: int
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    """Loss of the tokens that order_BS puts into the first `needed` chunks of each row; 0 for the others."""
    x, targets = _split(_take(x_BSD, order_BS), chunk), _split(_take(targets_BS, order_BS), chunk)
    head = head_VD.astype(x_BSD.dtype)

    def step(i: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        nll, log_total = carry
        logits = _logits(x[i], head)
        total = jax.nn.logsumexp(logits, axis=-1)
        picked = jnp.take_along_axis(logits, targets[i][..., None], axis=-1)[..., 0]
        return nll.at[i].set(total - picked), log_total.at[i].set(total)

    zeros = jnp.zeros(targets.shape, jnp.float32)
    nll, log_total = jax.lax.fori_loop(0, needed, step, (zeros, zeros))
    nll_BS = _take(_join(nll, x_BSD.shape[1]), jnp.argsort(order_BS, axis=1))
    return nll_BS, (x_BSD, head_VD, targets_BS, order_BS, needed, log_total)


def _backward(chunk: int, residuals: tuple[jax.Array, ...], d_nll_BS: jax.Array):
    x_BSD, head_VD, targets_BS, order_BS, needed, log_total = residuals
    x, targets = _split(_take(x_BSD, order_BS), chunk), _split(_take(targets_BS, order_BS), chunk)
    d_nll, head = _split(_take(d_nll_BS, order_BS), chunk), head_VD.astype(x_BSD.dtype)

    def step(i: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        d_x, d_head = carry
        probability = jnp.exp(_logits(x[i], head) - log_total[i][..., None])
        hit = targets[i][..., None] == jnp.arange(head.shape[0])
        d_logits = ((probability - hit) * d_nll[i][..., None]).astype(head.dtype)
        d_head += jnp.einsum("bcv,bcd->vd", d_logits, x[i], preferred_element_type=jnp.float32)
        return d_x.at[i].set(jnp.einsum("bcv,vd->bcd", d_logits, head)), d_head

    d_x, d_head = jax.lax.fori_loop(0, needed, step, (jnp.zeros_like(x), jnp.zeros(head.shape, jnp.float32)))
    d_x_BSD = _take(_join(d_x, x_BSD.shape[1]), jnp.argsort(order_BS, axis=1))
    return d_x_BSD, d_head.astype(head_VD.dtype), None, None, None


_nll = jax.custom_vjp(lambda *args: _forward(*args)[0], nondiff_argnums=(5,))
_nll.defvjp(_forward, _backward)


def _logits(x_BCD: jax.Array, head_VD: jax.Array) -> jax.Array:
    return jnp.einsum("bcd,vd->bcv", x_BCD, head_VD, preferred_element_type=jnp.float32)


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
