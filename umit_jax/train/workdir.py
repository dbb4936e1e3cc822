"""A workdir belongs to one config: config.json is written by the first start and compared by every later one.

What may change between starts is how fast, for how long and how visibly the same run goes; anything else would make
a run that no config describes, and is refused by the name of the key.
"""

import json
import logging
import pathlib
from typing import Any

import jax

log = logging.getLogger(__name__)

MAY_CHANGE = (
    "steps",
    "epochs",
    "log_every",
    "log_samples",
    "checkpoint_every",
    "keep",
    "save_patience",
    "rollbacks",
    "spike",
    "watchdog_seconds",
    "evaluate",
    "mesh",
    "remat",
    "loss_chunk",
    "attention",
    "data.workers",
    "data.prefetch",
)


class WorkdirError(ValueError):
    """The workdir holds a run of another config; the message names the key."""


def absolute(path: pathlib.Path) -> pathlib.Path:
    """As Orbax wants it. A path in a bucket is so already, and its resolve() would take gs: for a folder here."""
    return path if "://" in str(path) else path.resolve()


def noted(path: str) -> pathlib.Path:
    """A path that a checkpoint notes of another one, on a machine or in a bucket (as data_pipelines.paths.as_path)."""
    if "://" not in path:
        return pathlib.Path(path)
    from etils import epath

    return epath.Path(path)  # type: ignore[return-value]


def claim(workdir: pathlib.Path, config: Any) -> None:
    """Writes config.json (the first process does), or raises WorkdirError where the one that is there differs."""
    path = workdir / "config.json"
    wanted = json.loads(config.to_json_best_effort())
    if path.is_file():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise WorkdirError(f"{path}: not JSON: {error}") from error
        _compare(path, _flat(found), _flat(wanted))
    if jax.process_index() == 0:
        workdir.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(".config.json.aside")
        aside.write_text(json.dumps(wanted, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        aside.replace(path)


def _flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _compare(path: pathlib.Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    for key in sorted(found.keys() | wanted.keys()):
        old, new = found.get(key), wanted.get(key)
        if old == new:
            continue
        # Where the base of a LoRA run lies may change: the fingerprint of its weights says whether it is the same.
        may_change = (*MAY_CHANGE, "init_from") if wanted.get("lora.rank") else MAY_CHANGE
        if any(key == free or key.startswith(f"{free}.") for free in may_change):
            log.info("config.%s changed from %s to %s", key, old, new)
            continue
        raise WorkdirError(
            f"{path}: config.{key} was {json.dumps(old)} when this workdir was started, now {json.dumps(new)}: "
            "take another --workdir, or the old value to resume"
        )
