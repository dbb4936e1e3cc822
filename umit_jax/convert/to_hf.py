"""Writes a Hugging Face directory that AutoModelForImageTextToText and AutoProcessor load.

Weights carry the hub's names, in files of at most `shard_bytes` with model.safetensors.index.json when there is more
than one. Parameters are read, turned and written piece by piece; the directory gets its name when it is whole.

A tensor keeps the dtype of its parameter. That of a model that was imported goes back to the dtype it was imported in
where that loses nothing, so that an import that was not trained leaves as it came, tensor by tensor.
"""

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from tqdm import tqdm

from umit_jax.convert import origin
from umit_jax.convert.aside import whole_directory
from umit_jax.convert.from_hf import flat
from umit_jax.convert.keymap import Tensor, tensors, to_hf
from umit_jax.convert.processor import write_companions, write_json
from umit_jax.convert.tensorfile import ALIGNED, Put, Spec, new_file
from umit_jax.convert.weights import INDEX
from umit_jax.model.config import ModelConfig
from umit_jax.pieces import for_each, rows_at_once, rows_of, scratch

SHARD_BYTES = 5 * 10**9
Use = Callable[[slice, np.ndarray], Any]


class Written(NamedTuple):
    tensors: int
    bytes: int  # of the weights
    dtypes: dict[str, int]  # tensors by dtype


class Source(Protocol):
    """Parameters by path, read piece by piece."""

    @property
    def dtypes(self) -> Mapping[str, np.dtype]: ...
    def each(self, path: str, use: Use, *, whole: bool = False) -> None:
        """use(part, values) for every few rows of the first axis, in several threads and any order; `whole`: once, for
        all of it. values are another's as soon as `use` returns."""
        ...


class TreeSource:
    """Parameters that are in memory: a nested dict of arrays of any kind."""

    def __init__(self, params: dict[str, Any]):
        self._leaves = flat(params)
        self.dtypes = {path: np.dtype(leaf.dtype) for path, leaf in self._leaves.items()}

    def each(self, path: str, use: Use, *, whole: bool = False) -> None:
        value = np.asarray(self._leaves[path])
        step = len(value) if whole else rows_at_once(value.shape, value.dtype)
        for_each(lambda part: use(part, value[part]), rows_of(len(value), step))


def write_hf(
    params: dict[str, Any] | Source,
    config: ModelConfig,
    out_dir: str | Path,
    model_dir: str | Path,
    *,
    chat_template: str,
    dtype: Any = None,
    shard_bytes: int = SHARD_BYTES,
) -> Written:
    """The whole directory. model_dir: tokenizer, preprocess.json and what an import kept. chat_template: the format of
    the training conversations, for apply_chat_template. dtype: of all tensors; without it see the module.

    Raises CheckpointError for an incomplete model_dir, FileExistsError for an out_dir with anything in it; an OSError
    (disk full) leaves nothing behind.
    """
    source = TreeSource(params) if isinstance(params, dict) else params
    model_dir = Path(model_dir)
    with whole_directory(Path(out_dir)) as aside:
        kept = origin.load(model_dir)
        write_companions(config, model_dir, aside, chat_template)
        dtypes = _dtypes(source, config, kept, dtype)
        written = _write_weights(source, config, aside, dtypes, kept, shard_bytes)
        write_json(aside / "config.json", origin.config_json(config, kept, set(dtypes.values())))
    return written


def write_safetensors(
    params: dict[str, Any] | Source, config: ModelConfig, out_dir: Path, *, shard_bytes: int = SHARD_BYTES
) -> Written:
    """The weights alone, in the dtype they have."""
    source = TreeSource(params) if isinstance(params, dict) else params
    nothing = origin.Origin()
    return _write_weights(source, config, out_dir, _dtypes(source, config, nothing, None), nothing, shard_bytes)


def _dtypes(source: Source, config: ModelConfig, kept: origin.Origin, dtype: Any) -> dict[str, np.dtype]:
    """The dtype to write each tensor in."""
    if dtype is not None:
        return {tensor.name: np.dtype(dtype) for tensor in tensors(config)}
    chosen: dict[str, np.dtype] = {}
    for path, group in _by_path(config).items():
        have = source.dtypes[path]
        want = {tensor.name: kept.dtypes.get(tensor.name, have) for tensor in group}
        narrower = {name for name, dtype in want.items() if dtype.itemsize < have.itemsize}
        chosen |= {name: dtype if name in narrower else have for name, dtype in want.items()}
        if narrower:
            source.each(path, functools.partial(_widen, group, have, chosen))
    return chosen


