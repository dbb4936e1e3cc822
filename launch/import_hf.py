"""`umit import`: a Hugging Face directory -> a workdir whose checkpoint training can start from.

The model is held whole in memory on the way.
"""

import argparse
import pathlib
import shutil
import tempfile
from typing import Any

from launch import workdir
from launch.cli import UsageError
from launch.summary import write_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("hf_dir", type=pathlib.Path, help="directory with config.json and *.safetensors")
    parser.add_argument("--base", type=pathlib.Path, help="HF_DIR is a PEFT adapter: the imported model it belongs to")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="new workdir")


def run(args: argparse.Namespace) -> dict[str, Any]:
    import jax.numpy as jnp
    from flax.traverse_util import flatten_dict, unflatten_dict

    from data_pipelines.example import Processing
    from data_pipelines.tokenizer import load_tokenizer
    from launch.adapter import import_adapter, is_adapter
    from umit_jax.convert.from_hf import read
    from umit_jax.model import families
    from umit_jax.train.checkpoint import save_params

    if not args.hf_dir.is_dir():
        raise UsageError(f"HF_DIR: no such directory: {args.hf_dir}")
    if args.out.exists():
        raise UsageError(f"--out: {args.out} exists")
    if is_adapter(args.hf_dir):
        return import_adapter(args.hf_dir, args.base, args.out)
    config, arrays = read(args.hf_dir)
    pixels = workdir.read_json(args.hf_dir / "preprocessor_config.json")
    size = pixels.get("size", {})
    low = pixels.get("min_pixels", size.get("shortest_edge"))
    high = pixels.get("max_pixels", size.get("longest_edge"))
    if low is None or high is None:
        raise UsageError(f"{args.hf_dir / 'preprocessor_config.json'}: no min_pixels and max_pixels")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    aside = pathlib.Path(tempfile.mkdtemp(dir=args.out.parent, prefix=f".{args.out.name}."))
    try:
        load_tokenizer(args.hf_dir).save(aside / "model")
        write_json(aside / "model" / "config.json", config.to_hf())
        processing = Processing(min_pixels=low, max_pixels=high, total_pixels=4 * high, **families.host_numbers(config))
        write_json(aside / "model" / "preprocess.json", processing.to_json())
        flat = flatten_dict(arrays, sep="/")
        save_params(aside, unflatten_dict({path: jnp.asarray(value) for path, value in flat.items()}, sep="/"))
        aside.chmod(0o755)
        aside.rename(args.out)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return {"tensors": len(flat), "bytes": sum(value.nbytes for value in flat.values())}
