from types import SimpleNamespace

import jax
import numpy as np
import pytest

from configs.meshes import MESHES, mesh_axes
from tests.train.toy import toy_batch
from umit_jax.parallel import mesh as module
from umit_jax.parallel.mesh import AXES, MeshError, check_rows, data_process, global_batch, make_mesh


def test_minus_one_takes_the_devices_that_are_left():
    assert make_mesh({"data": 2, "fsdp": -1}).shape == {"data": 2, "fsdp": 4, "tensor": 1}


def test_axes_are_auto():
    assert all("Auto" in str(kind) for kind in make_mesh({"fsdp": -1}).axis_types)


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"model": 2}, r"mesh.model: unknown axis, expected data \| fsdp \| tensor"),
        ({"data": 3, "fsdp": -1}, "data 3 x fsdp -1 x tensor 1 does not fit 8 devices"),
        ({"data": 16}, "does not fit 8 devices"),
        ({"data": -1, "fsdp": -1}, "only one axis may be -1, found data and fsdp"),
        ({"tensor": 0}, "mesh.tensor: expected a positive size or -1, found 0"),
    ],
)
def test_a_mesh_that_cannot_be_is_refused_by_name(axes, message):
    with pytest.raises(MeshError, match=message):
        make_mesh(axes)


def test_rows_that_do_not_divide_are_refused():
    with pytest.raises(MeshError, match=r"data.rows: expected a multiple of .* = 2 x 4, found 12"):
        check_rows(make_mesh({"data": 2, "fsdp": 4}), 12)


def test_named_meshes_have_known_axes_and_fill_their_slice():
    for name in MESHES:
        axes = mesh_axes(name)
        assert set(axes) == set(AXES)
        assert list(axes.values()).count(-1) == 1
    with pytest.raises(ValueError, match="mesh: expected one_host"):
        mesh_axes("v9")


def _slices(*sizes):
    return [SimpleNamespace(platform="tpu", slice_index=i, id=n) for i, size in enumerate(sizes) for n in range(size)]


def test_slices_are_joined_by_the_data_axis(monkeypatch):
    monkeypatch.setattr(jax, "make_mesh", lambda shape, axes, axis_types, devices: _array(shape, devices))
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


def _array(shape, devices):
    return SimpleNamespace(devices=np.array(devices, dtype=object).reshape(shape))


def _mesh_of_processes(shape, owner):
    """A mesh whose i-th device belongs to process owner(i)."""
    devices = np.array([SimpleNamespace(process_index=owner(i)) for i in range(np.prod(shape))]).reshape(shape)
    return SimpleNamespace(devices=devices, shape=dict(zip(AXES, shape, strict=True)))


def test_each_process_reads_its_own_rows_when_tensor_stays_inside_it():
    mesh = _mesh_of_processes((2, 2, 2), lambda i: i // 2)
    assert [data_process(mesh, p) for p in range(4)] == [(0, 4), (1, 4), (2, 4), (3, 4)]


def test_processes_that_share_a_tensor_group_read_the_same_rows():
    mesh = _mesh_of_processes((1, 2, 4), lambda i: i // 2)
    assert [data_process(mesh, p) for p in range(4)] == [(0, 2), (0, 2), (1, 2), (1, 2)]


def test_processes_that_share_only_some_rows_are_refused():
    mesh = _mesh_of_processes((1, 4, 2), lambda i: min(i // 3, 2))
    with pytest.raises(MeshError, match="overlapping rows"):
        data_process(mesh, 0)


def test_a_global_batch_keeps_the_order_of_rows():
    batch = toy_batch(1)
    placed = global_batch(make_mesh({"data": 2, "fsdp": 2, "tensor": 2}), batch)
    for name, ours, theirs in zip(batch._fields, placed, batch, strict=True):
        np.testing.assert_array_equal(np.asarray(ours), theirs, err_msg=name)
    assert {shard.data.shape[0] for shard in placed.tokens_BS.addressable_shards} == {2}
    assert len(jax.devices()) == 8
