"""The parameters of a checkpoint piece by piece, in numpy: how a model larger than memory is written and read.

Orbax writes what a TypeHandler gives it for a leaf. The leaves here are promises (`Readable`): each is read, summed and
written a few rows at a time before the next one is looked at. Reading opens single arrays with TensorStore and compares
their checksums. What is written is an ordinary checkpoints/0, for load_params and for everything that starts from it.
"""

import dataclasses
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import orbax.checkpoint as ocp
import tensorstore as ts
from flax.traverse_util import flatten_dict, unflatten_dict

from umit_jax.model.config import ModelConfig
from umit_jax.model.lora import ADAPTER, merge_kernel, plan, trainable
from umit_jax.model.param import abstract_params
from umit_jax.newfile import NewFile
from umit_jax.pieces import for_each, rows_at_once, rows_of, scratch
from umit_jax.train.checkpoint import CheckpointError, check_same, read_data, reading, saved_parameters, saving, seal
from umit_jax.train.weights import check_base, lora_of
from umit_jax.train.workdir import absolute, noted

_CHUNK = 64_000_000  # bytes read at once at most, by a process that wants a part of a parameter
_PLACES = 1 << 17  # values summed at once: they stay in the cache
_MAPPED = {"file_io_mode": {"mode": "memmap"}}  # what is in the page cache is not copied to be looked at
Use = Callable[[slice, np.ndarray], Any]


class Readable(Protocol):
    """A parameter that can be read when its turn comes."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype: ...
    def each(self, rows: int, use: Use) -> None:
        """use(part, values) for every `rows` rows of the first axis, in several threads and any order; values are
        another's as soon as `use` returns."""
        ...


class _Promise:
    """What Orbax holds in place of an array: it looks at shape, dtype and size of a leaf before it is written."""

    def __init__(self, leaf: Readable):
        self.leaf, self.shape, self.dtype = leaf, leaf.shape, leaf.dtype
        self.ndim, self.size = len(leaf.shape), int(np.prod(leaf.shape))
        self.nbytes = self.size * leaf.dtype.itemsize


class _PromiseHandler(ocp.type_handlers.NumpyHandler):
    """Writes promises one after the other, each piece by piece as a zarr array, and notes the checksum of each."""

    def __init__(self, sums: dict[str, int]):
        super().__init__()
        self._sums = sums

    async def serialize(self, values: Sequence[Any], infos: Sequence[Any], args: Sequence[Any] | None = None) -> Any:
        del args
        for value, info in zip(values, infos, strict=True):
            await info.await_path_creation()
            folder, array = pathlib.Path(info.parent_dir) / info.name, _array(value.shape, value.dtype)
            kvstore = {"driver": "file", "path": f"{folder}/"}
            await ts.open({"driver": "zarr3", "kvstore": kvstore, "metadata": array}, create=True)
            chunk = array["chunk_grid"]["configuration"]["chunk_shape"]
            self._sums[info.name.replace(".", "/")] = _write(value.leaf, folder, chunk)
        return []


def _array(shape: tuple[int, ...], dtype: np.dtype) -> dict[str, Any]:
    """Zarr's description of an array in which a chunk is some rows of the first axis, or a part of one that is large.

    Not compressed: random-looking weights shrink little, and it would take longer than everything else together.
    """
    chunk = [rows_at_once(shape, dtype), *shape[1:]]
    if len(shape) > 1:
        parts = -(-math.prod(chunk) * dtype.itemsize // _CHUNK)
        chunk[1] = -(-chunk[1] // parts)
    return {
        "shape": shape,
        "data_type": dtype.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunk}},
        "codecs": [{"name": "bytes"}],
    }


