"""What an import keeps of the directory it came from, beside our own files, so that an export can give it back.

| in model/origin          | why                                                                               |
| tensors.json             | the dtype of every tensor, and the tensors that only repeat another one           |
| config.json              | keys that our ModelConfig does not know and that change no computation            |
| the other files of KEPT  | as they were: pixel processors, chat template, generation config, tokenizer files |

A stage that starts from an import copies model/ and so keeps it too; a stage with a tokenizer of its own does not.
"""

import dataclasses
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from umit_jax.convert.from_hf import HfModel
from umit_jax.convert.tensorfile import DTYPES, NAMES
from umit_jax.convert.weights import read_json
from umit_jax.model.config import ModelConfig

FOLDER = "origin"
KEPT = (
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "processor_config.json",
    "chat_template.jinja",
    "chat_template.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "LICENSE",
    "LICENSE.txt",
    "LICENSE.md",
    "NOTICE",
)
# Written anew (the decoder's and the tower's numbers come from our config), or an invitation to run code.
_NOT_CARRIED = ("text_config", "vision_config", "auto_map", "torch_dtype", "dtype", "rope_parameters", "image_mean")
_NOT_CARRIED += ("image_std", "quantization_config")


@dataclasses.dataclass(frozen=True)
class Origin:
    """folder: None for a model that was not imported. dtypes, copies: by tensor name (see HfModel)."""

    folder: Path | None = None
    config: dict[str, Any] = dataclasses.field(default_factory=dict)
    dtypes: dict[str, np.dtype] = dataclasses.field(default_factory=dict)
    copies: dict[str, str] = dataclasses.field(default_factory=dict)


def keep(model: HfModel, model_dir: Path) -> None:
    """Copies what is kept into model_dir/origin. The template and the rest are data here: nothing of them is run."""
    folder = model_dir / FOLDER
    folder.mkdir(parents=True)
    for name in KEPT:
        if (model.directory / name).is_file():
            shutil.copyfile(model.directory / name, folder / name)
    by_dtype: dict[str, list[str]] = {}
    for tensor, stored in model.tensors:
        by_dtype.setdefault(NAMES[stored.dtype], []).append(tensor.name)
    text = json.dumps({"dtypes": by_dtype, "copies": model.copies}, indent=1)
    (folder / "tensors.json").write_text(text + "\n", encoding="utf-8")


def load(model_dir: Path) -> Origin:
    folder = model_dir / FOLDER
    if not folder.is_dir():
        return Origin()
    tensors = read_json(folder / "tensors.json")
    dtypes = {name: DTYPES[dtype] for dtype, names in tensors["dtypes"].items() for name in names}
    return Origin(folder, read_json(folder / "config.json"), dtypes, tensors["copies"])


def config_json(config: ModelConfig, kept: Origin, dtypes: Iterable[np.dtype]) -> dict[str, Any]:
    """config.json in the hub's flat form: our numbers, and the keys of the original that we do not know."""
    made = config.to_hf()
    made.pop("dtype", None)
    theirs = kept.config
    if not theirs:
        return made | {"torch_dtype": _widest(dtypes)}
    vision = _carried(theirs.get("vision_config") or {}, made["vision_config"], ("torch_dtype", "dtype"))
    text = _carried(theirs.get("text_config") or {}, made, ("model_type", "torch_dtype", "dtype", "rope_parameters"))
    top = _carried(theirs, made, _NOT_CARRIED)
    if not {"image_mean", "image_std"} & theirs.keys():  # they came from the image processor's file and go back there
        made = {key: value for key, value in made.items() if key not in ("image_mean", "image_std")}
    for key in ("bos_token_id", "eos_token_id"):  # several ends are the generation config's business, not the model's
        if isinstance(theirs.get(key), list):
            made[key] = theirs[key]
    stated = theirs.get("torch_dtype") or theirs.get("dtype") or (theirs.get("text_config") or {}).get("dtype")
    unchanged = set(dtypes) == set(kept.dtypes.values())
    named = stated if unchanged and isinstance(stated, str) else _widest(dtypes)
    return {**text, **top, **made, "vision_config": vision | made["vision_config"], "torch_dtype": named}


def _carried(theirs: dict[str, Any], ours: dict[str, Any], but: tuple[str, ...]) -> dict[str, Any]:
    return {key: value for key, value in theirs.items() if key not in ours and key not in but}


def _widest(dtypes: Iterable[np.dtype]) -> str:
    """One dtype that holds every tensor exactly."""
    found = set(dtypes)
    return str(next(iter(found))) if len(found) == 1 else "float32"
