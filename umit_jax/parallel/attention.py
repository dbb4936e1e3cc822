"""The attention of a mesh: which implementation its devices use, and kernels under shard_map.

The compiler splits ordinary operations over a mesh by itself. A kernel it cannot split: each device runs it on its own
rows and its own heads.
"""

import functools
from collections.abc import Callable

import jax
from jax.sharding import Mesh, PartitionSpec

from umit_jax.ops.attention import KERNELS, on_device
from umit_jax.parallel.mesh import ROWS

_AUTO = {"tpu": "splash", "gpu": "flash"}  # platform -> what "auto" means; blockwise elsewhere


def on_mesh(implementation: str, mesh: Mesh) -> Callable[..., jax.Array]:
    """ops.attention.attention bound to a mesh: rows over (data, fsdp), heads over tensor. "auto" takes the platform's
    own kernel."""
    platform = mesh.devices.flat[0].platform
    name = _AUTO.get(platform, "blockwise") if implementation == "auto" else implementation
    call = functools.partial(on_device, implementation=name, platform=platform)

    def attention(
        q_BSNH: jax.Array,
        k_BTKH: jax.Array,
        v_BTKH: jax.Array,
        *,
        q_segments: jax.Array,
        k_segments: jax.Array,
        causal: bool,
    ) -> jax.Array:
        one = functools.partial(call, causal=causal)
        if name in KERNELS:
            heads, rows = PartitionSpec(*ROWS, None, "tensor", None), ROWS
            one = jax.shard_map(
                one, mesh=mesh, in_specs=(heads, heads, heads, rows, rows), out_specs=heads, check_vma=False
            )
        return one(q_BSNH, k_BTKH, v_BTKH, q_segments, k_segments)

    return attention
