"""report.html as a file: what is judged, chosen, plotted, escaped and left out; tests/browser opens it."""

import base64
import hashlib
import html
import json
import re

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

from tests.browser import pages
from umit_jax.eval.report_html import curves, examples, judge, page, write_report
from umit_jax.eval.report_html.judge import evenly
from umit_jax.eval.report_html.pictures import (
    FOLDER,
    Picture,
    Pictures,
    PicturesError,
    read_pictures,
    take_over,
    write_pictures,
)
from umit_jax.eval.score import Scores, score
from umit_jax.targets import Frame, boxes_target, options_target, points_target, text_target

NO_SPACING = Frame("raw", (100, 100))
MM = Frame("raw", (100, 100), (1, 2))
YES = options_target(["yes", "no"], 0, 1)


def written(tmp_path, lines, pictures=None, **more):
    write_report(tmp_path / "report.html", lines, score(lines), pictures or Pictures(), **more)
    return (tmp_path / "report.html").read_text("utf-8")


def blocks(text):
    """What each JSON block of a page holds, by its id."""
    found = re.findall(r'<script type="application/json" id="([^"]+)">(.*?)</script>', text, re.DOTALL)
    return {name: json.loads(data) for name, data in found}


@pytest.mark.parametrize(
    ("text", "truth", "task", "verdict", "value"),
    [
        ("1:yes", YES, "vqa", "right", None),
        ("2:no", YES, "vqa", "wrong", None),
        ("perhaps", YES, "vqa", "unreadable", None),
        ("(0,0),(500,500)", boxes_target(NO_SPACING, [("a", [0, 0, 50, 50])]), "detection", "right", 1),
        ("(0,0),(500,200)", boxes_target(NO_SPACING, [("a", [0, 0, 50, 50])]), "detection", "wrong", 0.4),
        ("[50,51]", points_target(MM, [("a", [50, 50])]), "landmark", "right", 2),
        ("[50,53]", points_target(MM, [("a", [50, 50])]), "landmark", "wrong", 6),
        ("[50,50]", points_target(NO_SPACING, [("a", [50, 50])]), "landmark", "unjudged", None),
        ("somewhere", points_target(MM, [("a", [50, 50])]), "landmark", "unreadable", None),
        ("the left lung", text_target("left lung"), "vqa", "right", 1),
        ("lung", text_target("left lung"), "vqa", "wrong", pytest.approx(2 / 3)),
        ("lung", text_target("left lung"), "report", "unjudged", pytest.approx(2 / 3)),
        ("", text_target("left lung"), "report", "unreadable", 0),
    ],
)
def test_an_example_is_judged_by_the_strict_metrics_of_it_alone(text, truth, task, verdict, value):
    (judged,) = judge([pages.line(0, task, text, truth)])
    assert (judged.verdict, judged.value) == (verdict, value)


def test_examples_are_taken_evenly_and_what_a_small_group_lacks_goes_to_the_others():
    groups = ["a"] * 100 + ["b"] * 3 + ["c"] * 50
    chosen = evenly(groups, 23)
    assert chosen == sorted(set(chosen))
    assert [sum(groups[i] == name for i in chosen) for name in "abc"] == [10, 3, 10]
    assert max(np.diff([i for i in chosen if groups[i] == "a"])) == 10
    assert evenly(groups, 0) == evenly(groups, 999) == list(range(153))
    assert evenly(groups, -1) == []


def test_a_curve_is_sklearns_and_its_area_their_auc():
    rng = np.random.default_rng(0)
    scores, truths = rng.random(200).round(1), rng.random(200) < 0.4
    lines = [
        pages.line(i, "vqa", "yes", options_target(["yes", "no"], int(not t), 1), scores=[s, round(1 - s, 1)])
        for i, (s, t) in enumerate(zip(scores.tolist(), truths.tolist(), strict=True))
    ]
    (curve,) = curves.roc_curves(judge(lines))
    assert (curve.label, curve.positives, curve.negatives) == ("yes", truths.sum(), (~truths).sum())
    assert curve.area == pytest.approx(roc_auc_score(truths, scores))
    rates, hits, thresholds = roc_curve(truths, scores, drop_intermediate=False)
    assert set(curve.points) <= set(zip(rates.tolist(), hits.tolist(), thresholds.tolist(), strict=True))


