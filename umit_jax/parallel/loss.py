"""The vocabulary loss on a mesh: tokens as in a batch, vocabulary over tensor, the head's width over fsdp and context.

Under shard_map, so that what is sent is written down: a tile of the head is gathered over its width, its gradient is
reduced and scattered back. Left to the compiler, a loop over chunks of tokens would reduce the whole gradient in each.
A vocabulary that tensor does not divide is padded here with entries that no probability reaches.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from umit_jax.ops.loss import Layout, backward, forward
from umit_jax.parallel.mesh import BATCH, WIDTH

TILE = 8192  # vocabulary entries of a gathered tile
_CHUNKS = 4  # a tile is so much smaller than the vocabulary that its chunks may be longer

_HEAD = PartitionSpec("tensor", WIDTH)
_SPLIT = PartitionSpec(None, *BATCH)  # (chunks, B, chunk)


def layout(mesh: Mesh, tokens: int, vocab_size: int, chunk: int) -> Layout:
    """chunk: tokens of a row whose logits exist at once, where row and vocabulary are on one device."""
    if chunk < 1:
        raise ValueError(f"loss_chunk: expected at least 1 token, found {chunk}")
    whole = math.prod(mesh.shape[axis] for axis in WIDTH) == 1
    tiles = 1 if whole else -(-vocab_size // mesh.shape["tensor"] // TILE)
    return Layout(
        chunk=min(tokens // mesh.shape["context"], chunk * min(tiles, _CHUNKS)),
        tiles=tiles,
        vocab_size=vocab_size,
        vocab="tensor" if mesh.shape["tensor"] > 1 else None,
        width=None if whole else WIDTH,
        rows="data" if mesh.shape["data"] > 1 else None,
    )


def token_nll(
    mesh: Mesh, x_BSD: jax.Array, head_VD: jax.Array, targets_BS: jax.Array, weights_BS: jax.Array, chunk: int
) -> jax.Array:
    """As ops.loss.token_nll, for global arrays."""
    vocab_size = head_VD.shape[0]
    padded_VD = jnp.pad(head_VD, ((0, -vocab_size % mesh.shape["tensor"]), (0, 0)))
    how = layout(mesh, x_BSD.shape[1], vocab_size, chunk)
    with jax.named_scope("vocabulary_loss"):
        return _token_nll(x_BSD, padded_VD, targets_BS, weights_BS, mesh, how)


def _keep(x: jax.Array, head: jax.Array, targets: jax.Array, weights: jax.Array, mesh: Mesh, how: Layout):
    run = jax.shard_map(
        functools.partial(forward, layout=how),
        mesh=mesh,
        in_specs=(BATCH, _HEAD, BATCH, BATCH),
        out_specs=(BATCH, _SPLIT),
        check_vma=False,
    )
    nll, log_total = run(x, head, targets, weights)
    return nll, (x, head, targets, weights, log_total)


def _pull(mesh: Mesh, how: Layout, kept: tuple[jax.Array, ...], d_nll: jax.Array):
    run = jax.shard_map(
        functools.partial(backward, layout=how),
        mesh=mesh,
        in_specs=(BATCH, _HEAD, BATCH, BATCH, _SPLIT, BATCH),
        out_specs=(BATCH, _HEAD),
        check_vma=False,
    )
    return *run(*kept, d_nll), None, None


_token_nll = jax.custom_vjp(lambda *args: _keep(*args)[0], nondiff_argnums=(4, 5))
_token_nll.defvjp(_keep, _pull)
