"""Every metric there is: which convention computes it, for which truth and task. docs/metrics.md defines each.

"strict" is always computed. The other modes follow another project's script to the letter, its faults included, so
that a number can stand beside that project's tables; where a mode says nothing about a task it gives no row.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from umit_jax.eval.bootstrap import Statistic
from umit_jax.eval.metrics import (
    Item,
    classify,
    coco,
    detect,
    findings,
    landmark,
    learned,
    llava_med,
    m3d,
    medevalkit,
    probability,
    r2gen,
    report,
    vila_m3,
    vqa,
)

STRICT = "strict"


def _never_missing() -> str | None:
    return None


@dataclasses.dataclass(frozen=True)
class Family:
    """Metrics that one function computes together.

    kind: of the truth. tasks: those it is for; None: every task but VQA. names: all the metrics it may return; it
    leaves out those that the items say nothing about. dims: number of axes, None: any. missing: why it cannot be
    computed on this machine, or None where it can.
    """

    mode: str
    kind: str
    tasks: tuple[str, ...] | None
    names: tuple[str, ...]
    score: Callable[[Sequence[Item]], dict[str, Statistic]]
    dims: int | None = None
    missing: Callable[[], str | None] = _never_missing

    def fits(self, task: str, kind: str, dims: int | None) -> bool:
        of_task = task != "vqa" if self.tasks is None else task in self.tasks
        return of_task and kind == self.kind and self.dims in (None, dims)


VQA = ("vqa",)
REPORT = ("report", "caption")
ANY = ("vqa", "report", "classification", "detection", "landmark", "caption", "comparison")

FAMILIES = (
    Family(STRICT, "options", VQA, ("closed_accuracy",), vqa.closed),
    Family(STRICT, "options", None, ("accuracy", "macro_f1"), classify.classification),
    Family(STRICT, "options", ANY, probability.NAMES, probability.probabilities),
    Family(STRICT, "text", VQA, ("token_f1", "token_recall", "exact_match"), vqa.open_ended),
    Family(STRICT, "text", None, report.NAMES, report.report),
    Family(STRICT, "boxes", ANY, detect.NAMES, detect.detection),
    Family(STRICT, "points", ANY, landmark.NAMES, landmark.landmarks),
    Family(STRICT, "text", None, ("meteor",), coco.report_meteor, missing=coco.missing),
    Family(STRICT, "text", REPORT, findings.NAMES, findings.findings),
    Family("llava_med", "options", VQA, ("closed_accuracy",), llava_med.closed),
    Family("llava_med", "text", VQA, llava_med.OPEN_NAMES, llava_med.open_ended),
    Family("llava_med_pathvqa", "options", VQA, ("closed_accuracy",), llava_med.closed_pathvqa),
    Family("llava_med_pathvqa", "text", VQA, llava_med.OPEN_NAMES, llava_med.open_ended),
    Family("medevalkit", "options", VQA, ("closed_accuracy",), medevalkit.closed),
    Family("medevalkit", "text", VQA, medevalkit.OPEN_NAMES, medevalkit.open_ended),
    Family("medevalkit", "text", REPORT, medevalkit.REPORT_NAMES, medevalkit.report),
    Family("vila_m3", "options", VQA, ("closed_accuracy",), vila_m3.closed),
    Family("vila_m3", "text", VQA, ("exact_match",), vila_m3.open_ended),
    Family("vila_m3", "text", REPORT, coco.PTB_NAMES, coco.report_ptb, missing=coco.missing),
    Family("m3d", "options", VQA, m3d.CLOSED_NAMES, m3d.closed),
    Family("m3d", "text", (*VQA, *REPORT), m3d.TEXT_NAMES, m3d.texts),
    Family("m3d", "boxes", ANY, m3d.BOX_NAMES, m3d.boxes, dims=3),
    Family("r2gen", "text", REPORT, coco.BLEU_ROUGE, r2gen.report),
    Family("r2gen", "text", REPORT, ("meteor",), r2gen.report_meteor, missing=coco.missing),
    Family("chexbert", "text", REPORT, learned.CHEXBERT_NAMES, learned.chexbert, missing=learned.missing("f1chexbert")),
    Family("radgraph", "text", REPORT, learned.RADGRAPH_NAMES, learned.radgraph, missing=learned.missing("radgraph")),
    Family("green", "text", REPORT, ("green",), learned.green, missing=learned.missing("green_score")),
)
UNPARSED = "unparsed"  # beside every strict family: the fraction of answers that could not be read
MODES = tuple(dict.fromkeys(family.mode for family in FAMILIES))


class ModeError(ValueError):
    """A mode that does not exist or cannot be computed here; the message names it."""


def check_modes(modes: Sequence[str]) -> tuple[str, ...]:
    """The modes to compute, "strict" first. Raises ModeError for one that does not exist, and for one of which
    nothing can be computed on this machine."""
    for mode in modes:
        if mode not in MODES:
            raise ModeError(f"mode: expected one of {', '.join(MODES)}, found {mode!r}")
        reasons = [family.missing() for family in FAMILIES if family.mode == mode]
        if all(reasons):
            raise ModeError(f"mode: {mode} cannot be computed here: {reasons[0]}")
    return tuple(dict.fromkeys((STRICT, *modes)))


def families(modes: Sequence[str], task: str, kind: str, dims: int | None) -> list[Family]:
    """Those of the modes that say something about such a truth."""
    return [family for family in FAMILIES if family.mode in modes and family.fits(task, kind, dims)]


def registry() -> list[dict[str, Any]]:
    """One row per (mode, metric): what docs/metrics.md must list."""
    rows = [{"mode": family.mode, "metric": name} for family in FAMILIES for name in family.names]
    rows.append({"mode": STRICT, "metric": UNPARSED})
    return [dict(row) for row in dict.fromkeys(tuple(row.items()) for row in rows)]
