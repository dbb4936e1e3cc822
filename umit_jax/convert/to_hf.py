"""Writes a Hugging Face Qwen2-VL directory that AutoModelForImageTextToText and AutoProcessor load.

Weights carry the hub's names, in files of at most `shard_bytes` with model.safetensors.index.json when there is more
than one. Everything is written beside the target and renamed when complete, so a directory that holds a config.json
is whole.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from umit_jax.convert.keymap import Tensor, tensors, to_hf
from umit_jax.convert.processor import write_json, write_processor
from umit_jax.model.config import ModelConfig

SHARD_BYTES = 5 * 10**9


class Written(NamedTuple):
    tensors: int
    bytes: int  # of the weights


def write_hf(
    params: dict[str, Any],
    config: ModelConfig,
    out_dir: str | Path,
    model_dir: str | Path,
    *,
    chat_template: str,
    shard_bytes: int = SHARD_BYTES,
) -> Written:
    """The whole directory. params: arrays of any kind, kept in their dtype. model_dir: tokenizer and preprocess.json.
    chat_template: the conversation format as a Jinja template for apply_chat_template.

    Raises CheckpointError for an incomplete model_dir; an OSError (disk full) leaves nothing behind.
    """
    out_dir = Path(out_dir)
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(dir=out_dir.parent, prefix=f".{out_dir.name}."))
    try:
        write_processor(config, Path(model_dir), aside, chat_template)
        written = write_safetensors(params, config, aside, shard_bytes=shard_bytes)
        dtype = np.dtype(params["decoder"]["embed"]["embedding"].dtype).name
        write_json(aside / "config.json", config.to_hf() | {"torch_dtype": dtype})
        out_dir.mkdir(exist_ok=True)
        names = sorted((path.name for path in aside.iterdir()), key=lambda name: (name == "config.json", name))
        for name in names:  # config.json last
            os.replace(aside / name, out_dir / name)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return written


def write_safetensors(
    params: dict[str, Any], config: ModelConfig, out_dir: Path, *, shard_bytes: int = SHARD_BYTES
) -> Written:
    """The weights alone, one shard in memory at a time."""
    shards = list(_shards(params, config, shard_bytes))
    where, total = {}, 0
    for number, shard in enumerate(shards, start=1):
        name = "model.safetensors" if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        arrays = {tensor.name: to_hf(tensor, np.asarray(_leaf(params, tensor))) for tensor in shard}
        try:
            save_file(arrays, out_dir / name, metadata={"format": "pt"})
        except SafetensorError as error:
            raise OSError(f"{out_dir / name}: {error}") from error
        where |= dict.fromkeys(arrays, name)
        total += sum(array.nbytes for array in arrays.values())
    if len(shards) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": where}
        write_json(out_dir / "model.safetensors.index.json", index)
    return Written(len(where), total)


def _shards(params: dict[str, Any], config: ModelConfig, shard_bytes: int) -> Iterator[list[Tensor]]:
    """Tensors in order, cut where the next would exceed shard_bytes."""
    shard: list[Tensor] = []
    size = 0
    for tensor in tensors(config):
        nbytes = int(np.prod(tensor.shape)) * np.dtype(_parameter(params, tensor).dtype).itemsize
        if shard and size + nbytes > shard_bytes:
            yield shard
            shard, size = [], 0
        shard.append(tensor)
        size += nbytes
    yield shard


def _parameter(params: dict[str, Any], tensor: Tensor) -> Any:
    node = params
    for key in tensor.entry.path.split("/"):
        node = node[key]
    return node


def _leaf(params: dict[str, Any], tensor: Tensor) -> Any:
    value = _parameter(params, tensor)
    return value if tensor.layer is None else value[tensor.layer]
