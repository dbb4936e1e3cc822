"""`umit score`: every number of an evaluation again, from predictions.jsonl alone; of two runs, which is better.

`umit score A --out DIR` writes scores.json, breakdown.json and report.html; `umit score A B --out DIR` writes
comparison.json. A and B are predictions.jsonl or a directory with one. Pictures of the report are those that
`umit eval` left in report_files/ beside the predictions. Everything is read before anything is written, and the files
appear together.
"""

import argparse
import logging
import pathlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from launch import workdir
from launch.cli import UsageError

if TYPE_CHECKING:
    from umit_jax.eval.score import Scores

logger = logging.getLogger(__name__)
_FILES = ("scores.json", "breakdown.json", "robustness.json", "report.html")


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
    from umit_jax.eval.predictions import read_predictions
    from umit_jax.eval.report_html import write_report
    from umit_jax.eval.report_html.pictures import FOLDER, read_pictures, take_over

    if len(args.predictions) > 2:
        raise UsageError(f"predictions: expected one file or two, found {len(args.predictions)}")
    check_modes(args.mode)
    files = [_file(path) for path in args.predictions]
    runs = [read_predictions(file) for file in files]
    if len(runs) == 2:
        return _compare(args, *runs)
    source = files[0].parent / FOLDER
    pictures = read_pictures(source)

    def report(page: pathlib.Path, scores: "Scores", other_ways: Sequence[dict[str, Any]]) -> dict[str, Any]:
        found = write_report(page, runs[0], scores, pictures, robustness=other_ways)
        take_over(source, args.out / FOLDER)
        return found

    return write_files(args, files[0], runs[0], report)


def write_files(
    args: argparse.Namespace,
    main: pathlib.Path,
    predictions: list[dict[str, Any]],
    report: "Callable[[pathlib.Path, Scores, Sequence[dict[str, Any]]], dict[str, Any]]",
) -> dict[str, Any]:
    """Scores what was read from `main` and the predictions.NAME.jsonl beside it, and writes all files of an evaluation;
    returns what a summary says of them. report: (path, scores, rows of robustness.json) -> the same, of the page that
    it writes."""
    from umit_jax.convert.aside import whole_files
    from umit_jax.eval.predictions import read_variants, refused, variant_files
    from umit_jax.eval.robustness import robustness
    from umit_jax.eval.score import score, write_rows, write_scores

    scores = score(predictions, modes=args.mode, specificities=args.specificity)
    other_ways = robustness(predictions, read_variants(main, predictions))
    not_read = [path.name for path in variant_files(main)[1]]
    if not_read:
        logger.warning("not read, no such way of asking: %s", ", ".join(not_read))
    with whole_files(args.out, _FILES) as aside:
        write_scores(aside, scores)
        if other_ways:
            write_rows(aside / "robustness.json", other_ways)
        of_report = report(aside / "report.html", scores, other_ways)
    return {
        "report": str(args.out / "report.html"),
        **of_report,
        "scores": str(args.out / "scores.json"),
        "breakdown": str(args.out / "breakdown.json"),
        **({"robustness": str(args.out / "robustness.json")} if other_ways else {}),
        "rows": len(scores.rows),
        "refused": refused(predictions),
        "not_computed": scores.not_computed,
        **({"not_read": not_read} if not_read else {}),
    }


def _compare(args: argparse.Namespace, a: list[dict[str, Any]], b: list[dict[str, Any]]) -> dict[str, Any]:
    from umit_jax.convert.aside import whole_files
    from umit_jax.eval.compare import compare
    from umit_jax.eval.predictions import refused
    from umit_jax.eval.score import write_rows

    rows, only_one, not_computed = compare(a, b, modes=args.mode, specificities=args.specificity)
    with whole_files(args.out, ("comparison.json",)) as aside:
        write_rows(aside / "comparison.json", rows)
    return {
        "comparison": str(args.out / "comparison.json"),
        "rows": len(rows),
        "better": {run: sum(row["better"] == run for row in rows) for run in ("a", "b")},
        "refused": {"a": refused(a), "b": refused(b)},
        "not_compared": only_one,
        "not_computed": not_computed,
    }


def _file(path: pathlib.Path) -> pathlib.Path:
    file = path / "predictions.jsonl" if path.is_dir() else path
    if not file.is_file():
        raise UsageError(f"no such file: {file}")
    return file
