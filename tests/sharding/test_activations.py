"""The embedding lookup of a mesh: the plain one's vectors and gradient, and never a whole table on a device."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from umit_jax.aot.collectives import collectives
from umit_jax.aot.hlo import Module
from umit_jax.parallel.activations import lookup
from umit_jax.parallel.mesh import AXES, BATCH, make_mesh
from umit_jax.parallel.mesh import WIDTH as WIDTH_AXES

ROWS_OF_BATCH, WIDTH = 8, 16


def inputs(vocab: int, tokens: int):
    rng = np.random.default_rng(0)
    table = jnp.asarray(rng.normal(size=(vocab, WIDTH)), jnp.float32)
    probe = jnp.asarray(rng.normal(size=(ROWS_OF_BATCH, tokens, WIDTH)), jnp.float32)
    return table, jnp.asarray(rng.integers(0, vocab, (ROWS_OF_BATCH, tokens)), jnp.int32), probe


def run(function, table, tokens, probe):
    def total(table):
        x = function(table, tokens)
        return jnp.sum(x.astype(jnp.float32) * probe), x

    grad, x = jax.jit(jax.grad(total, has_aux=True))(table)
    return x, grad


@pytest.mark.parametrize("axes", [(2, 4, 1, 1), (2, 1, 1, 4), (2, 2, 1, 2), (1, 2, 2, 2), (2, 1, 4, 1), (1, 1, 2, 4)])
@pytest.mark.parametrize(("vocab", "tokens"), [(56, 12), (57, 20)])
def test_vectors_and_gradient_equal_the_plain_lookup(axes, vocab, tokens):
    """57 entries divide by no axis; 12 and 20 tokens not by context x tensor of the last mesh. Ids come more than once,
    so that gradients add up."""
    arrays = inputs(vocab, tokens)
    mesh = make_mesh(dict(zip(AXES, axes, strict=True)))
    x, grad = run(lambda table, tokens: lookup(mesh, table, tokens, jnp.float32), *arrays)
    plain_x, plain_grad = run(lambda table, tokens: table[tokens], *arrays)
    np.testing.assert_array_equal(x, plain_x)
    np.testing.assert_allclose(grad, plain_grad, atol=1e-5)


def test_on_one_device_it_is_the_plain_lookup_bit_for_bit():
    arrays = inputs(57, 20)
    mesh = make_mesh({}, jax.devices()[:1])
    found = run(lambda table, tokens: lookup(mesh, table, tokens, jnp.bfloat16), *arrays)
    for ours, plain in zip(found, run(lambda table, tokens: table[tokens].astype(jnp.bfloat16), *arrays), strict=True):
        np.testing.assert_array_equal(ours, plain)


def test_bfloat16_vectors_add_up_to_a_float32_gradient():
    arrays = inputs(56, 12)
    mesh = make_mesh({"data": 2, "fsdp": 2, "tensor": 2})
    x, grad = run(lambda table, tokens: lookup(mesh, table, tokens, jnp.bfloat16), *arrays)
    plain_x, plain_grad = run(lambda table, tokens: table[tokens].astype(jnp.bfloat16), *arrays)
    assert (x.dtype, grad.dtype) == (jnp.bfloat16, jnp.float32)
    np.testing.assert_array_equal(x, plain_x)
    np.testing.assert_allclose(grad, plain_grad, atol=1e-5)


@pytest.mark.parametrize("axes", [{"data": 2, "fsdp": 2, "tensor": 2}, {"fsdp": 2, "context": 2, "tensor": 2}])
def test_no_device_sees_more_than_its_part_of_the_gradient(axes):
    vocab = 1024  # so large that its parts cannot be mistaken for activations
    table, tokens, probe = inputs(vocab, 12)
    mesh = make_mesh(axes)
    placed = NamedSharding(mesh, PartitionSpec("tensor", WIDTH_AXES))
    grad = jax.grad(lambda table, tokens: jnp.sum(lookup(mesh, table, tokens, jnp.float32) * probe))
    step = jax.jit(grad, in_shardings=(placed, NamedSharding(mesh, BATCH)), out_shardings=placed)
    text = step.lower(table, tokens).compile().as_text()
    assert max(c.bytes for c in collectives(Module(text).walk({}), 8, 1)) == vocab * WIDTH * 4 // 4
