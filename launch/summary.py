"""summary.json: what every command leaves behind, with the keys that scripts rely on."""

import hashlib
import json
import os
import pathlib
import resource
import tempfile
from typing import Any

from data_pipelines.paths import is_remote
from umit_jax import __version__


def config_hash(config: Any) -> str:
    """First 16 hexadecimal digits of the SHA-256 of the canonical JSON of a config."""
    text = json.dumps(config, sort_keys=True, default=str, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def peak_rss_mb() -> float:
    """Largest resident memory of this process or of any child it waited for, in MB (10^6 bytes)."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return round(max(resource.getrusage(kind).ru_maxrss for kind in kinds) * 1024 / 1e6, 1)


def complete(command: str, args: dict[str, Any], result: dict[str, Any], seconds: float) -> dict[str, Any]:
    """The result of a command with the keys that every summary has."""
    settings = {k: v for k, v in args.items() if k not in ("json", "debug")}
    common = {
        "command": command,
        "version": __version__,
        "config_hash": config_hash(result.get("config", settings)),
        "seconds": round(seconds, 2),
        "peak_rss_mb": peak_rss_mb(),
    }
    return {**common, **{k: v for k, v in result.items() if k != "config"}}


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes aside, then renames: the file is whole or absent. In a bucket it always is."""
    if is_remote(path):
        path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        return
    fd, aside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            json.dump(value, file, indent=2, ensure_ascii=False)
            file.write("\n")
        os.chmod(aside, 0o644)
        os.replace(aside, path)
    except BaseException:
        pathlib.Path(aside).unlink(missing_ok=True)
        raise


def write(directory: pathlib.Path, summary: dict[str, Any]) -> None:
    write_json(directory / "summary.json", summary)
