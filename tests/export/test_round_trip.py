"""umit import, then umit export: every tensor, and every file that travels along, comes back as it was."""

import json

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from launch import cli, workdir
from launch.model import load_companions
from tests.export import hub
from umit_jax.convert.from_hf import flat, open_model
from umit_jax.convert.processor import pixel_limits
from umit_jax.convert.weights import INDEX
from umit_jax.train.checkpoint import Checkpointer, CheckpointError, load_params
from umit_jax.train.leaves import LeafReader

COMPANIONS = (
    "tokenizer.json vocab.json merges.txt added_tokens.json special_tokens_map.json tokenizer_config.json "
    "chat_template.json generation_config.json preprocessor_config.json"
)


def umit(*args) -> None:
    assert cli.main([str(arg) for arg in args]) == 0


def all_tensors(directory) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for file in directory.glob("*.safetensors"):
        found |= load_file(file)
    return found


def assert_same_tensors(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert (found[name].dtype, found[name].shape) == (value.dtype, value.shape), name
        assert found[name].tobytes() == value.tobytes(), name


def round_trip(source, tmp_path, *flags):
    umit("import", source, "--out", tmp_path / "workdir")
    umit("export", tmp_path / "workdir", "--out", tmp_path / "export", *flags)
    return tmp_path / "export"


@pytest.mark.parametrize("files", [1, 3], ids=["one file", "three files"])
@pytest.mark.parametrize("nested", [False, True], ids=["hub config", "transformers 5 config"])
@pytest.mark.parametrize(("tied", "dtype"), [(True, hub.BF16), (False, np.float16), (False, np.float32)])
def test_every_tensor_comes_back_bit_for_bit(tmp_path, tied, dtype, nested, files):
    source = hub.write_model(tmp_path / "hub", tied=tied, dtype=dtype, nested=nested, files=files)
    out = round_trip(source, tmp_path)
    assert_same_tensors(all_tensors(out), hub.random_tensors(tied, dtype))
    with safe_open(out / "model.safetensors", framework="numpy") as file:
        assert file.metadata() == {"format": "pt"}
    assert json.loads((out / "config.json").read_text())["torch_dtype"] == np.dtype(dtype).name
    summary = json.loads((out / "summary.json").read_text())
    sizes = [value.nbytes for value in hub.random_tensors(tied, dtype).values()]
    assert (summary["tensors"], summary["bytes"]) == (len(sizes), sum(sizes))
    assert summary["command"] == "export"


def test_tensors_of_several_dtypes_keep_their_own(tmp_path):
    tensors = hub.random_tensors()
    for name in ("model.layers.1.mlp.up_proj.weight", "model.norm.weight", "visual.merger.mlp.0.bias"):
        tensors[name] = tensors[name].astype(np.float32) + np.float32(1e-4)
    tensors["visual.blocks.0.norm1.weight"] = tensors["visual.blocks.0.norm1.weight"].astype(np.float16)
    out = round_trip(hub.write_model(tmp_path / "hub", tensors=tensors), tmp_path)
    assert_same_tensors(all_tensors(out), tensors)


def test_names_of_transformers_5_in_memory_become_those_of_the_hub(tmp_path):
    tensors = hub.random_tensors()
    renamed = {
        f"model.{name}" if name.startswith("visual.") else name.replace("model.", "model.language_model.", 1): value
        for name, value in tensors.items()
    }
    out = round_trip(hub.write_model(tmp_path / "hub", tensors=renamed, files=2), tmp_path)
    assert_same_tensors(all_tensors(out), tensors)


def test_the_copy_of_a_tied_head_is_checked_and_written_again(tmp_path):
    tensors = hub.random_tensors()
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].copy()
    out = round_trip(hub.write_model(tmp_path / "hub", tensors=tensors), tmp_path)
    assert_same_tensors(all_tensors(out), tensors)


def test_files_beside_the_weights_come_back_byte_for_byte(tmp_path):
    source = hub.write_model(tmp_path / "hub")
    (source / "chat_template.jinja").write_text(hub.TEMPLATE)
    (source / "LICENSE").write_text("Apache-2.0")
    out = round_trip(source, tmp_path)
    for name in (*COMPANIONS.split(), "chat_template.jinja", "LICENSE"):
        assert (out / name).read_bytes() == (source / name).read_bytes(), name
    assert not (out / "video_preprocessor_config.json").exists()


