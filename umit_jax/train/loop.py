"""The training loop: shardings -> state (restored, loaded or new) -> one compiled step -> log, checkpoint, repeat.

The host stays one step ahead of the device: the numbers of step n are fetched while step n + 1 runs, except where a
checkpoint is due, because what is saved must be known to be good.
"""

import contextlib
import dataclasses
import logging
import math
import pathlib
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
from flax.traverse_util import flatten_dict
from jax.sharding import Mesh

from umit_jax.batch import Batch, check_batch
from umit_jax.model.config import ModelConfig
from umit_jax.model.lora import Lora, LoraError, trainable
from umit_jax.model.param import abstract_params
from umit_jax.parallel.mesh import check_rows, global_batch
from umit_jax.train import optimizer as optimizers
from umit_jax.train.base import Base
from umit_jax.train.checkpoint import Checkpointer
from umit_jax.train.metrics import MetricsLog, Totals, row
from umit_jax.train.preemption import Preempted, StopRequest
from umit_jax.train.progress import Progress
from umit_jax.train.samples import all_ids
from umit_jax.train.state import Params, TrainState, abstract_state, create
from umit_jax.train.step import Compute, make_step
from umit_jax.train.workdir import claim

log = logging.getLogger(__name__)


class BatchInfo(Protocol):
    """What the stream says of this process's part of a batch."""

    @property
    def sample_ids(self) -> Sequence[Sequence[str]]:
        """Ids per row."""
        ...


class Stream(Protocol):
    """The data: batch number `step` (from 0) is a function of the step alone, so one integer is its position."""

    def batches(self, start_step: int) -> Generator[tuple[Batch, Any], None, None]:
        """This process's rows (parallel.mesh.data_process) of batches start_step, start_step + 1, ... without end, each
        with its BatchInfo; closed when the run ends."""
        ...

    def counts(self, step: int) -> dict[str, Any]:
        """What the global batch of a step (from 0) holds, for the log: the same on every process."""
        ...


class Diverged(ArithmeticError):  # noqa: N818
    """Loss or gradient is not finite; the message names the step and its samples."""


class BatchError(ValueError):
    """A batch that does not fit the model; the message names the field."""


def train(
    config: ml_collections.ConfigDict,
    model_config: ModelConfig,
    stream: Stream,
    workdir: pathlib.Path,
    mesh: Mesh,
    init_params: Callable[[Params], Params] | None = None,
    base: Base | None = None,
) -> dict[str, Any]:
    """Trains to config.steps and returns the summary. Parameters come from, in this order: 1. the newest checkpoint of
    the workdir, with optimizer state and data position; 2. init_params(tree of shardings); 3. random numbers.
    With config.lora on, the frozen ones always come from `base`, and init_params is not asked.

    Raises Preempted (saved, run again), Diverged, and errors of configuration that name the key.
    """
    claim(workdir, config)
    check_rows(mesh, config.data.rows)
    model_config = dataclasses.replace(model_config, lora=Lora.from_config(config.lora))
    if model_config.lora is not None and base is None:
        raise LoraError("lora: expected a base to train on: config.init_from names a checkpoint")
    paths = flatten_dict(abstract_params(model_config), sep="/").keys()
    adapters_and_full = None if model_config.lora is None else trainable(model_config)
    trained, frozen = optimizers.multipliers(paths, config.optimizer.patterns, adapters_and_full)
    rate = optimizers.schedule(config.optimizer, config.steps)
    optimizer = optimizers.adamw(config.optimizer, rate, trained)
    compute = Compute(jnp.dtype(config.compute_dtype), config.remat, config.loss_chunk, config.attention)
    abstract = abstract_state(model_config, mesh, optimizer, frozen, compute.dtype)
    step_fn = make_step(model_config, abstract, optimizer, rate, mesh, compute)

    with Checkpointer(workdir, config.keep) as checkpoints, _compilations("train_step") as compilations:
        state, data = _first_state(config, model_config, checkpoints, abstract, optimizer, init_params, base)
        sizes = {"trained_parameters": _size(state.params), "frozen_parameters": _size(state.frozen)}
        start, totals = data.get("position", 0), Totals(data.get("totals"))
        named = {} if model_config.lora is None or base is None else base.record(model_config)
        run = _Run(config, model_config, workdir, mesh, totals, start, named)
        with contextlib.closing(run), StopRequest() as stop:
            if start < config.steps:
                run.steps(step_fn, state, stream, checkpoints, stop)
            checkpoints.wait()
    return {
        "step": totals.steps,
        **{key: value for key, value in totals.to_json().items() if key != "steps"},
        "compilations": len(compilations),
        "compile_seconds": round(sum(compilations), 2),
        "step_seconds": run.median_seconds(),
        **sizes,
        "resumed_from": start,
        "checkpoint": str(checkpoints.directory / str(checkpoints.latest)),
    }


def _first_state(
    config: ml_collections.ConfigDict,
    model_config: ModelConfig,
    checkpoints: Checkpointer,
    abstract: TrainState,
    optimizer: optax.GradientTransformation,
    init_params: Callable[[Params], Params] | None,
    base: Base | None,
) -> tuple[TrainState, dict[str, Any]]:
    """The state the run starts from, and the data item it was saved with ({} for a new run)."""
    lora = base if model_config.lora is not None else None
    if checkpoints.latest is None:
        load = init_params if lora is None else (lambda _: lora.start(model_config, abstract, config.seed))
        return create(model_config, abstract, optimizer, config.seed, load), {}
    state, data = checkpoints.restore(abstract if lora is None else abstract._replace(frozen={}))
    if lora is not None:
        path = checkpoints.directory / str(checkpoints.latest)
        state = state._replace(frozen=lora.resume(model_config, abstract, path, data))
    log.info("resumed at step %d from %s", data["position"], checkpoints.directory)
    return state, data


