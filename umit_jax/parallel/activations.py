"""Where activations lie on a mesh, and the embedding lookup that puts them there.

The lookup is an indexed read, which the compiler splits over fsdp, context and tensor by itself. With a data axis it
would gather the whole gradient of the table (2.2 GB of the 7b) on every device, before it adds the parts of the axis
up. So each part of the axis reads from a copy of the table, which is what it holds anyway: the gradient of each copy
stays where the table lies, and their sum is one all-reduce over data.
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
    """table_VD[tokens_BS] as dtype, laid as between layers; every id must be in the table. C: copies, as data has."""
    (rows, tokens), copies = tokens_BS.shape, mesh.shape["data"]
    lies = partition("decoder/embed/embedding", ("vocab", "embed"), table_VD.shape, mesh)
    table_CVD = jax.lax.with_sharding_constraint(
        jnp.broadcast_to(table_VD, (copies, *table_VD.shape)), NamedSharding(mesh, PartitionSpec("data", *lies))
    )
    tokens_CBS = tokens_BS.reshape(copies, rows // copies, tokens)
    x_CBSD = jax.vmap(lambda table_VD, tokens_BS: table_VD[tokens_BS].astype(dtype))(table_CVD, tokens_CBS)
    between = NamedSharding(mesh, _between(mesh, tokens))
    return jax.lax.with_sharding_constraint(x_CBSD.reshape(rows, tokens, -1), between)
