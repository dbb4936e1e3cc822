"""The training loop: shardings -> state (restored, loaded or new) -> one compiled step -> log, checkpoint, repeat.

The host stays one step ahead of the device: the numbers of step n are fetched while step n + 1 runs, except where a
checkpoint is due, because what is saved must be known to be good.
"""

import contextlib
import itertools
import logging
import math
import pathlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np
from jax.sharding import Mesh

from umit_jax.batch import Batch
from umit_jax.compilations import compilations
from umit_jax.model.config import ModelConfig
from umit_jax.model.lora import LoraError
from umit_jax.parallel.barrier import wait_for_all
from umit_jax.parallel.mesh import check_batch_divides
from umit_jax.train.base import Base
from umit_jax.train.batches import BatchError, Batches, Gate, Stream, Taken, slots, taken
from umit_jax.train.checkpoint import Checkpointer
from umit_jax.train.held_out import PROGRAMS, Evaluations, HeldOut
from umit_jax.train.metrics import MetricsLog, Totals, row
from umit_jax.train.phases import Phases
from umit_jax.train.preemption import Preempted, StopRequest
from umit_jax.train.program import build
from umit_jax.train.progress import Progress
from umit_jax.train.samples import all_counts, all_ids
from umit_jax.train.skipped import Judge, Skipped
from umit_jax.train.start import Start
from umit_jax.train.state import Params, TrainState
from umit_jax.train.watchdog import Watchdog
from umit_jax.train.workdir import claim

log = logging.getLogger(__name__)


class Diverged(ArithmeticError):  # noqa: N818
    """Loss or gradient is not finite, once too often; the message names the step and its samples."""


def train(
    config: ml_collections.ConfigDict,
    model_config: ModelConfig,
    stream: Stream,
    workdir: pathlib.Path,
    mesh: Mesh,
    init_params: Callable[[Params], Params] | None = None,
    base: Base | None = None,
    held_out: HeldOut | None = None,
) -> dict[str, Any]:
    """Trains to config.steps and returns the summary. Parameters come from, in this order: 1. the newest checkpoint of
    the workdir, with optimizer state and data position; 2. init_params(tree of shardings); 3. random numbers.
    With config.lora on, the frozen ones always come from `base`, and init_params is not asked. held_out: what is
    evaluated every so many steps; the numbers of the steps are the same with and without.

    Raises Preempted (saved, run again), Diverged, and errors of configuration that name the key.
    """
    claim(workdir, config)
    check_batch_divides(mesh, config.data.rows, config.data.row_tokens, config.data.row_patches)
    model_config, optimizer, abstract, step_fn = build(config, model_config, mesh)
    if model_config.lora is not None and base is None:
        raise LoraError("lora: expected a base to train on: config.init_from names a checkpoint")

    with Checkpointer(workdir, config.keep, config.save_patience) as checkpoints:
        start = Start(config, model_config, checkpoints, abstract, optimizer, init_params, base)
        evaluations = Evaluations(held_out, model_config, abstract, config.compute_dtype)
        run = _Run(config, model_config, workdir, mesh, start, evaluations)
        with (
            contextlib.closing(run),
            compilations("train_step") as compiled,
            compilations(*PROGRAMS) as compiled_to_evaluate,
        ):
            if run.start < config.steps:
                run.all_steps(step_fn, stream, checkpoints)
            checkpoints.wait()
    return {
        "step": run.totals.steps,
        **{key: value for key, value in run.totals.to_json().items() if key != "steps"},
        "compilations": len(compiled),
        "compile_seconds": round(sum(compiled), 2),
        "step_seconds": run.median_seconds(),
        **run.sizes,
        "resumed_from": run.resumed_from,
        "skipped_batches": run.skipped.batches,
        "goodput": run.phases.summary(),
        **evaluations.to_json(),
        **({"evaluation_compilations": len(compiled_to_evaluate)} if held_out else {}),
        "checkpoint": str(checkpoints.directory / str(checkpoints.latest)),
    }


