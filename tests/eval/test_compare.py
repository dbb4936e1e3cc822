"""Two runs side by side: differences, their intervals, and the chance that they mean nothing."""

import dataclasses
import itertools
import json

import numpy as np
import pytest
from scipy.stats import permutation_test

from umit_jax.eval import modes
from umit_jax.eval.bootstrap import compare as paired
from umit_jax.eval.bootstrap import mean
from umit_jax.eval.compare import ComparisonError, compare, holm
from umit_jax.eval.metrics import Item
from umit_jax.eval.metrics.classify import classification
from umit_jax.targets import options_target, text_target

OPTIONS = ["a", "b", "c"]


def line(i, said, truth=0, **more):
    target = options_target(OPTIONS, truth, 0)
    about = {"id": str(i), "task": "classification", "dataset": "d", "language": "en", "patient_id": f"p{i}"}
    return {**about, "text": OPTIONS[said] if said is not None else "?", "truth": target, **more}


def test_p_is_that_of_the_exact_permutation_test():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=8), rng.normal(size=8) + 0.8
    exact = permutation_test((a, b), lambda x, y: y.mean() - x.mean(), permutation_type="samples", n_resamples=np.inf)
    found = paired(mean(a), mean(b), range(8), resamples=20000)
    assert found.value == pytest.approx(b.mean() - a.mean())
    assert found.p == pytest.approx(exact.pvalue, abs=0.01)
    assert 0.01 < exact.pvalue < 0.5


