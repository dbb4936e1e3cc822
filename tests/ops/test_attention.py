"""Every implementation gives the reference's answer and gradients on packed rows with padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.interpreters.partial_eval import dce_jaxpr

from umit_jax.model.param import REMAT
from umit_jax.ops import attention as module
from umit_jax.ops.attention import IMPLEMENTATIONS, KERNELS
from umit_jax.ops.blockwise import blockwise_attention

attention = jax.jit(module.attention, static_argnames=("causal", "implementation"))

# heads, kv heads, head size, tokens: grouped and not, tokens that fill no whole block
SHAPES = [(4, 2, 16, 300), (6, 1, 8, 129), (3, 3, 12, 256), (2, 2, 8, 40)]


def packed(tokens: int, seed: int = 0) -> np.ndarray:
    """Three rows of segments: many short ones with padding, one long one, only padding."""
    rng = np.random.default_rng(seed)
    rows = np.zeros((3, tokens), np.int32)
    cuts = np.sort(rng.choice(np.arange(1, tokens - 4), 5, replace=False))
    for number, (start, end) in enumerate(zip([0, *cuts], [*cuts, tokens - 4], strict=True), start=1):
        rows[0, start:end] = number
    rows[1, : tokens - 1] = 1
    return rows


def arrays(heads: int, kv_heads: int, head_dim: int, tokens: int, dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(heads), 4)
    shapes = [(3, tokens, n, head_dim) for n in (heads, kv_heads, kv_heads, heads)]
    return [jax.random.normal(key, shape, dtype) for key, shape in zip(keys, shapes, strict=True)]


def by_definition(q, k, v, segments, causal):
    """Loops over rows, heads and queries in float64."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    out = np.zeros_like(q)
    group = q.shape[2] // k.shape[2]
    for b, s, n in np.ndindex(q.shape[:3]):
        seen = (segments[b] == segments[b, s]) & (segments[b, s] > 0)
        if causal:
            seen &= np.arange(len(seen)) <= s
        if seen.any():
            scores = k[b, seen, n // group] @ q[b, s, n] / np.sqrt(q.shape[-1])
            weights = np.exp(scores - scores.max())
            out[b, s, n] = weights / weights.sum() @ v[b, seen, n // group]
    return out


def with_shapes(names, shapes):
    """(implementation, shape) of each; interpreted kernels take seconds a shape, so all but their first are slow."""
    slow = pytest.mark.slow
    pairs = [(name, i, shape) for name in names for i, shape in enumerate(shapes)]
    return [pytest.param(n, shape, marks=[slow] if n in KERNELS and i else []) for n, i, shape in pairs]


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("implementation", "shape"), with_shapes(IMPLEMENTATIONS, SHAPES[1:3]))
def test_packed_rows_attend_within_their_segments_only(implementation, shape, causal):
    q, k, v, _ = arrays(*shape)
    segments = packed(shape[-1])
    out = attention(q, k, v, q_segments=segments, k_segments=segments, causal=causal, implementation=implementation)
    np.testing.assert_allclose(out, by_definition(q, k, v, segments, causal), atol=2e-6)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("implementation", "shape"), with_shapes(IMPLEMENTATIONS[1:], SHAPES))
def test_gradients_equal_those_of_the_reference(implementation, shape, causal):
    q, k, v, probe = arrays(*shape)
    segments = packed(shape[-1])

    def loss(q, k, v, name):
        out = attention(q, k, v, q_segments=segments, k_segments=segments, causal=causal, implementation=name)
        return jnp.sum(out * probe)

    grad = jax.jit(jax.grad(loss, argnums=(0, 1, 2)), static_argnums=3)
    for found, expected in zip(grad(q, k, v, implementation), grad(q, k, v, "xla"), strict=True):
        assert np.linalg.norm(found - expected) <= 2e-6 * np.linalg.norm(expected)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_bfloat16_stays_near_float32_and_keeps_its_dtype(implementation):
    q, k, v, _ = arrays(*SHAPES[0])
    segments = packed(SHAPES[0][-1])
    options = {"q_segments": segments, "k_segments": segments, "causal": True, "implementation": implementation}
    out = attention(*(x.astype(jnp.bfloat16) for x in (q, k, v)), **options)
    assert out.dtype == jnp.bfloat16
    assert np.abs(out.astype(np.float32) - attention(q, k, v, **options)).max() < 0.05


@pytest.mark.parametrize("implementation", [name for name in IMPLEMENTATIONS if name != "flash"])
def test_queries_may_be_fewer_than_keys_when_not_causal(implementation):
    q, k, v, _ = arrays(*SHAPES[2])
    segments = np.asarray(packed(SHAPES[2][-1]))
    options = {"k_segments": segments, "causal": False, "implementation": implementation}
    whole = attention(q, k, v, q_segments=segments, **options)
    part = attention(q[:, 40:50], k, v, q_segments=segments[:, 40:50], **options)
    np.testing.assert_allclose(part, whole[:, 40:50], atol=1e-6)


@pytest.mark.parametrize("block", [16, 500])
def test_the_size_of_a_block_does_not_change_the_answer(block):
    q, k, v, _ = arrays(*SHAPES[0])
    segments = packed(SHAPES[0][-1])
    expected = attention(q, k, v, q_segments=segments, k_segments=segments, causal=True, implementation="xla")
    found = jax.jit(blockwise_attention, static_argnums=(5, 6))(q, k, v, segments, segments, True, block)
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_segments_need_not_be_in_order():
    q, k, v, _ = arrays(*SHAPES[0])
    segments = np.random.default_rng(0).integers(0, 4, (3, SHAPES[0][-1])).astype(np.int32)
    for causal in (True, False):
        options = {"q_segments": segments, "k_segments": segments, "causal": causal}
        expected = attention(q, k, v, **options, implementation="xla")
        found = attention(q, k, v, **options, implementation="blockwise")
        np.testing.assert_allclose(found, expected, atol=2e-6)


def test_what_cannot_be_computed_rightly_is_refused():
    q, k, v, _ = arrays(*SHAPES[3])
    segments = packed(SHAPES[3][-1])
    with pytest.raises(ValueError, match=r"expected xla \| blockwise \| splash \| flash, found 'flesh'"):
        attention(q, k, v, q_segments=segments, k_segments=segments, causal=True, implementation="flesh")
    with pytest.raises(ValueError, match="'cudnn' takes no segments"):
        attention(q, k, v, q_segments=segments, k_segments=segments, causal=True, implementation="cudnn")
    with pytest.raises(ValueError, match="as many queries as keys"):
        attention(q[:, :5], k, v, q_segments=segments[:, :5], k_segments=segments, causal=True)
    with pytest.raises(ValueError, match="4 heads for 3 kv heads"):
        attention(q.repeat(2, 2), k[:, :, :1].repeat(3, 2), v, q_segments=segments, k_segments=segments, causal=True)


def test_splash_runs_forward_again_only_where_its_output_was_not_kept():
    q, k, v, _ = arrays(2, 1, 8, 128)
    segments = np.ones((3, 128), np.int32)
    options = {"q_segments": segments, "k_segments": segments, "causal": True, "implementation": "splash"}

    def layer(q):
        return jnp.sum(module.attention(jnp.sin(q), k, v, **options) ** 2)

    def kernels(remat):
        program = jax.make_jaxpr(jax.value_and_grad(jax.checkpoint(layer, policy=REMAT[remat])))(q).jaxpr
        needed, _ = dce_jaxpr(program, [True] * len(program.outvars))
        return str(needed).count("pallas_call[")

    assert kernels("full") == kernels("attention") + 1