class _Run:
    """The steps of one process, with everything that is written down about them."""

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        model_config: ModelConfig,
        workdir: pathlib.Path,
        mesh: Mesh,
        start: Start,
        evaluations: Evaluations,
    ):
        self.config, self.mesh, self.named = config, mesh, start.named()
        self._start, self.phases, self.skipped = start, Phases(), Skipped(workdir)
        self.evaluations = evaluations
        self.state: TrainState | None = None
        with self.phases.during("init" if start.checkpoints.latest is None else "restart"):
            data = self._take()
        self.phases.resume(data.get("phases"))
        self.resumed_from = self.start
        self.gate = Gate(config, model_config, mesh)
        assert self.state is not None
        self.sizes = {"trained_parameters": _size(self.state.params), "frozen_parameters": _size(self.state.frozen)}
        self.metrics = MetricsLog(workdir, self.start, jax.process_index() == 0, config.save_patience)
        self.progress = Progress(self.start, config.steps, config.log_every)
        self.seconds: list[float] = []
        self.last_time = time.monotonic()
        if self.start:
            log.info("resumed at step %d from %s", self.start, start.checkpoints.directory)

    def _take(self) -> dict[str, Any]:
        """Takes up state and counts where the newest checkpoint left them; returns its data item."""
        self.state, data = self._start.state()
        self.start, self.totals = data.get("position", 0), Totals(data.get("totals"))
        self.judge = Judge(self.config.spike, data.get("recent_losses", ()))
        self.skipped.include(data.get("skipped", ()))
        self.evaluations.take(data.get("evaluation"))
        return data

    def all_steps(self, step_fn: jax.stages.Wrapped, stream: Stream, checkpoints: Checkpointer) -> None:
        """To the last step. A bad one takes the run back to its newest checkpoint, to leave out the batch."""
        with Watchdog(self.config.watchdog_seconds) as watchdog, StopRequest() as stop:
            while True:
                with contextlib.closing(taken(stream, self.skipped, self.start)) as batches:
                    if self.gate.shapes is None:
                        batches = self._compile(step_fn, batches)
                        watchdog.beat("the compilation")
                    if self.evaluations.owed(self.start):
                        self.metrics.amend(self.start, self._evaluate(self.start, watchdog))
                    bad = self._steps(step_fn, batches, stream, checkpoints, stop, watchdog)
                if bad is None:
                    return
                watchdog.pause()
                self._go_back(bad, checkpoints)
                watchdog.beat(f"step {self.start}, to which the run went back")

    def _compile(self, step_fn: jax.stages.Wrapped, batches: Batches) -> Batches:
        """Compiles the step for the shapes of the first batch; returns all batches. jit keeps what it compiled: the
        compiled object itself refuses arrays of uint4, whose layout it spells in another way (jax 0.10).

        Processes wait for each other: one that compiled in less time would give up waiting in the first collective.
        """
        with self.phases.during("data"):
            first = next(batches, None)
        if first is None:
            raise BatchError("data: the stream is empty")
        batch = self.gate.first(first.local, self.start + 1)
        with self.phases.during("compile"):
            step_fn.lower(self.state, batch).compile()
            wait_for_all("compiled")
        return itertools.chain([first], batches)  # type: ignore[return-value]

    def _steps(
        self,
        step_fn: "Step",
        batches: Batches,
        stream: Stream,
        checkpoints: Checkpointer,
        stop: StopRequest,
        watchdog: Watchdog,
    ) -> "Bad | None":
        config, pending = self.config, None
        self.phases.enter("step")
        self.phases.lap()
        for step in range(self.start + 1, config.steps + 1):
            with self.phases.during("data"):
                own = next(batches, None)
            if own is None:
                raise BatchError(f"data: the stream ended after {step - 1} of {config.steps} steps")
            batch = self.gate.place(own.local, step)
            self.state, metrics = step_fn(self.state, batch)
            if pending is not None and (bad := self._finish(*pending)):
                return bad
            watchdog.beat(f"step {step - 1}")
            pending = (step, metrics, own, slots(batch), stream.counts(own.number))
            leaving, last = stop.reached(step), step == config.steps
            evaluate = self.evaluations.due(step) and (last or not leaving)  # who leaves has little time: see owed
            saving = leaving or last or step % config.checkpoint_every == 0
            if saving or evaluate:
                if bad := self._finish(*pending, watchdog if evaluate else None):
                    return bad
                pending = None
                if saving or self.evaluations.best_step == step:
                    with self.phases.during("save"):
                        self._save(checkpoints, step, leaving or last or not saving)
                    watchdog.beat(f"the checkpoint of step {step}")
            if leaving:
                raise Preempted(f"asked to stop: step {step} of {config.steps} is saved; the same command resumes")
        return None

    def _save(self, checkpoints: Checkpointer, step: int, last: bool) -> None:
        self.metrics.sync()
        assert self.state is not None
        data = {
            "totals": self.totals.to_json(),
            "phases": self.phases.to_json(over=step == self.config.steps),
            "recent_losses": list(self.judge.recent),
            "skipped": self.skipped.batches,
            **self.evaluations.to_json(),
            **self.named,
        }
        checkpoints.keep_best(self.evaluations.best_step)
        checkpoints.save(self.state._replace(frozen={}) if self.named else self.state, data, step, wait=last)

    def _evaluate(self, step: int, watchdog: Watchdog) -> dict[str, float]:
        """The numbers of the state as it is after `step`."""
        assert self.state is not None
        if not self.evaluations.compiled:
            watchdog.pause()  # nobody knows how long compiling takes
        with self.phases.during("evaluate"):
            scores = self.evaluations.run(step, self.state, lambda: watchdog.beat(f"answers at step {step}"))
        watchdog.beat(f"the evaluation of step {step}")
        self.metrics.plot_evaluation(step, scores)
        self.progress.evaluated(step, scores, self.evaluations.best)
        self.last_time = time.monotonic()
        return scores

    def _go_back(self, bad: "Bad", checkpoints: Checkpointer) -> None:
        """To the newest checkpoint. Raises Diverged where that was done config.rollbacks times already."""
        message = f"step {bad.step}: {bad.why}"
        checkpoints.wait()
        if len(self.skipped.batches) >= self.config.rollbacks:
            done = f"; {len(self.skipped.batches)} batches were left out before" if self.skipped.batches else ""
            raise Diverged(f"{message}{done}; samples: {', '.join(bad.ids)}")
        back_to = checkpoints.latest or 0
        entry = {"batch": bad.batch, "step": bad.step, "why": bad.why, "sample_ids": bad.ids, "back_to": back_to}
        self.skipped.add(entry)
        log.warning("%s: back to step %d, without batch %d: %s", message, back_to, bad.batch, ", ".join(bad.ids))
        self.state = None  # before another is read: there may be no room for two
        with self.phases.during("restart"):
            data = self._take()
        self.phases.take_back(data.get("phases"))
        self.last_time = time.monotonic()
        self.metrics.go_back(self.start)
        self.progress.go_back(self.start)

    def _finish(
        self,
        step: int,
        metrics: dict[str, Any],
        own: Taken,
        room: tuple[int, int],
        counts: dict[str, Any],
        watchdog: Watchdog | None = None,
    ) -> "Bad | None":
        """Fetches the numbers of a step, judges and writes them. watchdog: of a step whose state, still there, is to
        be evaluated."""
        metrics = jax.device_get(metrics)
        now = time.monotonic()
        seconds, self.last_time = now - self.last_time, now
        line: dict[str, Any] = {**row(step, metrics, room, seconds), "counts": counts}
        why = self.judge.why(line)
        if why and math.isfinite(line["loss"]) and len(self.skipped.batches) >= self.config.rollbacks:
            log.warning("step %d: %s", step, why)  # a jump stops no run
            self.judge.recent.append(line["loss"])
            why = None
        if why or self.config.log_samples:
            ids = all_ids(self.mesh, own.info.sample_ids)
            if why:
                return Bad(step, own.number, why, ids)
            line["sample_ids"] = ids
        if own.info.augmented is not None:
            line["augmented"] = all_counts(self.mesh, own.info.augmented)
        if step > self.start + 1:  # the first one's time is not a step's alone
            self.seconds.append(seconds)
        self.totals.add(line)
        if watchdog is not None:
            line["evaluation"] = self._evaluate(step, watchdog)
        self.metrics.write({**line, "time": self.phases.lap()})
        if step % self.config.log_every == 0:
            self.metrics.plot(line)
        self.progress.update(line)
        return None

    def median_seconds(self) -> float | None:
        return round(float(np.median(self.seconds)), 4) if self.seconds else None

    def close(self) -> None:
        self.progress.close()
        self.metrics.close()


class Bad(NamedTuple):
    """A step whose numbers are not to be gone on from."""

    step: int
    batch: int
    why: str
    ids: list[str]


Step = Callable[[TrainState | None, Batch], tuple[TrainState, dict[str, Any]]]


def _size(tree: Any) -> int:
    return sum(math.prod(x.shape) for x in jax.tree.leaves(tree))