def test_answers_of_one_patient_change_sides_together():
    a, b = np.zeros(40), np.ones(40)
    assert paired(mean(a), mean(b), range(40)).p < 0.001
    four = paired(mean(a), mean(b), [i // 10 for i in range(40)], resamples=20000)
    assert four.p == pytest.approx(2 / 16, abs=0.01)  # of 2 ** 4 exchanges only all and none differ as much


def test_the_interval_of_a_difference_is_that_of_paired_patients():
    rng = np.random.default_rng(1)
    a = rng.normal(size=300) * 10
    b = a + rng.normal(size=300) * 0.1 + 0.05  # far apart between patients, close within one
    found = paired(mean(a), mean(b), range(300))
    half = 1.96 * (b - a).std() / np.sqrt(300)
    assert found.ci95 == pytest.approx((found.value - half, found.value + half), abs=0.2 * half)


def test_classes_that_only_one_run_names_are_counted_in_their_own_columns():
    truth = [0, 0, 1, 1]
    runs = [[0, 0, 0, 0], [2, 1, 1, 1]]
    one, two = (
        classification(
            [
                Item(options_target(OPTIONS, t, 0), options_target(OPTIONS, s, 0))
                for t, s in zip(truth, said, strict=True)
            ]
        )["macro_f1"]
        for said in runs
    )
    both = one.beside(two)
    assert both.value(both.sums_NK[:4].sum(0)) == pytest.approx(one.point)
    assert both.value(both.sums_NK[4:].sum(0)) == pytest.approx(two.point)
    # by hand: a 4/6 and b 0 of the first run; a 0, b 4/5 and c 0 of the second
    assert (one.point, two.point) == pytest.approx((1 / 3, 4 / 15))


def test_a_better_run_is_named_and_equal_runs_are_not():
    good, bad = [line(i, 0) for i in range(40)], [line(i, 1 if i % 2 else 0) for i in range(40)]
    rows = {row["metric"]: row for row in compare(bad, good)[0] if row["language"] == "all"}
    accuracy = rows["accuracy"]
    assert (accuracy["a"], accuracy["b"], accuracy["difference"], accuracy["better"]) == (0.5, 1, 0.5, "b")
    assert (accuracy["n"], accuracy["n_patients"], accuracy["mode"], accuracy["schema"]) == (40, 40, "strict", 1)
    assert accuracy["p"] < accuracy["p_holm"] < 0.05
    assert (rows["unparsed"]["difference"], rows["unparsed"]["p"], rows["unparsed"]["better"]) == (0, 1, None)
    assert {row["better"] for row in compare(good, good)[0]} == {None}
    swapped = {row["metric"]: row["better"] for row in compare(good, bad)[0] if row["language"] == "all"}
    assert swapped["accuracy"] == "a"


def test_fewer_unparsed_answers_are_better():
    some, none = [line(i, None) for i in range(40)], [line(i, 1) for i in range(40)]
    rows = {row["metric"]: row for row in compare(some, none)[0] if row["language"] == "en"}
    assert (rows["unparsed"]["difference"], rows["unparsed"]["better"]) == (-1, "b")
    assert rows["accuracy"]["better"] is None


def test_a_metric_that_only_one_run_has_is_named():
    scored = [line(i, i % 2, truth=i % 2, scores=[0.2, 0.6, 0.2]) for i in range(4)]
    rows, only_one, _ = compare(scored, [line(i, i % 2, truth=i % 2) for i in range(4)])
    assert "auc" not in {row["metric"] for row in rows}
    assert {name for name in only_one if name.endswith("en")} == {
        f"strict {metric} classification d en"
        for metric in ("accuracy_by_likelihood", "auc", "average_precision", "ece")
    }


def test_sensitivities_of_each_class_are_compared(tmp_path, capsys):
    from launch.cli import main

    def scored(sure):
        """Of twelve answers the first four are "a", the likeliest ones to be it where `sure`, else the least likely."""
        high, low = ([0.9, 0.05, 0.05], [0.1, 0.6, 0.3])
        return [
            line(i, 0, truth=int(i >= 4), scores=(high if (i < 4) == sure else low), patient_id=f"p{i}")
            for i in range(12)
        ]

    for name, sure in (("good", True), ("bad", False)):
        (tmp_path / name).mkdir()
        text = "".join(json.dumps(each) + "\n" for each in scored(sure))
        (tmp_path / name / "predictions.jsonl").write_text(text)
    call = ["score", str(tmp_path / "bad"), str(tmp_path / "good"), "--out", str(tmp_path), "--specificity", "0.9"]
    assert main([*call, "--json"]) == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    rows = json.loads((tmp_path / "comparison.json").read_text())
    found = {row["class"]: row for row in rows if row["language"] == "en" and row["class"] is not None}
    assert list(found) == ["a", "b"]
    assert {row["metric"] for row in found.values()} == {"sensitivity_at_specificity_0.9"}
    # "a" has its four truths above all others or below them, and so has "b" its eight
    assert [(row["a"], row["b"], row["difference"]) for row in found.values()] == [(0, 1, 1), (0, 1, 1)]
    assert all(row["p"] < 0.05 and row["n"] == 12 for row in found.values())
    assert summary["rows"] == len(rows)
    assert main(call[:-2]) == 0
    assert {row["class"] for row in json.loads((tmp_path / "comparison.json").read_text())} == {None}


def test_a_metric_that_neither_run_has_is_named_with_its_reason(monkeypatch):
    missing = [
        dataclasses.replace(f, missing=lambda: "no Java") if f.names == ("meteor",) else f for f in modes.FAMILIES
    ]
    monkeypatch.setattr(modes, "FAMILIES", tuple(missing))
    lines = [line(i, 0, truth=0, scores=[0.9, 0.05, 0.05]) for i in range(3)]
    lines.append(line(9, 0) | {"task": "report", "truth": text_target("clear lungs")})
    found = compare(lines, lines)
    assert found.only_one == []
    assert found.not_computed["strict meteor"] == "no Java"
    assert found.not_computed["strict auc classification d en"].startswith("undefined")


def test_a_class_that_only_one_run_gives_probabilities_for_is_named():
    with_scores = [line(i, 0, truth=i % 2, scores=[0.5, 0.3, 0.2]) for i in range(4)]
    rows, only_one, _ = compare(with_scores, [line(i, 0, truth=i % 2) for i in range(4)], specificities=[0.9])
    assert {row["class"] for row in rows} == {None}
    assert "strict sensitivity_at_specificity_0.9 classification d en class a" in only_one


def test_the_second_run_may_be_in_another_order():
    a, b = [line(i, i % 3) for i in range(12)], [line(i, (i + 1) % 3) for i in range(12)]
    assert compare(a, b) == compare(a, b[::-1])


@pytest.mark.parametrize(
    ("b", "message"),
    [
        ([line(0, 0)], "2 questions only in the first run, such as id '1'"),
        ([line(i, 0) for i in range(4)], "1 question only in the second run, such as id '3'"),
        ([line(0, 0), line(1, 0), line(2, 0, truth=1)], "id '2': truth differs between the two runs"),
        ([line(0, 0), line(1, 0, patient_id="q"), line(2, 0)], "id '1': patient_id differs"),
    ],
)
def test_runs_over_other_questions_are_refused(b, message):
    with pytest.raises(ComparisonError, match=message):
        compare([line(i, 0) for i in range(3)], b)


def test_holm_by_hand():
    assert holm([0.01, None, 0.04, 0.03]) == [0.03, None, 0.06, 0.06]
    assert holm([0.6, 0.7]) == [1, 1]


def test_one_patient_has_a_difference_and_no_chance():
    rows = compare([line(i, 0, patient_id="p") for i in range(3)], [line(i, 1, patient_id="p") for i in range(3)])[0]
    assert {(row["ci95"], row["p"], row["p_holm"], row["better"]) for row in rows} == {(None, None, None, None)}
    assert {row["difference"] for row in rows if row["metric"] == "accuracy"} == {-1}


def test_umit_score_compares_two_files_or_two_runs(tmp_path, capsys):
    from launch.cli import main

    runs = {"a": [line(i, 1) for i in range(20)], "b": [line(i, 0) for i in range(20)]}
    for name, lines in runs.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "predictions.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    pair = [str(tmp_path / "a" / "predictions.jsonl"), str(tmp_path / "b")]
    assert main(["score", *pair, "--out", str(tmp_path / "out"), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    rows = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert summary["rows"] == len(rows)
    assert summary["better"] == {"a": 0, "b": sum(row["better"] == "b" for row in rows)}
    assert summary["better"]["b"] > 0
    assert main(["score", *pair, pair[0], "--out", str(tmp_path / "no")]) == 2
    assert main(["score", pair[0], "--mode", "lenient", "--out", str(tmp_path / "no")]) == 2
    assert not (tmp_path / "no").exists()
    assert [len(list(group)) for _, group in itertools.groupby(capsys.readouterr().err.splitlines())] == [1, 1]
