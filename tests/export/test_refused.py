"""Checkpoints that do not fit, and work that is cut short: one line names the tensor or file, nothing stays behind."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from launch import cli
from tests.export import hub
from tests.launch.conftest import ROOT
from umit_jax.convert.aside import whole_directory
from umit_jax.convert.weights import INDEX

UP = "model.layers.1.mlp.up_proj.weight"


def change_tensors(source, change) -> None:
    tensors = load_file(source / "model.safetensors")
    change(tensors)
    save_file(tensors, source / "model.safetensors")


def change_json(path, **values) -> None:
    hub.write_json(path, json.loads(path.read_text()) | values)


def change_header(source, change) -> None:
    """Rewrites the header of model.safetensors by hand."""
    data = (source / "model.safetensors").read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    (source / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])


def refused(source, capsys) -> str:
    """The one line that `umit import` says of a directory it refuses; nothing may be left of the attempt."""
    before = sorted(source.parent.iterdir())
    assert cli.main(["import", str(source), "--out", str(source.parent / "workdir")]) == 2
    assert sorted(source.parent.iterdir()) == before
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    return lines[0]


def missing(source):
    change_tensors(source, lambda tensors: tensors.pop(UP))
    return f"tensor {UP} is missing"


def extra(source):
    change_tensors(source, lambda tensors: tensors.update({"model.layers.3.mlp.up_proj.weight": tensors[UP]}))
    return "tensor model.layers.3.mlp.up_proj.weight is not part of this model"


def mis_shaped(source):
    change_tensors(source, lambda tensors: tensors.update({UP: tensors[UP].T.copy()}))
    return f"tensor {UP}: expected shape [80, 48] by config.json, found [48, 80]"


def other_width(source):
    change_json(source / "config.json", hidden_size=64, num_attention_heads=4)
    change_json(source / "config.json", vision_config=hub.config_json()["vision_config"] | {"hidden_size": 64})
    change_json(source / "config.json", rope_scaling={"type": "mrope", "mrope_section": [2, 3, 3]})
    return "tensor visual.merger.mlp.2.weight: expected shape [64, 128] by config.json, found [48, 128]"


def integers(source):
    change_tensors(source, lambda tensors: tensors.update({UP: tensors[UP].astype(np.int8)}))
    return f"model.safetensors: tensor {UP}: dtype I8 is not supported, expected BF16, F16, F32"


def eight_bit_floats(source):
    import ml_dtypes

    change_tensors(source, lambda tensors: tensors.update({UP: tensors[UP].astype(ml_dtypes.float8_e4m3fn)}))
    return f"model.safetensors: tensor {UP}: dtype F8_E4M3 is not supported"


def truncated(source):
    data = (source / "model.safetensors").read_bytes()
    (source / "model.safetensors").write_bytes(data[:-10])
    return f"model.safetensors: truncated: tensor visual.patch_embed.proj.weight ends at byte {len(data)}"


def cut_in_the_header(source):
    data = (source / "model.safetensors").read_bytes()
    (source / "model.safetensors").write_bytes(data[:100])
    return "model.safetensors: not a safetensors file: claims a header of"


def absurd_header(source):
    (source / "model.safetensors").write_bytes(b"\xff" * 7 + b"\x7f" + b"{}")
    return "model.safetensors: not a safetensors file: claims a header of 9223372036854775807 bytes of 10"


def header_of_nonsense(source):
    (source / "model.safetensors").write_bytes((4).to_bytes(8, "little") + b"\xff{][")
    return "model.safetensors: not a safetensors file: its header is not JSON"


def absurd_shape(source):
    change_header(source, lambda header: header[UP].update(shape=[1 << 40, 1 << 40]))
    return f"model.safetensors: tensor {UP}: 7680 bytes, but BF16 [1099511627776, 1099511627776] takes"


def overlap(source):
    def move(header):
        begin, end = header[UP]["data_offsets"]
        header[UP]["data_offsets"] = [begin - 2, end - 2]

    change_header(source, move)
    return f"model.safetensors: tensor {UP}: begins at byte"


def negative_offsets(source):
    change_header(source, lambda header: header[UP].update(data_offsets=[-7680, 0]))
    return f"model.safetensors: tensor {UP}: its header entry lacks a dtype, shape or data_offsets"


def trailing_bytes(source):
    with (source / "model.safetensors").open("ab") as file:
        file.write(b"12345")
    return "model.safetensors: 5 bytes after the last tensor belong to none"


def pickle_only(source):
    (source / "model.safetensors").rename(source / "pytorch_model.bin")
    return "pytorch_model.bin: weights in a pickle are refused, because reading one can run code"


def pickle_renamed(source):
    (source / "model.safetensors").write_bytes(b"PK\x03\x04" + b"\0" * 100)
    return "model.safetensors: a pickle under another name: refused"


def no_weights(source):
    (source / "model.safetensors").unlink()
    return "no *.safetensors file"


def another_head(source):
    change_tensors(source, lambda tensors: tensors.update({"lm_head.weight": tensors["model.embed_tokens.weight"] * 2}))
    return "tensor lm_head.weight is not model.embed_tokens.weight, but config.json says tie_word_embeddings"


def untied_without_head(source):
    change_json(source / "config.json", tie_word_embeddings=False)
    return "tensor lm_head.weight is missing"


def another_architecture(source):
    change_json(source / "config.json", model_type="llava")
    return "config.json: model config: model_type: expected "


def quantised(source):
    change_json(source / "config.json", quantization_config={"quant_method": "gptq", "bits": 4})
    return "config.json: quantization_config: gptq weights are not supported"


def sliding_window(source):
    change_json(source / "config.json", use_sliding_window=True)
    return "config.json: model config: use_sliding_window: expected False, found True"


def config_is_no_object(source):
    (source / "config.json").write_text("[1]")
    return "config.json: expected a JSON object, found list"


def no_tokenizer(source):
    (source / "tokenizer.json").unlink()
    return "no tokenizer.json"


def tokenizer_of_another_model(source):
    change_json(source / "config.json", image_token_id=5)
    return "config.json: image_token_id is 5, but tokenizer.json says 268 for <|image_pad|>"


def other_patches(source):
    change_json(source / "preprocessor_config.json", patch_size=16)
    return "image processor: patch_size: expected 14, found 16"


def pixels_upside_down(source):
    change_json(source / "preprocessor_config.json", min_pixels=5000, max_pixels=100)
    return "image processor: min_pixels and max_pixels: expected 0 < min <= max, found 5000 and 100"


WRONG = [missing, extra, mis_shaped, other_width, integers, eight_bit_floats, truncated, cut_in_the_header]
WRONG += [absurd_header, header_of_nonsense, absurd_shape, overlap, negative_offsets, trailing_bytes, pickle_only]
WRONG += [pickle_renamed, no_weights, another_head, untied_without_head, another_architecture, quantised]
WRONG += [sliding_window, config_is_no_object, no_tokenizer, tokenizer_of_another_model, other_patches]
WRONG += [pixels_upside_down]


@pytest.mark.parametrize("spoil", WRONG, ids=lambda spoil: spoil.__name__)
def test_a_directory_that_does_not_fit_is_refused_by_name(tmp_path, capsys, spoil):
    source = hub.write_model(tmp_path / "hub")
    message = spoil(source)
    assert message in refused(source, capsys)


def absent_file(source, index):
    (source / "model-00002-of-00003.safetensors").unlink()
    return "should be in model-00002-of-00003.safetensors, which is not there"


def in_two_files(source, index):
    first, second = (source / f"model-0000{i}-of-00003.safetensors" for i in (1, 2))
    name = next(name for name, file in index["weight_map"].items() if file == first.name)
    save_file({**load_file(second), name: load_file(first)[name]}, second)
    return f"tensor {name} is in {first.name} and in {second.name}"


def in_two_files_without_index(source, index):
    message = in_two_files(source, index)
    (source / INDEX).unlink()
    return message


def index_names_another_file(source, index):
    right = index["weight_map"][UP]
    wrong = next(file for file in index["weight_map"].values() if file != right)
    index["weight_map"][UP] = wrong
    hub.write_json(source / INDEX, index)
    return f"{INDEX}: tensor {UP} is not in {wrong} but in {right}"


def index_lacks_a_tensor(source, index):
    file = index["weight_map"].pop(UP)
    hub.write_json(source / INDEX, index)
    return f"{INDEX}: tensor {UP} of {file} is not in the index"


def index_leaves_the_directory(source, index):
    index["weight_map"][UP] = "../model-00001-of-00003.safetensors"
    hub.write_json(source / INDEX, index)
    return f"tensor {UP}: '../model-00001-of-00003.safetensors' is not the name of a safetensors file"


def index_without_map(source, index):
    hub.write_json(source / INDEX, {"metadata": {}})
    return f"{INDEX}: no weight_map from tensor to file"


def unnamed_file(source, index):
    save_file({"adapter": np.zeros(3, np.float32)}, source / "adapter_model.safetensors")
    return f"adapter_model.safetensors: not named by {INDEX}"


SHARDS = [absent_file, in_two_files, in_two_files_without_index, index_names_another_file, index_lacks_a_tensor]
SHARDS += [index_leaves_the_directory, index_without_map, unnamed_file]


@pytest.mark.parametrize("spoil", SHARDS, ids=lambda spoil: spoil.__name__)
def test_shards_that_contradict_their_index_are_refused_by_name(tmp_path, capsys, spoil):
    source = hub.write_model(tmp_path / "hub", files=3)
    message = spoil(source, json.loads((source / INDEX).read_text()))
    assert message in refused(source, capsys)


def test_refusal_comes_before_any_weight_is_read(tmp_path, capsys, monkeypatch):
    from umit_jax.convert import tensorfile

    def read(*_):
        raise AssertionError("a weight was read")

    monkeypatch.setattr(tensorfile.Stored, "map", read)
    source = hub.write_model(tmp_path / "hub", tied=False)
    message = missing(source)
    assert message in refused(source, capsys)


def test_a_target_with_something_in_it_is_left_alone(tmp_path, capsys):
    source = hub.write_model(tmp_path / "hub")
    (tmp_path / "workdir").mkdir()
    (tmp_path / "workdir" / "notes.txt").write_text("mine")
    assert cli.main(["import", str(source), "--out", str(tmp_path / "workdir")]) == 2
    assert f"--out: {tmp_path / 'workdir'} exists" in capsys.readouterr().err
    assert (tmp_path / "workdir" / "notes.txt").read_text() == "mine"


@pytest.fixture
def imported(tmp_path):
    source = hub.write_model(tmp_path / "hub")
    assert cli.main(["import", str(source), "--out", str(tmp_path / "workdir")]) == 0
    return tmp_path


LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
from launch import cli
sys.exit(cli.main(sys.argv[1:]))
"""


