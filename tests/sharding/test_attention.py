"""A kernel on a mesh: each device runs it on its rows and heads, and all together give the reference's answer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from umit_jax.ops.attention import attention
from umit_jax.parallel.attention import on_mesh
from umit_jax.parallel.mesh import make_mesh


@pytest.mark.parametrize("name", ["splash", "auto"])
def test_attention_on_a_mesh_equals_the_reference(name):
    keys = jax.random.split(jax.random.key(0), 3)
    q, k, v = (jax.random.normal(key, (4, 128, n, 8)) for key, n in zip(keys, (4, 2, 2), strict=True))
    segments = jnp.asarray(np.repeat([[1] * 50 + [2] * 60 + [0] * 18], 4, 0), jnp.int32)
    options = {"q_segments": segments, "k_segments": segments, "causal": True}
    mapped = on_mesh(name, make_mesh({"data": 2, "fsdp": 2, "tensor": 2}))
    found = jax.jit(lambda *qkv: mapped(*qkv, **options))(q, k, v)
    np.testing.assert_allclose(found, attention(q, k, v, **options, implementation="xla"), atol=2e-6)
