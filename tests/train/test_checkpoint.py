import contextlib
import json
import re
import resource
import shutil
import signal
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from configs.sizes import SIZES
from tests.train.test_state import build
from tests.train.toy import MODEL
from umit_jax.model.config import ModelConfig
from umit_jax.parallel.mesh import make_mesh
from umit_jax.train.checkpoint import (
    Checkpointer,
    CheckpointError,
    SaveError,
    _unreadable,
    checksums,
    load_params,
    read_data,
    read_metadata,
    save_params,
    seal,
)
from umit_jax.train.pauses import pauses
from umit_jax.train.state import create, merge


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """(workdir with a checkpoint of step 3 with a frozen tower, its state)."""
    workdir = tmp_path_factory.mktemp("run")
    abstract, optimizer = build({"fsdp": -1})
    state = create(MODEL, abstract, optimizer, seed=3)
    with Checkpointer(workdir, keep=2) as checkpointer:
        checkpointer.save(state, {"totals": {"tokens_seen": 9}}, 3)
    return workdir, state


@pytest.fixture
def copied(saved, tmp_path):
    shutil.copytree(saved[0], tmp_path / "run")
    return tmp_path / "run"


def test_a_run_that_goes_on_does_not_change_what_is_being_saved():
    totals = {"loss_per_task": {"vqa": 0.5}}
    written_later = seal({"position": 1, "totals": totals, "skipped": (skipped := [])})
    totals["loss_per_task"]["vqa"] = 0.25
    skipped.append(3)
    assert (written_later["totals"], written_later["skipped"]) == ({"loss_per_task": {"vqa": 0.5}}, [])


def test_state_and_data_come_back_on_another_mesh(saved):
    abstract, _ = build({"data": 2, "fsdp": 2, "tensor": 2})
    with Checkpointer(saved[0], keep=2) as checkpointer:
        state, data = checkpointer.restore(abstract)
    assert (data["position"], data["totals"]) == (3, {"tokens_seen": 9})
    jax.tree.map(np.testing.assert_array_equal, state, saved[1])
    assert jax.tree.map(lambda x: x.sharding, state) == jax.tree.map(lambda x: x.sharding, abstract)


def test_load_params_puts_trained_and_frozen_together(saved):
    params = load_params(saved[0] / "checkpoints" / "3", MODEL)
    expected = merge(saved[1].params, saved[1].frozen)
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x, np.asarray(y, np.float32)), params, expected)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.float32)}


def test_saved_params_are_loaded_again_and_no_run_resumes_from_them(saved, tmp_path):
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), merge(saved[1].params, saved[1].frozen))
    save_params(tmp_path, params)
    loaded = load_params(tmp_path / "checkpoints" / "0", MODEL)
    jax.tree.map(np.testing.assert_array_equal, loaded, params)
    with (
        Checkpointer(tmp_path, keep=1) as checkpointer,
        pytest.raises(CheckpointError, match=r"holds parameters only: give it as config.init_from"),
    ):
        checkpointer.restore(build({"fsdp": -1})[0])


def test_metadata_counts_what_is_there(saved):
    metadata = read_metadata(saved[0] / "checkpoints" / "3")
    expected = merge(saved[1].params, saved[1].frozen)
    assert metadata.position == 3
    assert len(metadata.shapes) == len(jax.tree.leaves(expected))
    assert metadata.shapes["vision/patch_embed/kernel"] == expected["vision"]["patch_embed"]["kernel"].shape
    assert metadata.optimizer_values == 2 + 2 * sum(leaf.size for leaf in jax.tree.leaves(saved[1].params))


def test_a_checkpoint_of_another_model_names_the_first_parameter_that_differs(saved):
    other = ModelConfig.from_dict(SIZES["tiny"])
    message = r"3: checkpoint of another model: decoder/embed/embedding: expected \(512, 64\), found \(64, 32\)"
    with pytest.raises(CheckpointError, match=message):
        load_params(saved[0] / "checkpoints" / "3", other)


def test_a_state_with_other_frozen_parameters_names_the_first_that_differs(saved):
    with (
        Checkpointer(saved[0], keep=2) as checkpointer,
        pytest.raises(CheckpointError, match=r"frozen/vision/.*: expected nothing, found"),
    ):
        checkpointer.restore(build({"fsdp": -1}, patterns=())[0])


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


def cut_in_half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def refusal(workdir):
    """The error of resuming from the checkpoint in `workdir`."""
    with Checkpointer(workdir, keep=2) as checkpointer, pytest.raises(CheckpointError) as caught:
        checkpointer.restore(build({"fsdp": -1})[0])
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("damage", [flip_a_bit, cut_in_half, lambda path: path.unlink()])
def test_damaged_array_files_are_refused(copied, damage):
    for path in (copied / "checkpoints" / "3" / "state").rglob("d/*"):
        damage(path)
    assert re.search(r"checkpoints/3(/state)?: damaged checkpoint: .+", refusal(copied))


def test_an_array_that_reads_but_is_not_what_was_saved_is_named(copied):
    """TensorStore keeps no checksum of large values, so a flipped bit reads as another number."""
    path = copied / "checkpoints" / "3" / "data" / "metadata"
    data = read_data(copied / "checkpoints" / "3")
    right = data["checksums"]["params/decoder/norm/scale"]
    data["checksums"]["params/decoder/norm/scale"] = right ^ 1
    path.write_text(json.dumps(seal(data)))
    assert refusal(copied).endswith(f"params/decoder/norm/scale: expected checksum {right ^ 1}, found {right}")


def test_a_data_position_that_is_not_what_was_saved_is_refused(copied):
    path = copied / "checkpoints" / "3" / "data" / "metadata"
    path.write_text(path.read_text().replace('"position": 3', '"position": 2'))
    assert re.search(r"checkpoints/3/data: damaged checkpoint: expected digest \w+, found \w+", refusal(copied))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.int32])
