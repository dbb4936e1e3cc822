"""Parameters of many pieces: what converts in several threads gives what one reading of the whole gives."""

import threading

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from launch import cli, workdir
from launch.model import load_companions
from tests.export import hub
from umit_jax import pieces
from umit_jax.convert.from_hf import flat
from umit_jax.train import leaves
from umit_jax.train.checkpoint import CheckpointError, checksums, load_params


@pytest.fixture
def imported(tmp_path, monkeypatch):
    """A workdir whose parameters are stored and read in pieces of a layer or a few rows, and chunks smaller still."""
    monkeypatch.setattr(pieces, "_BYTES", 700)
    monkeypatch.setattr(leaves, "_CHUNK", 300)
    monkeypatch.setattr(leaves, "_PLACES", 128)
    source = hub.write_model(tmp_path / "hub", tied=False)
    assert cli.main(["import", str(source), "--out", str(tmp_path / "workdir")]) == 0
    return tmp_path / "workdir"


def test_a_model_in_many_pieces_comes_back_bit_for_bit(imported, tmp_path):
    assert cli.main(["export", str(imported), "--out", str(tmp_path / "export")]) == 0
    found, expected = load_file(tmp_path / "export" / "model.safetensors"), hub.random_tensors(False)
    assert found.keys() == expected.keys()
    assert all(found[name].tobytes() == value.tobytes() for name, value in expected.items())


def test_reading_in_pieces_is_the_same_as_restoring_all(imported):
    checkpoint = workdir.find(imported, "CHECKPOINT")
    config, *_ = load_companions(checkpoint.model_dir)
    reader, several = leaves.LeafReader(checkpoint.path, config), 0
    for path, value in flat(load_params(checkpoint.path, config)).items():
        found = np.zeros(value.shape, np.float32)
        parts = []

        def use(part, values, found=found, parts=parts):
            parts.append(part.start)
            found[part] = values

        reader.each(path, use)
        np.testing.assert_array_equal(found, value)
        assert len(set(parts)) == len(parts)
        several += len(parts) > 1
    assert several > 10


@pytest.mark.parametrize("damage", [lambda data: data[:-2], lambda data: bytes([data[0] ^ 1]) + data[1:]])
def test_a_damaged_piece_is_named(imported, tmp_path, capsys, damage):
    file = imported / "checkpoints" / "0" / "state" / "params.decoder.layers.mlp.up.kernel" / "c" / "1" / "0" / "0"
    file.write_bytes(damage(file.read_bytes()))
    assert cli.main(["export", str(imported), "--out", str(tmp_path / "export")]) == 2
    assert "damaged checkpoint: params/decoder/layers/mlp/up/kernel: " in capsys.readouterr().err
    assert not (tmp_path / "export").exists()
    checkpoint = workdir.find(imported, "CHECKPOINT")
    config, *_ = load_companions(checkpoint.model_dir)
    with pytest.raises(CheckpointError, match="damaged checkpoint: params/decoder/layers/mlp/up/kernel: "):
        load_params(checkpoint.path, config)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_checksums_of_parts_add_up_to_the_one_of_the_device(dtype, monkeypatch):
    monkeypatch.setattr(leaves, "_PLACES", 64)
    value = jnp.asarray(np.random.default_rng(0).normal(size=(7, 30, 3)), dtype)
    host = np.asarray(value)
    parts = [leaves.checksum(host[a:b], a * 90) for a, b in ((0, 2), (2, 3), (3, 7))]
    assert sum(parts) % 2**32 == leaves.checksum(host) == checksums({"x": value})["x"]


def test_a_piece_that_fails_is_raised_when_the_others_have_ended():
    ended, failed = [], threading.Event()

    def work(number):
        if number == 0:
            failed.set()
            raise OSError("full")
        failed.wait()
        ended.append(number)

    with pytest.raises(OSError, match="full"):
        pieces.for_each(work, range(3))
    so_far = list(ended)
    pieces.for_each(lambda _: None, range(10))
    assert ended == so_far


def test_memory_of_a_thread_is_used_again_but_by_no_other():
    first = pieces.scratch("test", (100,), np.uint8)
    assert np.shares_memory(pieces.scratch("test", (5, 5), np.float32), first)
    other = []
    thread = threading.Thread(target=lambda: other.append(pieces.scratch("test", (100,), np.uint8)))
    thread.start()
    thread.join()
    assert not np.shares_memory(other[0], first)
