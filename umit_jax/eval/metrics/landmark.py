"""Strict landmark metrics: mean radial error in millimetres, and success within 2, 2.5, 3 and 4 mm (ISBI 2015).

The distance is Euclidean over the truth's mm_per_unit, axis by axis, so an anisotropic frame is scored right.
Success is distance <= limit; an unparsed or missing point is a miss. In mre_mm such a point stands at the corner of
the image farthest from the truth, the worst answer there is, so silence never pays; mre_mm_parsed is the mean over
answers that give at least one point, of which a point that is missing still stands there, and `unparsed` stands beside
both. Questions about an image of unknown spacing have no error in
mm: they are left out of these metrics, and no_spacing is their fraction (absent when 0).
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np

from umit_jax.eval.bootstrap import Statistic, mean
from umit_jax.eval.metrics import Item
from umit_jax.eval.normalise import fold
from umit_jax.targets import Frame, Target

LIMITS_MM = (2, 2.5, 3, 4)
NAMES = ("mre_mm", "mre_mm_parsed", *(f"sdr_{limit:g}mm" for limit in LIMITS_MM), "no_spacing")
_ROUNDING_MM = 1e-9  # 0.1 mm pixels: 20 of them must be <= 2 mm whatever float64 makes of it


def landmarks(items: Sequence[Item]) -> dict[str, Statistic]:
    """Items with points; an answer is in the frame of its truth. A question with several points counts their mean."""
    errors = [distances_mm(item.truth, item.answer) for item in items]
    known = [error is not None for error in errors]
    result: dict[str, Statistic] = {}
    if any(known):
        worst = [np.zeros(1) if error is None else error for error in errors]
        parsed = [
            error is not None and item.answer is not None and bool(item.answer["items"])
            for error, item in zip(errors, items, strict=True)
        ]
        result["mre_mm"] = mean([float(e.mean()) for e in worst], known, higher_is_better=False)
        result["mre_mm_parsed"] = mean([float(e.mean()) for e in worst], parsed, higher_is_better=False)
        missed = [_missed(item.truth, item.answer) for item in items]
        for limit in LIMITS_MM:
            hits = [float(np.mean((e <= limit + _ROUNDING_MM) & ~m)) for e, m in zip(worst, missed, strict=True)]
            result[f"sdr_{limit:g}mm"] = mean(hits, known)
    if not all(known):
        result["no_spacing"] = mean([not k for k in known], higher_is_better=False)
    return result


def distances_mm(truth: Target, answer: Target | None) -> np.ndarray | None:
    """Distance of each true point to the said point of its label, or to the farthest corner; None without spacing."""
    frame = Frame.from_json(truth["frame"])
    if frame.mm_per_unit is None or not truth["items"]:
        return None
    said = _by_label(answer)
    return np.array([_distance(frame, item["point"], said.get(fold(item["label"]))) for item in truth["items"]])


def _distance(frame: Frame, true: Sequence[float], said: Sequence[float] | None) -> float:
    assert frame.mm_per_unit is not None
    corners = itertools.product(*((0.0, size) for size in frame.size)) if said is None else [said]
    return max(
        math.hypot(*((a - b) * mm for a, b, mm in zip(true, point, frame.mm_per_unit, strict=True)))
        for point in corners
    )


def _missed(truth: Target, answer: Target | None) -> np.ndarray:
    said = _by_label(answer)
    return np.array([fold(item["label"]) not in said for item in truth["items"]] or [True])


def _by_label(target: Target | None) -> dict[str, list[float]]:
    return {fold(item["label"]): item["point"] for item in target["items"]} if target else {}
