"""Tensors of a Hugging Face file and the parameters here that they are; names come from names.py, by family.

| kind   | here                                 | Hugging Face                                                     |
| linear | kernel (in axes ..., out axes ...)   | weight (out, in), axes flattened                                 |
| vector | any shape                            | flattened                                                        |
| table  | (rows, width)                        | the same                                                         |
| patch  | kernel (C, E), C = (channel, t, y, x)| Conv3d weight (E, channel, t, y, x)                              |

The names are the hub's, which save_pretrained of transformers 5 also writes; `hub_name` maps the names transformers 5
uses in memory to them.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from umit_jax.convert.names import Entry
from umit_jax.model import families
from umit_jax.model.config import ModelConfig
from umit_jax.model.param import abstract_params

_BLOCK_WIDTH = 128


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
    for entry in families.of(config).names:
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


def hf_view(tensor: Tensor) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(shape, order): value.reshape(shape).transpose(order) of a Hugging Face tensor is one layer of ours."""
    if tensor.entry.kind not in ("linear", "patch"):
        return tensor.ours, tuple(range(len(tensor.ours)))
    inputs = tensor.entry.inputs
    outputs = len(tensor.ours) - inputs
    order = (*range(outputs, len(tensor.ours)), *range(outputs))
    return tensor.ours[inputs:] + tensor.ours[:inputs], order


def to_ours(tensor: Tensor, value: np.ndarray) -> np.ndarray:
    """A view where numpy can make one."""
    shape, order = hf_view(tensor)
    return value.reshape(shape).transpose(order)


def to_hf(tensor: Tensor, value: np.ndarray, into: np.ndarray | None = None) -> np.ndarray:
    """In new memory, or in an array of the tensor's shape."""
    shape, order = hf_view(tensor)
    made = np.empty(tensor.shape, value.dtype) if into is None else into
    copy_blocks(made.reshape(shape).transpose(order), value)
    return made


def copy_blocks(out: np.ndarray, value: np.ndarray) -> None:
    """out[...] = value; where one is a transposed view, in blocks of what lies side by side in `out`, so that the rows
    read for one stay in the cache. Values of one dtype are copied as unsigned integers: numpy has a loop of its own for
    those, bfloat16 goes through a call for each value."""
    if out.dtype == value.dtype:
        out, value = (array.view(f"u{array.dtype.itemsize}") for array in (out, value))
    if out.ndim < 2 or (out.flags.c_contiguous and value.flags.c_contiguous):
        out[...] = value
        return
    shape = _merged_shape(out, value)  # as numpy's own loop would see it, which else undoes the blocks
    out, value = out.reshape(shape), value.reshape(shape)
    axis = out.strides.index(min(out.strides))
    for start in range(0, shape[axis], _BLOCK_WIDTH):
        block = (*[slice(None)] * axis, slice(start, start + _BLOCK_WIDTH))
        out[block] = value[block]


def _merged_shape(*arrays: np.ndarray) -> tuple[int, ...]:
    """Their shape with neighbouring axes made one where all of them have these side by side in memory."""
    shape: list[int] = []
    for axis, size in enumerate(arrays[0].shape):
        if shape and all(a.strides[axis - 1] == a.strides[axis] * size for a in arrays):
            shape[-1] *= size
        else:
            shape.append(size)
    return tuple(shape)


def hub_name(name: str) -> str:
    """The on-disk name of a tensor that may be called as transformers 5 does in memory."""
    for memory, disk in (("model.visual.", "visual."), ("model.language_model.", "model.")):
        if name.startswith(memory):
            return disk + name.removeprefix(memory)
    return name


def memory_name(name: str) -> str:
    """The name that transformers 5 has in memory for a tensor of this name on disk: the inverse of hub_name."""
    for memory, disk in (("model.visual.", "visual."), ("model.language_model.", "model.")):
        if name.startswith(disk):
            return memory + name.removeprefix(disk)
    return name
