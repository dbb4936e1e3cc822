import re

import jax
import pytest
from flax.traverse_util import flatten_dict
from jax.sharding import AbstractMesh, PartitionSpec

from configs.sizes import SIZES
from umit_jax.model.config import ModelConfig
from umit_jax.model.param import abstract_params, logical_axes
from umit_jax.parallel.mesh import AXES, WIDTH, make_mesh
from umit_jax.parallel.rules import RULES, ShardingError, partition, shardings

MESH = AbstractMesh((1, 4, 1, 2), AXES)


def test_a_kernel_gets_one_dimension_on_each_axis():
    assert partition("q/kernel", ("layers", "embed", "heads", "head_dim"), (2, 8, 4, 16), MESH) == PartitionSpec(
        None, WIDTH, "tensor", None
    )


@pytest.mark.parametrize(
    ("axes", "shape", "message"),
    [
        (("embed", "head"), (8, 8), "a/kernel: no rule for axis 'head', expected one of layers, "),
        (("heads", "mlp"), (8, 8), "a/kernel: axes ('heads', 'mlp') put two dimensions on mesh axis 'tensor'"),
        (("embed",), (6,), "a/kernel: axis 'embed' of size 6 does not divide by mesh.fsdp = 4"),
        (("embed",), (8, 8), "a/kernel: expected one axis name per dimension of (8, 8), found ('embed',)"),
    ],
)
def test_an_axis_that_cannot_be_placed_names_the_parameter(axes, shape, message):
    with pytest.raises(ShardingError, match=re.escape(message)):
        partition("a/kernel", axes, shape, MESH)


def test_what_context_does_not_divide_names_both_axes():
    with pytest.raises(ShardingError, match=r"of size 4 does not divide by mesh.fsdp x mesh.context = 4 x 2"):
        partition("a/kernel", ("embed",), (4,), AbstractMesh((1, 4, 2, 1), AXES))


def test_a_vocabulary_that_tensor_does_not_divide_is_stored_whole():
    assert partition("head", ("vocab", "embed"), (57, 8), MESH) == PartitionSpec(None, WIDTH)
    assert partition("head", ("vocab", "embed"), (58, 8), MESH) == PartitionSpec("tensor", WIDTH)


def test_a_rule_for_a_mesh_axis_that_is_not_there_is_refused():
    with pytest.raises(ShardingError, match="a: axis 'embed' goes to mesh axis 'expert'"):
        partition("a", ("embed",), (8,), MESH, {"embed": "expert"})


def test_trees_that_name_different_parameters_are_refused():
    shapes = {"a": jax.ShapeDtypeStruct((8,), "float32"), "b": jax.ShapeDtypeStruct((8,), "float32")}
    with pytest.raises(ShardingError, match="b: axes and shapes name different parameters"):
        shardings(make_mesh({"fsdp": -1}), {"a": ("embed",)}, shapes)


POD_MESHES = {"2b": (1, 128, 1, 2), "7b": (1, 16, 4, 4), "72b": (2, 32, 1, 8)}
POD_MESHES |= {"qwen2.5-3b": (1, 128, 1, 2), "qwen2.5-7b": (1, 16, 4, 4), "qwen2.5-72b": (2, 32, 1, 8)}


@pytest.mark.parametrize(("size", "mesh"), POD_MESHES.items())
def test_published_sizes_fit_pod_meshes_and_every_kernel_is_split_over_fsdp(size, mesh):
    config = ModelConfig.from_dict(SIZES[size])
    axes, shapes = (flatten_dict(tree, sep="/") for tree in (logical_axes(config), abstract_params(config)))
    for path, names in axes.items():
        spec = partition(path, names, shapes[path].shape, AbstractMesh(mesh, AXES))
        if path.split("/")[-1] in ("kernel", "embedding"):
            assert WIDTH in spec, path


def test_every_axis_of_the_model_has_a_rule():
    axes = flatten_dict(logical_axes(ModelConfig.from_dict(SIZES["7b"])), sep="/").values()
    assert {name for names in axes for name in names if name} == set(RULES)
