"""One parameter of a checkpoint at a time, in numpy: how a model larger than memory is written and read.

Orbax writes what a TypeHandler gives it for a leaf. The leaves here are promises (`Readable`): each is read, summed
and written before the next one is looked at. Reading restores single leaves (a partial restore) and compares their
checksums. What is written is an ordinary checkpoints/0, for load_params and for everything that starts from it.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore as ts
from flax.traverse_util import flatten_dict, unflatten_dict

from umit_jax.model.config import ModelConfig
from umit_jax.model.lora import ADAPTER, merge_kernel, plan, trainable
from umit_jax.model.param import abstract_params
from umit_jax.train.checkpoint import CheckpointError, check_same, read_data, reading, saved_parameters, saving, seal
from umit_jax.train.weights import check_base, lora_of

_CHUNK = 64_000_000  # bytes read at once at most, by a process that wants a part of a parameter
_PIECE = 1 << 17  # values summed at once: they stay in the cache
_NO_SYNC = ts.Context.Spec({"file_io_sync": False})  # the system writes when it sees fit, as for a copied file


class Readable(Protocol):
    """A parameter that can be read when its turn comes."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype: ...
    def read(self) -> np.ndarray: ...


class _Promise:
    """What Orbax holds in place of an array: it looks at shape, dtype and size of a leaf before it is written."""

    def __init__(self, leaf: Readable):
        self.leaf, self.shape, self.dtype = leaf, leaf.shape, leaf.dtype
        self.ndim, self.size = len(leaf.shape), int(np.prod(leaf.shape))
        self.nbytes = self.size * leaf.dtype.itemsize


class _PromiseHandler(ocp.type_handlers.NumpyHandler):
    """Writes promises one after the other and notes the checksum of each."""

    def __init__(self, sums: dict[str, int]):
        super().__init__(deepcopy_host_arrays=False)
        self._sums = sums

    async def serialize(self, values: Sequence[Any], infos: Sequence[Any], args: Sequence[Any] | None = None) -> Any:
        for value, info, arg in zip(values, infos, args or [ocp.SaveArgs()] * len(values), strict=True):
            array = value.leaf.read()
            quick = info.replace(ts_context=ts.Context(_NO_SYNC, parent=info.ts_context))
            written = list(await super().serialize([array], [quick], [arg]))
            self._sums[info.name.replace(".", "/")] = checksum(array)  # while it is being written
            while written:  # the futures hold the array: none may live on while the next one is read
                written.pop().result()
            del array
        return []


class _Step:
    shape, dtype = (), np.dtype(np.int32)

    def read(self) -> np.ndarray:
        return np.zeros(self.shape, self.dtype)


def save_leaves(workdir: pathlib.Path, leaves: Mapping[str, Readable]) -> None:
    """Writes parameters by path as checkpoints/0, for load_params. Raises SaveError, as when the disk is full.

    Not compressed: random-looking weights shrink little, and it would take longer than everything else together.
    """
    sums: dict[str, int] = {}
    step = (workdir / "checkpoints" / "0").resolve()
    tree = {"params": unflatten_dict(_promises(leaves), sep="/"), "frozen": {}, "opt": {}, "step": _Promise(_Step())}
    registry = ocp.type_handlers.create_type_handler_registry((_Promise, _PromiseHandler(sums)))
    handler = ocp.PyTreeCheckpointHandler(type_handler_registry=registry, use_compression=False)
    step.mkdir(parents=True)
    with saving(step):
        with ocp.Checkpointer(handler) as writer:
            arguments = jax.tree.map(_chunked, tree)
            writer.save(step / "state", args=ocp.args.PyTreeSave(tree, save_args=arguments))
        with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as writer:
            data = seal({"position": 0, "totals": {}, "checksums": sums})
            writer.save(step / "data", args=ocp.args.JsonSave(data))


def _promises(leaves: Mapping[str, Readable]) -> dict[str, _Promise]:
    return {path: _Promise(leaf) for path, leaf in leaves.items()}


