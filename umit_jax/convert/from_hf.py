"""Reads a Hugging Face Qwen2-VL directory: config.json and safetensors, hub names or those of transformers 5.

Every tensor the model needs must be there in its shape, and nothing else may be: a checkpoint of another model is
refused by the name of the first tensor that does not fit.
"""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from umit_jax.convert.keymap import Tensor, hub_name, tensors, to_ours
from umit_jax.model.config import ConfigError, ModelConfig


class CheckpointError(ValueError):
    """A checkpoint that does not fit the model; the message names the file or tensor."""


def read_config(directory: Path) -> ModelConfig:
    """ModelConfig of a directory with config.json; preprocessor_config.json, where there is one, has the last word on
    image_mean and image_std."""
    values = read_json(directory / "config.json")
    preprocessor = directory / "preprocessor_config.json"
    if preprocessor.exists():
        found = read_json(preprocessor)
        values |= {key: found[key] for key in ("image_mean", "image_std") if key in found}
    try:
        return ModelConfig.from_hf(values)
    except ConfigError as error:
        raise ConfigError(f"{directory / 'config.json'}: {error}") from error


def read(directory: str | Path) -> tuple[ModelConfig, dict[str, Any]]:
    """config and numpy parameters (in the dtype of the file) of a Hugging Face directory.

    Raises CheckpointError naming a missing, extra or mis-shaped tensor, ConfigError for another architecture,
    OSError for a missing file.
    """
    directory = Path(directory)
    config = read_config(directory)
    files = sorted(directory.glob("*.safetensors"))
    if not files:
        raise FileNotFoundError(f"{directory}: no *.safetensors file")
    handles = [_open(file) for file in files]
    where = {hub_name(name): (handle, name) for handle in handles for name in handle.keys()}  # noqa: SIM118

    def load(name: str) -> np.ndarray:
        handle, key = where[name]
        return handle.get_tensor(key)

    return config, params_from(config, where, load, str(directory))


def params_from(
    config: ModelConfig, names: Iterable[str], load: Callable[[str], np.ndarray], source: str
) -> dict[str, Any]:
    """Parameters from hub-named tensors: `names` there are, and a function that loads one."""
    wanted = list(tensors(config))
    names = set(names)
    if config.tied_head:
        names -= {"lm_head.weight"}  # some writers keep the tied copy
    for name in [t.name for t in wanted if t.name not in names][:1]:
        raise CheckpointError(f"{source}: tensor {name} is missing")
    for name in sorted(names - {t.name for t in wanted})[:1]:
        raise CheckpointError(f"{source}: tensor {name} is not part of this model")
    params: dict[str, Any] = {}
    for tensor in wanted:
        value = load(tensor.name)
        if tuple(value.shape) != tensor.shape:
            raise CheckpointError(
                f"{source}: tensor {tensor.name}: expected shape {list(tensor.shape)}, found {list(value.shape)}"
            )
        _place(params, tensor, to_ours(tensor, value), config)
    return params


def _place(params: dict[str, Any], tensor: Tensor, value: np.ndarray, config: ModelConfig) -> None:
    *groups, name = tensor.entry.path.split("/")
    node = params
    for key in groups:
        node = node.setdefault(key, {})
    if tensor.layer is None:
        node[name] = np.ascontiguousarray(value)
        return
    if name not in node:
        layers = config.vision.layers if groups[0] == "vision" else config.text.layers
        node[name] = np.empty((layers, *tensor.ours), value.dtype)
    node[name][tensor.layer] = value


def _open(path: Path) -> Any:
    try:
        return safe_open(path, framework="numpy")
    except SafetensorError as error:
        raise CheckpointError(f"{path}: cannot read ({error})") from error


def read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{path}: not JSON ({error})") from error
