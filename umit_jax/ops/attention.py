"""Attention within segments: one entry, several implementations that give the same answer.

| implementation | how                                                                  | for                      |
| xla            | the whole score matrix at once                                       | reference, decoding      |
| blockwise      | block by block, leaving out the blocks the mask kills (blockwise.py) | CPU; prefill everywhere  |
| splash         | jax's splash kernel (kernels.py)                                     | training on TPU          |
| flash          | jax's Pallas flash kernel (kernels.py); self-attention only          | training on GPU          |

A query attends to keys of its own segment; segment 0 is padding, attends to nothing and gives zeros. Every
implementation takes segments (rows are packed: without them, one patient's sample would read another's) and passes
the same parity test on packed rows; cuDNN's takes none and is refused. Key-value head i serves query heads i*N/K to
(i+1)*N/K - 1 without being repeated (flash repeats it). Queries may be one of several equal parts of a row whose keys
are all there (all but flash); causality then counts from where the part starts.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from umit_jax.ops.blockwise import blockwise_attention

IMPLEMENTATIONS = ("xla", "blockwise", "splash", "flash")
Implementation = str | Callable[..., jax.Array]
KERNELS = {"splash": "tpu", "flash": "gpu"}  # implementation -> the platform its kernel is for
_WITHOUT_SEGMENTS = ("cudnn",)  # exist in jax, and would let packed samples read each other


class Part(NamedTuple):
    """These queries are one of `parts` equal parts of a row, the number-th from 0."""

    number: jax.Array | int = 0
    parts: int = 1


WHOLE = Part()


def attention(
    q_BSNH: jax.Array,
    k_BTKH: jax.Array,
    v_BTKH: jax.Array,
    *,
    q_segments: jax.Array,
    k_segments: jax.Array,
    causal: bool,
    implementation: Implementation = "blockwise",
) -> jax.Array:
    """softmax(q k / sqrt(H)) v within segments -> (B, S, N, H) in the dtype of q; the softmax is float32.

    q_segments (B, S), k_segments (B, T): int, 0 = padding. causal needs S == T: query i sees keys 0..i.
    implementation: a name of the table, or a function of the same arguments (as parallel.attention.on_mesh gives).
    Raises ValueError for an implementation that is unknown or takes no segments, for causal with S != T, for heads
    that do not divide, and for flash with S != T.
    """
    if not isinstance(implementation, str):
        return implementation(q_BSNH, k_BTKH, v_BTKH, q_segments=q_segments, k_segments=k_segments, causal=causal)
    return on_device(
        q_BSNH, k_BTKH, v_BTKH, q_segments, k_segments, causal, implementation, platform=jax.default_backend()
    )


def on_device(
    q_BSNH: jax.Array,
    k_BTKH: jax.Array,
    v_BTKH: jax.Array,
    q_segments: jax.Array,
    k_segments: jax.Array,
    causal: bool,
    implementation: str,
    platform: str,
    part: Part = WHOLE,
) -> jax.Array:
    """attention by name, for one device of this platform: kernels of another one are interpreted."""
    queries, heads, keys, kv_heads = *q_BSNH.shape[1:3], *k_BTKH.shape[1:3]
    if causal and queries * part.parts != keys:
        found = f"{queries} x {part.parts} and {keys}" if part.parts > 1 else f"{queries} and {keys}"
        raise ValueError(f"causal attention: expected as many queries as keys, found {found}")
    if heads % kv_heads:
        raise ValueError(f"attention: expected heads in equal groups, found {heads} heads for {kv_heads} kv heads")
    if implementation == "xla":
        return _xla(q_BSNH, k_BTKH, v_BTKH, q_segments, k_segments, causal, part.number * queries)
    if implementation == "blockwise":
        start = part.number * queries
        return blockwise_attention(q_BSNH, k_BTKH, v_BTKH, q_segments, k_segments, causal, start=start)
    interpret = KERNELS.get(implementation) != platform
    if implementation == "splash":
        # imported here: Pallas takes half a second, which a command on a CPU need not wait for
        from umit_jax.ops.kernels import splash_attention

        return splash_attention(q_BSNH, k_BTKH, v_BTKH, q_segments, k_segments, causal, interpret, part)
    if implementation == "flash":
        from umit_jax.ops.kernels import flash_attention

        if queries != keys:
            raise ValueError(f"attention: flash: expected as many queries as keys, found {queries} and {keys}")
        return flash_attention(q_BSNH, k_BTKH, v_BTKH, q_segments, causal, interpret)
    if implementation in _WITHOUT_SEGMENTS:
        raise ValueError(f"attention: {implementation!r} takes no segments, so packed samples would read each other")
    raise ValueError(f"attention: expected {' | '.join(IMPLEMENTATIONS)}, found {implementation!r}")


def _xla(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    q_segments: jax.Array,
    k_segments: jax.Array,
    causal: bool,
    start: jax.Array | int,
) -> jax.Array:
    (b, s, n, h), (t, kv) = q.shape, k.shape[1:3]
    q = q.reshape(b, s, kv, n // kv, h)
    scores = jnp.einsum("bskgh,btkh->bkgst", q, k, preferred_element_type=jnp.float32) * h**-0.5
    mask_BST = (q_segments[:, :, None] == k_segments[:, None, :]) & (q_segments[:, :, None] > 0)
    if causal:
        mask_BST &= start + jnp.arange(s)[:, None] >= jnp.arange(t)[None, :]
    scores = jnp.where(mask_BST[:, None, None], scores, -1e30)
    weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
    out = jnp.einsum("bkgst,btkh->bskgh", weights, v).reshape(b, s, n, h)
    return jnp.where((q_segments > 0)[..., None, None], out, 0)
