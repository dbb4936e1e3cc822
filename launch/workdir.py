"""A workdir or one of its checkpoints, as named on a command line: where the model's companion files are.

workdir/{config.json, model/{config.json, preprocess.json, tokenizer files}, metrics.jsonl, checkpoints/<step>/...}
"""

import dataclasses
import json
import pathlib
from typing import Any

from launch.cli import UsageError


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A trained model on disk. path: the step's folder; model_dir: everything but its weights."""

    path: pathlib.Path
    model_dir: pathlib.Path
    step: int


def find(directory: pathlib.Path, flag: str = "--checkpoint") -> Checkpoint:
    """The checkpoint that `directory` names: a step's folder, or the newest step of a workdir."""
    if not directory.is_dir():
        raise UsageError(f"{flag}: no such directory: {directory}")
    directory = directory.resolve()
    if directory.name.isdigit() and directory.parent.name == "checkpoints":
        step, workdir = directory, directory.parent.parent
    else:
        steps = [d for d in (directory / "checkpoints").glob("*") if d.name.isdigit() and d.is_dir()]
        if not steps:
            raise UsageError(f"{flag}: {directory} has no checkpoints/<step> folder")
        step, workdir = max(steps, key=lambda d: int(d.name)), directory
    if not (workdir / "model" / "config.json").is_file():
        raise UsageError(f"{flag}: {workdir / 'model' / 'config.json'} is missing: not a workdir of umit train")
    return Checkpoint(step, workdir / "model", int(step.name))


def read_json(path: pathlib.Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise UsageError(f"{path}: {error}") from error
