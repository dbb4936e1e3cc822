"""A workdir or one of its checkpoints, as named on a command line: where the model's companion files are.

workdir/{config.json, model/{config.json, preprocess.json, tokenizer files}, metrics.jsonl, checkpoints/<step>/...}
"""

import argparse
import atexit
import dataclasses
import json
import pathlib
import tempfile
from typing import Any

from data_pipelines.paths import PathError, as_path, is_remote
from launch.cli import UsageError


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A trained model on disk. path: the step's folder; model_dir: everything but its weights."""

    path: pathlib.Path
    model_dir: pathlib.Path
    step: int


def path(text: str) -> pathlib.Path:
    """A flag's path, on this machine or gs://; argparse shows why another is refused."""
    try:
        return as_path(text)
    except PathError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def local(text: str) -> pathlib.Path:
    """A flag's path on this machine: what is written there is renamed, read back or handed to other programs."""
    if is_remote(text):
        raise argparse.ArgumentTypeError(f"{text}: expected a directory on this machine; copy it from there")
    return pathlib.Path(text)


def find(directory: pathlib.Path, flag: str = "--checkpoint") -> Checkpoint:
    """The checkpoint that `directory` names: a step's folder, the newest step of a workdir, or WORKDIR/best. From
    a bucket, the model's folder is copied to this machine, because the libraries that read tokenizers know no other."""
    directory = best_or_itself(as_path(directory), flag)
    if not directory.is_dir():
        raise UsageError(f"{flag}: no such directory: {directory}")
    directory = directory if is_remote(directory) else directory.resolve()
    if directory.name.isdigit() and directory.parent.name == "checkpoints":
        step, workdir = directory, directory.parent.parent
    else:
        step, workdir = _newest(directory, flag), directory
    if not (workdir / "model" / "config.json").is_file():
        raise UsageError(f"{flag}: {workdir / 'model' / 'config.json'} is missing: not a workdir of umit train")
    return Checkpoint(step, local_copy(workdir / "model"), int(step.name))


def _newest(workdir: pathlib.Path, flag: str) -> pathlib.Path:
    steps = [d for d in (workdir / "checkpoints").glob("*") if d.name.isdigit() and d.is_dir() and _whole(d)]
    if not steps:
        raise UsageError(f"{flag}: {workdir} has no checkpoints/<step> folder")
    return max(steps, key=lambda d: int(d.name))


def best_or_itself(directory: pathlib.Path, flag: str) -> pathlib.Path:
    """Of WORKDIR/best, the folder of the step that the newest checkpoint names as the best of config.evaluate.best."""
    workdir = directory.parent
    if directory.name != "best" or directory.is_dir() or not (workdir / "checkpoints").is_dir():
        return directory
    from umit_jax.train.checkpoint import read_data

    best = read_data(_newest(workdir, flag)).get("evaluation", {}).get("best")
    if best is None:
        raise UsageError(f"{flag}: {workdir} has no best checkpoint: config.evaluate.best named no metric in that run")
    return workdir / "checkpoints" / str(best["step"])


def _whole(step: pathlib.Path) -> bool:
    """In a bucket nothing is renamed: Orbax marks what is complete."""
    return not is_remote(step) or (step / "commit_success.txt").exists()


def local_copy(directory: pathlib.Path) -> pathlib.Path:
    """The directory itself, or where its files have been copied to for as long as this process lives."""
    if not is_remote(directory):
        return directory
    copy = tempfile.TemporaryDirectory(prefix="umit_")
    atexit.register(copy.cleanup)
    for file in directory.iterdir():
        (pathlib.Path(copy.name) / file.name).write_bytes(file.read_bytes())
    return pathlib.Path(copy.name)


def read_json(path: pathlib.Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise UsageError(f"{path}: {error}") from error
