"""`umit score`: every number of an evaluation again, from predictions.jsonl alone."""

import argparse
import pathlib
from typing import Any

from launch.cli import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("predictions", type=pathlib.Path, help="predictions.jsonl of umit eval")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="directory for scores.json")


def run(args: argparse.Namespace) -> dict[str, Any]:
    from umit_jax.eval.score import read_predictions, score, write_scores

    if not args.predictions.is_file():
        raise UsageError(f"no such file: {args.predictions}")
    rows = score(read_predictions(args.predictions))
    args.out.mkdir(parents=True, exist_ok=True)
    write_scores(args.out / "scores.json", rows)
    return {"scores": str(args.out / "scores.json"), "rows": len(rows)}
