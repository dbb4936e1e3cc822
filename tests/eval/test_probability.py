"""AUC, average precision and calibration of option probabilities, against scikit-learn and by hand."""

import json

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from umit_jax.eval.bootstrap import compare, interval
from umit_jax.eval.metrics import Item
from umit_jax.eval.metrics.probability import operating_points, probabilities
from umit_jax.eval.predictions import PredictionError, read_predictions
from umit_jax.targets import options_target

RNG = np.random.default_rng(0)


def item(truth, scores, options):
    return Item(options_target(options, truth, 0), None, scores=scores)


def drawn(classes, count, digits=2):
    """Probabilities with many ties, and truths that depend on them."""
    scores = RNG.dirichlet(np.ones(classes), count).round(digits)
    truths = [int(RNG.choice(classes, p=row / row.sum())) for row in scores]
    return truths, scores, [f"c{i}" for i in range(classes)]


@pytest.mark.parametrize("classes", [2, 4])
def test_auc_and_average_precision_are_scikit_learns_one_against_the_rest(classes):
    truths, scores, options = drawn(classes, 80)
    ours = probabilities([item(t, s, options) for t, s in zip(truths, scores, strict=True)])
    hot = np.eye(classes)[truths]
    assert ours["auc"].point == pytest.approx(roc_auc_score(hot, scores, average="macro"))
    assert ours["average_precision"].point == pytest.approx(average_precision_score(hot, scores, average="macro"))


def test_a_class_is_its_words_wherever_the_option_stands():
    truths, scores, options = drawn(3, 60)
    turned = [
        item((t + 1) % 3, np.roll(s, 1), options[-1:] + options[:-1]) for t, s in zip(truths, scores, strict=True)
    ]
    expected = roc_auc_score(np.eye(3)[truths], scores, average="macro")
    assert probabilities(turned)["auc"].point == pytest.approx(expected)


def test_a_resample_is_the_metric_of_the_drawn_samples():
    truths, scores, options = drawn(3, 40)
    statistic = probabilities([item(t, s, options) for t, s in zip(truths, scores, strict=True)])["auc"]
    weights = RNG.multinomial(40, np.full(40, 1 / 40), size=5)
    for row, value in zip(weights, statistic.value(weights @ statistic.sums_NK), strict=True):
        again = np.repeat(np.arange(40), row)
        assert value == pytest.approx(roc_auc_score(np.eye(3)[truths][again], scores[again], average="macro"))
    low, high = interval(statistic, range(40))
    assert low < statistic.point < high


def test_two_runs_are_compared_by_their_ranking():
    truths, scores, options = drawn(2, 60)
    good = probabilities([item(t, s, options) for t, s in zip(truths, scores, strict=True)])["auc"]
    blind = probabilities([item(t, [0.5, 0.5], options) for t in truths])["auc"]
    found = compare(good, blind, range(60))
    assert found.value == pytest.approx(0.5 - good.point)
    assert found.p < 0.01
    assert found.ci95[1] < 0


def test_calibration_error_by_hand():
    # 0.9 and 0.9: one of two right, off by 0.4; 0.6 and 0.6: both right, off by 0.4 -> (2 * 0.4 + 2 * 0.4) / 4
    rows = [(0, 0.9), (1, 0.9), (0, 0.6), (0, 0.6)]
    ours = probabilities([item(truth, [p, 1 - p], ["a", "b"]) for truth, p in rows])
    assert ours["ece"].point == pytest.approx(0.4)
    assert not ours["ece"].higher_is_better


def test_items_without_probabilities_are_left_out_and_counted():
    scored = [item(0, [0.8, 0.2], ["a", "b"]), item(1, [0.3, 0.7], ["a", "b"])]
    mixed = probabilities([*scored, item(1, None, ["a", "b"])])
    assert (mixed["auc"].count, mixed["auc"].point) == (2, 1)
    assert probabilities([item(1, None, ["a", "b"])]) == {}


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([0.5, 0.4, 0.1], "scores: expected one for each of 2 options, found 3"),
        ([0.9, 0.9], "scores: expected probabilities that sum to 1"),
        ([1.5, -0.5], "scores: expected probabilities that sum to 1"),
        ([0.5, "0.5"], "scores: expected finite numbers"),
    ],
)
def test_scores_that_are_no_probabilities_of_the_options_are_refused(scores, message, tmp_path):
    truth = options_target(["yes", "no"], 0, 1)
    line = {"id": "0", "task": "vqa", "dataset": "d", "language": "en", "text": "yes", "truth": truth, "scores": scores}
    (tmp_path / "p.jsonl").write_text(json.dumps(line))
    with pytest.raises(PredictionError, match=message):
        read_predictions(tmp_path / "p.jsonl")


@pytest.mark.parametrize("specificity", [0.5, 0.8, 0.9, 0.99])
def test_sensitivity_at_a_specificity_is_the_point_of_scikit_learns_roc_curve(specificity):
    truths, scores, options = drawn(3, 90)
    items = [item(t, s, options) for t, s in zip(truths, scores, strict=True)]
    found = operating_points(items, [specificity])
    assert len(found) == 3
    for index, option in enumerate(options):
        fpr, tpr, _ = roc_curve(np.array(truths) == index, scores[:, index], drop_intermediate=False)
        expected = tpr[fpr <= 1 - specificity + 1e-12].max()
        statistic = found[f"sensitivity_at_specificity_{specificity:g}", option]
        assert statistic.point == pytest.approx(expected)
        assert statistic.count == 90
        low, high = interval(statistic, range(90))
        assert low <= statistic.point <= high


def test_a_tenth_of_ten_negatives_is_one_and_equal_scores_pass_together():
    options = ["no", "yes"]
    scores = [0.9, 0.8, 0.8, 0.7, *[0.1] * 9]
    truths = [1, 0, 1, 1, *[0] * 9]
    items = [item(t, [1 - s, s], options) for t, s in zip(truths, scores, strict=True)]
    name = "sensitivity_at_specificity_0.9"
    assert operating_points(items, [0.9])[name, "yes"].point == 1.0
    assert operating_points(items, [0.95])["sensitivity_at_specificity_0.95", "yes"].point == pytest.approx(1 / 3)
