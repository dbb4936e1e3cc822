"""report.html: one page that works from a disk: summary, tables, curves, confusion, and a browser of examples.

write_report() needs predictions and their scores only; pictures come from the folder report_files/ beside the page
(pictures.py), where there is one. What is left out (examples and pictures beyond a limit, metrics that could not be
computed) is counted on the page. docs/report.md describes the page.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from umit_jax import __version__
from umit_jax.eval.predictions import Prediction
from umit_jax.eval.report_html import curves, examples, page, tables
from umit_jax.eval.report_html.judge import Judged, evenly, judge
from umit_jax.eval.report_html.pictures import Pictures
from umit_jax.eval.score import Scores, n_patients

__all__ = ["EXAMPLES", "judge", "write_report"]

NO_PICTURES = Pictures()
EXAMPLES = 20000  # what a browser holds without effort: about 25 MB of page


def write_report(
    path: Path,
    predictions: Sequence[Prediction],
    scores: Scores,
    pictures: Pictures = NO_PICTURES,
    *,
    robustness: Sequence[Mapping[str, Any]] = (),
    limit: int = EXAMPLES,
    judged: Sequence[Judged] | None = None,
) -> dict[str, Any]:
    """Writes the page. Returns what a summary says of it.

    robustness: rows of robustness.json. limit: examples in the page's browser, taken evenly; 0 takes all. judged: what
    judge(predictions) gave, if it is at hand.
    """
    judged = judge(predictions) if judged is None else judged
    shown = [judged[i] for i in evenly([example.about for example in judged], limit)]
    with_picture = sum(bool(pictures.of(example.prediction)) for example in shown)
    table = tables.by_task(scores.rows)
    context = {
        "about": _about(predictions, scores, pictures),
        "notices": _notices(shown, len(judged) - len(shown), scores, pictures),
        "tables": table,
        "headlines": tables.headlines(table),
        "robustness": tables.other_ways(robustness),
        "plots": _plots(judged, scores),
        "confusions": [
            {"group": group, "matrix": curves.confusion(members)}
            for group, members in curves.by_question(judged).items()
        ],
    }
    columns = {**examples.columns(shown), "chunk": examples.CHUNK}
    path.write_bytes(page.render(context, columns, examples.chunks(shown, pictures)))
    return {"report_examples": len(shown), "report_pictures": with_picture}


def _about(predictions: Sequence[Prediction], scores: Scores, pictures: Pictures) -> dict[str, Any]:
    def values(key: str) -> list[str]:
        return list(dict.fromkeys(str(line[key]) for line in predictions if line.get(key) is not None))

    synthetic = {bool(line.get("synthetic")) for line in predictions}
    return {
        "checkpoint": pictures.checkpoint.get("name", ""),
        "step": pictures.checkpoint.get("step"),
        "n": len(predictions),
        "n_patients": n_patients(predictions),
        "modes": list(dict.fromkeys(row["mode"] for row in scores.rows)),
        "config_hash": values("config_hash"),
        "seed": values("seed")[:3],
        "version": __version__,
        "synthetic": "" if synthetic == {False} else "all" if synthetic == {True} else "some",
    }


def _notices(shown: Sequence[Judged], left_out: int, scores: Scores, pictures: Pictures) -> list[tuple[str, str, int]]:
    """(key of words.json or a text, what it is about or "", how many) of everything that is not on the page."""
    notices = [(reason, name, 0) for name, reason in scores.not_computed.items()]
    if left_out:
        notices.append(("examples_left_out", "", left_out))
    if pictures == NO_PICTURES:
        return [*notices, ("pictures_none", "", 0)]
    notices += [(f"pictures_{reason}", "", count) for reason, count in pictures.left_out.items() if count]
    missing = sum(bool(e.prediction.get("images")) and not pictures.of(e.prediction) for e in shown)
    unexplained = missing - sum(pictures.left_out.get(reason, 0) for reason in ("limit", "undecodable"))
    if unexplained > 0:
        notices.append(("pictures_unknown", "", unexplained))
    return notices


def _plots(judged: Sequence[Judged], scores: Scores) -> list[dict[str, Any]]:
    """One for each question whose options have probabilities."""
    plots = []
    asked = curves.specificities(scores.rows)
    for group, members in curves.by_question(judged).items():
        scored = [example for example in members if example.prediction.get("scores") is not None]
        if scored:
            bins = curves.reliability(scored)
            ece = sum(b.count * abs(b.accuracy - b.probability) for b in bins) / len(scored)
            found = curves.roc_curves(scored)
            points = [curves.operating(curve, specificity) for curve in found for specificity in asked]
            plots.append({
                "group": group, "n": len(scored), "curves": found, "bins": bins, "ece": ece, "operating": points,
            })  # fmt: skip
    return plots
