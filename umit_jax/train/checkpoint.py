"""Checkpoints: state and data position together, written in the background, whole or not there at all.

    workdir/checkpoints/<step>/state   Orbax arrays: params, frozen, opt, step
    workdir/checkpoints/<step>/data    JSON: position of the data stream (= steps done), totals, checksum per array

The newest `keep` stay, and the best of the evaluations (train/held_out.py). A LoRA run saves no frozen parameters: its
data names the base they come from (train/base.py).

Orbax writes into a folder of another name and renames it last, so a run that is killed while it saves leaves nothing
that looks like a checkpoint. Its array files have no checksums of their own: ours are computed on the device, do not
depend on the mesh, and are compared on every restore; the data item has a digest of its own.
"""

import contextlib
import copy
import dataclasses
import functools
import hashlib
import json
import logging
import os
import pathlib
import re
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.experimental import multihost_utils

from umit_jax.model.config import ModelConfig
from umit_jax.model.param import abstract_params
from umit_jax.train.pauses import pauses
from umit_jax.train.state import Params, TrainState, merge
from umit_jax.train.workdir import absolute

log = logging.getLogger(__name__)


class CheckpointError(ValueError):
    """A checkpoint that is damaged or of another model; the message names the folder and the parameter."""


class SaveError(OSError):
    """A checkpoint could not be written, as when the disk is full."""


@dataclasses.dataclass(frozen=True)
class Metadata:
    """What a checkpoint says of itself. shapes: of each model parameter by path; position: steps of data consumed."""

    position: int
    shapes: dict[str, tuple[int, ...]]
    optimizer_values: int


class _Kept:
    """Which checkpoints stay, as Orbax asks: the newest, and the step that is the best."""

    def __init__(self, newest: int):
        self.newest = newest
        self.best: int | None = None

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        del context
        steps = [checkpoint.step for checkpoint in checkpoints]
        return [step == self.best or step in sorted(steps)[-self.newest :] for step in steps]


