"""A Hugging Face directory straight onto a mesh: every device gets its part, and no more than that is read."""

import json
import math
import os
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from tests.export import hub
from tests.launch.conftest import ROOT
from umit_jax.convert.from_hf import flat, open_model, place, with_report
from umit_jax.model.param import abstract_params, logical_axes
from umit_jax.parallel.mesh import make_mesh
from umit_jax.parallel.rules import shardings


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return open_model(hub.write_model(tmp_path_factory.mktemp("sharded") / "hub", tied=False, files=3))


def shardings_of(model, axes):
    return shardings(make_mesh(axes), logical_axes(model.config), abstract_params(model.config))


@pytest.mark.parametrize("axes", [{"fsdp": 8}, {"data": 2, "fsdp": 2, "tensor": 2}, {"tensor": 2, "fsdp": 4}], ids=str)
def test_every_device_holds_its_part_and_nothing_else_is_read(model, axes):
    wanted = shardings_of(model, axes)
    pieces: list[int] = []
    params = flat(place(model, wanted, report=pieces.append))
    own = 0  # bytes that the devices hold, parts that several of them hold counted once
    for path, leaf in model.leaves.items():
        assert params[path].sharding == flat(wanted)[path]
        assert params[path].dtype == np.float32
        np.testing.assert_array_equal(params[path], leaf.read().astype(np.float32))
        parts = {str(shard.index): shard.data.size for shard in params[path].addressable_shards}
        own += sum(parts.values()) * leaf.dtype.itemsize
    assert sum(pieces) == own == model.nbytes


def test_one_device_s_part_touches_only_its_bytes(model):
    """The part that one device of eight holds, cut from the middle of the files."""
    wanted = flat(shardings_of(model, {"fsdp": 8}))
    device = jax.devices()[5]
    pieces: list[int] = []
    expected = sharded = 0
    for path, leaf in with_report(model, pieces.append).items():
        index = wanted[path].devices_indices_map(leaf.shape)[device]
        part = leaf.read(index)
        np.testing.assert_array_equal(part, model.leaves[path].read()[index])
        expected += math.prod(wanted[path].shard_shape(leaf.shape)) * leaf.dtype.itemsize
        sharded += part.shape != leaf.shape
    assert sum(pieces) == expected < model.nbytes / 4
    assert sharded > 10


def test_parameters_come_in_the_dtype_that_is_asked_for(model):
    wanted = shardings_of(model, {"fsdp": 8})
    params = place(model, wanted, dtype=hub.BF16)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {hub.BF16}


PROCESS = """
import json, sys
import jax
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(sys.argv[1], num_processes=2, process_id=int(sys.argv[2]))
import numpy as np
from umit_jax.convert.from_hf import flat, open_model, place, with_report
from umit_jax.model.param import abstract_params, logical_axes
from umit_jax.parallel.mesh import make_mesh
from umit_jax.parallel.rules import shardings
model = open_model(sys.argv[3])
places = shardings(make_mesh({"fsdp": 4}), logical_axes(model.config), abstract_params(model.config))
pieces = []
params = flat(place(model, places, report=pieces.append))
for path, leaf in model.leaves.items():
    whole = leaf.read().astype(np.float32)
    for shard in params[path].addressable_shards:
        np.testing.assert_array_equal(np.asarray(shard.data), whole[shard.index])
split = sum(leaf.nbytes // 2 for path, leaf in params.items() if not leaf.is_fully_replicated)
print(json.dumps({"read": sum(pieces), "split": split, "devices": jax.device_count()}))
"""


def test_two_processes_read_half_each(model):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", PROCESS, address]
    processes = [
        subprocess.Popen(
            [*command, str(i), str(model.directory)], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
        )
        for i in range(2)
    ]
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    for found in (json.loads(output.splitlines()[-1]) for output in outputs):
        assert found["devices"] == 4
        # In float32 a parameter is twice its bytes in the file; what is not sharded is read by both.
        assert found["split"] / 2 <= found["read"] < 0.6 * model.nbytes
