"""What a run writes down: metrics.jsonl (every step exactly once, over any number of restarts), TensorBoard, totals.

One line of metrics.jsonl:
    {"step", "loss", "weight", "loss_per_task", "weight_per_task", "learning_rate", "grad_norm", "tokens",
     "fill_tokens", "fill_patches", "seconds", "counts": {dataset: {task: {"samples", "tokens", "patches"}}},
     "time": {phase: seconds since the line before (phases.py)}}
"evaluation": {"TASK/METRIC": value} where config.evaluate is due (eval/named.py),
and "augmented": {kind: {what was done or why not: samples}} with config.data.augment, "sample_ids" with
config.log_samples.
loss is nats per unit of weight; tokens counts what is not padding; fill is the share that is not padding.
"""

import contextlib
import json
import logging
import os
import pathlib
import tempfile
import time
from collections.abc import Callable
from typing import IO, Any

from tensorboardX import SummaryWriter

from umit_jax.batch import TASKS
from umit_jax.train.pauses import pauses
from umit_jax.train.samples import added


def row(step: int, metrics: dict[str, Any], slots: tuple[int, int], seconds: float) -> dict[str, Any]:
    """The line of one step. metrics: the step's, on the host. slots: (tokens, patches) that the batch has room for."""
    weight = float(metrics["weight"])
    by_task = {
        task: (float(loss) / float(w), float(w))
        for task, loss, w in zip(TASKS, metrics["loss_sum_T"], metrics["weight_T"], strict=True)
        if w > 0
    }
    tokens, patches = int(metrics["tokens"]), int(metrics["patches"])
    return {
        "step": step,
        "loss": float(metrics["loss_sum"]) / weight if weight else 0.0,
        "weight": weight,
        "loss_per_task": {task: loss for task, (loss, _) in by_task.items()},
        "weight_per_task": {task: w for task, (_, w) in by_task.items()},
        "learning_rate": float(metrics["learning_rate"]),
        "grad_norm": float(metrics["grad_norm"]),
        "tokens": tokens,
        "fill_tokens": tokens / slots[0],
        "fill_patches": patches / slots[1] if slots[1] else 0.0,
        "seconds": round(seconds, 4),
    }


class Totals:
    """Sums over all steps since step 0; saved with the checkpoint, so that they survive a restart."""

    def __init__(self, saved: dict[str, Any] | None = None):
        saved = saved or {}
        self.steps = int(saved.get("steps", 0))
        self.tokens_seen = int(saved.get("tokens_seen", 0))
        self.fill_tokens = float(saved.get("fill_tokens", 0.0))
        self.fill_patches = float(saved.get("fill_patches", 0.0))
        self.loss = saved.get("loss")
        self.loss_per_task: dict[str, float] = dict(saved.get("loss_per_task", {}))
        self.augmented: dict[str, dict[str, int]] = saved.get("augmented", {})

    def add(self, line: dict[str, Any]) -> None:
        self.steps = line["step"]
        self.tokens_seen += line["tokens"]
        self.fill_tokens += (line["fill_tokens"] - self.fill_tokens) / self.steps
        self.fill_patches += (line["fill_patches"] - self.fill_patches) / self.steps
        self.loss = line["loss"]
        self.loss_per_task.update(line["loss_per_task"])
        self.augmented = added([self.augmented, line.get("augmented", {})])

    def to_json(self) -> dict[str, Any]:
        """loss is the last step's; loss_per_task each task's last; fill the mean over all steps, augmented the sum."""
        return dict(vars(self))


log = logging.getLogger(__name__)
NAME = "metrics.jsonl"


class LogError(OSError):
    """metrics.jsonl cannot be written, as when the disk is full."""


