"""`umit predict`: one question about image files, or a whole conversation, answered by a checkpoint."""

import argparse
import json
import pathlib
import re
from typing import Any

from launch import layout, workdir
from launch.cli import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", type=workdir.path, required=True, help="workdir or one of its checkpoints")
    parser.add_argument("--base", type=workdir.path, help="where the base of a LoRA run is now, if it has moved")
    parser.add_argument(
        "--image", type=pathlib.Path, nargs="+", default=[], help="PNG, JPEG, TIFF, DICOM or NIfTI files"
    )
    parser.add_argument("--prompt", help="the question")
    parser.add_argument("--messages", type=pathlib.Path, help="JSON list of {role, content, images} instead")
    parser.add_argument("--overlay", type=pathlib.Path, help="PNG of the first image with the answer drawn over it")
    parser.add_argument("--max-new-tokens", type=int, default=128)
    layout.add_arguments(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    from data_pipelines.example import build_prompt
    from data_pipelines.media.show import Layout
    from launch import model as models
    from launch.conversation import conversation_record
    from umit_jax.infer.buckets import answer_all

    if (args.prompt is None) == (args.messages is None):
        raise UsageError("give either --prompt (with --image) or --messages")
    if args.messages is not None and args.image:
        raise UsageError("--image goes with --prompt; in --messages each message names its images")
    if args.max_new_tokens < 1:
        raise UsageError(f"--max-new-tokens: expected at least 1, found {args.max_new_tokens}")
    messages = _messages(args)
    how = Layout(args.plane or "axial", bool(args.foreground), args.volume_size, args.spacing)
    record = conversation_record(messages, args.window or "", how)
    model = models.load(args.checkpoint, base=args.base)
    prompt = build_prompt(record, model.tokenizer, model.processing)
    (answer,) = answer_all(
        model.config,
        model.params,
        [prompt],
        max_new_tokens=args.max_new_tokens,
        eos_ids=model.tokenizer.eos_ids,
    )
    text = model.tokenizer.decode(answer.tokens).strip()
    parsed = _parsed(text, record, prompt.spoken)
    if args.overlay:
        from launch.overlay import draw

        if not record.media:
            raise UsageError("--overlay: there is no image to draw on")
        draw(record.media[0], parsed, args.overlay)
    print(text)
    return {"text": text, "parsed": parsed, "token_ids": answer.tokens}


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


def _parsed(text: str, record: Any, spoken: Any) -> dict[str, Any]:
    """What the answer says in structure: boxes in raw pixels (voxels) of the first image, a point in the 0-1000 frame
    or, of a volume, in voxels; anything else is text. spoken: the frame of 2D boxes in the text, None for 0-1000."""
    from umit_jax.eval.parse import parse
    from umit_jax.targets import Frame

    kinds = ["text"]
    frames = {}
    if record.media:
        media = record.media[0]
        raw = Frame("raw" if media.kind == "image" else "voxel", tuple(map(float, media.size)), media.spacing_mm)
        frames = {"boxes": raw, "points": raw if raw.ndim == 3 else raw.norm1000()}
        numbers = len(re.findall(r"[\d.]+", re.sub(r"<\|object_ref_start\|>.*?<\|object_ref_end\|>", "", text)))
        corners = {raw.ndim: "points", 2 * raw.ndim: "boxes"}.get(numbers if "<|box_start|>" not in text else -1)
        if "<|box_start|>" in text or '"bbox_2d"' in text or (corners == "boxes" and text[:1] in "[("):
            kinds.insert(0, "boxes")
        elif corners == "points" and re.fullmatch(r"\s*[\[(][\d., ]+[\])]\s*", text):
            kinds.insert(0, "points")
    for kind in kinds:
        # A truth without items: labels come from the text alone.
        asked = {"kind": kind, "frame": frames[kind].to_json(), "items": []} if kind in frames else {"kind": kind}
        parsed = parse(text, asked, record.language, spoken)
        if parsed is not None:
            return parsed
    return {"kind": "text", "text": text}
