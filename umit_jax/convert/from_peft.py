"""Adapters from PEFT's format (see to_peft.py), also those that name modules as older transformers do.

Every layer of a kernel must have the adapter, of one rank and alpha; settings that change the computation and are not
built here are refused by name, and so is a pickle.
"""

import dataclasses
import json
import pathlib
import re
from collections.abc import Iterable
from typing import Any

import numpy as np
from flax.traverse_util import unflatten_dict
from safetensors import SafetensorError
from safetensors.numpy import load_file

from umit_jax.convert.keymap import Tensor, hub_name, to_ours
from umit_jax.convert.to_peft import CONFIG, PREFIX, WEIGHTS, AdapterError, base_tensors, module, peft_shapes
from umit_jax.model.config import ModelConfig
from umit_jax.model.lora import ADAPTER, Lora, trainable
from umit_jax.model.param import Params

# Settings of PEFT that change the computation and are not built here, with the values that leave it as it is.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none",),
    "use_dora": (False, None),
    "fan_in_fan_out": (False, None),
    "lora_bias": (False, None),
    "layer_replication": (None,),
    "trainable_token_indices": (None,),
    "target_parameters": (None, []),
}


def read_adapter(directory: pathlib.Path, config: ModelConfig) -> tuple[ModelConfig, Params]:
    """(config with the adapter's `lora`, what it trained) for a model of this config.

    Raises AdapterError naming a setting that is not built here, or a tensor that is missing, extra or of another shape.
    """
    settings, arrays = _read_config(directory), _read_arrays(directory)
    whole, halves = {}, {}
    for name in arrays:
        found = re.fullmatch(r"(.*)\.lora_([AB])\.weight", name)
        if found:
            halves.setdefault(hub_name(found[1]) + ".weight", {})[found[2]] = name
        else:
            whole[hub_name(name)] = name
    base = base_tensors(config)
    for name in sorted((halves.keys() | whole.keys()) - {tensor.name for tensor in base}):
        raise AdapterError(f"{directory / WEIGHTS}: {name.removesuffix('.weight')} is not part of this model")
    own: dict[str, Any] = {}
    ranks: dict[str, tuple[int, float]] = {}
    for path, layers in _by_path(base).items():
        pairs = [halves[tensor.name] for tensor in layers if tensor.name in halves]
        saved = [whole[tensor.name] for tensor in layers if tensor.name in whole]
        if pairs or saved:
            lacking = [t.name for t in layers if t.name not in (halves if pairs else whole)]
            lacking += [t.name for t in layers if pairs and halves.get(t.name, {}).keys() != {"A", "B"}]
            for name in lacking[:1]:
                problem = f"no adapter of {module(name)}, though other layers have one" if pairs else f"no {name}"
                raise AdapterError(f"{directory / WEIGHTS}: {problem}")
        if saved:
            values = [to_ours(t, _shaped(arrays, n, t.shape, directory)) for t, n in zip(layers, saved, strict=True)]
            own[path] = np.stack(values) if layers[0].layer is not None else values[0]
        if pairs:
            ranks[path] = _rank(layers, pairs, arrays, settings, directory)
            own |= _halves(layers, pairs, ranks[path][0], arrays, directory)
    if not ranks:
        raise AdapterError(f"{directory / WEIGHTS}: no lora_A.weight in it")
    lora = Lora(
        rank=settings["r"],
        alpha=float(settings["lora_alpha"]),
        rslora=bool(settings.get("use_rslora")),
        patterns=tuple((f"{path}$", *rank) for path, rank in ranks.items()),
        full=tuple(f"{path}$" for path in own if not path.endswith(ADAPTER)),
    )
    config = dataclasses.replace(config, lora=lora)
    assert own.keys() == trainable(config)
    return config, unflatten_dict(own, sep="/")


def _read_config(directory: pathlib.Path) -> dict[str, Any]:
    path = directory / CONFIG
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise AdapterError(f"{path}: not JSON ({error})") from error
    for name, neutral in _NEUTRAL.items():
        if name in settings and settings[name] not in neutral:
            raise AdapterError(f"{path}: {name}: expected {neutral[0]!r}, found {settings[name]!r}: not built here")
    if not isinstance(settings.get("r"), int) or not isinstance(settings.get("lora_alpha"), int | float):
        raise AdapterError(f"{path}: expected numbers r and lora_alpha")
    return settings


