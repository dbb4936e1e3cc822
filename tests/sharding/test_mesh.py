import math
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from jax.sharding import AbstractMesh

from configs import stage1_align, stage2_instruct
from configs.meshes import MESHES
from configs.sizes import published
from tests.train.toy import toy_batch
from umit_jax.aot.topology import parse
from umit_jax.model.param import abstract_params, logical_axes
from umit_jax.parallel import mesh as module
from umit_jax.parallel.mesh import AXES, MeshError, check_batch_divides, data_process, global_batch, make_mesh
from umit_jax.parallel.rules import partition


def test_minus_one_takes_the_devices_that_are_left():
    assert make_mesh({"data": 2, "fsdp": -1}).shape == {"data": 2, "fsdp": 4, "context": 1, "tensor": 1}


def test_axes_are_auto():
    assert all("Auto" in str(kind) for kind in make_mesh({"fsdp": -1}).axis_types)


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"model": 2}, r"mesh.model: unknown axis, expected data \| fsdp \| context \| tensor"),
        ({"data": 3, "fsdp": -1}, "data 3 x fsdp -1 x context 1 x tensor 1 does not fit 8 devices"),
        ({"data": 16}, "does not fit 8 devices"),
        ({"data": -1, "fsdp": -1}, "only one axis may be -1, found data and fsdp"),
        ({"tensor": 0}, "mesh.tensor: expected a positive size or -1, found 0"),
    ],
)
def test_a_mesh_that_cannot_be_is_refused_by_name(axes, message):
    with pytest.raises(MeshError, match=message):
        make_mesh(axes)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ((10, 32, 16), r"data.rows: expected a multiple of .* = 2 x 2, found 10"),
        ((12, 31, 16), r"data.row_tokens: expected a multiple of mesh.context = 2, found 31"),
        ((12, 32, 12), r"data.row_patches: expected a multiple of 4 x mesh.context = 8, found 12"),
    ],
)
def test_a_batch_that_does_not_divide_is_refused_by_name(batch, message):
    with pytest.raises(MeshError, match=message):
        check_batch_divides(make_mesh({"data": 2, "fsdp": 2, "context": 2}), *batch)


@pytest.mark.parametrize("name", MESHES)
def test_presets_fill_their_slices_and_have_a_place_for_every_parameter(name):
    config = stage2_instruct.get_config(name)
    size, _, where = name.partition("@")
    topology, _, slices = where.partition("x")
    chips = parse(topology, int(slices or 1)).chips
    assert config.model == size
    assert math.prod(config.mesh.values()) == chips == config.data.rows
    assert config.mesh.data % int(slices or 1) == 0
    model, mesh = published(size), AbstractMesh(tuple(config.mesh[axis] for axis in AXES), AXES)
    axes, shapes = (flatten_dict(tree, sep="/") for tree in (logical_axes(model), abstract_params(model)))
    for path in axes:
        partition(path, axes[path], shapes[path].shape, mesh)


def test_a_stage_takes_a_preset_or_says_which_there_are():
    assert stage1_align.get_config("projector,2b@v5e-16").mesh.fsdp == 16
    with pytest.raises(ValueError, match=r"preset: expected 2b@v5e-16 \| .* found 'v9'"):
        stage2_instruct.get_config("v9")


def _slices(*sizes):
    return [SimpleNamespace(platform="tpu", slice_index=i, id=n) for i, size in enumerate(sizes) for n in range(size)]


def test_slices_are_joined_by_the_data_axis(monkeypatch):
    monkeypatch.setattr(
        module,
        "create_device_mesh",
        lambda shape, devices, allow_split_physical_axes: np.array(devices, dtype=object).reshape(shape),
    )
    monkeypatch.setattr(module, "Mesh", lambda devices, axes, axis_types: devices)
    found = make_mesh({"data": 4, "fsdp": 4}, _slices(8, 8))
    assert [{device.slice_index for device in part.ravel()} for part in found] == [{0}, {0}, {1}, {1}]


@pytest.mark.parametrize(
    ("axes", "sizes", "message"),
    [
        ({"data": 1, "fsdp": -1}, (4, 4), "mesh.data: expected a multiple of the 2 slices, found 1"),
        ({"data": 2, "fsdp": -1}, (4, 2), r"slices of different sizes: \[4, 2\]"),
    ],
)
def test_slices_that_do_not_fit_the_data_axis_are_refused(axes, sizes, message):
    with pytest.raises(MeshError, match=message):
        make_mesh(axes, _slices(*sizes))


def _mesh_of_processes(shape, owner):
    """A mesh whose i-th device belongs to process owner(i)."""
    devices = np.array([SimpleNamespace(process_index=owner(i)) for i in range(np.prod(shape))]).reshape(shape)
    return SimpleNamespace(devices=devices, shape=dict(zip(AXES, shape, strict=True)))


def test_each_process_reads_its_own_rows_when_tensor_stays_inside_it():
    mesh = _mesh_of_processes((2, 2, 1, 2), lambda i: i // 2)
    assert [data_process(mesh, p) for p in range(4)] == [(0, 4), (1, 4), (2, 4), (3, 4)]


def test_processes_that_share_rows_by_context_or_tensor_read_the_same():
    mesh = _mesh_of_processes((1, 2, 2, 2), lambda i: i // 2)
    assert [data_process(mesh, p) for p in range(4)] == [(0, 2), (0, 2), (1, 2), (1, 2)]


def test_processes_that_share_only_some_rows_are_refused():
    mesh = _mesh_of_processes((1, 4, 1, 2), lambda i: min(i // 3, 2))
    with pytest.raises(MeshError, match="overlapping rows"):
        data_process(mesh, 0)


def test_a_global_batch_keeps_the_order_of_rows():
    batch = toy_batch(1)
    placed = global_batch(make_mesh({"data": 2, "fsdp": 2, "context": 2}), batch)
    for name, ours, theirs in zip(batch._fields, placed, batch, strict=True):
        np.testing.assert_array_equal(np.asarray(ours), theirs, err_msg=name)
    assert {shard.data.shape for shard in placed.tokens_BS.addressable_shards} == {(2, 16)}
    assert len(jax.devices()) == 8
