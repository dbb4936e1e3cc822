import numpy as np
import pytest

from umit_jax.ops.attention import attention
from umit_jax.ops.cached_attention import cached_attention


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 2), (6, 1), (5, 5)])
def test_one_query_a_row_gives_what_attention_gives_over_the_filled_slots(heads, kv_heads):
    rng = np.random.default_rng(0)
    q = rng.normal(size=(3, 1, heads, 8)).astype(np.float32)
    k, v = rng.normal(size=(2, 3, 11, kv_heads, 8)).astype(np.float32)
    filled = (rng.random((3, 11)) < 0.6).astype(np.int32)
    filled[:, -1] = 1
    ones = np.ones((3, 1), np.int32)
    expected = attention(q, k, v, q_segments=ones, k_segments=filled, causal=False, implementation="xla")
    found = cached_attention(q[:, 0], k.transpose(0, 2, 3, 1), v.swapaxes(1, 2), filled)
    np.testing.assert_allclose(found, expected[:, 0], rtol=1e-5, atol=1e-6)
