"""ModelConfig: built from numbers, read from and written to config.json in both forms."""

import dataclasses
import json

import pytest

from configs.sizes import SIZES, model_config
from umit_jax.model.config import CLIP_MEAN, ConfigError, ModelConfig


class Tokenizer:
    vocab_size = 1000

    def token_id(self, name):
        names = ["<|endoftext|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
        return 900 + names.index(name)


def nested(flat: dict) -> dict:
    """The same configuration in the form that transformers 5 writes."""
    flat = dict(flat)
    outer = ("model_type", "architectures", "vision_config", "tie_word_embeddings", "image_mean", "image_std")
    tokens = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    top = {key: flat.pop(key) for key in (*outer, *tokens)}
    rope = {"rope_type": "default", "type": "default", "rope_theta": flat.pop("rope_theta")}
    rope["mrope_section"] = flat.pop("rope_scaling")["mrope_section"]
    return top | {"text_config": flat | {"model_type": "qwen2_vl_text", "rope_parameters": rope}}


@pytest.mark.parametrize("size", SIZES)
def test_config_json_round_trips_in_both_forms(size):
    config = dataclasses.replace(ModelConfig.from_dict(SIZES[size]), image_mean=(0.5, 0.25, 0.125))
    written = json.loads(json.dumps(config.to_hf()))
    assert ModelConfig.from_hf(written) == config
    assert ModelConfig.from_hf(nested(written)) == config


@pytest.mark.parametrize("size", ["tiny", "7b", "qwen2.5-tiny", "qwen2.5-7b"])
def test_what_transformers_writes_after_reading_ours_is_the_same_config(size):
    transformers = pytest.importorskip("transformers")
    config = ModelConfig.from_dict(SIZES[size])
    theirs = transformers.AutoConfig.for_model(**config.to_hf())
    assert ModelConfig.from_hf(json.loads(theirs.to_json_string(use_diff=False))) == config
    assert theirs.text_config.rms_norm_eps == 1e-6


def test_a_configuration_is_hashable_and_equal_by_value():
    assert len({ModelConfig.from_dict(SIZES["tiny"]) for _ in range(2)}) == 1


def test_a_hub_file_without_optional_numbers_gets_the_published_defaults():
    flat = ModelConfig.from_dict(SIZES["2b"]).to_hf()
    for key in ("image_mean", "image_std", "image_token_id", "max_position_embeddings", "hidden_act"):
        del flat[key]
    for key in ("mlp_ratio", "patch_size", "in_channels", "in_chans", "hidden_act", "hidden_size"):
        del flat["vision_config"][key]
    config = ModelConfig.from_hf(flat)
    assert config == ModelConfig.from_dict(SIZES["2b"])
    assert config.image_mean == CLIP_MEAN


BROKEN = {
    "another architecture": ({"model_type": "llava"}, "model_type: expected qwen2_vl | qwen2_5_vl, found 'llava'"),
    "sliding window": ({"use_sliding_window": True}, "use_sliding_window: expected False, found True"),
    "another rope": ({"rope_scaling": {"type": "yarn", "mrope_section": [2, 3, 3]}}, "expected mrope, found 'yarn'"),
    "another activation": ({"hidden_act": "gelu"}, "hidden_act: expected silu, found 'gelu'"),
    "no norm eps": ({"rms_norm_eps": None}, "rms_norm_eps: expected a value"),
    "no rope theta": ({"rope_theta": None}, "rope_theta: expected a value"),
    "no mrope section": ({"rope_scaling": {"type": "mrope"}}, "mrope_section: expected a value"),
    "sections of another head": (
        {"rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]}},
        "text.mrope_section: expected numbers that sum to half the head size, 8",
    ),
    "heads that do not divide": ({"num_key_value_heads": 3}, "text.heads: expected a multiple of 3 kv_heads, found 4"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_cannot_be_built_is_refused_in_one_line(case):
    change, message = BROKEN[case]
    with pytest.raises(ConfigError) as error:
        ModelConfig.from_hf(ModelConfig.from_dict(SIZES["tiny"]).to_hf() | change)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_overrides_may_be_nested_or_dotted():
    config = ModelConfig.from_dict(SIZES["tiny"], {"text.layers": 5, "vision": {"layers": 1}, "tied_head": False})
    assert (config.text.layers, config.vision.layers, config.tied_head) == (5, 1, False)
    assert config.text.width == ModelConfig.from_dict(SIZES["tiny"]).text.width


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"text.layer": 5}, "unknown name text.layer; the nearest known one is text.layers"),
        ({"tide_head": True}, "unknown name tide_head; the nearest known one is tied_head"),
        ({"tied_head.x": True}, "tied_head: expected one value"),
        ({"text.width": 65}, "text.width: expected a multiple of 4 heads, found 65"),
    ],
)
def test_an_override_that_does_not_fit_is_refused(overrides, message):
    with pytest.raises(ConfigError, match=message):
        ModelConfig.from_dict(SIZES["tiny"], overrides)


def test_a_size_takes_its_vocabulary_and_token_ids_from_the_tokenizer():
    config = model_config("quickstart", Tokenizer(), **{"text.layers": 2})
    assert config.text.vocab_size == 1024  # rounded up to a multiple of 128
    assert (config.bos_token_id, config.eos_token_id) == (900, 901)
    assert (config.image_token_id, config.video_token_id) == (904, 905)
    assert config.text.layers == 2
    with pytest.raises(ConfigError, match=r"model: expected tiny \| quickstart \| 2b .*, found '3b'"):
        model_config("3b", Tokenizer())
