"""Which tensors a Hugging Face directory holds: one file, or several with model.safetensors.index.json.

Only headers are read. Whatever makes it unclear which bytes are meant is refused here, before anything is copied: an
index that contradicts the files, a tensor in two files, a file that no index names, pickles.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from umit_jax.convert.tensorfile import CheckpointError, Stored, read_header

INDEX = "model.safetensors.index.json"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


def find_tensors(directory: Path, rename: Callable[[str], str]) -> dict[str, Stored]:
    """Tensors by their hub name. rename: a name as it may stand in the file -> the hub's.

    Raises CheckpointError naming the file or tensor, FileNotFoundError where there are no weights at all.
    """
    files = sorted(directory.glob("*.safetensors"))
    if not files:
        pickled = [path for pattern in _PICKLES for path in sorted(directory.glob(pattern))]
        if pickled:
            raise CheckpointError(
                f"{pickled[0]}: weights in a pickle are refused, because reading one can run code: "
                "have their owner save them as safetensors"
            )
        if not (directory / INDEX).exists():
            raise FileNotFoundError(f"{directory}: no *.safetensors file")
    found = _checked_by_index(directory) if (directory / INDEX).exists() else files
    tensors: dict[str, Stored] = {}
    for file in found:
        for stored in read_header(file):
            name = rename(stored.name)
            if name in tensors:
                first = tensors[name].file
                where = f"in {first.name} and in {file.name}" if first != file else f"twice in {file.name}"
                raise CheckpointError(f"{directory}: tensor {name} is {where}")
            tensors[name] = stored
    return tensors


def _checked_by_index(directory: Path) -> list[Path]:
    """The files that the index names, after comparing it with their headers."""
    index = directory / INDEX
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(file, str) for file in places.values()):
        raise CheckpointError(f"{index}: no weight_map from tensor to file")
    for name, file in places.items():
        if Path(file).name != file or not file.endswith(".safetensors"):
            raise CheckpointError(f"{index}: tensor {name}: {file!r} is not the name of a safetensors file")
        if not (directory / file).is_file():
            raise CheckpointError(f"{index}: tensor {name} should be in {file}, which is not there")
    named = sorted(set(places.values()))
    for file in sorted(directory.glob("*.safetensors")):
        if file.name not in named:
            raise CheckpointError(f"{file}: not named by {INDEX}: move it elsewhere or correct the index")
    holds = {file: {stored.name for stored in read_header(directory / file)} for file in named}
    for name, file in places.items():
        if name not in holds[file]:
            others = [other for other in named if name in holds[other]]
            raise CheckpointError(
                f"{index}: tensor {name} is not in {file}" + (f" but in {others[0]}" if others else "")
            )
    for file in named:
        for name in sorted(holds[file]):
            if places.get(name) is None:
                raise CheckpointError(f"{index}: tensor {name} of {file} is not in the index")
            if places[name] != file:
                raise CheckpointError(f"{directory}: tensor {name} is in {places[name]} and in {file}")
    return [directory / file for file in named]


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file that holds one object."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CheckpointError(f"{path}: not JSON ({error})") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: expected a JSON object, found {type(values).__name__}")
    return values
