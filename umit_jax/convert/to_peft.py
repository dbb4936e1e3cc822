"""Adapters to PEFT's format: adapter_config.json and adapter_model.safetensors.

| here, layer by layer        | there: "base_model.model." + module + | shape                                    |
| lora_a (inputs ..., rank)   | .lora_A.weight                        | (rank, in); Conv3d (rank, c, t, y, x)    |
| lora_b (rank, outputs ...)  | .lora_B.weight                        | (out, rank); Conv3d (out, rank, 1, 1, 1) |
| parameters trained whole    | .weight, .bias, in modules_to_save    | as in the model's own files              |

Module names are those of transformers 5 in memory, by which PEFT looks them up. PEFT saves whole modules: one that
trains in part is refused and can only be exported merged.
"""

import dataclasses
import json
import pathlib
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict
from safetensors import SafetensorError
from safetensors.numpy import save_file

from umit_jax.convert.keymap import Tensor, memory_name, tensors, to_hf
from umit_jax.model.config import ModelConfig
from umit_jax.model.lora import ADAPTER, plan
from umit_jax.model.param import Params

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."


class AdapterError(ValueError):
    """An adapter that cannot be written or read; the message names the parameter, tensor, setting or file."""


def write_adapter(trained: Params, config: ModelConfig, out_dir: pathlib.Path, base_name: str) -> tuple[int, int]:
    """Writes both files into out_dir; the number of tensors and their bytes. trained: what a LoRA run trains.

    Raises AdapterError for what trains whole and has no place in PEFT's format.
    """
    description = adapter_config(config, base_name)
    arrays = adapter_tensors(trained, config)
    try:
        save_file(arrays, out_dir / WEIGHTS, metadata={"format": "pt"})
    except SafetensorError as error:
        raise OSError(f"{out_dir / WEIGHTS}: {error}") from error
    (out_dir / CONFIG).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
    return len(arrays), sum(array.nbytes for array in arrays.values())


def adapter_config(config: ModelConfig, base_name: str) -> dict[str, Any]:
    """The content of adapter_config.json."""
    lora, decided, base = config.lora, plan(config), base_tensors(config)
    assert lora is not None
    adapted = {module(t.name): decided.adapters[t.entry.path] for t in base if t.entry.path in decided.adapters}
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_name,
        "inference_mode": True,
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "use_rslora": lora.rslora,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "use_dora": False,
        "target_modules": _targets(set(adapted), {module(t.name) for t in base}),
        "modules_to_save": _whole_modules(config) or None,
        "rank_pattern": {name: a.rank for name, a in adapted.items() if a.rank != lora.rank},
        "alpha_pattern": {name: a.alpha for name, a in adapted.items() if a.alpha != lora.alpha},
    }


def adapter_tensors(trained: Params, config: ModelConfig) -> dict[str, np.ndarray]:
    """Everything of adapter_model.safetensors by name, float32."""
    decided, own = plan(config), flatten_dict(trained, sep="/")
    arrays: dict[str, np.ndarray] = {}
    for tensor in base_tensors(config):
        path = tensor.entry.path
        if path in decided.adapters:
            stem = path.removesuffix("kernel")
            a, b = (_layer(own[f"{stem}{name}"], tensor) for name in ADAPTER)
            shape_a, shape_b = peft_shapes(tensor, decided.adapters[path].rank)
            name = f"{PREFIX}{module(tensor.name)}"
            arrays[f"{name}.lora_A.weight"] = np.ascontiguousarray(a.reshape(-1, shape_a[0]).T).reshape(shape_a)
            arrays[f"{name}.lora_B.weight"] = np.ascontiguousarray(b.reshape(shape_b[1], -1).T).reshape(shape_b)
        elif path in decided.full:
            arrays[PREFIX + memory_name(tensor.name)] = to_hf(tensor, _layer(own[path], tensor))
    return arrays


def peft_shapes(tensor: Tensor, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of lora_A and lora_B; `tensor` is the weight they belong to."""
    out, *inputs = tensor.shape
    return (rank, *inputs), (out, rank, *[1] * (len(inputs) - 1))


def base_tensors(config: ModelConfig) -> list[Tensor]:
    """The tensors of the model without its adapters."""
    return list(tensors(dataclasses.replace(config, lora=None)))


def module(name: str) -> str:
    """The module of transformers that holds the tensor."""
    return memory_name(name).rpartition(".")[0]


def _layer(value: Any, tensor: Tensor) -> np.ndarray:
    return np.asarray(value if tensor.layer is None else value[tensor.layer], np.float32)


def _targets(adapted: set[str], modules: set[str]) -> list[str]:
    """target_modules: last names where every module of that name has an adapter, whole names otherwise."""
    targets = set()
    for name in adapted:
        last = name.rpartition(".")[2]
        same = {module for module in modules if module.rpartition(".")[2] == last}
        targets.add(last if same <= adapted and not last.isdigit() else name)
    return sorted(targets)


def _whole_modules(config: ModelConfig) -> list[str]:
    """modules_to_save: the modules whose every parameter trains whole."""
    decided = plan(config)
    held: dict[str, list[Tensor]] = {}
    for tensor in base_tensors(config):
        held.setdefault(module(tensor.name), []).append(tensor)
    names = []
    for name, parts in held.items():
        whole = [tensor for tensor in parts if tensor.entry.path in decided.full]
        rest = [tensor for tensor in parts if tensor.entry.path not in decided.full]
        if whole and rest:
            problem = f"{whole[0].entry.path} trains whole and {rest[0].entry.path} does not"
            raise AdapterError(f"{problem}: PEFT saves whole modules ({name}); export the merged weights instead")
        if whole and config.tied_head and whole[0].entry.path == "decoder/embed/embedding":
            raise AdapterError(f"{whole[0].entry.path} trains whole and is also the head: export the merged weights")
        names += [name] if whole else []
    return names
