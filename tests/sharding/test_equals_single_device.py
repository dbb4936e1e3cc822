"""The same three steps on one device and on eight: losses, gradients and parameters agree to 1e-5."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from tests.train.toy import MODEL, toy_batch, toy_config
from umit_jax.model.param import abstract_params
from umit_jax.model.vision_2_5 import Qwen25VisionConfig
from umit_jax.parallel.mesh import global_batch, make_mesh
from umit_jax.train import optimizer as optimizers
from umit_jax.train.state import abstract_state, create
from umit_jax.train.step import Compute, make_step

WINDOWED = dataclasses.replace(
    MODEL,
    model_type="qwen2_5_vl",
    text=dataclasses.replace(MODEL.text, vocab_size=65),  # tensor divides it on no mesh
    vision=Qwen25VisionConfig(layers=3, width=16, heads=2, mlp_size=24, patch_size=4, full_layers=(1,), window_size=16),
)
MODELS = {"qwen2_vl": MODEL, "qwen2_5_vl": WINDOWED}


@functools.cache
def run(family: str, axes: tuple[tuple[str, int], ...], remat: str):
    """Three steps -> (losses, first step's gradients by path, final parameters by path, compilations)."""
    model, mesh = MODELS[family], make_mesh(dict(axes), jax.devices()[: int(np.prod([size for _, size in axes]))])
    config = toy_config().optimizer
    paths = flatten_dict(abstract_params(model), sep="/").keys()
    trained, frozen = optimizers.multipliers(paths, ())
    rate = optimizers.schedule(config, 6)
    optimizer = optimizers.adamw(config, rate, trained)
    abstract = abstract_state(model, mesh, optimizer, frozen, jnp.float32)
    step = make_step(model, abstract, optimizer, rate, mesh, Compute(remat=remat, loss_chunk=8))
    state, losses, gradients = create(model, abstract, optimizer, seed=0), [], {}
    for number in range(3):
        state, metrics = step(state, global_batch(mesh, toy_batch(number)))
        losses.append(float(metrics["loss_sum"]) / float(metrics["weight"]))
        if number == 0:  # Adam's first moment after one step is the clipped gradient times 1 - b1
            gradients = jax.tree.map(lambda m: np.asarray(m) / (1 - config.b1), flatten_dict(state.opt[1].mu, sep="/"))
    return losses, gradients, jax.tree.map(np.asarray, flatten_dict(state.params, sep="/")), step._cache_size()


@pytest.mark.parametrize(
    ("family", "axes", "remat"),
    [
        ("qwen2_vl", (("fsdp", 8),), "full"),
        ("qwen2_vl", (("data", 2), ("fsdp", 2), ("tensor", 2)), "none"),
        ("qwen2_5_vl", (("data", 2), ("fsdp", 2), ("tensor", 2)), "full"),
        ("qwen2_5_vl", (("fsdp", 2), ("context", 2), ("tensor", 2)), "full"),
    ],
)
def test_eight_devices_equal_one(family, axes, remat):
    losses, gradients, params, compilations = run(family, axes, remat)
    expected_losses, expected_gradients, expected_params, _ = run(family, (("data", 1),), "none")
    assert compilations == 1
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-5)
    for path, expected in expected_gradients.items():
        error = np.linalg.norm(gradients[path] - expected) / np.linalg.norm(expected)
        assert error < 1e-5, f"gradient of {path}: relative error {error}"
    # Adam divides each gradient by its own size, so where that is almost zero (key biases) rounding becomes a step.
    # Parameters are therefore compared by the length of all of them, about 30; a step moves one value by 0.01.
    length = np.sqrt(sum(np.sum(p**2) for p in expected_params.values()))
    for path, expected in expected_params.items():
        error = np.linalg.norm(params[path] - expected) / length
        assert error < 1e-5, f"{path}: relative error {error}"
