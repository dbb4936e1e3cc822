"""Parameters are plain nested dicts whose shapes, axes and values follow from the configuration alone."""

import math

import jax
import numpy as np
import pytest

from configs.sizes import SIZES
from umit_jax.model.config import ModelConfig
from umit_jax.model.param import abstract_params, bind, init_params, logical_axes

TINY = ModelConfig.from_dict(SIZES["tiny"])
AXES = {"layers", "vocab", "embed", "mlp", "heads", "kv_heads", "head_dim"}
AXES |= {"patch", "vision_embed", "vision_mlp", "vision_heads", None}


def flat(tree):
    leaves = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda x: isinstance(x, tuple))[0]
    return {"/".join(key.key for key in path): leaf for path, leaf in leaves}


@pytest.mark.parametrize("size", SIZES)
def test_every_dimension_has_one_logical_axis(size):
    config = ModelConfig.from_dict(SIZES[size])
    shapes, axes = flat(abstract_params(config)), flat(logical_axes(config))
    assert shapes.keys() == axes.keys()
    for path, names in axes.items():
        assert len(names) == len(shapes[path].shape), path
        assert set(names) <= AXES, path
        used = [name for name in names if name]
        assert len(used) == len(set(used)), path


def test_paths_are_the_documented_ones():
    paths = flat(abstract_params(TINY))
    assert {path.split("/")[0] for path in paths} == {"vision", "projector", "decoder"}
    documented = {
        "vision/patch_embed/kernel": (1176, 32),
        "vision/blocks/attn/qkv/kernel": (2, 32, 3, 2, 16),
        "projector/fc1/kernel": (128, 128),
        "decoder/embed/embedding": (512, 64),
        "decoder/layers/attn/q/kernel": (2, 64, 4, 16),
        "decoder/layers/attn/k/bias": (2, 2, 16),
        "decoder/layers/attn/o/kernel": (2, 4, 16, 64),
        "decoder/layers/mlp/down/kernel": (2, 96, 64),
        "decoder/norm/scale": (64,),
    }
    assert {path: paths[path].shape for path in documented} == documented
    assert "decoder/head/kernel" not in paths
    untied = flat(abstract_params(ModelConfig.from_dict(SIZES["tiny"], {"tied_head": False})))
    assert untied["decoder/head/kernel"].shape == (512, 64)


def test_initial_values_are_a_function_of_the_key():
    first, again, other = (init_params(TINY, jax.random.key(seed)) for seed in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert (first["decoder"]["embed"]["embedding"] != other["decoder"]["embed"]["embedding"]).any()
    same_shape = first["decoder"]["layers"]["attn"]["k"]["kernel"], first["decoder"]["layers"]["attn"]["v"]["kernel"]
    assert (same_shape[0] != same_shape[1]).any()
    assert (first["decoder"]["norm"]["scale"] == 1).all()
    assert (first["decoder"]["layers"]["attn"]["v"]["bias"] == 0).all()
    assert first["decoder"]["layers"]["attn"]["q"]["bias"].std() > 0.5  # attention by distance from the first step


def test_initial_values_fit_the_abstract_shapes_and_the_declared_spread():
    params = init_params(ModelConfig.from_dict(SIZES["quickstart"]), jax.random.key(0))
    abstract = abstract_params(ModelConfig.from_dict(SIZES["quickstart"]))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), params) == jax.tree.map(lambda x: (x.shape, x.dtype), abstract)
    gate = params["decoder"]["layers"]["mlp"]["gate"]["kernel"]
    assert math.isclose(float(gate.std()), gate.shape[1] ** -0.5, rel_tol=0.02)


def test_binding_keeps_the_arrays_and_needs_no_copy():
    params = init_params(TINY, jax.random.key(0))
    model = bind(TINY, params)
    assert model.head_VD() is params["decoder"]["embed"]["embedding"]
