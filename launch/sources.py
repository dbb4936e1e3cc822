"""config.data.sources of a training run: which shard directories, how often each, and which of them are left out.

| entry                    | meaning                                                                        |
| (directory, weight)      | below data.root, or as it stands without one; each sample `weight` times an epoch |
| (directory, weight, cap) | the same, of at most `cap` samples an epoch                                    |
"""

import pathlib
from collections.abc import Sequence
from typing import Any

import ml_collections

from data_pipelines.paths import as_path
from launch.cli import UsageError, nearest


def source_weights(data: Any) -> tuple[dict[pathlib.Path, float], dict[pathlib.Path, int]]:
    """Weights and caps of the directories of data.sources, without those of data.leave_out; each must exist."""
    weights: dict[pathlib.Path, float] = {}
    caps: dict[pathlib.Path, int] = {}
    for entry in _taken(data):
        directory = as_path(data.root) / entry[0] if data.root else as_path(entry[0])
        if directory in weights:
            raise UsageError(f"--config.data.sources: {directory} is named twice")
        weights[directory] = float(entry[1])
        caps[directory] = int(entry[2]) if len(entry) == 3 else 0
    if not weights:
        raise UsageError("--config.data.sources: no shard directory given, expected ((directory, weight), ...)")
    missing = [str(directory) for directory in weights if not (directory / "manifest.json").is_file()]
    if missing:
        verb = "holds" if len(missing) == 1 else "hold"
        raise UsageError(
            f"--config.data.sources: {', '.join(missing)} {verb} no manifest.json: not made by umit prepare"
        )
    return weights, caps


def _taken(data: Any) -> list[Sequence[Any]]:
    """The entries that data.leave_out names neither as they stand nor by the folder they are in."""
    sources = data.sources
    entries: list[Any] = list(sources.items() if isinstance(sources, ml_collections.ConfigDict) else sources)
    for entry in entries:
        if len(entry) not in (2, 3):
            raise UsageError(f"--config.data.sources: expected (directory, weight[, cap]), found {entry!r}")
    folders = [{str(entry[0]), str(pathlib.PurePath(entry[0]).parent)} for entry in entries]
    for name in data.leave_out:
        if not any(name in named for named in folders):
            hint = nearest(name, sorted(set().union(*folders)))
            raise UsageError(f"--config.data.leave_out: no source {name!r}{hint}")
    left_out = set(data.leave_out)
    return [entry for entry, named in zip(entries, folders, strict=True) if not named & left_out]
