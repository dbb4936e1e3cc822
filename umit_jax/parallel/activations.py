"""Where activations lie on a mesh, and the embedding lookup that puts them there.

Left to the compiler, a lookup over a mesh with a data axis gathers the whole gradient of the table (2.2 GB of the 7b)
on every device. Here ids travel to the table, vectors travel back, and what is sent is written down:

| step                                | forward                          | backward                               |
| every device has part of the table  | ids of all rows, gathered        | vectors of all rows, added to its part |
| vocabulary over tensor              | summed, each keeps a part of S   | gathered                               |
| width over fsdp                     | columns for rows (all-to-all)    | rows for columns                       |
| copies over data                    |                                  | the parts are summed                   |
"""

import functools

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from umit_jax.model.param import Place
from umit_jax.parallel.mesh import ROWS

_TABLE = PartitionSpec("tensor", "fsdp")


def activations(mesh: Mesh) -> Place:
    """Activations (B, S, width): rows over (data, fsdp); between layers the sequence over tensor, which would otherwise
    keep the same ones several times; inside a layer whole, because there tensor splits heads and MLP columns.

    A sequence that tensor does not divide stays whole.
    """

    def between(x_BSD: jax.Array) -> jax.Array:
        return jax.lax.with_sharding_constraint(x_BSD, NamedSharding(mesh, _between(mesh, x_BSD.shape[1])))

    def inside(x_BSD: jax.Array) -> jax.Array:
        return jax.lax.with_sharding_constraint(x_BSD, NamedSharding(mesh, ROWS))

    return Place(between, inside, functools.partial(lookup, mesh))


def _between(mesh: Mesh, tokens: int) -> PartitionSpec:
    return ROWS if tokens % mesh.shape["tensor"] else PartitionSpec(*ROWS, "tensor")


def lookup(mesh: Mesh, table_VD: jax.Array, tokens_BS: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """table_VD[tokens_BS] as dtype, laid as between layers; every id must be in the table.

    A vocabulary that tensor does not divide is padded here.
    """
    padded_VD = jnp.pad(table_VD, ((0, -table_VD.shape[0] % mesh.shape["tensor"]), (0, 0)))
    out = _between(mesh, tokens_BS.shape[1])
    part = functools.partial(_lookup, dtype=dtype, split=out != ROWS)
    return jax.shard_map(part, mesh=mesh, in_specs=(_TABLE, ROWS), out_specs=out, check_vma=False)(padded_VD, tokens_BS)


def _lookup(table_VD: jax.Array, tokens_BS: jax.Array, dtype: jnp.dtype, split: bool) -> jax.Array:
    """One device: its part of the table and its rows."""
    entries = table_VD.shape[0]
    ids = jax.lax.all_gather(tokens_BS, "fsdp", axis=0, tiled=True) - jax.lax.axis_index("tensor") * entries
    ids = jnp.where((ids >= 0) & (ids < entries), ids, entries)  # what another part holds is zeros here
    x_BSD = table_VD.at[ids].get(mode="fill", fill_value=0).astype(dtype)
    if split:
        x_BSD = jax.lax.psum_scatter(x_BSD, "tensor", scatter_dimension=1, tiled=True)
    else:
        x_BSD = jax.lax.psum(x_BSD, "tensor")
    return jax.lax.all_to_all(x_BSD, "fsdp", split_axis=0, concat_axis=2, tiled=True)
