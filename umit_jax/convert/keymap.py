"""Names and layouts of every parameter here and in a Hugging Face Qwen2-VL, one table for both directions.

| kind   | here                                 | Hugging Face                                                     |
| linear | kernel (in axes ..., out axes ...)   | weight (out, in), axes flattened                                 |
| vector | any shape                            | flattened                                                        |
| table  | (rows, width)                        | the same                                                         |
| patch  | kernel (C, E), C = (channel, t, y, x)| Conv3d weight (E, channel, t, y, x)                              |

"{}" in a name is the layer; here all layers are one array with a leading axis. The names are the hub's, which
save_pretrained of transformers 5 also writes; `hub_name` maps the names transformers 5 uses in memory to them.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from umit_jax.model.config import ModelConfig
from umit_jax.model.param import abstract_params


class Entry(NamedTuple):
    path: str
    hf: str
    kind: str
    inputs: int = 1  # input axes of a linear kernel here


def _linear(path: str, hf: str, *, bias: bool, inputs: int = 1) -> list[Entry]:
    weight = Entry(f"{path}/kernel", f"{hf}.weight", "linear", inputs)
    return [weight, Entry(f"{path}/bias", f"{hf}.bias", "vector")] if bias else [weight]


def _norm(path: str, hf: str, *, bias: bool) -> list[Entry]:
    scale = Entry(f"{path}/scale", f"{hf}.weight", "vector")
    return [scale, Entry(f"{path}/bias", f"{hf}.bias", "vector")] if bias else [scale]


_BLOCK, _LAYER = ("vision/blocks", "visual.blocks.{}"), ("decoder/layers", "model.layers.{}")

TABLE: tuple[Entry, ...] = (
    Entry("vision/patch_embed/kernel", "visual.patch_embed.proj.weight", "patch"),
    *_norm(f"{_BLOCK[0]}/norm1", f"{_BLOCK[1]}.norm1", bias=True),
    *_linear(f"{_BLOCK[0]}/attn/qkv", f"{_BLOCK[1]}.attn.qkv", bias=True),
    *_linear(f"{_BLOCK[0]}/attn/proj", f"{_BLOCK[1]}.attn.proj", bias=True, inputs=2),
    *_norm(f"{_BLOCK[0]}/norm2", f"{_BLOCK[1]}.norm2", bias=True),
    *_linear(f"{_BLOCK[0]}/mlp/fc1", f"{_BLOCK[1]}.mlp.fc1", bias=True),
    *_linear(f"{_BLOCK[0]}/mlp/fc2", f"{_BLOCK[1]}.mlp.fc2", bias=True),
    *_norm("projector/norm", "visual.merger.ln_q", bias=True),
    *_linear("projector/fc1", "visual.merger.mlp.0", bias=True),
    *_linear("projector/fc2", "visual.merger.mlp.2", bias=True),
    Entry("decoder/embed/embedding", "model.embed_tokens.weight", "table"),
    *_norm(f"{_LAYER[0]}/norm1", f"{_LAYER[1]}.input_layernorm", bias=False),
    *_linear(f"{_LAYER[0]}/attn/q", f"{_LAYER[1]}.self_attn.q_proj", bias=True),
    *_linear(f"{_LAYER[0]}/attn/k", f"{_LAYER[1]}.self_attn.k_proj", bias=True),
    *_linear(f"{_LAYER[0]}/attn/v", f"{_LAYER[1]}.self_attn.v_proj", bias=True),
    *_linear(f"{_LAYER[0]}/attn/o", f"{_LAYER[1]}.self_attn.o_proj", bias=False, inputs=2),
    *_norm(f"{_LAYER[0]}/norm2", f"{_LAYER[1]}.post_attention_layernorm", bias=False),
    *_linear(f"{_LAYER[0]}/mlp/gate", f"{_LAYER[1]}.mlp.gate_proj", bias=False),
    *_linear(f"{_LAYER[0]}/mlp/up", f"{_LAYER[1]}.mlp.up_proj", bias=False),
    *_linear(f"{_LAYER[0]}/mlp/down", f"{_LAYER[1]}.mlp.down_proj", bias=False),
    *_norm("decoder/norm", "model.norm", bias=False),
    Entry("decoder/head/kernel", "lm_head.weight", "table"),  # untied models only
)


class Tensor(NamedTuple):
    """One Hugging Face tensor: its name and shape, and which layer of which parameter it is."""

    name: str
    shape: tuple[int, ...]
    entry: Entry
    layer: int | None
    ours: tuple[int, ...]  # shape of the parameter here, without the layers axis


def tensors(config: ModelConfig) -> Iterator[Tensor]:
    """Every tensor of a Hugging Face file of this model, in the order of the table and then of the layers."""
    params = abstract_params(config)
    for entry in TABLE:
        if entry.path == "decoder/head/kernel" and config.tied_head:
            continue
        leaf: Any = params
        for key in entry.path.split("/"):
            leaf = leaf[key]
        stacked = "{}" in entry.hf
        for layer in range(leaf.shape[0]) if stacked else [None]:
            ours = leaf.shape[1:] if stacked else leaf.shape
            yield Tensor(entry.hf.format(layer), _hf_shape(entry, ours, config), entry, layer, ours)


def _hf_shape(entry: Entry, ours: tuple[int, ...], config: ModelConfig) -> tuple[int, ...]:
    if entry.kind == "linear":
        return math.prod(ours[entry.inputs :]), math.prod(ours[: entry.inputs])
    if entry.kind == "patch":
        vision = config.vision
        return vision.width, vision.channels, vision.temporal_patch_size, vision.patch_size, vision.patch_size
    return (math.prod(ours),) if entry.kind == "vector" else ours


def to_ours(tensor: Tensor, value: np.ndarray) -> np.ndarray:
    if tensor.entry.kind in ("linear", "patch"):
        value = value.reshape(tensor.shape[0], -1).T
    return value.reshape(tensor.ours)


def to_hf(tensor: Tensor, value: np.ndarray) -> np.ndarray:
    if tensor.entry.kind in ("linear", "patch"):
        value = value.reshape(-1, tensor.shape[0]).T
    return np.ascontiguousarray(value.reshape(tensor.shape))


def hub_name(name: str) -> str:
    """The on-disk name of a tensor that may be called as transformers 5 does in memory."""
    for memory, disk in (("model.visual.", "visual."), ("model.language_model.", "model.")):
        if name.startswith(memory):
            return disk + name.removeprefix(memory)
    return name
