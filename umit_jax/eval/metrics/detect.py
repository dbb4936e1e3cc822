"""Strict detection metrics in 2D and 3D: mean intersection over union, the fraction of it at 0.5 or more, and the
precision of the RSNA pneumonia challenge.

Boxes are half-open, in any frame: IoU is a ratio of areas or volumes, so anisotropic pixels and voxels do not change
it. A question may ask for several boxes: said and true boxes of one label are paired to the largest total IoU
(Hungarian), a true box that is missed counts 0, and so does a said box that is left over. The score of a question is
the mean over these, so listing many boxes gains nothing; the metric is the mean over questions. acc_at_0.5 counts
IoU >= 0.5. A question whose truth is no box at all scores 1 for an answer that says so (parse.py) and 0 otherwise,
for one that cannot be read too.

ap_0.40_0.75 (RSNA Pneumonia Detection Challenge 2018): the mean over images of the mean over thresholds 0.40, 0.45,
..., 0.75 of TP / (TP + FP + FN). A said box is a hit where its IoU with a true box of its label that is still free is
above the threshold, the boxes taken by falling confidence (`scores`; without them all are equal, in the order of the
text). An image without a true box is not scored where the answer says that nothing is there, and counts 0 otherwise,
also where the answer cannot be read. Each question is
taken for one image.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from umit_jax.eval.bootstrap import Statistic, mean
from umit_jax.eval.metrics import Item
from umit_jax.eval.normalise import fold
from umit_jax.targets import Target

NAMES = ("mean_iou", "acc_at_0.5", "ap_0.40_0.75")
AP_THRESHOLDS = tuple(t / 100 for t in range(40, 80, 5))
_ROUNDING = 1e-12  # 0.40 of IoU must not be above 0.40 whatever float64 makes of it
Overlap = Callable[[np.ndarray, np.ndarray], np.ndarray]


def detection(items: Sequence[Item]) -> dict[str, Statistic]:
    """Items with boxes; an answer is in the frame of its truth."""
    ious = [matched_ious(item.truth, item.answer) for item in items]
    precisions = [precision(item) for item in items]
    return {
        "mean_iou": mean([float(np.mean(iou)) for iou in ious]),
        "acc_at_0.5": mean([float(np.mean(iou >= 0.5)) for iou in ious]),
        "ap_0.40_0.75": mean([p or 0.0 for p in precisions], [p is not None for p in precisions]),
    }


def iou_matrix(a_NC: np.ndarray, b_MC: np.ndarray) -> np.ndarray:
    """IoU (N, M) of half-open boxes whose C = 2 * axes numbers are near corner then far corner; 0 for empty boxes."""
    axes = a_NC.shape[-1] // 2
    near = np.maximum(a_NC[:, None, :axes], b_MC[None, :, :axes])
    far = np.minimum(a_NC[:, None, axes:], b_MC[None, :, axes:])
    overlap = np.prod(np.maximum(far - near, 0), axis=-1)
    a_N, b_M = (np.prod(np.maximum(box[:, axes:] - box[:, :axes], 0), axis=-1) for box in (a_NC, b_MC))
    union = a_N[:, None] + b_M[None, :] - overlap
    return np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)


def matched_ious(truth: Target, answer: Target | None, overlap: Overlap = iou_matrix) -> np.ndarray:
    """One IoU for each pair of boxes, 0 for each true box missed and each said box left over."""
    true_boxes, said_boxes = _by_label(truth), _by_label(answer)
    if not true_boxes and not said_boxes:
        return np.array([0.0 if answer is None else 1.0])
    ious: list[float] = []
    for label in true_boxes.keys() | said_boxes.keys():
        said, true = said_boxes.get(label, []), true_boxes.get(label, [])
        paired = []
        if said and true:
            matrix = overlap(np.array(said, np.float64), np.array(true, np.float64))
            paired = list(matrix[linear_sum_assignment(matrix, maximize=True)])
        ious += paired + [0.0] * (max(len(said), len(true)) - len(paired))
    return np.array(sorted(ious))  # sorted: the mean must not depend on the order of a set


def precision(item: Item) -> float | None:
    """TP / (TP + FP + FN) of one image, the mean over AP_THRESHOLDS; None where nothing is true and nothing said."""
    true_boxes, said = _by_label(item.truth), item.answer["items"] if item.answer else []
    if not true_boxes and not said and item.answer is not None:
        return None
    confidences = item.scores if item.scores is not None else [1.0] * len(said)
    order = sorted(range(len(said)), key=lambda i: -confidences[i])  # stable: equal ones stay in the text's order
    said_boxes = _by_label({"items": [said[i] for i in order]})
    hits = np.zeros(len(AP_THRESHOLDS))
    for label, true in true_boxes.items():
        if said_boxes.get(label):
            matrix = iou_matrix(np.array(said_boxes[label], np.float64), np.array(true, np.float64))
            hits += [greedy_hits(matrix, threshold) for threshold in AP_THRESHOLDS]
    boxes = len(said) + len(item.truth["items"]) - hits
    return float(np.mean(hits / np.maximum(boxes, 1)))


def greedy_hits(iou_NM: np.ndarray, threshold: float) -> int:
    """Pairs above the threshold, each said box (row) in turn taking the best true box that is free."""
    iou_NM = iou_NM.copy()
    hits = 0
    for row in iou_NM:
        best = int(row.argmax())
        if row[best] > threshold + _ROUNDING:
            hits += 1
            iou_NM[:, best] = -1
    return hits


def _by_label(target: Target | None) -> dict[str, list[list[float]]]:
    boxes: dict[str, list[list[float]]] = defaultdict(list)
    for item in target["items"] if target else []:
        boxes[fold(item["label"])].append(item["box"])
    return boxes