class Checkpointer:
    """Saves and restores one workdir's checkpoints; keeps the newest `keep` and `best`. Use as a context manager.

    A save that fails is tried again for `patience` seconds, each pause twice as long as the one before.
    """

    def __init__(self, workdir: pathlib.Path, keep: int, patience: float = 0.0):
        self.directory = absolute(workdir) / "checkpoints"
        self._patience, self._kept = patience, _Kept(keep)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=self._kept,
            create=True,
            enable_async_checkpointing=True,
            cleanup_tmp_directories=True,  # of runs that were killed while they saved
        )
        self._manager = ocp.CheckpointManager(self.directory, options=options)
        self._saving = 0

    def __enter__(self) -> "Checkpointer":
        return self

    def __exit__(self, kind: type | None, *_: Any) -> None:
        if kind is None:
            self._guard(self._manager.close)
            return
        if jax.process_count() > 1:
            return  # another process may be gone, and closing would wait for it; what is half written is not renamed
        with contextlib.suppress(Exception):  # the run has failed already: a failing save must not hide why
            self._manager.close()

    @property
    def latest(self) -> int | None:
        return self._manager.latest_step()

    def keep_best(self, step: int | None) -> None:
        """This step stays from the next save on, whatever its age, until another is named."""
        self._kept.best = step

    def save(self, state: TrainState, data: dict[str, Any], step: int, wait: bool = False) -> None:
        """Copies the state to the host and goes on; the writing happens in the background unless `wait`.

        Where it fails, or the save before it turns out to have failed, this state is saved while the run waits. Raises
        SaveError once patience is at its end. Collective.
        """
        if step in self._manager.all_steps():
            return
        sealed = seal({"position": step, **data, "checksums": checksums(state._asdict())})
        items = ocp.args.Composite(state=ocp.args.StandardSave(state._asdict()), data=ocp.args.JsonSave(sealed))

        def save() -> None:
            self._manager.save(step, args=items, force=True)

        def save_and_wait() -> None:
            save()
            self._manager.wait_until_finished()

        failure = self._failure(self._manager.wait_until_finished)
        if failure is None:
            self._saving = step
            failure = self._failure(save_and_wait if wait else save)
        for pause in pauses(self._patience):
            if failure is None:
                return
            log.warning("%s; trying again in %g s", failure, pause)
            time.sleep(pause)
            self._saving = step
            failure = self._failure(save_and_wait)
        if failure is not None:
            raise failure

    def wait(self) -> None:
        """Returns when the last save is on disk. Raises SaveError if it failed."""
        failure = self._failure(self._manager.wait_until_finished)
        if failure is not None:
            raise failure

    def restore(self, abstract: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """(state, data) of the newest checkpoint under the shardings of `abstract`, on whatever mesh it was saved."""
        step = self.latest
        assert step is not None
        path = self.directory / str(step)
        saved = _saved_arrays(path)
        if not any(name.startswith("opt/") for name in saved):
            raise CheckpointError(f"{path}: holds parameters only: give it as config.init_from of a new workdir")
        found, wanted = _signature(saved), _signature(_by_path(abstract._asdict()))
        check_same(path, found, wanted)
        state, data = _restore(path, abstract._asdict())
        return TrainState(**state), data

    def _guard(self, action: Callable[[], Any]) -> None:
        with saving(self.directory / str(self._saving)):
            action()

    def _failure(self, action: Callable[[], Any]) -> SaveError | None:
        """What went wrong in `action`, in this process or another: all of them go on alike."""
        failure = None
        try:
            self._guard(action)
        except SaveError as error:
            failure = error
        if jax.process_count() > 1:
            failed = np.flatnonzero(multihost_utils.process_allgather(np.array(failure is not None)))
            if len(failed) and failure is None:
                path = self.directory / str(self._saving)
                failure = SaveError(f"{path}: checkpoint not saved: process {failed[0]} could not write its part")
        return failure


@contextlib.contextmanager
def saving(path: pathlib.Path) -> Iterator[None]:
    """Whatever fails in the block becomes a SaveError naming `path`."""
    # Orbax logs the traceback of a failed background save three times; it reaches the user as one SaveError.
    logging.getLogger("absl").addFilter(_drop_orbax)
    try:
        yield
    except Exception as error:
        code = getattr(error, "errno", None) or re.search(r"os_error_code='(\d+)'", str(error))
        number = int(code[1]) if isinstance(code, re.Match) else code
        why = os.strerror(number) if number else _brief(error)
        raise SaveError(f"{path}: checkpoint not saved: {why}") from error


def saved_parameters(checkpoint: pathlib.Path) -> dict[str, tuple[str, Any]]:
    """Model parameters by path, trained and frozen: (name among the saved arrays, its shape and dtype). Reads none."""
    saved = _saved_arrays(absolute(checkpoint))
    return {
        name.split("/", 1)[1]: (name, like)
        for name, like in saved.items()
        if name.split("/")[0] in ("params", "frozen")
    }


def read_parameter(checkpoint: pathlib.Path, name: str, like: jax.ShapeDtypeStruct, checksum: int | None) -> jax.Array:
    """One saved array under the sharding of `like`. Raises CheckpointError where it is damaged."""
    with reading(checkpoint):
        found = _read_arrays(checkpoint, unflatten_dict({name: like}, sep="/"))
    _check_sums(checkpoint, found, {name: checksum})
    return flatten_dict(found, sep="/")[name]


def load_params(
    checkpoint: pathlib.Path, config: ModelConfig, shardings: Params | None = None, dtype: Any = jnp.float32
) -> Params:
    """All parameters of a checkpoints/<step> folder, trained and frozen, as one tree.

    shardings: tree like the parameters'; without it everything goes to the first device. Raises CheckpointError for
    a checkpoint of another model, naming the first parameter that differs, or a damaged one.
    """
    expected = flatten_dict(abstract_params(config), sep="/")
    if shardings is None:
        one = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        places: dict[str, Any] = dict.fromkeys(expected, one)
    else:
        places = flatten_dict(shardings, sep="/")
    checkpoint = absolute(checkpoint)
    saved = saved_parameters(checkpoint)
    check_same(checkpoint, {p: tuple(saved[p][1].shape) for p in saved}, {p: s.shape for p, s in expected.items()})
    wanted = {
        saved[p][0]: jax.ShapeDtypeStruct(s.shape, saved[p][1].dtype, sharding=places[p]) for p, s in expected.items()
    }
    state, _ = _restore(checkpoint, unflatten_dict(wanted, sep="/"))
    params = merge(state.get("params", {}), state.get("frozen", {}))
    return jax.tree.map(lambda x: x.astype(dtype), params)


def save_params(workdir: pathlib.Path, params: Params, base: dict[str, Any] | None = None) -> None:
    """Writes parameters that no training made (an import) as checkpoints/0, for load_params. base: of adapters, the
    record of what they stand on (train/base.py)."""
    with Checkpointer(workdir, keep=1) as checkpointer:
        checkpointer.save(TrainState(params, {}, {}, jnp.zeros((), jnp.int32)), {"totals": {}, **(base or {})}, 0)


def read_metadata(checkpoint: pathlib.Path) -> Metadata:
    """Reads no array. checkpoint: a checkpoints/<step> folder."""
    checkpoint = absolute(checkpoint)
    saved = _saved_arrays(checkpoint)
    shapes = {path: tuple(like.shape) for path, (_, like) in saved_parameters(checkpoint).items()}
    optimizer_values = sum(int(np.prod(meta.shape)) for p, meta in saved.items() if p.startswith("opt/"))
    return Metadata(read_data(checkpoint)["position"], shapes, optimizer_values)


def _bit_sum(x: jax.Array) -> jax.Array:
    """Sum of (bits of a value) x (an odd number that depends on its place), modulo 2**32: any single flipped bit
    changes it, and integer sums do not depend on how the array is sharded."""
    unsigned = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[x.dtype.itemsize]
    bits = jax.lax.bitcast_convert_type(x, unsigned).astype(jnp.uint32)
    place = jnp.zeros(x.shape, jnp.uint32)
    for axis in range(x.ndim):
        place = place * jnp.uint32(x.shape[axis]) + jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis)
    return jnp.sum(bits * (2 * place + 1), dtype=jnp.uint32)


