"""Attention by the accelerators' own kernels, with segments: splash on TPU, Pallas flash attention on GPU (both jax's).

Elsewhere they run in interpret mode, which is how the tests hold them to the reference. Rows are padded with segment 0
to whole blocks. Splash leaves out blocks that causality kills, in both directions; segments are masked inside blocks.
A kernel is one program of one device: on a mesh it runs under shard_map (parallel/attention.py).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

from umit_jax.ops.attention import Part

LANES = 128  # of a TPU's registers: heads and rows are padded to multiples
SPLASH_BLOCK = 512  # the largest block of queries and of keys
FLASH_BLOCK = 64


def splash_attention(
    q_BSNH: jax.Array,
    k_BTKH: jax.Array,
    v_BTKH: jax.Array,
    q_segments: jax.Array,
    k_segments: jax.Array,
    causal: bool,
    interpret: bool,
    part: Part,
) -> jax.Array:
    """As ops.attention.on_device. interpret: run without the kernel's compiler, anywhere.

    Raises ValueError for causal parts of rows that are no multiple of LANES: their padding would shift causality.
    """
    queries, heads, head_dim = q_BSNH.shape[1:]
    if causal and part.parts > 1 and queries % LANES:
        raise ValueError(f"splash attention: expected parts of a row in multiples of {LANES} tokens, found {queries}")
    scaled = (q_BSNH.astype(jnp.float32) * head_dim**-0.5).astype(q_BSNH.dtype)
    q, k, v = (_pad_heads(_pad_rows(x, LANES), LANES).swapaxes(1, 2) for x in (scaled, k_BTKH, v_BTKH))
    kernel = _splash_kernel(heads, q.shape[2], k.shape[2], causal, interpret, part)
    segments = splash.SegmentIds(_pad_rows(q_segments, LANES), _pad_rows(k_segments, LANES))
    # The compiler cannot see into a kernel: aot/hlo.py reads from this scope how much of the square it computes.
    with jax.named_scope("causal_attention" if causal else "full_attention"):
        out_BNSH = _together(q, k, v, segments, kernel)
    return _zero_padding(out_BNSH.swapaxes(1, 2)[:, :queries, :, :head_dim], q_segments)


def _over_rows(
    q: jax.Array, k: jax.Array, v: jax.Array, segments: splash.SegmentIds, kernel: Callable[..., jax.Array]
) -> jax.Array:
    """The kernel over the rows of a batch. What the backward pass needs of its forward pass is there before anything
    uses its output: a number for each query and head, of which the kernel writes LANES copies. Left to itself the
    compiler keeps all of them through the MLP that follows, 56 MB of a 7b's layer, before it takes one."""
    return jax.vmap(kernel)(q, k, v, segments)


def _forward(
    q: jax.Array, k: jax.Array, v: jax.Array, segments: splash.SegmentIds, kernel: Callable[..., jax.Array]
) -> tuple[jax.Array, Callable[..., Any]]:
    def attend(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        return jax.vmap(kernel)(q, k, v, segments)

    return jax.lax.optimization_barrier(jax.vjp(attend, q, k, v))


_together = jax.custom_vjp(_over_rows)
_together.defvjp(_forward, lambda back, d_BNSH: (*back(d_BNSH), None, None))


def _splash_kernel(
    heads: int, queries: int, keys: int, causal: bool, interpret: bool, part: Part
) -> splash.SplashAttentionKernel:
    shards = part.parts if causal else 1
    mask = masks.CausalMask((queries * shards, keys)) if causal else masks.FullMask((queries, keys))
    q_block, k_block = _block(queries), _block(keys)
    blocks = splash.BlockSizes(
        block_q=q_block,
        block_kv=k_block,
        block_q_dkv=q_block,
        block_kv_dkv=k_block,
        block_kv_dkv_compute=k_block,
        block_q_dq=q_block,
        block_kv_dq=k_block,
    )
    kernel = splash.make_splash_mha(
        masks.MultiHeadMask([mask] * heads),
        block_sizes=blocks,
        head_shards=1,
        q_seq_shards=shards,
        residual_checkpoint_name="attention",
        interpret=interpret,
    )

    def mine(x: jax.Array) -> jax.Array:
        """Which blocks are computed is a table with a line for each block of queries; the places of queries are one."""
        axis = min(1, x.ndim - 1)
        size = x.shape[axis] // shards
        return jax.lax.dynamic_slice_in_dim(x, part.number * size, size, axis)

    return jax.tree.map(mine, kernel) if shards > 1 else kernel


def _block(length: int) -> int:
    """The largest block that a padded row divides into."""
    return max(size for size in range(LANES, SPLASH_BLOCK + 1, LANES) if length % size == 0)


def flash_attention(
    q_BSNH: jax.Array, k_BTKH: jax.Array, v_BTKH: jax.Array, segments_BS: jax.Array, causal: bool, interpret: bool
) -> jax.Array:
    """As ops.attention.attention, for queries and keys of the same tokens. Key-value heads are repeated."""
    from jax.experimental.pallas.ops.gpu import attention as flash  # here: jax 0.12 warns that it will move to tokamax

    tokens, heads, head_dim = q_BSNH.shape[1:]
    lanes = max(1 << (head_dim - 1).bit_length(), 16)  # the kernel's products want a power of two, 16 at least
    k, v = (jnp.repeat(x, heads // x.shape[2], axis=2) for x in (k_BTKH, v_BTKH))
    q, k, v = (_pad_heads(_pad_rows(x, FLASH_BLOCK), lanes) for x in (q_BSNH, k, v))
    block = FLASH_BLOCK
    blocks = flash.BlockSizes(
        block_q=block, block_k=block, block_q_dkv=block, block_kv_dkv=block, block_q_dq=block, block_kv_dq=block
    )
    out_BSNH = flash.mha(
        q,
        k,
        v,
        _pad_rows(segments_BS, FLASH_BLOCK),
        sm_scale=head_dim**-0.5,
        causal=causal,
        block_sizes=blocks,
        interpret=interpret,
    )
    return _zero_padding(out_BSNH[:, :tokens, :, :head_dim], segments_BS)


def _zero_padding(out_BSNH: jax.Array, segments_BS: jax.Array) -> jax.Array:
    """Padding is segment 0 to a kernel like any other and attends to itself; here it gives zeros."""
    return jnp.where((segments_BS > 0)[..., None, None], out_BSNH, 0)


def _pad_rows(x: jax.Array, multiple: int) -> jax.Array:
    extra = -x.shape[1] % multiple
    return jnp.pad(x, ((0, 0), (0, extra)) + ((0, 0),) * (x.ndim - 2)) if extra else jnp.asarray(x)


def _pad_heads(x: jax.Array, multiple: int) -> jax.Array:
    """Zeros at the end of each head change neither products nor, cut off again, the answer."""
    extra = -x.shape[-1] % multiple
    return jnp.pad(x, ((0, 0),) * (x.ndim - 1) + ((0, extra),)) if extra else x