def _write(leaf: Readable, folder: pathlib.Path, chunk: Sequence[int]) -> int:
    """Writes the chunks of a parameter, as zarr lays them out, and returns its checksum.

    TensorStore would write each in one call, for which the kernel takes pages that may have to be fetched first.
    """
    sums: list[int] = []

    def write(part: slice, values: np.ndarray) -> None:
        sums.append(checksum(values, part.start * (values.size // len(values))))
        row = part.start // chunk[0]
        if values.ndim == 1:
            _write_chunk(folder / "c" / str(row), values, chunk)
            return
        for column, columns in enumerate(rows_of(values.shape[1], chunk[1])):
            index = (row, column, *[0] * (values.ndim - 2))
            _write_chunk(folder.joinpath("c", *map(str, index)), values[:, columns], chunk)

    leaf.each(chunk[0], write)
    return sum(sums) % 2**32


def _write_chunk(path: pathlib.Path, values: np.ndarray, chunk: Sequence[int]) -> None:
    """The last chunks are stored whole too: what the array has not is zeros."""
    if values.shape != tuple(chunk):
        whole = np.zeros(chunk, values.dtype)
        whole[tuple(map(slice, values.shape))] = values
        values = whole
    path.parent.mkdir(parents=True, exist_ok=True)
    with NewFile(path) as file:
        file.write(0, np.ascontiguousarray(values))


def save_leaves(workdir: pathlib.Path, leaves: Mapping[str, Readable]) -> None:
    """Writes parameters by path as checkpoints/0, for load_params. Raises SaveError, as when the disk is full."""
    sums: dict[str, int] = {}
    step = absolute(workdir / "checkpoints" / "0")
    tree = {
        "params": unflatten_dict(_promises(leaves), sep="/"),
        "frozen": {},
        "opt": {},
        "step": np.zeros((), np.int32),
    }
    kinds = (_Promise, _PromiseHandler(sums)), (np.ndarray, ocp.type_handlers.NumpyHandler())
    registry = ocp.type_handlers.create_type_handler_registry(*kinds)
    handler = ocp.PyTreeCheckpointHandler(type_handler_registry=registry, use_ocdbt=False, use_zarr3=True)
    step.mkdir(parents=True)
    with saving(step):
        with ocp.Checkpointer(handler) as writer:
            writer.save(step / "state", args=ocp.args.PyTreeSave(tree))
        with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as writer:
            data = seal({"position": 0, "totals": {}, "checksums": {**sums, "step": 0}})
            writer.save(step / "data", args=ocp.args.JsonSave(data))


def _promises(leaves: Mapping[str, Readable]) -> dict[str, _Promise]:
    return {path: _Promise(leaf) for path, leaf in leaves.items()}


class LeafReader:
    """The parameters of a checkpoints/<step> folder, trained and frozen, by path and one at a time; with config.lora
    set, those that a LoRA run trains.

    Raises CheckpointError for a damaged checkpoint, or one of another model, naming the first parameter that differs.
    """

    def __init__(self, checkpoint: pathlib.Path, config: ModelConfig):
        self._checkpoint = absolute(checkpoint)
        self._saved = saved_parameters(self._checkpoint)
        expected = flatten_dict(abstract_params(config), sep="/")
        if config.lora is not None:
            expected = {path: expected[path] for path in trainable(config)}
        check_same(self._checkpoint, self.shapes, {path: like.shape for path, like in expected.items()})
        self._sums = read_data(self._checkpoint)["checksums"]

    @property
    def dtypes(self) -> dict[str, np.dtype]:
        return {path: np.dtype(like.dtype) for path, (_, like) in self._saved.items()}

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {path: tuple(like.shape) for path, (_, like) in self._saved.items()}

    def read(self, path: str) -> np.ndarray:
        """One parameter in the dtype it is saved in."""
        found: list[np.ndarray] = []
        self.each(path, lambda _, values: found.append(values), whole=True)
        return found[0]

    def each(self, path: str, use: Use, *, whole: bool = False) -> None:
        """use(part, values) for every few rows of the first axis, in several threads and any order; `whole`: once, for
        all of it. values are another's as soon as `use` returns.

        Raises CheckpointError where it is damaged, which is known when all of it has been read.
        """
        name, like = self._saved[path]
        with reading(self._checkpoint):
            store = _open(self._checkpoint / "state", name)
        sums: list[int] = []

        def load(part: slice, into: np.ndarray) -> np.ndarray:
            with reading(self._checkpoint):
                ts.array(into).write(store[part]).result()
            sums.append(checksum(into, part.start * (into.size // len(into))))
            return into

        def piece(part: slice) -> None:
            use(part, load(part, scratch("read", (part.stop - part.start, *shape[1:]), like.dtype)))

        shape, chunk = tuple(like.shape), store.chunk_layout.read_chunk.shape[0]
        few = rows_at_once(shape, like.dtype)
        parts = rows_of(shape[0], shape[0] if whole else max(few // chunk, 1) * chunk)
        if len(parts) > 1:
            for_each(piece, parts)
        else:  # one chunk has all layers: it is read once, and used piece by piece
            value = load(parts[0], np.empty(shape, like.dtype))
            for_each(lambda part: use(part, value[part]), parts if whole else rows_of(shape[0], few))
        found, expected = sum(sums) % 2**32, self._sums.get(name)
        if found != expected:
            raise CheckpointError(
                f"{self._checkpoint}: damaged checkpoint: {name}: expected checksum {expected}, found {found}"
            )


def _open(state: pathlib.Path, name: str) -> ts.TensorStore:
    """One array as Orbax lays it out: in a database of all arrays, or in a folder of its own."""
    folder = name.replace("/", ".") + "/"
    bucket, _, below = str(state).removeprefix("gs://").partition("/")
    there = {"driver": "gcs", "bucket": bucket} if "://" in str(state) else {"driver": "file"}
    path = below if "bucket" in there else str(state)
    kvstore: dict[str, Any] = {**there, "path": f"{path}/{folder}"}
    if (state / "manifest.ocdbt").exists():
        kvstore = {"driver": "ocdbt", "base": {**there, "path": f"{path}/"}, "path": folder}
    return ts.open({"driver": "auto", "kvstore": kvstore}, open=True, context=ts.Context(_MAPPED)).result()


class MergedLeaves:
    """The parameters of a LoRA run over its base, each in the dtype of the base; a layer at a time is in float32."""

    def __init__(self, checkpoint: pathlib.Path, config: ModelConfig, base: pathlib.Path | None):
        data = read_data(checkpoint)
        below = base or noted(data["base"]["path"])
        check_base(checkpoint, data, below)
        adapted = dataclasses.replace(config, lora=lora_of(data))
        self._own, self._base = LeafReader(checkpoint, adapted), open_leaves(below, config)
        self._plan = plan(adapted)

    @property
    def dtypes(self) -> Mapping[str, np.dtype]:
        return self._base.dtypes

    def each(self, path: str, use: Use, *, whole: bool = False) -> None:
        """As LeafReader.each."""
        adapter = self._plan.adapters.get(path)
        if path in self._plan.full:
            dtype = self.dtypes[path]
            self._own.each(path, lambda part, values: use(part, values.astype(dtype)), whole=whole)
        elif adapter is None:
            self._base.each(path, use, whole=whole)
        else:
            stem = path.removesuffix("kernel")
            a, b = (self._own.read(f"{stem}{name}") for name in ADAPTER)

            def merge(part: slice, values: np.ndarray) -> None:
                pairs = zip(values, a[part], b[part], strict=True) if adapter.layout.layers else [(values, a, b)]
                for kernel, left, right in pairs:
                    kernel[...] = np.asarray(merge_kernel(kernel, left, right, adapter))
                use(part, values)

            self._base.each(path, merge, whole=whole or not adapter.layout.layers)


def open_leaves(
    checkpoint: pathlib.Path, config: ModelConfig, base: pathlib.Path | None = None
) -> LeafReader | MergedLeaves:
    """The model's parameters of any checkpoints/<step> folder. base: where the base of a LoRA run is now, if it has
    moved."""
    if lora_of(read_data(checkpoint)) is None:
        return LeafReader(checkpoint, config)
    return MergedLeaves(checkpoint, config, base)


def checksum(array: np.ndarray, first: int = 0) -> int:
    """train.checkpoint.checksums of one array, on the host: sum of bits x (2 x place + 1) modulo 2**32. first: place of
    the first value, of a part of an array."""
    bits = np.ascontiguousarray(array).reshape(-1).view(np.dtype(f"u{array.dtype.itemsize}"))
    odd = 2 * np.arange(min(_PLACES, bits.size), dtype=np.uint32) + 1
    total, wide = 0, np.empty_like(odd)
    for start in range(0, bits.size, _PLACES):
        piece = bits[start : start + _PLACES]
        values = wide[: piece.size]
        values[...] = piece  # widened once: numpy multiplies and adds arrays of one dtype several times faster
        total += 2 * (first + start) * int(values.sum(dtype=np.uint32))
        np.multiply(values, odd[: piece.size], out=values)
        total += int(values.sum(dtype=np.uint32))
    return total % 2**32
