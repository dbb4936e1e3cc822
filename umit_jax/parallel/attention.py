"""The attention of a mesh: which implementation its devices use, and where each runs it by itself under shard_map.

The compiler splits ordinary operations over a mesh by itself. A kernel it cannot split: each device runs it on its own
rows and its own heads. Where context splits the rows, each device has some queries of a row and gathers the keys and
values of all of it, which grouped queries make cheap; the last device of a row sees more keys than the first.
"""

import functools
from collections.abc import Callable

import jax
from jax.sharding import Mesh, PartitionSpec

from umit_jax.ops.attention import KERNELS, Part, on_device
from umit_jax.parallel.mesh import BATCH, MeshError

_AUTO = {"tpu": "splash", "gpu": "flash"}  # platform -> what "auto" means; blockwise elsewhere
_WHOLE_ROWS = ("flash",)
_HEADS = PartitionSpec(*BATCH, "tensor", None)


def on_mesh(implementation: str, mesh: Mesh) -> Callable[..., jax.Array]:
    """ops.attention.attention bound to a mesh: tokens as in a batch, heads over tensor. "auto" takes the platform's own
    kernel. Raises MeshError for one that cannot take parts of rows where context splits them."""
    platform, context = mesh.devices.flat[0].platform, mesh.shape["context"]
    name = _AUTO.get(platform, "blockwise") if implementation == "auto" else implementation
    if context > 1 and name in _WHOLE_ROWS:
        raise MeshError(f"mesh.context: {context} splits rows, which attention {name!r} takes whole: use 'blockwise'")
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
        def one(q: jax.Array, k: jax.Array, v: jax.Array, q_segments: jax.Array, k_segments: jax.Array) -> jax.Array:
            if context == 1:
                return call(q, k, v, q_segments, k_segments, causal)
            whole = (jax.lax.all_gather(x, "context", axis=1, tiled=True) for x in (k, v, k_segments))
            k, v, k_segments = whole
            return call(q, k, v, q_segments, k_segments, causal, part=Part(jax.lax.axis_index("context"), context))

        if name in KERNELS or context > 1:
            one = jax.shard_map(
                one, mesh=mesh, in_specs=(_HEADS, _HEADS, _HEADS, BATCH, BATCH), out_specs=_HEADS, check_vma=False
            )
        return one(q_BSNH, k_BTKH, v_BTKH, q_segments, k_segments)

    return attention
