"""`umit export`: a checkpoint -> a Hugging Face directory that transformers loads, written piece by piece.

Of a LoRA run it writes the merged weights, or with --adapter a directory that PEFT loads.
"""

import argparse
from typing import Any

from launch import workdir
from launch.cli import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", type=workdir.path, help="workdir or one of its checkpoints")
    parser.add_argument("--out", type=workdir.local, required=True, help="new directory for the exported model")
    parser.add_argument("--adapter", action="store_true", help="of a LoRA run: a PEFT adapter, not merged weights")
    parser.add_argument("--base-name", default="", help="with --adapter: name or path that readers load the base by")
    parser.add_argument("--base", type=workdir.path, help="where the base of a LoRA run is now, if it has moved")
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        help="of all tensors; without it as in the checkpoint, and what was not trained as it was imported",
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    import ml_dtypes
    import numpy as np

    from data_pipelines.chat import CHAT_TEMPLATE
    from launch import model as models
    from umit_jax.convert.aside import check_free
    from umit_jax.convert.to_hf import write_hf
    from umit_jax.train.leaves import open_leaves

    try:
        check_free(args.out)
    except FileExistsError as error:
        raise UsageError(f"--out: {error}") from error
    checkpoint = workdir.find(args.checkpoint, "CHECKPOINT")
    if args.adapter:
        from launch.adapter import export_adapter

        return export_adapter(checkpoint, args.out, args.base_name)
    config, tokenizer, _ = models.load_companions(checkpoint.model_dir)
    dtypes = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
    written = write_hf(
        open_leaves(checkpoint.path, config, None if args.base is None else workdir.find(args.base, "--base").path),
        config,
        args.out,
        checkpoint.model_dir,
        chat_template=tokenizer.chat_template or CHAT_TEMPLATE,
        dtype=dtypes.get(args.dtype),
    )
    return {"tensors": written.tensors, "bytes": written.bytes, "dtypes": written.dtypes}