def test_an_operating_point_is_the_one_that_the_score_counts():
    rng = np.random.default_rng(1)
    for digits in (1, 2):
        truths = rng.random(60) < 0.5
        values = (truths * 0.2 + rng.random(60) * 0.8).round(digits).tolist()
        lines = [
            pages.line(i, "vqa", "yes", options_target(["yes", "no"], int(not t), 1), scores=[s, 1 - s])
            for i, (s, t) in enumerate(zip(values, truths, strict=True))
        ]
        rows = score(lines, specificities=[0.8, 0.95]).rows
        assert curves.specificities(rows) == [0.8, 0.95]
        (curve,) = curves.roc_curves(judge(lines))
        for wanted in (0.8, 0.95):
            point = curves.operating(curve, wanted)
            where = {"class": "yes", "metric": f"sensitivity_at_specificity_{wanted:g}", "language": "en"}
            (row,) = [r for r in rows if all(r[key] == value for key, value in where.items())]
            assert point.sensitivity == pytest.approx(row["value"])
            assert point.specificity >= wanted - 1e-9
            said = np.array(values) >= point.threshold
            assert (said & truths).sum() / truths.sum() == pytest.approx(point.sensitivity)


def test_the_operating_points_asked_for_are_on_the_page(tmp_path):
    lines = pages.every_kind()
    write_report(tmp_path / "report.html", lines, score(lines, specificities=[0.5]))
    text = (tmp_path / "report.html").read_text("utf-8")
    assert text.count('class="operating"') == 2  # in the plot and in its legend
    assert 'data-t="operating"' not in written(tmp_path, lines)


def test_reliability_has_the_calibration_error_of_the_score():
    lines = pages.every_kind()
    (row,) = [r for r in score(lines).rows if r["metric"] == "ece" and r["language"] == "en"]
    bins = curves.reliability(judge(lines))
    count = sum(b.count for b in bins)
    assert sum(b.count * abs(b.accuracy - b.probability) for b in bins) / count == pytest.approx(row["value"])


def test_a_matrix_counts_unreadable_answers_apart_and_many_options_become_pairs():
    lines = [pages.line(i, "vqa", text, YES) for i, text in enumerate(["yes", "yes", "no", "eh"])]
    matrix = curves.confusion(judge(lines))
    assert (matrix.options, matrix.rows, matrix.right, matrix.count) == (["yes", "no"], [[2, 1, 1], [0, 0, 0]], 2, 4)
    names = [f"organ {i}" for i in range(20)]
    lines = [pages.line(i, "vqa", "organ 1", options_target(names, i % 3, 1)) for i in range(9)]
    matrix = curves.confusion(judge(lines))
    assert (matrix.rows, sorted(matrix.pairs)) == ([], [("organ 0", "organ 1", 3), ("organ 2", "organ 1", 3)])


def test_hostile_text_stays_text_in_tables_and_blocks(tmp_path):
    options = options_target([pages.NASTY, "</table>no"], 0, 1)
    lines = [
        pages.line(0, "vqa", pages.NASTY, options, topic=pages.NASTY, dataset=pages.NASTY, scores=[0.6, 0.4]),
        pages.line(1, "vqa", "2", {**options, "index": 1}, topic=pages.NASTY, dataset=pages.NASTY, scores=[0.5, 0.5]),
    ]
    text = written(tmp_path, lines)
    assert text.count("<script") == text.count("</script>") == 4
    assert "<img" not in text
    assert "</table>no" not in text
    assert "\u2028" not in "".join(re.findall(r"<script.*?</script>", text, re.DOTALL))
    (detail,) = blocks(text)["chunk-0"][:1]
    assert (detail["text"], detail["topic"]) == (pages.NASTY, pages.NASTY)
    assert html.escape("</script>") in text


