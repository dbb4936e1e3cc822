"""`umit export`: a checkpoint -> a Hugging Face directory that transformers loads."""

import argparse
import pathlib
from typing import Any

from launch.cli import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", type=pathlib.Path, help="workdir or one of its checkpoints")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="new directory for the exported model")


def run(args: argparse.Namespace) -> dict[str, Any]:
    from data_pipelines.chat import CHAT_TEMPLATE
    from launch import model as models
    from umit_jax.convert.to_hf import write_hf

    if args.out.exists() and any(p.name != "summary.json" for p in args.out.iterdir()):
        raise UsageError(f"--out: {args.out} exists and is not empty")
    model = models.load(args.checkpoint, "CHECKPOINT")
    written = write_hf(
        model.params,
        model.config,
        args.out,
        model.checkpoint.model_dir,
        chat_template=model.tokenizer.chat_template or CHAT_TEMPLATE,
    )
    return {"tensors": written.tensors, "bytes": written.bytes}
