"""The loss with rows, what they hold, width and vocabulary split over devices equals the plain one on one device."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from umit_jax.parallel import loss
from umit_jax.parallel.mesh import AXES, make_mesh

ROWS, TOKENS, WIDTH = 8, 12, 16


def inputs(vocab: int):
    rng = np.random.default_rng(0)
    weights = rng.uniform(0.2, 2, (ROWS, TOKENS)) * (rng.random((ROWS, TOKENS)) < 0.4)
    weights[:2] = 0  # a device's rows without loss
    return (
        jnp.asarray(rng.normal(size=(ROWS, TOKENS, WIDTH)), jnp.float32),
        jnp.asarray(rng.normal(size=(vocab, WIDTH)), jnp.float32),
        jnp.asarray(rng.integers(0, vocab, (ROWS, TOKENS)), jnp.int32),
        jnp.asarray(weights, jnp.float32),
    )


def gradients(function, x, head, weights):
    def total(x, head):
        nll = function(x, head)
        return jnp.sum(nll * weights), nll

    grads, nll = jax.jit(jax.grad(total, argnums=(0, 1), has_aux=True))(x, head)
    return nll, *grads


@pytest.mark.parametrize("axes", [(2, 4, 1, 1), (1, 4, 1, 2), (2, 1, 1, 4), (1, 2, 1, 4), (1, 2, 2, 2), (2, 1, 4, 1)])
@pytest.mark.parametrize("vocab", [56, 57])
def test_values_and_gradients_equal_the_plain_loss(axes, vocab, monkeypatch):
    """57 entries divide by no mesh: what pads them must not reach a probability."""
    monkeypatch.setattr(loss, "TILE", 16)
    x, head, targets, weights = inputs(vocab)
    mesh = make_mesh(dict(zip(AXES, axes, strict=True)))

    def plain(x, head):
        logits = jnp.einsum("bsd,vd->bsv", x, head)
        nll = -jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], axis=-1)[..., 0]
        return jnp.where(weights > 0, nll, 0)

    found = gradients(lambda x, head: loss.token_nll(mesh, x, head, targets, weights, 2), x, head, weights)
    for ours, expected in zip(found, gradients(plain, x, head, weights), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)


def test_one_device_sends_nothing():
    x, head, targets, weights = inputs(56)
    mesh = make_mesh({}, jax.devices()[:1])
    grad = jax.grad(lambda x, head: jnp.sum(loss.token_nll(mesh, x, head, targets, weights, 2)), argnums=(0, 1))
    text = jax.jit(grad).lower(x, head).as_text()
    assert not re.findall("all_gather|all_reduce|reduce_scatter", text)


def test_a_tile_of_the_head_is_gathered_once_for_all_chunks_of_tokens(monkeypatch):
    from umit_jax.aot.collectives import collectives
    from umit_jax.aot.hlo import Module

    monkeypatch.setattr(loss, "TILE", 16)
    x, head, targets, weights = inputs(64)
    mesh = make_mesh({"fsdp": 8})
    grad = jax.grad(lambda x, head: jnp.sum(loss.token_nll(mesh, x, head, targets, weights, 1)), argnums=(0, 1))
    text = jax.jit(grad).lower(x, head).compile().as_text()
    moved = [c for c in collectives(Module(text).walk({"vocabulary_loss": 12}), 8, 1) if c.place == "loss_loop"]
    # forward and backward gather each of four tiles, and the backward pass scatters its gradient
    assert sorted((c.kind, c.times, c.bytes) for c in moved) == [
        ("all-gather", 4.0, 16 * WIDTH * 4),
        ("all-gather", 4.0, 16 * WIDTH * 4),
        ("reduce-scatter", 4.0, 16 * WIDTH * 4),
    ]