def limited(*arguments) -> subprocess.CompletedProcess:
    """`umit ARGUMENTS` where no file may grow beyond 60,000 bytes: a write fails in the middle as on a full disk."""
    command = [sys.executable, "-c", LIMITED, *map(str, arguments)]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_a_write_that_fails_in_the_middle_leaves_nothing(imported):
    before = sorted(imported.iterdir())
    done = limited("import", imported / "hub", "--out", imported / "second")
    assert (done.returncode, len(done.stderr.strip().splitlines())) == (1, 1), done.stderr
    assert f"{imported / 'second'}/checkpoints/0: checkpoint not saved: File too large" in done.stderr
    done = limited("export", imported / "workdir", "--out", imported / "export")
    assert (done.returncode, len(done.stderr.strip().splitlines())) == (1, 1), done.stderr
    assert f"{imported / 'export'}/model.safetensors: File too large" in done.stderr
    assert sorted(imported.iterdir()) == before


SLOW = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs inherit it ignored
from launch import cli
from umit_jax.convert import tensorfile
look, write = tensorfile.Stored.map, tensorfile.NewFile.write
def slow_map(self):
    print("reading", flush=True)
    time.sleep(0.5)
    return look(self)
def slow_write(*args):
    print("writing", flush=True)
    time.sleep(0.5)
    write(*args)
