"""What the loop over layers sends: parameters of one layer, never of all of them; patches of one row, never of all."""

import dataclasses
import math

import jax
import pytest

from tests.sharding.test_equals_single_device import WINDOWED
from tests.train.toy import FROZEN_TOWER, MODEL, toy_config
from umit_jax.aot.collectives import Collective, collectives
from umit_jax.aot.hlo import Module
from umit_jax.model.config import ModelConfig
from umit_jax.model.param import abstract_params
from umit_jax.parallel.mesh import abstract_batch, make_mesh
from umit_jax.train.program import build

LAYERS = 8


def deep(model: ModelConfig) -> ModelConfig:
    parts = {name: dataclasses.replace(getattr(model, name), layers=LAYERS) for name in ("vision", "text")}
    return dataclasses.replace(model, **parts)


def layer_bytes(model: ModelConfig) -> int:
    """Of one decoder layer's parameters."""
    stacked = abstract_params(model)["decoder"]["layers"]
    return sum(math.prod(x.shape) * 4 // LAYERS for x in jax.tree.leaves(stacked))


def sent(model: ModelConfig, axes: dict[str, int], shape: tuple[int, int, int], **config) -> list[Collective]:
    """Collectives of a step compiled for eight devices. shape: rows, tokens and patches of a row."""
    mesh = make_mesh(axes)
    program = build(toy_config(remat="full", **config), model, mesh)
    batch = abstract_batch(mesh, *shape, model.vision.patch_values)
    options = {"xla_backend_optimization_level": 0}
    text = program.step.lower(program.abstract, batch).compile(options).as_text()
    found = collectives(Module(text).walk({"vocabulary_loss": 1}), 8, 1)
    assert "layer_loop" in {c.place for c in found}
    return found


@pytest.mark.parametrize("axes", [{"data": 2, "fsdp": 2, "tensor": 2}, {"fsdp": 2, "context": 2, "tensor": 2}])
def test_no_collective_is_larger_than_one_layer(axes):
    model, shape = deep(MODEL), (8, 8, 16)  # so few tokens that activations are smaller than a layer
    found = sent(model, axes, shape, attention="xla")
    assert max(c.bytes for c in found) <= layer_bytes(model)  # nor outside of the loop, for all its rounds


@pytest.mark.parametrize(
    ("model", "axes", "attention", "patterns"),
    [
        (MODEL, {"fsdp": 4, "tensor": 2}, "splash", ()),
        (MODEL, {"fsdp": 4, "tensor": 2}, "splash", FROZEN_TOWER),
        (WINDOWED, {"fsdp": 4, "tensor": 2}, "splash", ()),
        (MODEL, {"fsdp": 2, "context": 2, "tensor": 2}, "xla", ()),
    ],
)
def test_of_a_long_row_the_patches_of_one_row_are_sent_and_not_those_of_all(model, axes, attention, patterns):
    """A row's patches are half as large as a layer's parameters; its queries, keys and values, or the patches of four
    rows, are larger."""
    model, patches = deep(model), 240
    row, layer = patches * model.vision.width * 4, layer_bytes(model)
    assert row < layer < 3 * row
    found = sent(model, axes, (axes["fsdp"], 8, patches), attention=attention, optimizer__patterns=patterns)
    assert max(c.bytes for c in found if c.place == "layer_loop") <= layer
