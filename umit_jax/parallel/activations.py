"""Where activations lie on a mesh, and the embedding lookup that puts them there.

The lookup is an indexed read, which the compiler splits over fsdp and tensor by itself. Where data or context split the
tokens it would gather the whole gradient of the table (2.2 GB of the 7b) on every device, before it adds their parts
up. So each of their parts reads from a copy of the table (over data it has one anyway, over context it gathers its
columns): the gradient of a copy stays where the copy lies, and their sum is one all-reduce.
"""

import functools

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from umit_jax.model.param import Place
from umit_jax.parallel.mesh import BATCH
from umit_jax.parallel.rules import partition


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
    """table_VD[tokens_BS] as dtype, laid as between layers; every id must be in the table. C: copies of the table, one
    for each part of the rows over data and of their tokens over context."""
    (rows, tokens), data, context = tokens_BS.shape, mesh.shape["data"], mesh.shape["context"]
    vocab, _ = partition("decoder/embed/embedding", ("vocab", "embed"), table_VD.shape, mesh)
    copies = NamedSharding(mesh, PartitionSpec(("data", "context"), vocab, "fsdp"))
    table_CVD = jnp.broadcast_to(table_VD, (data * context, *table_VD.shape))
    table_CVD = jax.lax.with_sharding_constraint(table_CVD, copies)
    parts = tokens_BS.reshape(data, rows // data, context, tokens // context)
    tokens_CBS = parts.swapaxes(1, 2).reshape(data * context, *parts.shape[1::2])
    x_CBSD = jax.vmap(lambda table_VD, tokens_BS: table_VD[tokens_BS].astype(dtype))(table_CVD, tokens_CBS)
    x_BSD = x_CBSD.reshape(data, context, *x_CBSD.shape[1:]).swapaxes(1, 2).reshape(rows, tokens, -1)
    return jax.lax.with_sharding_constraint(x_BSD, NamedSharding(mesh, _between(mesh, tokens)))
