"""`umit predict`: one question about image files, or a whole conversation, answered by a checkpoint."""

import argparse
import json
import pathlib
from typing import Any

from launch.cli import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", type=pathlib.Path, required=True, help="workdir or one of its checkpoints")
    parser.add_argument(
        "--image", type=pathlib.Path, nargs="+", default=[], help="PNG, JPEG, TIFF, DICOM or NIfTI files"
    )
    parser.add_argument("--prompt", help="the question")
    parser.add_argument("--messages", type=pathlib.Path, help="JSON list of {role, content, images} instead")
    parser.add_argument("--overlay", type=pathlib.Path, help="PNG of the first image with the answer drawn over it")
    parser.add_argument("--max-new-tokens", type=int, default=128)
    parser.add_argument("--window", default="soft_tissue", help="CT window preset (default soft_tissue)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    from data_pipelines.example import build_prompt
    from launch import model as models
    from launch.answers import Question, answer_ids, decode
    from launch.conversation import conversation_record

    if (args.prompt is None) == (args.messages is None):
        raise UsageError("give either --prompt (with --image) or --messages")
    if args.messages is not None and args.image:
        raise UsageError("--image goes with --prompt; in --messages each message names its images")
    if args.max_new_tokens < 1:
        raise UsageError(f"--max-new-tokens: expected at least 1, found {args.max_new_tokens}")
    messages = _messages(args)
    record = conversation_record(messages, args.window)
    model = models.load(args.checkpoint)
    prompt = build_prompt(record, model.tokenizer, model.processing)
    ids = answer_ids(model, [Question(prompt, args.max_new_tokens)], rows=1)[0][0]
    text = decode(model, ids)
    parsed = _parsed(text, record)
    if args.overlay:
        from launch.overlay import draw

        if not record.media:
            raise UsageError("--overlay: there is no image to draw on")
        draw(record.media[0], parsed, args.overlay)
    print(text)
    return {"text": text, "parsed": parsed, "token_ids": ids}


def _messages(args: argparse.Namespace) -> list[dict[str, Any]]:
    if args.messages is None:
        return [{"role": "user", "content": args.prompt, "images": [str(path) for path in args.image]}]
    try:
        messages = json.loads(args.messages.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"--messages: {args.messages}: {error}") from error
    if not isinstance(messages, list) or not all(isinstance(m, dict) for m in messages):
        raise UsageError(f"--messages: {args.messages}: expected a JSON list of objects")
    return messages


def _parsed(text: str, record: Any) -> Any:
    """What the answer says in structure, where it says boxes or points; boxes in raw pixels of the first image."""
    from umit_jax.eval.parse import parse_untargeted

    return parse_untargeted(text, record.media[0].size if record.media else None)