@pytest.mark.parametrize("nested", [False, True], ids=["hub config", "transformers 5 config"])
def test_keys_of_config_json_that_we_do_not_know_travel_along(tmp_path, nested):
    source = hub.write_model(tmp_path / "hub", nested=nested)
    config = json.loads((source / "config.json").read_text())
    config["auto_map"] = {"AutoModel": "evil.Model"}
    hub.write_json(source / "config.json", config)
    found = json.loads((round_trip(source, tmp_path) / "config.json").read_text())
    flat_form = hub.config_json()
    for key in flat_form.keys() - {"vision_config", "transformers_version"}:
        assert found[key] == flat_form[key], key
    assert found["vision_config"] == found["vision_config"] | flat_form["vision_config"]
    assert found.get("transformers_version") == (None if nested else "4.41.2")
    assert not {"auto_map", "text_config", "image_mean"} & found.keys()


def test_forced_dtype_rounds_every_tensor(tmp_path):
    source = hub.write_model(tmp_path / "hub", dtype=np.float32)
    out = round_trip(source, tmp_path, "--dtype", "bfloat16")
    assert_same_tensors(all_tensors(out), {n: v.astype(hub.BF16) for n, v in hub.random_tensors(True, "f4").items()})
    assert json.loads((out / "config.json").read_text())["torch_dtype"] == "bfloat16"


def test_an_import_is_an_ordinary_checkpoint(tmp_path):
    source = hub.write_model(tmp_path / "hub", files=2)
    umit("import", source, "--out", tmp_path / "workdir")
    checkpoint = workdir.find(tmp_path / "workdir")
    config, tokenizer, processing = load_companions(checkpoint.model_dir)
    assert (processing.min_pixels, processing.max_pixels) == (3136, 12845056)
    assert tokenizer.token_id("<|image_pad|>") == config.image_token_id
    params, model = flat(load_params(checkpoint.path, config)), open_model(source)
    assert params.keys() == model.leaves.keys()
    for path, leaf in model.leaves.items():
        np.testing.assert_array_equal(params[path], leaf.read().astype(np.float32))
    with Checkpointer(tmp_path / "workdir", keep=1) as checkpointer, pytest.raises(CheckpointError, match="parameters"):
        checkpointer.restore(None)  # type: ignore[arg-type]


