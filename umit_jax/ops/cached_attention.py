"""Attention of new tokens to a key-value cache: one per row, or several in branches that do not see each other.

Heads come before slots: the slots one head reads then lie together, which on a CPU makes a step 1.7 times as fast as
(B, T, K, H). Values are (B, K, T, H), keys (B, K, H, T), as the product with a query reads them. Queries are grouped as
in ops/attention.py, and the same test holds both to one answer.
"""

import jax
import jax.numpy as jnp


def cached_attention(q_BNH: jax.Array, k_BKHT: jax.Array, v_BKTH: jax.Array, filled_BT: jax.Array) -> jax.Array:
    """softmax(q k / sqrt(H)) v over the slots where filled_BT > 0 -> (B, N, H) in the dtype of q; float32 softmax.

    Every row must have a filled slot. Key-value head i serves query heads i*N/K to (i+1)*N/K - 1.
    """
    (b, n, h), kv = q_BNH.shape, k_BKHT.shape[1]
    q = q_BNH.reshape(b, kv, n // kv, h)
    scores = jnp.einsum("bkgh,bkht->bkgt", q, k_BKHT, preferred_element_type=jnp.float32) * h**-0.5
    scores = jnp.where(filled_BT[:, None, None, :] > 0, scores, -1e30)
    weights = jax.nn.softmax(scores, axis=-1).astype(v_BKTH.dtype)
    return jnp.einsum("bkgt,bkth->bkgh", weights, v_BKTH).reshape(b, n, h)


def branch_attention(
    q_BMNH: jax.Array,
    k_BMKH: jax.Array,
    v_BMKH: jax.Array,
    cache: tuple[jax.Array, jax.Array],
    filled_BT: jax.Array,
    branches_BM: jax.Array,
) -> jax.Array:
    """Attention of M new tokens a row -> (B, M, N, H): each to the filled slots of the cache (k_BKHT, v_BKTH), to
    itself and to the tokens before it that have its number in branches_BM."""
    (b, m, n, h), kv = q_BMNH.shape, k_BMKH.shape[2]
    q = q_BMNH.reshape(b, m, kv, n // kv, h)
    scale = h**-0.5
    cached = jnp.einsum("bmkgh,bkht->bkgmt", q, cache[0], preferred_element_type=jnp.float32) * scale
    own = jnp.einsum("bmkgh,bnkh->bkgmn", q, k_BMKH, preferred_element_type=jnp.float32) * scale
    cached = jnp.where(filled_BT[:, None, None, None, :] > 0, cached, -1e30)
    same_BMM = (branches_BM[:, :, None] == branches_BM[:, None, :]) & jnp.tri(m, dtype=bool)
    own = jnp.where(same_BMM[:, None, None], own, -1e30)
    weights = jax.nn.softmax(jnp.concatenate([cached, own], -1), axis=-1).astype(v_BMKH.dtype)
    slots = filled_BT.shape[1]
    out = jnp.einsum("bkgmt,bkth->bmkgh", weights[..., :slots], cache[1])
    out += jnp.einsum("bkgmn,bnkh->bmkgh", weights[..., slots:], v_BMKH)
    return out.reshape(b, m, n, h)
