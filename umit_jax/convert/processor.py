"""The files beside the weights that transformers' AutoProcessor reads: tokenizer, chat template, pixel processors.

| file                           | of a model trained from nothing        | of one that was imported               |
| tokenizer.json and its company | from the model directory               | the original's                         |
| chat template                  | the caller's, in chat_template.jinja   | the original's, in whichever file, as  |
|                                | and tokenizer_config.json              | long as it says what training taught   |
| preprocessor_config.json,      | limits of preprocess.json; mean and    | the original's, with the limits of     |
| video_preprocessor_config.json | std of the ModelConfig                 | preprocess.json where they differ      |
| generation_config.json         | ids of <|im_end|> and <|endoftext|>    | the original's                         |
"""

import json
import shutil
from pathlib import Path
from typing import Any

from umit_jax.convert import origin
from umit_jax.convert.tensorfile import CheckpointError
from umit_jax.convert.weights import read_json
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
_PIXEL_FILES = ("preprocessor_config.json", "video_preprocessor_config.json")
_EDGES = ("shortest_edge", "longest_edge")
DEFAULT_PIXELS = (56 * 56, 28 * 28 * 1280)  # what transformers takes where no file says


def write_companions(config: ModelConfig, model_dir: Path, out_dir: Path, chat_template: str) -> None:
    """Writes everything of the module's table. model_dir holds tokenizer.json and preprocess.json, and `origin` if the
    model was imported. chat_template: the format that the model was trained in.

    Raises CheckpointError where a file is missing.
    """
    for required in ("tokenizer.json", "preprocess.json"):
        if not (model_dir / required).is_file():
            raise CheckpointError(f"{model_dir}: no {required}")
    kept = model_dir / origin.FOLDER
    if not kept.is_dir():
        _write_processor(config, model_dir, out_dir, chat_template)
        return
    shutil.copyfile(model_dir / "tokenizer.json", out_dir / "tokenizer.json")
    for name in origin.KEPT:
        if name != "config.json" and (kept / name).is_file():
            shutil.copyfile(kept / name, out_dir / name)
    _update_pixels(config, read_json(model_dir / "preprocess.json"), out_dir)
    _update_template(out_dir, chat_template)


def pixel_limits(pixels: dict[str, Any]) -> tuple[Any, Any]:
    """(min_pixels, max_pixels) of an image processor's settings; None where `size` leaves one out.

    As transformers reads them: min_pixels and max_pixels win over size's shortest_edge and longest_edge (areas too,
    whatever their names say), which stood there as min_pixels and max_pixels at first.
    """
    size: dict[str, Any] = dict(zip(_EDGES, DEFAULT_PIXELS, strict=True))
    if pixels.get("size") is not None:
        size = pixels["size"] if isinstance(pixels["size"], dict) else {}
    low, high = (
        next((at[key] for at, key in ((pixels, name), (size, edge), (size, name)) if at.get(key) is not None), None)
        for name, edge in zip(("min_pixels", "max_pixels"), _EDGES, strict=True)
    )
    return low, high


def check_pixels(config: ModelConfig, pixels: dict[str, Any], source: str) -> None:
    """Raises CheckpointError, naming the key, for settings that our image path does not have."""
    vision = config.vision
    wanted: dict[str, Any] = {"do_resize": True, "do_rescale": True, "do_normalize": True, "resample": 3}
    wanted |= {"patch_size": vision.patch_size, "temporal_patch_size": vision.temporal_patch_size}
    wanted |= {"merge_size": vision.merge_size}
    for key, value in wanted.items():
        if pixels.get(key) is not None and pixels[key] != value:
            raise CheckpointError(f"{source}: {key}: expected {value}, found {pixels[key]!r}")
    if abs((pixels.get("rescale_factor") or 1 / 255) - 1 / 255) > 1e-9:
        raise CheckpointError(f"{source}: rescale_factor: expected 1/255, found {pixels['rescale_factor']!r}")
    low, high = pixel_limits(pixels)
    if not all(type(limit) is int for limit in (low, high)) or not 0 < low <= high:
        raise CheckpointError(f"{source}: min_pixels and max_pixels: expected 0 < min <= max, found {low} and {high}")


def write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _write_processor(config: ModelConfig, model_dir: Path, out_dir: Path, chat_template: str) -> None:
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


def _pixels(config: ModelConfig, preprocess: dict[str, Any]) -> dict[str, Any]:
    return {
        "processor_class": families.of(config).processor,
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": True,
        "do_convert_rgb": True,
        "resample": 3,  # bicubic
        "rescale_factor": 1 / 255,
        **_limits(preprocess),
        "patch_size": config.vision.patch_size,
        "temporal_patch_size": config.vision.temporal_patch_size,
        "merge_size": config.vision.merge_size,
        "image_mean": list(config.image_mean),
        "image_std": list(config.image_std),
    }


def _limits(preprocess: dict[str, Any]) -> dict[str, Any]:
    low, high = preprocess["min_pixels"], preprocess["max_pixels"]
    return {"min_pixels": low, "max_pixels": high, "size": {"shortest_edge": low, "longest_edge": high}}


def _update_pixels(config: ModelConfig, preprocess: dict[str, Any], out_dir: Path) -> None:
    """Puts the limits of training into the original's files, which stay byte for byte as they were where they agree."""
    limits = _limits(preprocess)
    wanted = limits["min_pixels"], limits["max_pixels"]
    found = False
    for name in _PIXEL_FILES:
        if (out_dir / name).is_file():
            found = True
            values = read_json(out_dir / name)
            if pixel_limits(values) != wanted:
                write_json(out_dir / name, values | limits)
    path = out_dir / "processor_config.json"
    values = read_json(path) if path.is_file() else {}
    nested = [key for key in ("image_processor", "video_processor") if isinstance(values.get(key), dict)]
    changed = {key: values[key] | limits for key in nested if pixel_limits(values[key]) != wanted}
    if changed:
        write_json(path, values | changed)
    if not found and "image_processor" not in nested:
        pixels = {"image_processor_type": "Qwen2VLImageProcessor", **_pixels(config, preprocess)}
        write_json(out_dir / "preprocessor_config.json", pixels)


def _update_template(out_dir: Path, chat_template: str) -> None:
    """Leaves the original's chat template where it is; another one takes its place in every file that has one."""
    jinja = out_dir / "chat_template.jinja"
    paths = [out_dir / name for name in ("chat_template.json", "tokenizer_config.json")]
    values = {path: read_json(path) for path in paths if path.is_file()}
    places = [path for path in values if values[path].get("chat_template")]
    found = [jinja.read_text(encoding="utf-8")] if jinja.is_file() else []
    found += [_default(values[path]["chat_template"]) for path in places]
    if found and found[0] == chat_template:  # the first is what a reader takes
        return
    jinja.write_text(chat_template, encoding="utf-8")
    for path in places:
        write_json(path, values[path] | {"chat_template": chat_template})


def _default(template: Any) -> Any:
    """Of several named templates the one that is used where none is asked for."""
    if isinstance(template, list):
        return {entry.get("name"): entry.get("template") for entry in template if isinstance(entry, dict)}.get(
            "default"
        )
    return template


def _tokenizer_config() -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "clean_up_tokenization_spaces": False,
    }