@functools.cache
def _bit_sums(platform: str) -> Callable[[list[jax.Array]], jax.Array]:
    options = {"xla_backend_optimization_level": 0} if platform == "cpu" else None  # compiles in a fraction of the time
    return jax.jit(lambda leaves: jnp.stack([_bit_sum(leaf) for leaf in leaves]), compiler_options=options)


def checksums(tree: Any) -> dict[str, int]:
    """Checksum of each array by path; collective where arrays span processes."""
    arrays = _by_path(tree)
    platform = next(iter(next(iter(arrays.values())).sharding.device_set)).platform
    sums = np.asarray(_bit_sums(platform)(list(arrays.values())))
    return dict(zip(arrays, sums.tolist(), strict=True))


def _by_path(tree: Any) -> dict[str, Any]:
    """Leaves by their keys joined with "/"."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _signature(arrays: dict[str, Any]) -> dict[str, tuple[tuple[int, ...], str]]:
    return {path: (tuple(x.shape), str(x.dtype)) for path, x in arrays.items()}


def _saved_arrays(checkpoint: pathlib.Path) -> dict[str, Any]:
    """Array metadata (shape, dtype) by path, as saved."""
    try:
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
            metadata = reader.metadata(checkpoint / "state").item_metadata
        if metadata is None:
            raise ValueError("the description of its arrays cannot be read (_METADATA, _sharding)")
        return _by_path(metadata.tree)
    except Exception as error:
        raise CheckpointError(f"{checkpoint / 'state'}: damaged checkpoint: {_brief(error)}") from error


def seal(data: dict[str, Any]) -> dict[str, Any]:
    """A copy of a data item with the digest of what is in it: JSON that was changed by one bit may still be JSON. Where
    the base of a LoRA run lies is left out: it may be moved, and its fingerprint says whether it is the same.

    A copy, because it is written while the run goes on and changes its totals.
    """
    base = {key: value for key, value in data.get("base", {}).items() if key != "path"}
    text = json.dumps({**data, "base": base}, sort_keys=True, ensure_ascii=False)
    return {**copy.deepcopy(data), "digest": hashlib.sha256(text.encode()).hexdigest()}


def read_data(checkpoint: pathlib.Path) -> dict[str, Any]:
    """The data item: position, checksums, and of a LoRA run base and lora (train/base.py)."""
    checkpoint = absolute(checkpoint)
    try:
        with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as reader:
            data = reader.restore(checkpoint / "data")
        if not isinstance(data["position"], int) or not isinstance(data["checksums"], dict):
            raise ValueError("expected position and checksums")
        digest = data.pop("digest", None)
        if digest != seal(data)["digest"]:
            raise ValueError(f"expected digest {digest}, found {seal(data)['digest']}")
        return data
    except Exception as error:
        raise CheckpointError(f"{checkpoint / 'data'}: damaged checkpoint: {_brief(error)}") from error


def check_same(checkpoint: pathlib.Path, saved: dict[str, Any], expected: dict[str, Any]) -> None:
    for path in sorted(saved.keys() | expected.keys()):
        found, want = saved.get(path, "nothing"), expected.get(path, "nothing")
        if found != want:
            raise CheckpointError(f"{checkpoint}: checkpoint of another model: {path}: expected {want}, found {found}")


def _restore(checkpoint: pathlib.Path, abstract: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arrays of `abstract` (all or a part of what was saved) and the data item, with every checksum compared."""
    data = read_data(checkpoint)
    with reading(checkpoint):
        state = _read_arrays(checkpoint, abstract)
    _check_sums(checkpoint, state, data["checksums"])
    return state, data