def _widen(group: list[Tensor], have: np.dtype, chosen: dict[str, np.dtype], part: slice, values: np.ndarray) -> None:
    """Puts `have` back for the tensors of which a narrower dtype would lose something."""
    for tensor, value, _ in _tensors_of(group, part, values):
        if chosen[tensor.name] != have and not _survives(value, chosen[tensor.name]):
            chosen[tensor.name] = have


def _by_path(config: ModelConfig) -> dict[str, list[Tensor]]:
    """The tensors that each parameter is made of: one, or one a layer."""
    groups: dict[str, list[Tensor]] = {}
    for tensor in tensors(config):
        groups.setdefault(tensor.entry.path, []).append(tensor)
    return groups


def _tensors_of(group: list[Tensor], part: slice, values: np.ndarray) -> Iterator[tuple[Tensor, np.ndarray, int]]:
    """(tensor, its values in our layout, the first of its rows there) of rows `part` of a parameter."""
    if group[0].layer is None:
        yield group[0], values, part.start
    else:
        yield from ((tensor, value, 0) for tensor, value in zip(group[part], values, strict=True))


def _survives(value: np.ndarray, dtype: np.dtype) -> bool:
    with np.errstate(over="ignore"):
        back = value.astype(dtype).astype(value.dtype)
    return np.array_equal(back.view(np.uint32), np.ascontiguousarray(value).view(np.uint32))


def _write_weights(
    source: Source,
    config: ModelConfig,
    out_dir: Path,
    dtypes: dict[str, np.dtype],
    kept: origin.Origin,
    shard_bytes: int,
) -> Written:
    shards = list(_shards(config, dtypes, kept.copies, shard_bytes))
    puts: dict[str, list[tuple[str, Put]]] = {}  # of each tensor: the names and files it goes to
    where: dict[str, str] = {}
    total = sum(spec.nbytes for shard in shards for spec, _ in shard)
    with contextlib.ExitStack() as files:
        bar = files.enter_context(tqdm(total=total, unit="B", unit_scale=True, desc="export", disable=None))
        for number, shard in enumerate(shards, start=1):
            name = "model.safetensors" if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
            put = files.enter_context(new_file(out_dir / name, [spec for spec, _ in shard]))
            for spec, tensor in shard:
                puts.setdefault(tensor.name, []).append((spec.name, put))
                where[spec.name] = name

        def write(group: list[Tensor], part: slice, values: np.ndarray) -> None:
            for tensor, value, first in _tensors_of(group, part, values):
                turned = _turned(tensor, value.astype(dtypes[tensor.name], copy=False))
                for name, put in puts[tensor.name]:
                    put(name, turned, first * (turned.nbytes // len(turned)))
                    bar.update(turned.nbytes)

        for path, group in _by_path(config).items():
            turns = group[0].layer is None and group[0].entry.kind != "table"
            source.each(path, functools.partial(write, group), whole=turns)
    if len(shards) > 1:
        write_json(out_dir / INDEX, {"metadata": {"total_size": total}, "weight_map": where})
    names = [str(dtype) for dtype in dtypes.values()]
    return Written(len(where), total, {name: names.count(name) for name in sorted(set(names))})


def _turned(tensor: Tensor, value: np.ndarray) -> np.ndarray:
    """One tensor as it stands in a file, in memory of this thread; any rows of one that is the same there."""
    if tensor.entry.kind in ("table", "vector"):
        return value
    return to_hf(tensor, value, scratch("exported", tensor.shape, value.dtype))


def _shards(
    config: ModelConfig, dtypes: dict[str, np.dtype], copies: Mapping[str, str], shard_bytes: int
) -> Iterator[list[tuple[Spec, Tensor]]]:
    """Tensors in order, cut where the next would exceed shard_bytes."""
    shard: list[tuple[Spec, Tensor]] = []
    size = 0
    copied = {original: copy for copy, original in copies.items()}
    for tensor in tensors(config):
        specs = [Spec(tensor.name, dtypes[tensor.name], tensor.shape)]
        if tensor.name in copied:
            specs.append(specs[0]._replace(name=copied[tensor.name]))
        nbytes = sum(spec.nbytes for spec in specs)
        if shard and size + nbytes > shard_bytes:
            yield _aligned(shard)
            shard, size = [], 0
        shard += [(spec, tensor) for spec in specs]
        size += nbytes
    yield _aligned(shard)


def _aligned(shard: list[tuple[Spec, Tensor]]) -> list[tuple[Spec, Tensor]]:
    """Those first whose size is a multiple of more bytes, up to ALIGNED: so each begins at a multiple of its width, and
    the large ones at one of ALIGNED."""
    return sorted(shard, key=lambda item: -math.gcd(item[0].nbytes, ALIGNED))