def test_a_flipped_byte_in_the_checkpoint_is_not_exported(tmp_path, capsys):
    umit("import", hub.write_model(tmp_path / "hub"), "--out", tmp_path / "workdir")
    largest = max((tmp_path / "workdir" / "checkpoints").rglob("c/**/[0-9]"), key=lambda path: path.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 1
    largest.write_bytes(data)
    assert cli.main(["export", str(tmp_path / "workdir"), "--out", str(tmp_path / "export")]) == 2
    assert "damaged checkpoint" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hub", "workdir"]


def test_reading_one_parameter_is_the_same_as_restoring_all(tmp_path):
    umit("import", hub.write_model(tmp_path / "hub"), "--out", tmp_path / "workdir")
    checkpoint = workdir.find(tmp_path / "workdir")
    config = load_companions(checkpoint.model_dir)[0]
    reader, params = LeafReader(checkpoint.path, config), flat(load_params(checkpoint.path, config))
    assert set(reader.dtypes.values()) == {hub.BF16}
    for path, value in params.items():
        np.testing.assert_array_equal(reader.read(path).astype(np.float32), value)


def trained_workdir(tmp_path, change=lambda params: params, processing=None):
    """A workdir as training leaves it: an import, its parameters changed, saved as step 5 in float32."""
    import jax.numpy as jnp

    from umit_jax.train.state import TrainState

    work = tmp_path / "workdir"
    checkpoint = workdir.find(work)
    config = load_companions(checkpoint.model_dir)[0]
    params = change(load_params(checkpoint.path, config))
    opt = {"count": jnp.zeros((), jnp.int32)}
    with Checkpointer(work, keep=2) as checkpointer:
        checkpointer.save(TrainState(params, {}, opt, jnp.full((), 5, jnp.int32)), {"totals": {}}, 5)
    if processing:
        path = checkpoint.model_dir / "preprocess.json"
        hub.write_json(path, json.loads(path.read_text()) | processing)
    return work


def test_what_training_left_alone_goes_back_to_the_dtype_it_came_in(tmp_path):
    umit("import", hub.write_model(tmp_path / "hub"), "--out", tmp_path / "workdir")

    def change(params):
        params["decoder"]["norm"]["scale"] += 1e-4
        return params

    umit("export", trained_workdir(tmp_path, change), "--out", tmp_path / "export")
    found, expected = all_tensors(tmp_path / "export"), hub.random_tensors()
    assert found["model.norm.weight"].dtype == np.float32
    norm = expected["model.norm.weight"].astype(np.float32) + np.float32(1e-4)
    np.testing.assert_array_equal(found.pop("model.norm.weight"), norm)
    del expected["model.norm.weight"]
    assert_same_tensors(found, expected)
    # One dtype is loaded for all: it must hold the trained ones too.
    assert json.loads((tmp_path / "export" / "config.json").read_text())["torch_dtype"] == "float32"


def test_pixel_limits_of_training_replace_those_of_the_original(tmp_path):
    source = hub.write_model(tmp_path / "hub")
    umit("import", source, "--out", tmp_path / "workdir")
    work = trained_workdir(tmp_path, processing={"min_pixels": 784, "max_pixels": 200704})
    umit("export", work, "--out", tmp_path / "export")
    found = json.loads((tmp_path / "export" / "preprocessor_config.json").read_text())
    assert (found["min_pixels"], found["max_pixels"], found["hospital_setting"]) == (784, 200704, 7)
    assert found["size"] == {"shortest_edge": 784, "longest_edge": 200704}


def test_a_template_other_than_training_s_is_replaced_wherever_it_is(tmp_path):
    source = hub.write_model(tmp_path / "hub")
    umit("import", source, "--out", tmp_path / "workdir")
    (tmp_path / "workdir" / "model" / "chat_template.jinja").write_text("{{ messages }}")
    umit("export", tmp_path / "workdir", "--out", tmp_path / "export")
    for name in ("chat_template.json", "tokenizer_config.json"):
        found, before = (json.loads((folder / name).read_text()) for folder in (tmp_path / "export", source))
        assert found == before | {"chat_template": "{{ messages }}"}
    assert (tmp_path / "export" / "chat_template.jinja").read_text() == "{{ messages }}"


def test_a_directory_without_template_gets_the_one_that_training_uses(tmp_path):
    from data_pipelines.chat import CHAT_TEMPLATE

    source = hub.write_model(tmp_path / "hub")
    (source / "chat_template.json").unlink()
    values = json.loads((source / "tokenizer_config.json").read_text())
    hub.write_json(source / "tokenizer_config.json", {k: v for k, v in values.items() if k != "chat_template"})
    out = round_trip(source, tmp_path)
    assert (out / "chat_template.jinja").read_text() == CHAT_TEMPLATE
    assert (out / "tokenizer_config.json").read_bytes() == (source / "tokenizer_config.json").read_bytes()


def test_settings_inside_processor_config_json_are_read_and_written_there(tmp_path):
    source = hub.write_model(tmp_path / "hub", nested=True)
    pixels = json.loads((source / "preprocessor_config.json").read_text())
    size = {"shortest_edge": pixels.pop("min_pixels"), "longest_edge": pixels.pop("max_pixels")}
    values = {"image_processor": pixels | {"size": size, "image_mean": [0.5, 0.25, 0.125]}, "processor_class": "X"}
    hub.write_json(source / "processor_config.json", values)
    (source / "preprocessor_config.json").unlink()
    out = round_trip(source, tmp_path)
    assert (out / "processor_config.json").read_bytes() == (source / "processor_config.json").read_bytes()
    assert not (out / "preprocessor_config.json").exists()
    assert open_model(out).config.image_mean == (0.5, 0.25, 0.125)
    work = trained_workdir(tmp_path, processing={"min_pixels": 784, "max_pixels": 200704})
    umit("export", work, "--out", tmp_path / "again")
    found = json.loads((tmp_path / "again" / "processor_config.json").read_text())["image_processor"]
    assert found["size"] == {"shortest_edge": 784, "longest_edge": 200704}


@pytest.mark.parametrize(
    "spelling",
    [
        {"min_pixels": 784, "max_pixels": 1568},
        {"size": {"min_pixels": 784, "max_pixels": 1568}},
        {"size": {"shortest_edge": 784, "longest_edge": 1568}},
        {"min_pixels": None, "max_pixels": None, "size": {"shortest_edge": 784, "longest_edge": 1568}},
    ],
)
def test_pixel_limits_are_read_in_every_spelling(spelling):
    assert pixel_limits(spelling) == (784, 1568)


def test_shards_of_a_given_size_hold_every_tensor_once(tmp_path):
    from umit_jax.convert.to_hf import write_safetensors

    model = open_model(hub.write_model(tmp_path / "hub", tied=False))

    class Files:
        def __init__(self):
            self.dtypes = {path: leaf.dtype for path, leaf in model.leaves.items()}

        def each(self, path, use, *, whole=False):
            leaf = model.leaves[path]
            leaf.each(leaf.shape[0] if whole else 3, use)

    (tmp_path / "out").mkdir()
    write_safetensors(Files(), model.config, tmp_path / "out", shard_bytes=60_000)
    index = json.loads((tmp_path / "out" / INDEX).read_text())
    files = sorted(path.name for path in (tmp_path / "out").glob("*.safetensors"))
    assert len(files) > 4
    for file in files:
        with safe_open(tmp_path / "out" / file, framework="numpy") as opened:
            assert {n for n, f in index["weight_map"].items() if f == file} == set(opened.keys())
    assert_same_tensors(all_tensors(tmp_path / "out"), hub.random_tensors(False))


def test_transformers_loads_a_round_trip_with_every_weight_in_its_place(tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    source = hub.write_model(tmp_path / "hub", files=2)
    out = round_trip(source, tmp_path)
    models = []
    for directory in (source, out):
        model, report = transformers.AutoModelForImageTextToText.from_pretrained(directory, output_loading_info=True)
        assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
        assert model.dtype == torch.bfloat16
        models.append(model)
    for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(a, b)
    assert models[0].config.to_dict() | {"_name_or_path": ""} == models[1].config.to_dict() | {"_name_or_path": ""}
    assert models[0].generation_config.to_dict() == models[1].generation_config.to_dict()
    tokenizers = [transformers.AutoTokenizer.from_pretrained(directory) for directory in (source, out)]
    text = "a <|image_pad|> 肝"
    assert tokenizers[0](text)["input_ids"] == tokenizers[1](text)["input_ids"]
    assert tokenizers[1].chat_template == hub.TEMPLATE
    pil = pytest.importorskip("transformers.models.qwen2_vl.image_processing_pil_qwen2_vl")
    assert pil.Qwen2VLImageProcessorPil.from_pretrained(out).size == {"shortest_edge": 3136, "longest_edge": 12845056}


def test_what_transformers_5_saves_is_read_and_comes_back(tmp_path):
    transformers = pytest.importorskip("transformers")
    source = hub.write_model(tmp_path / "hub")
    model = transformers.AutoModelForImageTextToText.from_pretrained(source)
    model.save_pretrained(tmp_path / "saved")
    hub.write_companions(tmp_path / "saved")
    saved = all_tensors(tmp_path / "saved")
    assert_same_tensors(all_tensors(round_trip(tmp_path / "saved", tmp_path)), saved)
    assert "text_config" in json.loads((tmp_path / "saved" / "config.json").read_text())
    assert open_model(tmp_path / "saved").config == open_model(source).config


def test_qwen2_5_vl_goes_round_like_any_family(tmp_path):
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    top, vision = hub.config_json(), {"depth": 2, "num_heads": 2, "hidden_size": 32, "intermediate_size": 40}
    vision |= {"out_hidden_size": hub.TEXT_WIDTH, "window_size": 56, "fullatt_block_indexes": [1], "patch_size": 14}
    top |= {"model_type": "qwen2_5_vl", "architectures": ["Qwen2_5_VLForConditionalGeneration"]}
    values = top | {"vision_config": vision | {"tokens_per_second": 2, "model_type": "qwen2_5_vl"}}
    config = transformers.Qwen2_5_VLConfig(**values)
    transformers.Qwen2_5_VLForConditionalGeneration(config).bfloat16().save_pretrained(tmp_path / "hub")
    hub.write_companions(tmp_path / "hub")
    out = round_trip(tmp_path / "hub", tmp_path)
    assert_same_tensors(all_tensors(out), all_tensors(tmp_path / "hub"))
    found = json.loads((out / "config.json").read_text())["vision_config"]
    assert (found["window_size"], found["fullatt_block_indexes"]) == (56, [1])
    model, report = transformers.AutoModelForImageTextToText.from_pretrained(out, output_loading_info=True)
    assert isinstance(model, transformers.Qwen2_5_VLForConditionalGeneration)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