tensorfile.Stored.map, tensorfile.NewFile.write = slow_map, slow_write
sys.exit(cli.main(sys.argv[1:]))
"""


def cut_short(arguments, number) -> int:
    """Sends a signal while weights are being copied; returns the exit status."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, *map(str, arguments)], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip() in ("reading", "writing")
    time.sleep(0.2)
    process.send_signal(number)
    process.communicate(timeout=60)
    return process.returncode


@pytest.mark.parametrize("command", ["import", "export"])
def test_a_signal_in_the_middle_leaves_no_directory_under_the_target(imported, command):
    source = imported / ("hub" if command == "import" else "workdir")
    arguments = [command, source, "--out", imported / "target"]
    before = sorted(imported.iterdir())
    for number in (signal.SIGTERM, signal.SIGINT):
        assert cut_short(arguments, number) != 0
        assert sorted(imported.iterdir()) == before
    assert cut_short(arguments, signal.SIGKILL) == -signal.SIGKILL
    assert not (imported / "target").exists()
    # What a killed process could not clean up goes when the same command runs again.
    assert len(sorted(imported.iterdir())) == len(before) + 1
    assert cli.main([str(argument) for argument in arguments]) == 0
    assert sorted(imported.iterdir()) == sorted([*before, imported / "target"])


def test_a_folder_that_another_process_is_writing_stays(tmp_path):
    with whole_directory(tmp_path / "out") as first:
        (first / "a").write_text("first")
        with whole_directory(tmp_path / "out") as second:
            (second / "a").write_text("second")
        assert (first / "a").read_text() == "first"
        (tmp_path / "out" / "a").unlink()
    assert (tmp_path / "out" / "a").read_text() == "first"
