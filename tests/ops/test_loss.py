"""The chunked loss equals the plain one, whatever the chunk and wherever the loss weights are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from umit_jax.ops import loss

token_nll = jax.jit(loss.token_nll, static_argnums=4)

ROWS, TOKENS, WIDTH, VOCAB = 3, 41, 16, 57


def inputs(share: float = 0.4):
    rng = np.random.default_rng(0)
    weights = rng.uniform(0.2, 2, (ROWS, TOKENS)) * (rng.random((ROWS, TOKENS)) < share)
    weights[1] = 0  # a row without loss
    return (
        jnp.asarray(rng.normal(size=(ROWS, TOKENS, WIDTH)), jnp.float32),
        jnp.asarray(rng.normal(size=(VOCAB, WIDTH)), jnp.float32),
        jnp.asarray(rng.integers(0, VOCAB, (ROWS, TOKENS)), jnp.int32),
        jnp.asarray(weights, jnp.float32),
    )


def plain(x, head, targets, weights):
    logits = jnp.einsum("bsd,vd->bsv", x, head)
    nll = -jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], axis=-1)[..., 0]
    return jnp.where(weights > 0, nll, 0)


@pytest.mark.parametrize("chunk", [1, 7, 41, 1000])
def test_values_and_gradients_equal_the_plain_loss(chunk):
    x, head, targets, weights = inputs()

    def run(function):
        def total(x, head):
            nll = function(x, head)
            return jnp.sum(nll * weights), nll

        grads, nll = jax.jit(jax.grad(total, argnums=(0, 1), has_aux=True))(x, head)
        return nll, *grads

    found = run(lambda x, head: loss.token_nll(x, head, targets, weights, chunk))
    expected = run(lambda x, head: plain(x, head, targets, weights))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_only_chunks_that_carry_loss_are_computed():
    x, head, targets, weights = inputs()
    weights = jnp.zeros_like(weights).at[0, -3:].set(1).at[2, 5].set(1)
    order = np.argsort(weights == 0, axis=1, kind="stable")
    spoiled = x.at[jnp.arange(ROWS)[:, None], order[:, 4:]].set(jnp.nan)  # beyond the first chunk of 4 in each row
    grad = jax.jit(jax.grad(lambda head: jnp.sum(token_nll(spoiled, head, targets, weights, 4) * weights)))(head)
    assert np.isfinite(grad).all()
    assert np.abs(grad).max() > 0


def test_no_loss_at_all_gives_zeros():
    x, head, targets, weights = inputs()
    nothing = jnp.zeros_like(weights)
    value, grad = jax.jit(jax.value_and_grad(lambda x: jnp.sum(token_nll(x, head, targets, nothing, 8))))(x)
    assert value == 0
    assert not grad.any()


def test_bfloat16_states_give_a_float32_loss_and_head_gradient():
    x, head, targets, weights = inputs()
    x16 = x.astype(jnp.bfloat16)
    found = token_nll(x16, head, targets, weights, 8)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, plain(x, head, targets, weights), atol=0.1)
    grad = jax.jit(jax.grad(lambda head: jnp.sum(token_nll(x16, head, targets, weights, 8))))(head)
    assert grad.dtype == jnp.float32


def test_the_largest_intermediate_is_one_chunk_of_logits():
    rows, tokens, vocab, chunk = 2, 512, 4096, 32
    x, head = jax.ShapeDtypeStruct((rows, tokens, 8), "float32"), jax.ShapeDtypeStruct((vocab, 8), "float32")
    ids, weights = jax.ShapeDtypeStruct((rows, tokens), "int32"), jax.ShapeDtypeStruct((rows, tokens), "float32")
    grad = jax.jit(jax.grad(lambda x, h, t, w: jnp.sum(token_nll(x, h, t, w, chunk) * w), argnums=(0, 1)))
    temp = grad.lower(x, head, ids, weights).compile().memory_analysis().temp_size_in_bytes
    whole = rows * tokens * vocab * 4
    assert temp < whole / 4, (temp, whole)
