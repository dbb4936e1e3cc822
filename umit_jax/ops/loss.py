"""Cross-entropy over the vocabulary in chunks of tokens, so that the logits never exist whole.

8,192 tokens times a vocabulary of 151,936 are 5 GB of float32 logits; a chunk needs its share of that, and the
backward pass computes it again.
"""

import jax
import jax.numpy as jnp


def token_nll(
    x_BSD: jax.Array, head_VD: jax.Array, targets_BS: jax.Array, weights_BS: jax.Array, chunk: int = 1024
) -> jax.Array:
    """-log p(target) of each token, float32 (B, S); 0 where weights_BS is 0.

    The caller makes (sum, weight) from it: jnp.sum(nll * weights), jnp.sum(weights). chunk: tokens per chunk over all
    rows together. Logits and their log-sum-exp are float32 whatever the dtype of x.
    """
    rows, tokens, width = x_BSD.shape
    per_row = max(1, min(tokens, chunk // rows))
    chunks = -(-tokens // per_row)
    pad = chunks * per_row - tokens

    def split(x: jax.Array) -> jax.Array:
        x = jnp.pad(x, ((0, 0), (0, pad)) + ((0, 0),) * (x.ndim - 2))
        return jnp.moveaxis(x.reshape(rows, chunks, per_row, *x.shape[2:]), 1, 0)

    head = head_VD.astype(x_BSD.dtype)

    @jax.checkpoint
    def step(carry: None, inputs: tuple[jax.Array, jax.Array]) -> tuple[None, jax.Array]:
        x, targets = inputs
        logits = jax.lax.dot_general(
            x.reshape(-1, width), head, (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32
        )
        picked = jnp.take_along_axis(logits, targets.reshape(-1, 1), axis=1)[:, 0]
        return carry, (jax.nn.logsumexp(logits, axis=1) - picked).reshape(targets.shape)

    _, nll = jax.lax.scan(step, None, (split(x_BSD), split(targets_BS)))
    nll_BS = jnp.moveaxis(nll, 0, 1).reshape(rows, -1)[:, :tokens]
    return jnp.where(weights_BS > 0, nll_BS, 0.0)