def test_the_policy_allows_the_one_style_and_the_one_script_of_the_page_and_no_network(tmp_path):
    text = written(tmp_path, pages.every_kind())
    found = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    assert found is not None
    policy = dict(part.strip().split(" ", 1) for part in html.unescape(found[1]).split(";"))
    for name, tag in (("style-src", "style"), ("script-src", "script")):
        (inside,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert policy[name] == f"'sha256-{digest}'"
    assert (policy["default-src"], policy["img-src"]) == ("'none'", "'self' file: data:")
    assert not re.search(
        r"""\son[a-z]+=["']|\sstyle=|(?:src|href)="(?!#|data:)""", re.sub(r"<script.*?</script>", "", text)
    )


def test_a_json_block_is_the_value_again():
    value = {"a": [pages.NASTY, None, 1.5, "肺"], "<b>": True}
    block = page.json_block(value)
    assert json.loads(block) == value
    assert not set("<>&\u2028\u2029") & set(block)


def test_no_patient_and_no_id_that_may_carry_one_is_on_the_page(tmp_path):
    lines = pages.every_kind()
    text = written(tmp_path, lines)
    assert not any(line["id"] in text or f'"{line["patient_id"]}"' in text for line in lines)
    assert str(tmp_path) not in text
    number = {d["id"] for d in blocks(text)["chunk-0"]}
    assert number == {""}


@pytest.mark.parametrize(
    ("id", "synthetic", "shown"),
    [("rsna/0004cfab", False, ""), ("mine/line_12", False, "mine/line_12"), ("phantom-0-1/ct", True, "phantom-0-1/ct")],
)
def test_an_id_is_shown_only_where_it_cannot_be_a_patients(id, synthetic, shown):
    (judged,) = judge([pages.line(0, "vqa", "yes", YES, id=id, synthetic=synthetic)])
    assert examples.shown_id(judged) == shown


def test_what_is_left_out_is_counted_on_the_page(tmp_path):
    lines = pages.many(50)
    scores = Scores(score(lines).rows, [], {"strict meteor": "needs the package x"})
    write_report(tmp_path / "report.html", lines, scores, limit=20)
    text = (tmp_path / "report.html").read_text("utf-8")
    assert len(blocks(text)["columns"]["number"]) == 20
    notices = re.search(r'<details class="notices".*?</details>', text, re.DOTALL)
    assert notices is not None
    for words in ("needs the package x", "examples left out", "(30)", "No pictures beside"):
        assert words in notices[0]


def test_every_row_of_the_scores_is_in_a_table(tmp_path):
    lines = pages.every_kind()
    text = written(tmp_path, lines)
    section = text[text.index('<section id="scores"') : text.index('<section id="curves"')]
    assert section.count("<tr>") - section.count("<thead>") == len(score(lines).rows)


def test_a_row_of_one_patient_says_why_it_is_not_compared(tmp_path):
    one = pages.line(0, "vqa", "1:yes", YES) | {"patient_id": "a", "baseline": YES}
    summary = re.compile(r'<section id="summary".*?</section>', re.DOTALL)
    assert "one patient: no interval" in summary.search(written(tmp_path, [one]))[0]
    other = pages.line(1, "vqa", "1:yes", YES) | {"patient_id": "b", "baseline": YES}
    assert "one patient: no interval" not in summary.search(written(tmp_path, [one, other]))[0]


def test_questions_asked_seldom_are_folded_away_beside_those_asked_often(tmp_path):
    often = [pages.line(i, "vqa", "1:yes", YES) | {"topic": "often"} for i in range(10)]
    seldom = [pages.line(i, "vqa", "2:no", YES) | {"topic": f"seldom {i}"} for i in (10, 11)]
    section = re.compile(r'<section id="confusion".*?</section>', re.DOTALL)
    shown, _, folded = section.search(written(tmp_path, often + seldom))[0].partition('<details class="few">')
    assert "often" in shown
    assert "seldom" not in shown
    assert folded.startswith("<summary>2 ")
    assert all(f"seldom {i}" in folded for i in (10, 11))
    assert 'class="few"' not in section.search(written(tmp_path, seldom))[0]


def test_rows_of_other_ways_of_asking_have_a_table_of_their_own(tmp_path):
    lines = pages.every_kind()
    about = {"schema": 1, "task": "vqa", "dataset": "set", "language": "en", "dims": None, "heldout": None}
    about |= {"synthetic": False, "variant": "corrupt:blur:3", "ci95": [0.1, 0.3], "n": 12, "n_patients": 12}
    none = {"main": None, "difference": None, "difference_ci95": None, "p": None}
    rows = [
        {**about, **none, "metric": "same_answer", "value": 0.2, "better": "lower"},
        {**about, "metric": "auc", "value": 0.5, "main": 0.75, "difference": -0.25, "difference_ci95": [-0.4, -0.1]}
        | {"p": 0.0125, "better": "higher"},
    ]
    text = written(tmp_path, lines, robustness=rows)
    for words in ("corrupt:blur:3", "same_answer", "0.200", "-0.250 [-0.400, -0.100]", "0.0125", "looks_lower"):
        assert words in text
    assert 'data-t="robustness"' not in written(tmp_path, lines)


def test_every_word_is_in_both_languages_and_every_marked_one_exists(tmp_path):
    words = page.words()
    assert all(len(pair) == 2 and all(pair) for pair in words.values())
    for key, (english, chinese) in words.items():
        assert set(re.findall(r"{\w+}", english)) == set(re.findall(r"{\w+}", chinese)), key
    marked = set(re.findall(r'data-t(?:-label)?="([^"{$]+)"', written(tmp_path, pages.every_kind())))
    assert marked <= set(words)


def test_pictures_are_found_again_and_taken_over_with_the_page(tmp_path):
    pages.write(tmp_path / "a", pages.every_kind())
    (tmp_path / "a" / FOLDER / ("0" * 20 + ".png")).write_bytes(b"of an older run")
    pictures = read_pictures(tmp_path / "a" / FOLDER)
    assert pictures.shown["b"].display == Frame("voxel", (48, 32, pages.DEPTH))
    write_pictures(tmp_path / "a" / FOLDER, pictures)
    assert take_over(tmp_path / "a" / FOLDER, tmp_path / "b" / FOLDER) == pictures
    names = {path.name for path in (tmp_path / "b" / FOLDER).iterdir()}
    assert names == {path.name for path in (tmp_path / "a" / FOLDER).iterdir()}
    assert names == {"pictures.json", *(picture.file for picture in pictures.shown.values())}
    assert take_over(tmp_path / "nowhere", tmp_path / "c") == Pictures()
    assert not (tmp_path / "c").exists()


def test_oblong_pixels_are_drawn_oblong():
    picture = Picture("image", "CT", (100, 50), "0" * 20 + ".png", aspect=(1.0, 2.0))
    assert picture.display.size == (100, 100)


@pytest.mark.parametrize(
    "wrong", [{"file": "../x.png"}, {"size": [1]}, {"size": [0, 1]}, {"kind": "film"}, {"more": 1}]
)
def test_a_wrong_list_of_pictures_is_refused_by_name(tmp_path, wrong):
    picture = {"kind": "image", "modality": "CT", "size": [4, 4], "file": "0" * 20 + ".png", **wrong}
    value = {"schema": 1, "checkpoint": {}, "left_out": {}, "shown": {"a": picture}}
    (tmp_path / "pictures.json").write_text(json.dumps(value))
    with pytest.raises(PicturesError, match=r"pictures\.json"):
        read_pictures(tmp_path)
