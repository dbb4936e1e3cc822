"""AUC, average precision and calibration of option probabilities, against scikit-learn and by hand."""

import json

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from umit_jax.eval.bootstrap import compare, interval
from umit_jax.eval.compare import compare as compare_runs
from umit_jax.eval.metrics import Item
from umit_jax.eval.metrics.probability import operating_points, probabilities
from umit_jax.eval.predictions import PredictionError, read_predictions
from umit_jax.eval.report_html import write_report
from umit_jax.eval.score import score
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


ABC = ["a", "b", "c"]


@pytest.mark.parametrize(
    ("rows", "error"),
    [
        ([(0, [1.0, 0.0])], 0),  # certain and right
        ([(1, [1.0, 0.0])], 1),  # certain and wrong
        ([(0, [0.7, 0.3])], 0.3),  # one example: one bin, fourteen empty
        ([(0, [0.0, 0.0])], 1),  # never sure of anything, of equal ones the first, which is right: |1 - 0|
        ([(1, [0.0, 0.0])], 0),
        # 0.6 = 9/15 ends its bin, 0.61 begins the next: |1 - 0.6| and |0 - 0.61|, not |1/2 - 0.605|
        ([(0, [0.6, 0.4]), (1, [0.61, 0.39])], (0.4 + 0.61) / 2),
        # 8/15 < 0.54 <= 0.6 = 9/15: one bin, |1/2 - 0.57|
        ([(0, [0.6, 0.4]), (1, [0.54, 0.46])], 0.07),
        # 1/3 = 5/15 ends its bin (4/15, 5/15], and 0.34 begins another: |1 - 1/3| and |0 - 0.34|
        ([(0, [1 / 3, 1 / 3, 1 / 3]), (2, [0.34, 0.33, 0.33])], (2 / 3 + 0.34) / 2),
        # 1 and 0.95 share the last bin: |1/2 - 0.975|
        ([(0, [1.0, 0.0]), (1, [0.95, 0.05])], 0.475),
    ],
)
def test_calibration_error_at_the_edges_of_bins_by_hand(rows, error):
    ours = probabilities([item(truth, scores, ABC[: len(scores)]) for truth, scores in rows])
    assert ours["ece"].point == pytest.approx(error)


@pytest.mark.parametrize("edge", range(1, 16))
def test_each_edge_belongs_to_the_bin_below_it(edge):
    # right at the edge and wrong just beyond or below it: apart |1 - p| and |0 - q|, together |1/2 - mean|
    p = edge / 15
    below, above = p - 1e-3, min(p + 1e-3, 1.0)
    same = probabilities([item(0, [p, 0.0], ["a", "b"]), item(1, [below, 0.0], ["a", "b"])])["ece"].point
    assert same == pytest.approx(abs(0.5 - (p + below) / 2))
    if edge < 15:
        apart = probabilities([item(0, [p, 0.0], ["a", "b"]), item(1, [above, 0.0], ["a", "b"])])["ece"].point
        assert apart == pytest.approx((1 - p + above) / 2)


def test_accuracy_by_likelihood_is_that_of_the_likeliest_option_whatever_the_text_says():
    options = ["a", "b", "c"]
    said_wrong = Item(options_target(options, 1, 0), options_target(options, 2, 0), scores=[0.2, 0.5, 0.3])
    tied = item(0, [0.4, 0.4, 0.2], options)  # of equal ones the first
    missed = item(2, [0.4, 0.4, 0.2], options)
    ours = probabilities([said_wrong, tied, missed, item(0, None, options)])["accuracy_by_likelihood"]
    assert (ours.point, ours.count) == (pytest.approx(2 / 3), 3)
    low, high = interval(ours, range(4))
    assert low < ours.point <= high


@pytest.mark.parametrize("classes", [2, 4])
def test_accuracy_by_likelihood_is_medmnists_acc(classes):
    truths, scores, options = drawn(classes, 80)
    ours = probabilities([item(t, s, options) for t, s in zip(truths, scores, strict=True)])["accuracy_by_likelihood"]
    said = scores[:, -1] > 0.5 if classes == 2 else scores.argmax(-1)  # medmnist/evaluator.py getACC
    assert ours.point == pytest.approx((said == np.array(truths)).mean())


def test_accuracy_by_likelihood_is_scored_compared_and_shown_like_any_metric(tmp_path):
    truths, scores, options = drawn(2, 40)
    words = {"task": "classification", "dataset": "d", "language": "en", "text": "c0"}

    def run(probability):
        return [
            {**words, "id": str(i), "truth": options_target(options, t, 0), "scores": probability(s)}
            for i, (t, s) in enumerate(zip(truths, scores, strict=True))
        ]

    good, blind = run(list), run(lambda s: [0.5, 0.5])
    (row,) = [r for r in score(good).rows if (r["metric"], r["language"]) == ("accuracy_by_likelihood", "en")]
    assert (row["mode"], row["better"], row["n"]) == ("strict", "higher", 40)
    assert row["ci95"][0] < row["value"] < row["ci95"][1]
    rows, only_one, not_computed = compare_runs(good, blind)
    (compared,) = [r for r in rows if (r["metric"], r["language"]) == ("accuracy_by_likelihood", "en")]
    assert (compared["a"], compared["b"], only_one) == (row["value"], truths.count(0) / 40, [])
    assert not not_computed
    write_report(tmp_path / "report.html", good, score(good))
    assert "accuracy_by_likelihood" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_n_is_the_questions_that_offer_a_class_true_of_some_and_false_of_others():
    unique = [item(0, [0.7, 0.3], [f"a{i}", f"b{i}"]) for i in range(100)]
    ranked = [item(i, [0.7, 0.3], ["yes", "no"]) for i in (0, 1)]
    ours = probabilities([*unique, *ranked])
    assert {name: (one.point, one.count) for name, one in ours.items() if name in ("auc", "average_precision")} == {
        "auc": (0.5, 2),
        "average_precision": (0.5, 2),
    }
    assert ours["ece"].count == ours["accuracy_by_likelihood"].count == 102
    same_class_of_other_topics = [
        Item(options_target(["yes", "no"], 0, 1), None, topic="t", scores=[0.7, 0.3]) for _ in range(3)
    ]
    found = operating_points([*ranked, *same_class_of_other_topics], [0.5])
    assert found["sensitivity_at_specificity_0.5", "yes"].count == 2


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
