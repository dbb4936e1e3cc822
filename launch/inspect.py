"""`umit inspect`: says what a directory is (shards, checkpoint, Hugging Face model) and what is in it."""

import argparse
import json
import pathlib
from typing import Any

from data_pipelines.paths import as_path
from launch import workdir
from launch.adapter import is_adapter
from launch.cli import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", type=workdir.path, help="shard set, workdir, checkpoint or Hugging Face directory")
    parser.add_argument("--records", type=int, default=0, metavar="N", help="print the first N records, a line each")


def run(args: argparse.Namespace) -> dict[str, Any]:
    directory = workdir.best_or_itself(args.directory, "DIRECTORY")
    if not directory.is_dir():
        raise UsageError(f"no such directory: {directory}")
    if (directory / "manifest.json").is_file():
        found = _shards(directory, args.records)
    elif (directory / "config.json").is_file() and list(directory.glob("*.safetensors")):
        found = _hugging_face(directory)
    elif is_adapter(directory):
        found = _peft(directory)
    elif (directory / "checkpoints").is_dir() or directory.parent.name == "checkpoints":
        found = _checkpoint(directory)
    else:
        raise UsageError(f"{directory}: no manifest.json, no checkpoints and no safetensors: nothing umit knows")
    if not args.records:
        print(json.dumps(found, indent=2, ensure_ascii=False))
    return found


def _shards(directory: pathlib.Path, records: int) -> dict[str, Any]:
    from data_pipelines.inspect import read_back, summarize

    for line in read_back(directory, records):
        print(json.dumps(line, ensure_ascii=False))
    return summarize(directory)


def _parameters(shapes: dict[str, tuple[int, ...]]) -> dict[str, Any]:
    import math

    groups: dict[str, int] = {}
    for path, shape in shapes.items():
        group = path.split("/")[0]
        groups[group] = groups.get(group, 0) + math.prod(shape)
    return {"tensors": len(shapes), "parameters": sum(groups.values()), "parameters_by_part": groups}


def _checkpoint(directory: pathlib.Path) -> dict[str, Any]:
    from umit_jax.model.config import ModelConfig
    from umit_jax.train.checkpoint import read_data, read_metadata

    checkpoint = workdir.find(directory, "DIRECTORY")
    hf = workdir.read_json(checkpoint.model_dir / "config.json")
    metadata, data = read_metadata(checkpoint.path), read_data(checkpoint.path)
    config = ModelConfig.from_hf(hf)
    return {
        "kind": "checkpoint",
        "step": checkpoint.step,
        "data_position": metadata.position,
        **_parameters(metadata.shapes),
        "optimizer_values": metadata.optimizer_values,
        **_adapters(data),
        **({"evaluation": data["evaluation"]} if "evaluation" in data else {}),
        "layers": {"vision": config.vision.layers, "decoder": config.text.layers},
        "files": sorted(p.name for p in checkpoint.model_dir.iterdir()),
    }


def _adapters(data: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint of a LoRA run stands on, and whether that is where it was."""
    if "base" not in data:
        return {}
    found = (as_path(data["base"]["path"]) / "data").exists()
    return {"lora": data["lora"], "base": {**data["base"], "found": found}}


def _peft(directory: pathlib.Path) -> dict[str, Any]:
    """Settings and size of a PEFT adapter; no model is needed to know them."""
    import math

    from safetensors import safe_open

    settings = workdir.read_json(directory / "adapter_config.json")
    shapes = []
    for file in sorted(directory.glob("*.safetensors")):
        with safe_open(file, framework="numpy") as opened:
            shapes += [opened.get_slice(name).get_shape() for name in opened.keys()]  # noqa: SIM118
    keys = ("base_model_name_or_path", "r", "lora_alpha", "use_rslora", "target_modules", "modules_to_save")
    return {
        "kind": "adapter",
        **{key: settings.get(key) for key in keys},
        "tensors": len(shapes),
        "parameters": sum(math.prod(shape) for shape in shapes),
        "files": sorted(p.name for p in directory.iterdir()),
    }


def _hugging_face(directory: pathlib.Path) -> dict[str, Any]:
    import math

    from safetensors import safe_open

    hf = workdir.read_json(directory / "config.json")
    tensors: dict[str, Any] = {}
    for file in sorted(directory.glob("*.safetensors")):
        with safe_open(file, framework="numpy") as opened:
            for name in opened.keys():  # noqa: SIM118 (a safe_open handle is no dict)
                part = opened.get_slice(name)
                tensors[name] = (part.get_dtype(), part.get_shape())
    return {
        "kind": "hugging_face",
        "architectures": hf.get("architectures"),
        "model_type": hf.get("model_type"),
        "tensors": len(tensors),
        "parameters": sum(math.prod(shape) for _, shape in tensors.values()),
        "dtypes": sorted({dtype for dtype, _ in tensors.values()}),
        "files": sorted(p.name for p in directory.iterdir()),
    }