class _Run:
    """The steps of one process from `start` on, with everything that is written down about them."""

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        model_config: ModelConfig,
        workdir: pathlib.Path,
        mesh: Mesh,
        totals: Totals,
        start: int,
        named: dict[str, Any],
    ):
        self.named = named  # the base of a LoRA run, for its checkpoints
        self.config, self.model_config, self.mesh, self.totals, self.start = config, model_config, mesh, totals, start
        self.metrics = MetricsLog(workdir, start, write=jax.process_index() == 0)
        self.progress = Progress(start, config.steps, config.log_every)
        self.seconds: list[float] = []
        self.last_time = time.monotonic()

    def steps(
        self,
        step_fn: Callable[[TrainState, Batch], tuple[TrainState, dict[str, Any]]],
        state: TrainState,
        stream: Stream,
        checkpoints: Checkpointer,
        stop: StopRequest,
    ) -> None:
        config, pending = self.config, None
        with contextlib.closing(stream.batches(self.start)) as batches:
            for step, (local, info) in zip(range(self.start + 1, config.steps + 1), batches, strict=False):
                batch = self._global(local, step)
                state, metrics = step_fn(state, batch)
                if pending is not None:
                    self._finish(*pending)
                pending = (step, metrics, info, _slots(batch), stream.counts(step - 1))
                leaving = stop.reached(step)
                if leaving or step == config.steps or step % config.checkpoint_every == 0:
                    self._finish(*pending)
                    pending = None
                    self.metrics.sync()
                    saved = state._replace(frozen={}) if self.named else state
                    checkpoints.save(saved, {"totals": self.totals.to_json(), **self.named}, step)
                if leaving:
                    checkpoints.wait()
                    raise Preempted(f"asked to stop: step {step} of {config.steps} is saved; the same command resumes")
        if pending is not None:
            raise BatchError(f"data: the stream ended after {pending[0]} of {config.steps} steps")

    def _finish(
        self, step: int, metrics: dict[str, Any], info: BatchInfo, slots: tuple[int, int], counts: dict[str, Any]
    ) -> None:
        """Fetches the numbers of a step, checks and writes them."""
        metrics = jax.device_get(metrics)
        now = time.monotonic()
        seconds, self.last_time = now - self.last_time, now
        line: dict[str, Any] = {**row(step, metrics, slots, seconds), "counts": counts}
        bad = [name for name in ("loss", "grad_norm") if not math.isfinite(line[name])]
        if bad or self.config.log_samples:
            ids = all_ids(self.mesh, info.sample_ids)
            if bad:
                what = ", ".join(f"{name} is {line[name]}" for name in bad)
                raise Diverged(f"step {step}: {what}; samples: {', '.join(ids)}")
            line["sample_ids"] = ids
        if step > self.start + 1:  # the first one's time is compilation
            self.seconds.append(seconds)
        self.totals.add(line)
        self.metrics.write(line)
        if step % self.config.log_every == 0:
            self.metrics.plot(line)
        self.progress.update(line)

    def _global(self, local: Batch, step: int) -> Batch:
        """The global batch on the devices, after checking what would be clamped or compiled again in silence there."""
        vocabulary = self.model_config.text.vocab_size
        for name, ids in (("tokens_BS", local.tokens_BS), ("targets_BS", local.targets_BS)):
            if ids.min(initial=0) < 0 or ids.max(initial=0) >= vocabulary:
                found = f"{ids.min()}..{ids.max()} at step {step}"
                raise BatchError(f"{name}: expected ids 0..{vocabulary - 1} of the model's vocabulary, found {found}")
        batch = global_batch(self.mesh, local)
        if step == self.start + 1:
            check_batch(local)
            rows, _, values = batch.patches_BPC.shape
            if rows != self.config.data.rows:
                raise BatchError(f"data.rows: expected {self.config.data.rows} rows of all processes, found {rows}")
            if values != self.model_config.vision.patch_values:
                expected = self.model_config.vision.patch_values
                raise BatchError(f"patches_BPC: expected {expected} values per patch, found {values}")
        return batch

    def median_seconds(self) -> float | None:
        return round(float(np.median(self.seconds)), 4) if self.seconds else None

    def close(self) -> None:
        self.progress.close()
        self.metrics.close()


def _slots(batch: Batch) -> tuple[int, int]:
    """Tokens and patches that the global batch has room for."""
    return math.prod(batch.tokens_BS.shape), math.prod(batch.patches_BPC.shape[:2])


def _size(tree: Any) -> int:
    return sum(math.prod(x.shape) for x in jax.tree.leaves(tree))


@contextlib.contextmanager
def _compilations(name: str) -> Iterator[list[float]]:
    """Seconds of every compilation of the jitted function `name` while the context is open."""
    seconds: list[float] = []

    def listen(event: str, duration: float, **details: Any) -> None:
        if event.endswith("backend_compile_duration") and name in str(details.get("fun_name")):
            seconds.append(duration)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield seconds
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