def _read_arrays(directory: pathlib.Path) -> dict[str, np.ndarray]:
    path = directory / WEIGHTS
    if not path.is_file():
        if (directory / "adapter_model.bin").is_file():
            raise AdapterError(f"{directory / 'adapter_model.bin'}: a pickle: refused: reading one can run code")
        raise FileNotFoundError(f"{path}: no such file")
    try:
        arrays = load_file(path)
    except SafetensorError as error:
        raise AdapterError(f"{path}: cannot read ({error})") from error
    wrong = [name for name in arrays if not name.startswith(PREFIX)]
    if wrong:
        raise AdapterError(f"{path}: tensor {wrong[0]}: expected a name that starts with {PREFIX}")
    return {name.removeprefix(PREFIX): value for name, value in arrays.items()}


def _rank(
    layers: list[Tensor],
    pairs: list[dict[str, str]],
    arrays: dict[str, np.ndarray],
    settings: dict[str, Any],
    directory: pathlib.Path,
) -> tuple[int, float]:
    """Rank and alpha of a kernel, the same in all its layers."""
    found = {
        (arrays[pair["A"]].shape[0], _of_pattern(settings, "alpha_pattern", pair["A"], settings["lora_alpha"]))
        for pair in pairs
    }
    if len(found) > 1:
        problem = f"{layers[0].entry.path}: layers differ in rank or alpha: {sorted(found)}"
        raise AdapterError(f"{directory / CONFIG}: {problem}")
    ((rank, alpha),) = found
    stated = _of_pattern(settings, "rank_pattern", pairs[0]["A"], settings["r"])
    if rank != stated:
        tensor = f"{PREFIX}{pairs[0]['A']}"
        raise AdapterError(f"{directory / WEIGHTS}: tensor {tensor}: expected rank {stated}, found {rank}")
    return rank, float(alpha)


def _of_pattern(settings: dict[str, Any], name: str, tensor: str, default: Any) -> Any:
    """PEFT's rule: the first key that is the module's name, or the end of it after a dot, as a regular expression."""
    name_of = tensor.removesuffix(".lora_A.weight")
    patterns = settings.get(name) or {}
    return next((value for key, value in patterns.items() if re.fullmatch(rf"(.*\.)?({key})", name_of)), default)


def _halves(
    layers: list[Tensor], pairs: list[dict[str, str]], rank: int, arrays: dict[str, np.ndarray], directory: pathlib.Path
) -> dict[str, np.ndarray]:
    """lora_a and lora_b of a kernel in our layout."""
    inputs = layers[0].entry.inputs
    stem, made = layers[0].entry.path.removesuffix("kernel"), {}
    for name, half, ours in (
        ("lora_a", "A", (*layers[0].ours[:inputs], rank)),
        ("lora_b", "B", (rank, *layers[0].ours[inputs:])),
    ):
        values = []
        for tensor, pair in zip(layers, pairs, strict=True):
            shape = peft_shapes(tensor, rank)["AB".index(half)]
            value = _shaped(arrays, pair[half], shape, directory).astype(np.float32)
            values.append(value.reshape(shape[0], -1).T.reshape(ours))
        made[stem + name] = np.stack(values) if layers[0].layer is not None else values[0]
    return made


def _shaped(arrays: dict[str, np.ndarray], name: str, shape: tuple[int, ...], directory: pathlib.Path) -> np.ndarray:
    found = arrays[name].shape
    if found != shape:
        problem = f"expected shape {list(shape)}, found {list(found)}"
        raise AdapterError(f"{directory / WEIGHTS}: tensor {PREFIX}{name}: {problem}")
    return arrays[name]


def _by_path(base: Iterable[Tensor]) -> dict[str, list[Tensor]]:
    """Tensors of each parameter here, in the order of its layers."""
    groups: dict[str, list[Tensor]] = {}
    for tensor in base:
        groups.setdefault(tensor.entry.path, []).append(tensor)
    return groups