def test_a_checksum_sees_every_bit_and_place(dtype):
    values = np.asarray(jnp.arange(12).reshape(3, 4).astype(dtype))
    flipped = values.copy()
    flipped.view(np.uint8).reshape(-1)[7] ^= 0x10
    swapped = values[:, [1, 0, 2, 3]]
    sums = [checksums({"x": jnp.asarray(x)})["x"] for x in (values, flipped, swapped)]
    assert len(set(sums)) == 3
    sharded = jax.device_put(values[:, :4], NamedSharding(make_mesh({"fsdp": 4}, jax.devices()[:4]), P(None, "fsdp")))
    assert checksums({"x": sharded})["x"] == sums[0]


def test_an_unreadable_array_is_named():
    """What TensorStore says, in the error that Orbax raises from it."""
    cause = ValueError(
        'OUT_OF_RANGE: Error reading "opt.1.mu.decoder.norm.scale/0.0" in OCDBT database at local file "/x/state/": '
        "Requested byte range [0, 7660) is not valid for value of size 50 [source locations='a:1\nb:2']"
    )
    error = Exception("Encountered error while reading array index")
    error.__cause__ = cause
    reason = "Requested byte range [0, 7660) is not valid for value of size 50"
    assert _unreadable(error) == f"opt/1/mu/decoder/norm/scale: cannot be read: {reason}"


@pytest.mark.parametrize("name", ["state/_METADATA", "data/metadata"])
@pytest.mark.parametrize("damage", [cut_in_half, lambda path: path.write_text("{}")])
def test_damaged_metadata_is_one_line_with_the_folder(copied, name, damage):
    damage(copied / "checkpoints" / "3" / name)
    with pytest.raises(CheckpointError, match=r"checkpoints/3/?\w*: damaged checkpoint: .+") as caught:
        load_params(copied / "checkpoints" / "3", MODEL)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["state", "data"])
def test_a_missing_item_is_a_damaged_checkpoint(copied, name):
    shutil.rmtree(copied / "checkpoints" / "3" / name)
    with pytest.raises(CheckpointError, match="damaged checkpoint"):
        load_params(copied / "checkpoints" / "3", MODEL)


def test_folders_of_an_unfinished_save_are_ignored(copied):
    half = copied / "checkpoints" / "6.orbax-checkpoint-tmp"
    shutil.copytree(copied / "checkpoints" / "3", half)
    (half / "data" / "metadata").unlink()
    with Checkpointer(copied, keep=2) as checkpointer:
        assert checkpointer.latest == 3


def test_only_the_newest_are_kept(tmp_path):
    abstract, optimizer = build({"fsdp": -1})
    state = create(MODEL, abstract, optimizer, seed=0)
    with Checkpointer(tmp_path, keep=2) as checkpointer:
        for step in (1, 2, 3):
            checkpointer.save(state, {"totals": {}}, step)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["2", "3"]


def test_a_save_that_fails_in_the_background_is_one_line(saved, tmp_path):
    """A full disk, as far as a process can meet one without a mount: files may not grow beyond 4 KiB."""
    checkpointer = Checkpointer(tmp_path, keep=2)
    with full_disk(), pytest.raises(SaveError) as caught, checkpointer:
        checkpointer.save(saved[1], {"totals": {}}, 4)
    assert str(caught.value) == f"{tmp_path}/checkpoints/4: checkpoint not saved: File too large"
    with Checkpointer(tmp_path, keep=2) as again:
        assert again.latest is None


@contextlib.contextmanager
def full_disk():
    """Files may not grow beyond 4 KiB; yields what ends that."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)


def test_a_save_is_tried_again_until_there_is_room(saved, tmp_path, caplog, monkeypatch):
    with full_disk() as end, Checkpointer(tmp_path, keep=2, patience=60) as checkpointer:
        tries = []
        monkeypatch.setattr("time.sleep", lambda seconds: tries.append(seconds) or len(tries) < 3 or end())
        checkpointer.save(saved[1], {"totals": {}}, 4, wait=True)
    assert tries[:3] == [1, 2, 4]
    assert "4: checkpoint not saved: File too large; trying again in 1 s" in caplog.text
    with Checkpointer(tmp_path, keep=2) as again:
        state, data = again.restore(build({"fsdp": -1})[0])
    assert data["position"] == 4
    jax.tree.map(np.testing.assert_array_equal, state, saved[1])


def test_a_save_that_failed_in_the_background_is_made_up_for_at_the_next_one(saved, tmp_path):
    with Checkpointer(tmp_path, keep=2, patience=60) as checkpointer:
        with full_disk():
            checkpointer.save(saved[1], {"totals": {}}, 4)
            with contextlib.suppress(Exception):
                checkpointer._manager.wait_until_finished()
        checkpointer.save(saved[1], {"totals": {}}, 5)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir() if path.name.isdigit()] == ["5"]


def test_patience_comes_to_an_end():
    assert list(pauses(10)) == [1, 2, 4, 3]
    assert sum(pauses(1000)) == 1000
    assert max(pauses(1000)) == 30
    assert list(pauses(0)) == []


def test_a_full_disk_is_named(saved, tmp_path):
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", tmp_path], capture_output=True).returncode:
        pytest.skip("needs the right to mount a small file system")
    try:
        with (
            pytest.raises(SaveError, match="checkpoint not saved: No space left on device"),
            Checkpointer(tmp_path, 2) as c,
        ):
            c.save(saved[1], {"totals": {}}, 4)
    finally:
        subprocess.run(["umount", tmp_path], check=True)
