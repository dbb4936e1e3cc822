"""Runs that train adapters: what they hold, what they stand on, and that they resume bit by bit."""

import pathlib
import re
import shutil

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from tests.train.toy import MODEL, ToyStream, lines, toy_config
from umit_jax.model.lora import LoraError
from umit_jax.model.param import init_params
from umit_jax.parallel.mesh import make_mesh
from umit_jax.train.base import Base
from umit_jax.train.checkpoint import CheckpointError, read_data, read_metadata, save_params
from umit_jax.train.loop import BatchError, train
from umit_jax.train.optimizer import OptimizerError
from umit_jax.train.weights import fingerprint, load_weights

ADAPTERS = {"lora__rank": 4, "lora__alpha": 8.0, "lora__full": ("projector/.*",), "optimizer__weight_decay": 0.0}


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> pathlib.Path:
    """A checkpoint of random weights."""
    workdir = tmp_path_factory.mktemp("base")
    save_params(workdir, init_params(MODEL, jax.random.key(0)))
    return workdir / "checkpoints" / "0"


def run(workdir: pathlib.Path, base: pathlib.Path, mesh=None, stream=None, **changes):
    config = toy_config(**{**ADAPTERS, **changes})
    return train(config, MODEL, stream or ToyStream(), workdir, make_mesh(mesh or {"fsdp": -1}), base=Base(base))


@pytest.fixture(scope="module")
def trained(base, tmp_path_factory) -> pathlib.Path:
    """Six steps in one go."""
    workdir = tmp_path_factory.mktemp("trained")
    run(workdir, base)
    return workdir


def losses(workdir: pathlib.Path) -> list[float]:
    return [line["loss"] for line in lines(workdir)]


def test_a_checkpoint_holds_what_trains_and_names_its_base(trained, base):
    shapes = read_metadata(trained / "checkpoints" / "6").shapes
    kernels = {"attn/q", "attn/k", "attn/v", "attn/o", "mlp/gate", "mlp/up", "mlp/down"}
    adapters = {f"decoder/layers/{kernel}/lora_{half}" for kernel in kernels for half in "ab"}
    assert {path for path in shapes if not path.startswith("projector/")} == adapters
    assert "projector/fc1/kernel" in shapes
    assert read_data(trained / "checkpoints" / "6")["base"] == {"path": str(base), "fingerprint": fingerprint(base)}


def test_six_steps_equal_three_and_three(trained, base, tmp_path):
    with pytest.raises(BatchError, match="the stream ended after 4 of 6"):  # the fourth step is lost
        run(tmp_path, base, stream=ToyStream(end_at=4))
    summary = run(tmp_path, base)
    assert summary["resumed_from"] == 3
    assert losses(tmp_path) == losses(trained)
    last = [read_data(workdir / "checkpoints" / "6")["checksums"] for workdir in (tmp_path, trained)]
    assert last[0] == last[1]


def test_the_base_stays(trained, base):
    merged = flatten_dict(load_weights(trained / "checkpoints" / "6", MODEL), sep="/")
    before = flatten_dict(load_weights(base, MODEL), sep="/")
    changed = {path for path in merged if (merged[path] != before[path]).any()}
    assert changed == {path for path in before if re.match(r"projector/|decoder/layers/(attn|mlp)/\w+/kernel", path)}


class OneBatch(ToyStream):
    """The same batch every step, which adapters can learn by heart."""

    def batches(self, start_step):
        for batch, info in super().batches(0):
            while True:
                yield batch, info


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_a_quantised_base_trains(base, tmp_path, kind):
    changes = {"lora__quantize": kind, "lora__full": (), "optimizer__learning_rate": 0.03}
    summary = run(tmp_path, base, stream=OneBatch(), steps=10, checkpoint_every=10, **changes)
    assert summary["compilations"] == 1
    assert losses(tmp_path)[-1] < losses(tmp_path)[0] - 0.1
    assert not any("kernel_" in path for path in read_metadata(tmp_path / "checkpoints" / "10").shapes)


def test_another_base_is_refused_and_a_moved_one_found(trained, base, tmp_path):
    run_dir, moved = tmp_path / "run", tmp_path / "moved" / "checkpoints" / "0"
    shutil.copytree(trained, run_dir)
    shutil.copytree(base, moved)
    assert run(run_dir, moved)["resumed_from"] == 6
    save_params(tmp_path / "other", init_params(MODEL, jax.random.key(1)))
    other = tmp_path / "other" / "checkpoints" / "0"
    message = rf"{other} is not the base of this LoRA run: expected weights of fingerprint {fingerprint(base)}, found"
    with pytest.raises(CheckpointError, match=message):
        run(run_dir, other)
    with pytest.raises(CheckpointError, match=message):
        load_weights(run_dir / "checkpoints" / "6", MODEL, base=other)
    with pytest.raises(CheckpointError, match=r"the base of this LoRA run is not at .*nowhere: name where it is"):
        load_weights(run_dir / "checkpoints" / "6", MODEL, base=tmp_path / "nowhere")


def test_adapters_on_a_lora_run_stand_on_its_merged_weights(trained, base, tmp_path):
    below = trained / "checkpoints" / "6"
    run(tmp_path, below, steps=1, optimizer__learning_rate=0.0)
    expected, found = (load_weights(path, MODEL) for path in (below, tmp_path / "checkpoints" / "1"))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), found, expected)
    assert fingerprint(below) not in (fingerprint(base), fingerprint(tmp_path / "checkpoints" / "1"))


def test_settings_that_contradict_each_other_are_refused(base, tmp_path):
    with pytest.raises(OptimizerError, match=r"optimizer.patterns: freeze projector/fc1/bias, which config.lora"):
        run(tmp_path, base, optimizer__patterns=(("projector/.*", None),))
    with pytest.raises(LoraError, match=r"lora: expected a base to train on: config.init_from names a checkpoint"):
        train(toy_config(**ADAPTERS), MODEL, ToyStream(), tmp_path / "none", make_mesh({"fsdp": -1}))


PATTERNS = ("decoder/layers/attn/(q|o)/", "decoder/layers/mlp/down/", "vision/blocks/attn/qkv/")


def test_eight_devices_equal_one(base, tmp_path):
    """With fsdp and tensor, decoder in few bits, adapters on all kinds of axes: losses and gradient norms to 1e-5."""
    for name, mesh in (("one", {"data": 1}), ("eight", {"data": 2, "fsdp": 2, "tensor": 2})):
        devices = jax.devices()[: 8 if name == "eight" else 1]
        config = toy_config(**ADAPTERS, lora__patterns=PATTERNS, steps=2, checkpoint_every=2)
        config.lora.quantize = "nf4"
        train(config, MODEL, ToyStream(), tmp_path / name, make_mesh(mesh, devices), base=Base(base))
    one, eight = lines(tmp_path / "one"), lines(tmp_path / "eight")
    for key in ("loss", "grad_norm"):
        np.testing.assert_allclose([line[key] for line in eight], [line[key] for line in one], rtol=1e-5)
