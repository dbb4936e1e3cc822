"""`umit export`: a checkpoint -> a Hugging Face directory that transformers loads.

Of a LoRA run it writes the merged weights, or with --adapter a directory that PEFT loads."""

import argparse
import pathlib
from typing import Any

from launch.cli import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", type=pathlib.Path, help="workdir or one of its checkpoints")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="new directory for the exported model")
    parser.add_argument("--adapter", action="store_true", help="of a LoRA run: a PEFT adapter, not merged weights")
    parser.add_argument("--base-name", default="", help="with --adapter: name or path that readers load the base by")
    parser.add_argument("--base", type=pathlib.Path, help="where the base of a LoRA run is now, if it has moved")


def run(args: argparse.Namespace) -> dict[str, Any]:
    from data_pipelines.chat import CHAT_TEMPLATE
    from launch import model as models
    from launch import workdir
    from umit_jax.convert.to_hf import write_hf

    if args.out.exists() and any(p.name != "summary.json" for p in args.out.iterdir()):
        raise UsageError(f"--out: {args.out} exists and is not empty")
    if args.adapter:
        from launch.adapter import export_adapter

        return export_adapter(workdir.find(args.checkpoint, "CHECKPOINT"), args.out, args.base_name)
    model = models.load(args.checkpoint, "CHECKPOINT", args.base)
    written = write_hf(
        model.params,
        model.config,
        args.out,
        model.checkpoint.model_dir,
        chat_template=model.tokenizer.chat_template or CHAT_TEMPLATE,
    )
    return {"tensors": written.tensors, "bytes": written.bytes}