def _chunked(leaf: _Promise) -> ocp.SaveArgs:
    """Stacked layers are stored a layer (or less) a chunk, so that a part can be read without the rest."""
    return ocp.SaveArgs(chunk_byte_size=_CHUNK, shard_axes=(0,) if leaf.ndim > 2 else ())


class LeafReader:
    """The parameters of a checkpoints/<step> folder, trained and frozen, by path and one at a time; with config.lora
    set, those that a LoRA run trains.

    Raises CheckpointError for a damaged checkpoint, or one of another model, naming the first parameter that differs.
    """

    def __init__(self, checkpoint: pathlib.Path, config: ModelConfig):
        self._checkpoint = checkpoint.resolve()
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
        name, like = self._saved[path]
        item = unflatten_dict({name: jax.ShapeDtypeStruct(like.shape, like.dtype)}, sep="/")
        as_numpy = unflatten_dict({name: ocp.RestoreArgs(restore_type=np.ndarray)}, sep="/")
        with reading(self._checkpoint), ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
            arguments = ocp.args.PyTreeRestore(item=item, restore_args=as_numpy, partial_restore=True)
            (array,) = jax.tree.leaves(reader.restore(self._checkpoint / "state", args=arguments))
        found, expected = checksum(array), self._sums.get(name)
        if found != expected:
            raise CheckpointError(
                f"{self._checkpoint}: damaged checkpoint: {name}: expected checksum {expected}, found {found}"
            )
        return array


class MergedLeaves:
    """The parameters of a LoRA run over its base, each in the dtype of the base; a layer at a time is in float32."""

    def __init__(self, checkpoint: pathlib.Path, config: ModelConfig, base: pathlib.Path | None):
        data = read_data(checkpoint)
        below = base or pathlib.Path(data["base"]["path"])
        check_base(checkpoint, data, below)
        adapted = dataclasses.replace(config, lora=lora_of(data))
        self._own, self._base = LeafReader(checkpoint, adapted), open_leaves(below, config)
        self._plan = plan(adapted)

    @property
    def dtypes(self) -> Mapping[str, np.dtype]:
        return self._base.dtypes

    def read(self, path: str) -> np.ndarray:
        if path in self._plan.full:
            return self._own.read(path).astype(self.dtypes[path])
        value, adapter = self._base.read(path), self._plan.adapters.get(path)
        if adapter is None:
            return value
        value = value if value.flags.writeable else value.copy()
        stem = path.removesuffix("kernel")
        parts = value, *(self._own.read(f"{stem}{name}") for name in ADAPTER)
        for kernel, a, b in zip(*parts, strict=True) if adapter.layout.layers else [parts]:
            kernel[...] = np.asarray(merge_kernel(kernel, a, b, adapter))
        return value


def open_leaves(
    checkpoint: pathlib.Path, config: ModelConfig, base: pathlib.Path | None = None
) -> LeafReader | MergedLeaves:
    """The model's parameters of any checkpoints/<step> folder. base: where the base of a LoRA run is now, if it has
    moved."""
    if lora_of(read_data(checkpoint)) is None:
        return LeafReader(checkpoint, config)
    return MergedLeaves(checkpoint, config, base)


def checksum(array: np.ndarray) -> int:
    """train.checkpoint.checksums of one array, on the host: sum of bits x (2 x place + 1) modulo 2**32."""
    bits = np.ascontiguousarray(array).reshape(-1).view(np.dtype(f"u{array.dtype.itemsize}"))
    odd = 2 * np.arange(min(_PIECE, bits.size), dtype=np.uint32) + 1
    total = 0
    for start in range(0, bits.size, _PIECE):
        piece = bits[start : start + _PIECE].astype(np.uint32)
        total += int(np.dot(piece, odd[: piece.size])) + 2 * start * int(piece.sum(dtype=np.uint32))
    return total % 2**32
