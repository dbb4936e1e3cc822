"""Where activations lie on a mesh, and the embedding lookup that puts them there.

Left to the compiler, a lookup over a mesh with a data axis gathers the whole gradient of the table (2.2 GB of the 7b)
on every device. Here ids travel to the table, vectors travel back, and what is sent is written down:

| step                                | forward                          | backward                               |
| every device has part of the table  | ids of all rows, gathered        | vectors of all rows, added to its part |
| vocabulary over tensor              | summed, each keeps a part of S   | gathered                               |
| width over fsdp and context         | columns for tokens (all-to-all)  | tokens for columns                     |
| copies over data                    |                                  | the parts are summed                   |
"""

import functools

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from umit_jax.model.param import Place
from umit_jax.parallel.mesh import BATCH, WIDTH

_TABLE = PartitionSpec("tensor", WIDTH)
_PIECE = 1 << 14  # tokens of all rows, in each part of a row, that are looked up at once


def activations(mesh: Mesh) -> Place:
    """Activations (B, S, width) as a batch lies; between layers the sequence over tensor too, which would otherwise
    keep the same ones several times; inside a layer not, because there tensor splits heads and MLP columns.

    A sequence that context and tensor do not divide is split over context alone.
    """

    def between(x_BSD: jax.Array) -> jax.Array:
        return jax.lax.with_sharding_constraint(x_BSD, NamedSharding(mesh, _between(mesh, x_BSD.shape[1])))

    def inside(x_BSD: jax.Array) -> jax.Array:
        return jax.lax.with_sharding_constraint(x_BSD, NamedSharding(mesh, BATCH))

    return Place(between, inside, functools.partial(lookup, mesh))


def _between(mesh: Mesh, tokens: int) -> PartitionSpec:
    divides = tokens % (mesh.shape["context"] * mesh.shape["tensor"]) == 0
    return PartitionSpec(BATCH[0], ("context", "tensor")) if divides else BATCH


def lookup(mesh: Mesh, table_VD: jax.Array, tokens_BS: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """table_VD[tokens_BS] as dtype, laid as between layers; every id must be in the table.

    A vocabulary that tensor does not divide is padded here.
    """
    padded_VD = jnp.pad(table_VD, ((0, -table_VD.shape[0] % mesh.shape["tensor"]), (0, 0)))
    rows, tokens = tokens_BS.shape
    out = _between(mesh, tokens)
    split = out != BATCH
    parts = mesh.shape["context"] * (mesh.shape["tensor"] if split else 1)
    pieces = _pieces(rows // mesh.shape["data"], tokens // parts)
    run = jax.shard_map(
        functools.partial(_lookup, dtype=dtype, split=split, parts=parts, pieces=pieces),
        mesh=mesh,
        in_specs=(_TABLE, BATCH),
        out_specs=out,
        check_vma=False,
    )
    return run(padded_VD, tokens_BS)


def _pieces(rows: int, tokens: int) -> int:
    """How many pieces of `tokens` are looked up one after the other: a few columns of a table take the memory of 128 on
    a TPU, so that all tokens at once would take a multiple of what their vectors do."""
    pieces = 1
    while rows * tokens > pieces * _PIECE and tokens % (2 * pieces) == 0:
        pieces *= 2
    return pieces


def _lookup(
    table_VD: jax.Array, tokens_BS: jax.Array, dtype: jnp.dtype, split: bool, parts: int, pieces: int
) -> jax.Array:
    """One device: its part of the table and its tokens. parts: into which the sequence is split in the end, over tensor
    too where `split` says so."""
    for dimension, axis in enumerate(WIDTH):
        tokens_BS = jax.lax.all_gather(tokens_BS, axis, axis=dimension, tiled=True)
    rows, tokens = tokens_BS.shape
    # a piece has the same share of every part
    tokens_PBS = jnp.moveaxis(tokens_BS.reshape(rows, parts, pieces, -1), 2, 0).reshape(pieces, rows, -1)
    one = functools.partial(_lookup_piece, table_VD, dtype=dtype, split=split)
    x_PBSD = jax.lax.map(one, tokens_PBS) if pieces > 1 else one(tokens_PBS[0])[None]
    return jnp.moveaxis(x_PBSD, 0, 1).reshape(x_PBSD.shape[1], tokens // parts, -1)


def _lookup_piece(table_VD: jax.Array, tokens_BS: jax.Array, dtype: jnp.dtype, split: bool) -> jax.Array:
    entries = table_VD.shape[0]
    ids = tokens_BS - jax.lax.axis_index("tensor") * entries
    ids = jnp.where((ids >= 0) & (ids < entries), ids, entries)  # what another part holds is zeros here
    x_BSD = table_VD.at[ids].get(mode="fill", fill_value=0).astype(dtype)
    x_BSD = jax.lax.all_to_all(x_BSD, "context", split_axis=1, concat_axis=2, tiled=True)  # inner axes first
    if split:
        x_BSD = jax.lax.psum_scatter(x_BSD, "tensor", scatter_dimension=1, tiled=True)
    else:
        x_BSD = jax.lax.psum(x_BSD, "tensor")
    return jax.lax.all_to_all(x_BSD, "fsdp", split_axis=0, concat_axis=2, tiled=True)
