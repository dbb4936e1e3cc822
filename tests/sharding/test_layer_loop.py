"""What the loop over layers sends: parameters of one layer at a time, never those of all of them."""

import dataclasses
import math

import jax
import pytest

from tests.train.toy import MODEL, toy_config
from umit_jax.aot.collectives import collectives
from umit_jax.aot.hlo import Module
from umit_jax.model.param import abstract_params
from umit_jax.parallel.mesh import abstract_batch, make_mesh
from umit_jax.train.program import build

LAYERS = 8
PARTS = {name: dataclasses.replace(getattr(MODEL, name), layers=LAYERS) for name in ("vision", "text")}
DEEP = dataclasses.replace(MODEL, **PARTS)
ROWS, TOKENS, PATCHES = 8, 8, 16  # so few that activations are smaller than a layer


@pytest.mark.parametrize("axes", [{"data": 2, "fsdp": 2, "tensor": 2}, {"fsdp": 2, "context": 2, "tensor": 2}])
def test_no_collective_is_larger_than_one_layer(axes):
    mesh = make_mesh(axes)
    program = build(toy_config(remat="full", attention="xla"), DEEP, mesh)
    batch = abstract_batch(mesh, ROWS, TOKENS, PATCHES, DEEP.vision.patch_values)
    options = {"xla_backend_optimization_level": 0}
    text = program.step.lower(program.abstract, batch).compile(options).as_text()
    found = collectives(Module(text).walk({"vocabulary_loss": 1}), 8, 1)
    assert "layer_loop" in {c.place for c in found}
    stacked = abstract_params(DEEP)["decoder"]["layers"]
    layer = sum(math.prod(x.shape) * 4 // LAYERS for x in jax.tree.leaves(stacked))
    assert max(c.bytes for c in found) <= layer  # nor outside of the loop, for all its rounds
