"""A kernel on a mesh: each device runs it on its rows, heads and part of a row; together they give the reference."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from umit_jax.ops.attention import attention
from umit_jax.parallel.attention import on_mesh
from umit_jax.parallel.mesh import MeshError, make_mesh


@pytest.mark.parametrize(
    ("name", "axes", "causal"),
    [
        ("splash", {"data": 2, "fsdp": 2, "tensor": 2}, True),
        ("auto", {"data": 2, "fsdp": 2, "tensor": 2}, True),
        ("splash", {"fsdp": 2, "context": 2, "tensor": 2}, True),
        ("splash", {"data": 2, "context": 4}, False),
        ("blockwise", {"fsdp": 2, "context": 2, "tensor": 2}, True),
        ("blockwise", {"data": 2, "context": 4}, False),
        ("xla", {"data": 2, "context": 4}, True),
    ],
)
def test_attention_on_a_mesh_equals_the_reference(name, axes, causal):
    """Segments of 50, 120 and 60 tokens cross the borders between the parts of a row."""
    tokens = 256
    keys = jax.random.split(jax.random.key(0), 4)
    q, k, v, probe = (jax.random.normal(key, (4, tokens, n, 8)) for key, n in zip(keys, (4, 2, 2, 4), strict=True))
    segments = jnp.asarray(np.repeat([[1] * 50 + [2] * 120 + [3] * 60 + [0] * 26], 4, 0), jnp.int32)
    options = {"q_segments": segments, "k_segments": segments, "causal": causal}
    mapped = on_mesh(name, make_mesh(axes))

    def with_gradients(function):
        def total(q, k, v):
            out = function(q, k, v)
            return jnp.sum(out * probe), out

        grads, out = jax.jit(jax.grad(total, argnums=(0, 1, 2), has_aux=True))(q, k, v)
        return out, *grads

    found = with_gradients(lambda *qkv: mapped(*qkv, **options))
    expected = with_gradients(lambda *qkv: attention(*qkv, **options, implementation="xla"))
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_what_takes_whole_rows_only_refuses_parts_of_them():
    mesh = make_mesh({"fsdp": 4, "context": 2})
    with pytest.raises(MeshError, match=r"mesh.context: 2 splits rows, which attention 'flash' takes whole"):
        on_mesh("flash", mesh)
    x = jnp.zeros((4, 64, 2, 8))
    ones = jnp.ones((4, 64), jnp.int32)
    with pytest.raises(ValueError, match="splash attention: expected parts of a row in multiples of 128 tokens"):
        on_mesh("splash", mesh)(x, x, x, q_segments=ones, k_segments=ones, causal=True)
