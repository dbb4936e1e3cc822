"""`umit score`: every number of an evaluation again, from predictions.jsonl alone; of two runs, which is better.

`umit score A --out DIR` writes scores.json, breakdown.json and report.html; `umit score A B --out DIR` writes
comparison.json. A and B are predictions.jsonl or a directory with one. Pictures of the report are those that
`umit eval` left in report_files/ beside the predictions.
"""

import argparse
import pathlib
from typing import Any

from launch import workdir
from launch.cli import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "predictions", type=pathlib.Path, nargs="+", help="predictions.jsonl of umit eval; of two runs to compare them"
    )
    parser.add_argument("--out", type=workdir.local, required=True, help="directory for the scores")
    add_scoring(parser)


def add_scoring(parser: argparse.ArgumentParser) -> None:
    text = "convention to score by beside the strict one, may be repeated (docs/metrics.md)"
    parser.add_argument("--mode", action="append", default=[], help=text)
    text = "also the sensitivity for each class at this specificity, as 0.9; may be repeated"
    parser.add_argument("--specificity", action="append", default=[], type=_share, metavar="S", help=text)


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"expected a number between 0 and 1, found {text!r}")
    return value


def run(args: argparse.Namespace) -> dict[str, Any]:
    from umit_jax.eval.modes import check_modes
    from umit_jax.eval.predictions import read_predictions, refused
    from umit_jax.eval.report_html import write_report
    from umit_jax.eval.report_html.pictures import FOLDER, take_over
    from umit_jax.eval.score import score, write_scores

    if len(args.predictions) > 2:
        raise UsageError(f"predictions: expected one file or two, found {len(args.predictions)}")
    check_modes(args.mode)
    runs = [read_predictions(_file(path)) for path in args.predictions]
    if len(runs) == 2:
        return _compare(args, *runs)
    scores = score(runs[0], modes=args.mode, specificities=args.specificity)
    args.out.mkdir(parents=True, exist_ok=True)
    write_scores(args.out, scores)
    pictures = take_over(_file(args.predictions[0]).parent / FOLDER, args.out / FOLDER)
    other_ways = write_robustness(args.out, _file(args.predictions[0]), runs[0])
    return {
        **write_report(args.out / "report.html", runs[0], scores, pictures, robustness=other_ways),
        "scores": str(args.out / "scores.json"),
        "breakdown": str(args.out / "breakdown.json"),
        **({"robustness": str(args.out / "robustness.json")} if other_ways else {}),
        "rows": len(scores.rows),
        "refused": refused(runs[0]),
        "not_computed": scores.not_computed,
    }


def write_robustness(out: pathlib.Path, main: pathlib.Path, predictions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Writes robustness.json from the predictions.NAME.jsonl beside `main`, if there are any; returns its rows."""
    from umit_jax.eval.predictions import read_variants
    from umit_jax.eval.robustness import robustness
    from umit_jax.eval.score import write_rows

    rows = robustness(predictions, read_variants(main, predictions))
    (out / "robustness.json").unlink(missing_ok=True)
    if rows:
        write_rows(out / "robustness.json", rows)
    return rows


def _compare(args: argparse.Namespace, a: list[dict[str, Any]], b: list[dict[str, Any]]) -> dict[str, Any]:
    from umit_jax.eval.compare import compare
    from umit_jax.eval.score import write_rows

    rows, only_one = compare(a, b, modes=args.mode, specificities=args.specificity)
    args.out.mkdir(parents=True, exist_ok=True)
    write_rows(args.out / "comparison.json", rows)
    better = {run: sum(row["better"] == run for row in rows) for run in ("a", "b")}
    path = str(args.out / "comparison.json")
    return {"comparison": path, "rows": len(rows), "better": better, "not_compared": only_one}


def _file(path: pathlib.Path) -> pathlib.Path:
    file = path / "predictions.jsonl" if path.is_dir() else path
    if not file.is_file():
        raise UsageError(f"no such file: {file}")
    return file
