"""Writes a Hugging Face directory that AutoModelForImageTextToText and AutoProcessor load.

Weights carry the hub's names, in files of at most `shard_bytes` with model.safetensors.index.json when there is more
than one. Parameters are read one by one and written at once; the directory gets its name when it is whole.

A tensor keeps the dtype of its parameter. That of a model that was imported goes back to the dtype it was imported in
where that loses nothing, so that an import that was not trained leaves as it came, tensor by tensor.
"""

import collections
import itertools
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from tqdm import tqdm

from umit_jax.convert import origin
from umit_jax.convert.aside import whole_directory
from umit_jax.convert.from_hf import flat
from umit_jax.convert.keymap import THREADS, Tensor, tensors, to_hf
from umit_jax.convert.processor import write_companions, write_json
from umit_jax.convert.tensorfile import Spec, write_file
from umit_jax.convert.weights import INDEX
from umit_jax.model.config import ModelConfig

SHARD_BYTES = 5 * 10**9


class Written(NamedTuple):
    tensors: int
    bytes: int  # of the weights
    dtypes: dict[str, int]  # tensors by dtype


class Source(Protocol):
    """Parameters by path, read one at a time."""

    @property
    def dtypes(self) -> Mapping[str, np.dtype]: ...
    def read(self, path: str) -> np.ndarray: ...


class TreeSource:
    """Parameters that are in memory: a nested dict of arrays of any kind."""

    def __init__(self, params: dict[str, Any]):
        self._leaves = flat(params)
        self.dtypes = {path: np.dtype(leaf.dtype) for path, leaf in self._leaves.items()}

    def read(self, path: str) -> np.ndarray:
        return np.asarray(self._leaves[path])


class _Last:
    """The source with the parameter read last at hand: its layers are asked for one after the other."""

    def __init__(self, source: Source):
        self._source, self._path, self._value = source, "", np.empty(0)

    def parameter(self, path: str) -> np.ndarray:
        if self._path != path:
            self._value = np.empty(0)  # gone before the next one comes
            self._value = self._source.read(path)
            self._path = path
        return self._value

    def tensor(self, tensor: Tensor) -> np.ndarray:
        """One Hugging Face tensor's values, in our layout and dtype."""
        value = self.parameter(tensor.entry.path)
        return value if tensor.layer is None else value[tensor.layer]

    def values(self, shard: list[tuple[Spec, Tensor]]) -> Iterator[np.ndarray]:
        """The tensors as they are written. A few layers of one parameter are turned while the one before is written;
        the next parameter is read when all of this one are done."""

        def turn(tensor: Tensor, value: np.ndarray, dtype: np.dtype) -> np.ndarray:
            return to_hf(tensor, value.astype(dtype, copy=False))

        with ThreadPoolExecutor(THREADS) as pool:
            for _, group in itertools.groupby(shard, key=lambda item: item[1].entry.path):
                turning: collections.deque[Future[np.ndarray]] = collections.deque()
                for spec, tensor in group:
                    turning.append(pool.submit(turn, tensor, self.tensor(tensor), spec.dtype))
                    if len(turning) > THREADS:
                        yield turning.popleft().result()
                while turning:
                    yield turning.popleft().result()


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
    last, chosen = _Last(source), {}
    for tensor in tensors(config):
        have = source.dtypes[tensor.entry.path]
        want = kept.dtypes.get(tensor.name, have)
        lossless = want == have or (want.itemsize < have.itemsize and _survives(last.tensor(tensor), want))
        chosen[tensor.name] = want if lossless else have
    return chosen


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
    where: dict[str, str] = {}
    total = sum(spec.nbytes for shard in shards for spec, _ in shard)
    with tqdm(total=total, unit="B", unit_scale=True, desc="export", disable=None) as bar:
        last = _Last(source)
        for number, shard in enumerate(shards, start=1):
            name = "model.safetensors" if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
            write_file(out_dir / name, [spec for spec, _ in shard], last.values(shard), bar.update)
            where |= {spec.name: name for spec, _ in shard}
    if len(shards) > 1:
        write_json(out_dir / INDEX, {"metadata": {"total_size": total}, "weight_map": where})
    names = [str(dtype) for dtype in dtypes.values()]
    return Written(len(where), total, {name: names.count(name) for name in sorted(set(names))})


def _shards(
    config: ModelConfig, dtypes: dict[str, np.dtype], copies: Mapping[str, str], shard_bytes: int
) -> Iterator[list[tuple[Spec, Tensor]]]:
    """Tensors in order, cut where the next would exceed shard_bytes; in a file the wider dtypes first, so that each
    tensor lies at a multiple of its width."""
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
    return sorted(shard, key=lambda item: -item[0].dtype.itemsize)