def _check_sums(checkpoint: pathlib.Path, state: dict[str, Any], expected: dict[str, int | None]) -> None:
    for path, found in checksums(state).items():
        if found != expected.get(path):
            raise CheckpointError(
                f"{checkpoint}: damaged checkpoint: {path}: expected checksum {expected.get(path)}, found {found}"
            )


@contextlib.contextmanager
def reading(checkpoint: pathlib.Path) -> Iterator[None]:
    """Whatever fails in the block becomes a CheckpointError naming the checkpoint and the array."""
    try:
        yield
    except Exception as error:
        raise CheckpointError(f"{checkpoint}: damaged checkpoint: {_unreadable(error)}") from error


def _read_arrays(checkpoint: pathlib.Path, abstract: dict[str, Any]) -> dict[str, Any]:
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
        restore_args = ocp.checkpoint_utils.construct_restore_args(abstract)
        args = ocp.args.PyTreeRestore(item=abstract, restore_args=restore_args, partial_restore=True)
        return reader.restore(checkpoint / "state", args=args)


def _unreadable(error: BaseException) -> str:
    """The array and the reason in an error of TensorStore, which Orbax wraps; its names have dots for our slashes."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = " ".join(str(error).split())
    name = re.search(r'"(?:[^"]*/state/)?([\w.]+)/(?:c/|zarr\.json|[.\d])', text)
    if name is None:
        return _brief(error)
    reason = re.sub(r" \[(source locations|tensorstore_spec|os_error_code).*", "", text).split(": ")[-1]
    return f"{name[1].replace('.', '/')}: cannot be read: {reason[:200]}"


def _brief(error: BaseException) -> str:
    """The first 300 characters of an error on one line."""
    return (" ".join(str(error).split()) or type(error).__name__)[:300]


def _drop_orbax(record: logging.LogRecord) -> bool:
    return f"{os.sep}orbax{os.sep}" not in record.pathname