class MetricsLog:
    """metrics.jsonl and TensorBoard of a run that goes on after `step`; lines beyond it are cut off.

    write is False on all processes but the first. In a bucket nothing can be appended to: the files grow on this
    machine and are copied there before every checkpoint and at the end. What cannot be written is tried again for
    `patience` seconds.
    """

    def __init__(self, workdir: pathlib.Path, step: int, write: bool, patience: float = 0.0):
        self._file: IO[str] | None = None
        self._board: SummaryWriter | None = None
        self._workdir, self._patience = workdir, patience
        self._copied = tempfile.TemporaryDirectory(prefix="umit_log_") if write and "://" in str(workdir) else None
        self._local = pathlib.Path(self._copied.name) if self._copied else workdir
        self._path = self._local / NAME
        if write:
            if self._copied and (workdir / NAME).exists():
                self._path.write_bytes((workdir / NAME).read_bytes())
            truncate(self._path, step)
            self._file = self._path.open("a", encoding="utf-8")
            self._board = SummaryWriter(str(self._local / "tensorboard"), purge_step=step + 1 if step else None)

    def write(self, line: dict[str, Any]) -> None:
        if self._file:
            self._file.write(json.dumps(line, ensure_ascii=False) + "\n")
            self._patiently(self._file.flush, f"step {line['step']}")

    def plot(self, line: dict[str, Any]) -> None:
        if self._board:
            for key in ("loss", "learning_rate", "grad_norm", "tokens", "fill_tokens", "fill_patches", "seconds"):
                self._board.add_scalar(key, line[key], line["step"])
            for task, loss in line["loss_per_task"].items():
                self._board.add_scalar(f"loss/{task}", loss, line["step"])

    def plot_evaluation(self, step: int, scores: dict[str, float]) -> None:
        if self._board:
            for name, value in scores.items():
                self._board.add_scalar(f"evaluation/{name}", value, step)

    def amend(self, step: int, evaluation: dict[str, float]) -> None:
        """Adds the evaluation of a step whose line is the last one."""
        if not self._file:
            return
        self._file.close()
        *before, last = self._path.read_bytes().splitlines(keepends=True)
        line = json.loads(last)
        if line["step"] == step:
            last = json.dumps({**line, "evaluation": evaluation}, ensure_ascii=False).encode() + b"\n"
            aside = self._path.with_name(f".{NAME}.aside")
            aside.write_bytes(b"".join(before) + last)
            aside.replace(self._path)
        self._file = self._path.open("a", encoding="utf-8")

    def go_back(self, step: int) -> None:
        """Cuts off the lines after `step`, which will be taken again."""
        if self._file:
            self._file.close()
            truncate(self._path, step)
            self._file = self._path.open("a", encoding="utf-8")

    def sync(self) -> None:
        """To the disk: called before a checkpoint is saved, so that no checkpoint is ahead of the log."""
        if self._file:
            file = self._file.fileno()
            self._patiently(lambda: os.fsync(file), "the last steps")
            self._patiently(self._copy, "the last steps")

    def close(self) -> None:
        if self._board:
            self._board.close()
        if self._file:
            with contextlib.suppress(Exception):  # what is left in its buffer has been reported by write
                self._file.close()
                self._copy()
        if self._copied:
            self._copied.cleanup()

    def _copy(self) -> None:
        """To the bucket, where the workdir is in one."""
        for file in self._local.rglob("*") if self._copied else ():
            if file.is_file():
                (self._workdir / file.relative_to(self._local).as_posix()).write_bytes(file.read_bytes())

    def _patiently(self, action: Callable[[], Any], what: str) -> None:
        failure: Exception | None = None
        for pause in (0.0, *pauses(self._patience)):
            if failure:
                log.warning("%s; trying again in %g s", failure, pause)
                time.sleep(pause)
            try:
                action()
                return
            except Exception as error:  # a bucket's errors are of many types
                why = getattr(error, "strerror", None) or " ".join(str(error).split())[:300]
                failure = LogError(f"{self._workdir / NAME}: {what} not written: {why}")
                failure.__cause__ = error
        assert failure is not None
        raise failure


def truncate(path: pathlib.Path, step: int) -> None:
    """Cuts metrics.jsonl after the line of `step`: later steps will be taken again. A torn last line goes too."""
    if not path.exists():
        return
    kept = 0
    with path.open("rb+") as file:
        for line in file:
            try:
                if not line.endswith(b"\n") or json.loads(line)["step"] > step:
                    break
            except (ValueError, KeyError, TypeError):
                break
            kept += len(line)
        file.truncate(kept)
