"""Attention within segments: one entry, several implementations that give the same answer.

| implementation | how                                                            | for                      |
| xla            | the whole score matrix at once                                 | reference, decoding      |
| blockwise      | blocks of queries, skipping keys that causality masks          | training on long rows    |

A query attends to keys of its own segment; segment 0 is padding, attends to nothing and gives zeros. Every
implementation takes segments (rows are packed: without them, one patient's sample would read another's) and passes
the same parity test on packed rows. Heads are grouped: key-value head i serves queries heads i*N/K ... without being
repeated.
"""

import functools

import jax
import jax.numpy as jnp

IMPLEMENTATIONS = ("xla", "blockwise")


def attention(
    q_BSNH: jax.Array,
    k_BTKH: jax.Array,
    v_BTKH: jax.Array,
    *,
    q_segments: jax.Array,
    k_segments: jax.Array,
    causal: bool,
    implementation: str = "blockwise",
) -> jax.Array:
    """softmax(q k / sqrt(H)) v within segments -> (B, S, N, H) in the dtype of q; the softmax is float32.

    q_segments (B, S), k_segments (B, T): int, 0 = padding. causal needs S == T: query i sees keys 0..i.
    Raises ValueError for an unknown implementation.
    """
    if causal and q_BSNH.shape[1] != k_BTKH.shape[1]:
        raise ValueError(f"causal attention: expected as many queries as keys, found {q_BSNH.shape} and {k_BTKH.shape}")
    if implementation == "xla":
        return _xla(q_BSNH, k_BTKH, v_BTKH, q_segments, k_segments, causal)
    if implementation == "blockwise":
        return _blockwise(q_BSNH, k_BTKH, v_BTKH, q_segments, k_segments, causal)
    raise ValueError(f"attention: expected {' | '.join(IMPLEMENTATIONS)}, found {implementation!r}")


def _xla(q, k, v, q_segments, k_segments, causal: bool, first_query: int = 0):
    (b, s, n, h), (t, kv) = q.shape, k.shape[1:3]
    q = q.reshape(b, s, kv, n // kv, h)
    scores = jnp.einsum("bskgh,btkh->bkgst", q, k, preferred_element_type=jnp.float32) * h**-0.5
    mask_BST = (q_segments[:, :, None] == k_segments[:, None, :]) & (q_segments[:, :, None] > 0)
    if causal:
        mask_BST &= first_query + jnp.arange(s)[:, None] >= jnp.arange(t)[None, :]
    scores = jnp.where(mask_BST[:, None, None], scores, -1e30)
    weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
    out = jnp.einsum("bkgst,btkh->bskgh", weights, v).reshape(b, s, n, h)
    return jnp.where((q_segments > 0)[..., None, None], out, 0)


def _blockwise(q, k, v, q_segments, k_segments, causal: bool, block: int = 256):
    s = q.shape[1]
    if not causal or s <= block:
        return _xla(q, k, v, q_segments, k_segments, causal)
    step = functools.partial(jax.checkpoint, static_argnums=(5, 6))(_xla)
    outs = []
    for start in range(0, s, block):
        end = min(start + block, s)
        queries, keys = slice(start, end), slice(0, end)
        out = step(q[:, queries], k[:, keys], v[:, keys], q_segments[:, queries], k_segments[:, keys], True, start)
        outs.append(out)
    return jnp.concatenate(outs, axis=1)
