"""Hugging Face directories: written, read back, loaded by transformers; a checkpoint that does not fit is refused."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from configs.sizes import SIZES
from data_pipelines.chat import CHAT_TEMPLATE
from umit_jax.convert.from_hf import CheckpointError, read
from umit_jax.convert.keymap import tensors
from umit_jax.convert.to_hf import write_hf
from umit_jax.model.config import ConfigError, ModelConfig
from umit_jax.model.param import init_params

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>")
SPECIAL += ("<|video_pad|>",)


def make_config(tied: bool) -> ModelConfig:
    ids = {"image_token_id": 261, "video_token_id": 262, "vision_start_token_id": 259, "vision_end_token_id": 260}
    ids |= {"bos_token_id": 256, "eos_token_id": 258}
    return ModelConfig.from_dict(SIZES["tiny"], {**ids, "tied_head": tied, "image_mean": [0.5, 0.25, 0.125]})


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    """A byte-level tokenizer of 256 bytes and the special tokens, and preprocess.json."""
    path = tmp_path_factory.mktemp("model")
    tokenizer = Tokenizer(models.BPE({c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in SPECIAL])
    tokenizer.save(str(path / "tokenizer.json"))
    (path / "preprocess.json").write_text(json.dumps({"min_pixels": 28 * 28, "max_pixels": 56 * 84, "merge": 2}))
    return path


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def exported(request, model_dir, tmp_path_factory):
    """config, params and the directory they were written to."""
    config = make_config(request.param)
    params = init_params(config, jax.random.key(0))
    out = tmp_path_factory.mktemp("export") / "hf"
    written = write_hf(params, config, out, model_dir, chat_template=CHAT_TEMPLATE)
    count = len(list(tensors(config)))
    assert written == (count, sum(x.nbytes for x in jax.tree.leaves(params)), {"float32": count})
    return config, params, out


def assert_same(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_reading_what_was_written_gives_the_same_config_and_parameters(exported):
    config, params, out = exported
    found_config, found = read(out)
    assert found_config == config
    assert_same(found, params)


def test_names_on_disk_are_the_hubs(exported):
    config, _, out = exported
    names = set(load_file(out / "model.safetensors"))
    assert {"visual.blocks.1.attn.qkv.weight", "model.layers.0.self_attn.q_proj.bias", "model.norm.weight"} <= names
    assert ("lm_head.weight" in names) == (not config.tied_head)


def test_an_export_is_cut_into_shards_of_the_given_size(exported, model_dir, tmp_path):
    config, params, _ = exported
    write_hf(params, config, tmp_path / "hf", model_dir, chat_template=CHAT_TEMPLATE, shard_bytes=200_000)
    files = sorted((tmp_path / "hf").glob("*.safetensors"))
    index = json.loads((tmp_path / "hf" / "model.safetensors.index.json").read_text())
    assert len(files) > 2
    assert set(index["weight_map"].values()) == {file.name for file in files}
    assert index["metadata"]["total_size"] == sum(x.nbytes for x in jax.tree.leaves(params))
    assert_same(read(tmp_path / "hf")[1], params)


def test_names_of_transformers_in_memory_are_read_too(exported, tmp_path):
    config, params, out = exported
    values = load_file(out / "model.safetensors")
    renamed = {
        f"model.{name}" if name.startswith("visual.") else name.replace("model.", "model.language_model.", 1): value
        for name, value in values.items()
    }
    save_file(renamed, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text((out / "config.json").read_text())
    found_config, found = read(tmp_path)
    assert found_config == config
    assert_same(found, params)


def test_bfloat16_weights_stay_bfloat16_both_ways(exported, model_dir, tmp_path):
    config, params, _ = exported
    low = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)
    write_hf(low, config, tmp_path / "hf", model_dir, chat_template=CHAT_TEMPLATE)
    assert json.loads((tmp_path / "hf" / "config.json").read_text())["torch_dtype"] == "bfloat16"
    found = read(tmp_path / "hf")[1]
    assert found["decoder"]["norm"]["scale"].dtype == jnp.bfloat16
    assert_same(found, low)


def spoil(values: dict, how: str) -> str:
    """Changes one tensor; returns what the error must say."""
    name = "model.layers.1.mlp.up_proj.weight"
    if how == "missing":
        del values[name]
        return f"tensor {name} is missing"
    if how == "extra":
        values["visual.blocks.7.norm1.weight"] = np.zeros(3, np.float32)
        return "tensor visual.blocks.7.norm1.weight is not part of this model"
    values[name] = values[name].T.copy()
    return f"tensor {name}: expected shape [96, 64] by config.json, found [64, 96]"


@pytest.mark.parametrize("how", ["missing", "extra", "mis-shaped"])
def test_a_tensor_that_does_not_fit_is_named(exported, tmp_path, how):
    _, _, out = exported
    values = load_file(out / "model.safetensors")
    message = spoil(values, how)
    save_file(values, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text((out / "config.json").read_text())
    with pytest.raises(CheckpointError) as error:
        read(tmp_path)
    assert message in str(error.value)
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)


def test_another_architecture_and_unreadable_files_are_named(tmp_path, exported):
    config, params, out = exported
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        read(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llava"}')
    with pytest.raises(ConfigError, match=r"config\.json: .*expected qwen2_vl \| qwen2_5_vl, found 'llava'"):
        read(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json: not JSON"):
        read(tmp_path)
    (tmp_path / "config.json").write_text((out / "config.json").read_text())
    with pytest.raises(FileNotFoundError, match=r"no \*\.safetensors file"):
        read(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"not a tensor file")
    with pytest.raises(CheckpointError, match=r"model\.safetensors: not a safetensors file"):
        read(tmp_path)
    with pytest.raises(CheckpointError, match=r"no tokenizer\.json"):
        write_hf(params, config, tmp_path / "hf", tmp_path, chat_template=CHAT_TEMPLATE)
    assert not (tmp_path / "hf").exists()


def test_a_full_disk_leaves_nothing_behind(exported, model_dir, tmp_path, monkeypatch):
    config, params, _ = exported

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("umit_jax.pieces.os.pwrite", full)
    with pytest.raises(OSError, match="No space left"):
        write_hf(params, config, tmp_path / "hf", model_dir, chat_template=CHAT_TEMPLATE)
    assert list(tmp_path.iterdir()) == []


def test_transformers_loads_the_export_with_every_weight_in_its_place(exported):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config, params, out = exported
    model, report = transformers.AutoModelForImageTextToText.from_pretrained(out, output_loading_info=True)
    assert isinstance(model, transformers.Qwen2VLForConditionalGeneration)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert model.dtype == torch.float32
    assert model.generation_config.eos_token_id == [config.eos_token_id, config.bos_token_id]
    assert len(list(model.parameters())) == len(list(tensors(config)))
    decoder = params["decoder"]
    head = decoder["embed"]["embedding"] if config.tied_head else decoder["head"]["kernel"]
    np.testing.assert_array_equal(model.lm_head.weight.detach(), head)


def test_what_transformers_saves_after_loading_reads_back_the_same(exported, tmp_path):
    transformers = pytest.importorskip("transformers")
    config, params, out = exported
    transformers.AutoModelForImageTextToText.from_pretrained(out).save_pretrained(tmp_path)
    found_config, found = read(tmp_path)
    assert found_config == config
    assert_same(found, params)


def test_the_exported_tokenizer_and_image_processor_are_those_of_training(exported):
    transformers = pytest.importorskip("transformers")
    module = pytest.importorskip("transformers.models.qwen2_vl.image_processing_pil_qwen2_vl")
    config, _, out = exported
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    text = "a<|image_pad|>肝\n"
    ids = Tokenizer.from_file(str(out / "tokenizer.json")).encode(text).ids
    assert tokenizer(text)["input_ids"] == ids
    assert ids[1] == config.image_token_id
    assert tokenizer.eos_token_id == config.eos_token_id
    images = module.Qwen2VLImageProcessorPil.from_pretrained(out)
    assert tuple(images.image_mean) == (0.5, 0.25, 0.125)
    assert images(np.zeros((560, 560, 3), np.uint8))["image_grid_thw"].tolist() == [[1, 4, 4]]  # 56 x 84 pixels at most
