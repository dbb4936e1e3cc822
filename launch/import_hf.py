"""`umit import`: a Hugging Face directory -> a workdir whose checkpoint training can start from.

Everything is checked before the first weight is copied. Neither the model nor a file is held in memory: weights are
read, turned and written piece by piece.
"""

import argparse
import logging
import pathlib
from typing import TYPE_CHECKING, Any

from launch import workdir
from launch.cli import UsageError
from launch.summary import write_json

if TYPE_CHECKING:
    from umit_jax.convert.from_hf import HfModel

logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("hf_dir", type=pathlib.Path, help="directory with config.json and *.safetensors")
    parser.add_argument("--base", type=workdir.path, help="HF_DIR is a PEFT adapter: the imported model it belongs to")
    parser.add_argument("--out", type=workdir.local, required=True, help="new workdir")


def run(args: argparse.Namespace) -> dict[str, Any]:
    from tqdm import tqdm

    from launch.adapter import import_adapter, is_adapter
    from umit_jax.convert.aside import check_free, whole_directory
    from umit_jax.convert.from_hf import with_report
    from umit_jax.train.leaves import save_leaves

    if not args.hf_dir.is_dir():
        raise UsageError(f"HF_DIR: no such directory: {args.hf_dir}")
    try:
        check_free(args.out)
    except FileExistsError as error:
        raise UsageError(f"--out: {error}") from error
    if is_adapter(args.hf_dir):
        return import_adapter(args.hf_dir, args.base, args.out)
    model = open_directory(args.hf_dir)
    with (
        whole_directory(args.out) as aside,
        tqdm(total=model.nbytes, unit="B", unit_scale=True, desc="import", disable=None) as bar,
    ):
        write_model_dir(model, aside / "model")
        save_leaves(aside, with_report(model, bar.update))
    return {"tensors": len(model.tensors) + len(model.copies), "bytes": model.nbytes}


def open_directory(hf_dir: pathlib.Path) -> "HfModel":
    """The model in a Hugging Face directory, with all that is checked before anything is copied."""
    from data_pipelines.tokenizer import load_tokenizer
    from umit_jax.convert.from_hf import open_model, read_pixels
    from umit_jax.convert.processor import check_pixels

    model = open_model(hf_dir)
    check_pixels(model.config, read_pixels(hf_dir), f"{hf_dir}: image processor")
    tokenizer, config = load_tokenizer(hf_dir), model.config
    if tokenizer.vocab_size > config.text.vocab_size:
        raise UsageError(
            f"{hf_dir / 'tokenizer.json'}: {tokenizer.vocab_size} tokens, "
            f"but model.embed_tokens.weight has rows for {config.text.vocab_size}"
        )
    for name, key in (("<|image_pad|>", "image_token_id"), ("<|video_pad|>", "video_token_id")):
        if tokenizer.token_id(name) != getattr(config, key):
            found = f"{getattr(config, key)}, but tokenizer.json says {tokenizer.token_id(name)} for {name}"
            raise UsageError(f"{hf_dir / 'config.json'}: {key} is {found}")
    return model


def write_model_dir(model: "HfModel", model_dir: pathlib.Path) -> None:
    """Everything of a model but its weights: config, tokenizer, preprocess.json, and what an export gives back."""
    from data_pipelines.example import Processing
    from data_pipelines.tokenizer import load_tokenizer
    from umit_jax.convert import origin
    from umit_jax.convert.from_hf import read_pixels
    from umit_jax.convert.processor import pixel_limits
    from umit_jax.model import families

    load_tokenizer(model.directory).save(model_dir)
    write_json(model_dir / "config.json", model.config.to_hf())
    low, high = pixel_limits(read_pixels(model.directory))
    if (own := pixel_limits(read_pixels(model.directory, video=True))) != (low, high):
        message = "%s: videos of %s to %s pixels a frame: volumes are shown like images, %d to %d pixels a slice"
        logger.warning(message, model.directory, *own, low, high)
    numbers = families.host_numbers(model.config)
    processing = Processing(min_pixels=low, max_pixels=high, total_pixels=4 * high, **numbers)
    write_json(model_dir / "preprocess.json", processing.to_json())
    origin.keep(model, model_dir)
