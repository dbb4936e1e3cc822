"""The files beside the weights that transformers' AutoProcessor reads: tokenizer, chat template, pixel processors.

| file                           | from                                                                        |
| tokenizer.json and its company | copied from the model directory                                             |
| tokenizer_config.json          | copied, with the chat template added for readers that look for it there     |
| chat_template.jinja            | given by the caller, who formatted the training conversations               |
| preprocessor_config.json       | min_pixels, max_pixels of preprocess.json; mean and std of the ModelConfig  |
| video_preprocessor_config.json | the same, for videos                                                        |
| generation_config.json         | the ids of <|im_end|> and <|endoftext|>, greedy                             |
"""

import json
import shutil
from pathlib import Path
from typing import Any

from umit_jax.convert.from_hf import CheckpointError, read_json
from umit_jax.model import families
from umit_jax.model.config import ModelConfig

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
)


def write_processor(config: ModelConfig, model_dir: Path, out_dir: Path, chat_template: str) -> None:
    """Writes everything of the module's table. model_dir holds tokenizer.json and preprocess.json.

    Raises CheckpointError where one of the two is missing.
    """
    for required in ("tokenizer.json", "preprocess.json"):
        if not (model_dir / required).is_file():
            raise CheckpointError(f"{model_dir}: no {required}")
    for name in TOKENIZER_FILES:
        if (model_dir / name).is_file():
            shutil.copyfile(model_dir / name, out_dir / name)
    tokenizer_config = out_dir / "tokenizer_config.json"
    values = read_json(tokenizer_config) if tokenizer_config.exists() else _tokenizer_config()
    write_json(tokenizer_config, values | {"chat_template": chat_template})
    (out_dir / "chat_template.jinja").write_text(chat_template, encoding="utf-8")
    pixels = _pixels(config, read_json(model_dir / "preprocess.json"))
    write_json(out_dir / "preprocessor_config.json", {"image_processor_type": "Qwen2VLImageProcessor", **pixels})
    write_json(out_dir / "video_preprocessor_config.json", {"video_processor_type": "Qwen2VLVideoProcessor", **pixels})
    generation = {
        "bos_token_id": config.bos_token_id,
        "pad_token_id": config.bos_token_id,
        "eos_token_id": [config.eos_token_id, config.bos_token_id],
        "do_sample": False,
    }
    write_json(out_dir / "generation_config.json", generation)


def write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _pixels(config: ModelConfig, preprocess: dict[str, Any]) -> dict[str, Any]:
    low, high = preprocess["min_pixels"], preprocess["max_pixels"]
    return {
        "processor_class": families.of(config).processor,
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": True,
        "do_convert_rgb": True,
        "resample": 3,  # bicubic
        "rescale_factor": 1 / 255,
        "min_pixels": low,
        "max_pixels": high,
        "size": {"shortest_edge": low, "longest_edge": high},
        "patch_size": config.vision.patch_size,
        "temporal_patch_size": config.vision.temporal_patch_size,
        "merge_size": config.vision.merge_size,
        "image_mean": list(config.image_mean),
        "image_std": list(config.image_std),
    }


def _tokenizer_config() -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "clean_up_tokenization_spaces": False,
    }
