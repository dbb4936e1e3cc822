import json
import math
import re

import pytest

from umit_jax.eval.modes import ModeError
from umit_jax.eval.predictions import PredictionError, read_predictions, refused
from umit_jax.eval.score import score, write_scores
from umit_jax.targets import Frame, boxes_target, options_target, points_target, text_target

YES = options_target(["yes", "no"], 0, 1)
NO = options_target(["yes", "no"], 1, 1)


def line(i, text, truth, **more):
    return {"id": str(i), "task": "vqa", "dataset": "d", "language": "en", "text": text, "truth": truth, **more}


def row(rows, **where):
    found = [r for r in rows if all(r[key] == value for key, value in where.items())]
    assert len(found) == 1, found
    return found[0]


def test_text_is_parsed_again_and_parsed_is_never_read():
    predictions = [line(0, "1:yes", YES, parsed=NO), line(1, "yes", NO, parsed=NO)]
    assert row(score(predictions).rows, language="en", metric="closed_accuracy")["value"] == 0.5


def test_rows_are_per_dataset_and_language_and_over_all_languages():
    predictions = [line(0, "yes", YES), line(1, "no", YES, language="zh"), line(2, "no", YES, dataset="e")]
    rows = [r for r in score(predictions).rows if r["metric"] == "closed_accuracy"]
    assert {(r["dataset"], r["language"]): (r["value"], r["n"]) for r in rows} == {
        ("d", "en"): (1, 1),
        ("d", "zh"): (0, 1),
        ("d", "all"): (0.5, 2),
        ("e", "en"): (0, 1),
        ("e", "all"): (0, 1),
    }


def test_reports_have_no_row_over_all_languages():
    predictions = [
        line(0, "a b c d", text_target("a b c d"), task="report"),
        line(1, "肝脏正常大", text_target("肝脏正常大"), task="report", language="zh"),
    ]
    rows = score(predictions).rows
    assert {r["language"] for r in rows} == {"en", "zh"}
    assert row(rows, language="zh", metric="bleu4")["value"] == pytest.approx(1)


def test_2d_and_3d_region_and_patient_real_and_synthetic_are_separate_rows():
    flat = boxes_target(Frame("raw", (1000, 1000)), [("liver", [0, 0, 10, 10])])
    deep = boxes_target(Frame("voxel", (64, 64, 16)), [("liver", [0, 0, 0, 10, 10, 10])])
    common = {"task": "detection"}
    predictions = [
        line(0, "(0,0),(10,10)", flat, **common, heldout="patient"),
        line(1, "(0,0),(10,5)", flat, **common, heldout="region"),
        line(2, "[(0,0,0),(10,10,5)]", deep, **common, heldout="patient"),
        line(3, "somewhere", deep, **common, heldout="patient", synthetic=True),
    ]
    rows = score(predictions).rows
    where = {"metric": "mean_iou", "language": "all"}
    assert row(rows, **where, dims=2, heldout="patient")["value"] == 1
    assert row(rows, **where, dims=2, heldout="region")["value"] == 0.5
    assert row(rows, **where, dims=3, synthetic=False)["value"] == 0.5
    assert row(rows, **where, dims=3, synthetic=True)["value"] == 0
    assert row(rows, metric="unparsed", language="all", synthetic=True)["value"] == 1


def test_open_and_closed_questions_of_one_dataset_are_both_scored():
    rows = score([line(0, "2:no", NO), line(1, "left lung", text_target("lung"))]).rows
    assert row(rows, language="all", metric="closed_accuracy")["n"] == 1
    assert row(rows, language="all", metric="token_f1")["value"] == pytest.approx(2 / 3)


def test_the_baseline_is_scored_by_the_same_metrics_on_the_same_questions():
    predictions = [line(i, "yes", YES if i % 4 else NO, baseline=NO, patient_id=f"p{i}") for i in range(100)]
    result = row(score(predictions).rows, language="en", metric="closed_accuracy")
    assert (result["value"], result["baseline"]) == (0.75, 0.25)
    assert result["ci95"][0] < 0.75 < result["ci95"][1]
    assert result["baseline_ci95"][0] < 0.25 < result["baseline_ci95"][1]
    assert result["beats_baseline"] is True
    assert (result["n"], result["n_patients"]) == (100, 100)


def test_fewer_millimetres_beat_the_baseline():
    frame = Frame("raw", (100, 100), (1, 1))
    truth, far = points_target(frame, [("a", [50, 50])]), points_target(frame, [("a", [90, 90])])
    predictions = [line(i, "[50,51]", truth, task="landmark", baseline=far) for i in range(10)]
    result = row(score(predictions).rows, language="en", metric="mre_mm")
    assert (result["better"], result["beats_baseline"]) == ("lower", True)


def test_a_line_with_only_what_the_contract_asks_for_scores():
    result = row(score([line(0, "yes", YES)]).rows, language="en", metric="closed_accuracy")
    assert (result["baseline"], result["baseline_ci95"], result["beats_baseline"]) == (None, None, None)
    assert (result["heldout"], result["synthetic"], result["n_patients"]) == (None, False, None)
    assert result["mode"] == "strict"


def test_one_patient_has_a_value_and_no_interval():
    result = row(score([line(i, "yes", YES, patient_id="p") for i in range(5)]).rows, language="en", metric="unparsed")
    assert (result["value"], result["ci95"], result["n_patients"]) == (0, None, 1)


def test_the_order_of_the_lines_changes_no_value():
    predictions = [line(i, ["yes", "no", "?"][i % 3], YES, patient_id=f"p{i}") for i in range(12)]
    forward, backward = score(predictions).rows, score(predictions[::-1]).rows
    assert [r["metric"] for r in forward] == [r["metric"] for r in backward]
    assert [r["value"] for r in forward] == pytest.approx([r["value"] for r in backward])


def test_an_unknown_mode_is_refused():
    with pytest.raises(ModeError, match=r"mode: expected one of strict.*, found 'lenient'"):
        score([line(0, "yes", YES)], modes=["lenient"])


def test_rows_of_other_modes_stand_beside_the_strict_ones():
    predictions = [line(0, "1:yes, nodule", YES), line(1, "a nodule", NO)]
    rows = [r for r in score(predictions, modes=["llava_med", "vila_m3", "llava_med"]).rows if r["language"] == "en"]
    found = {r["mode"]: r["value"] for r in rows if r["metric"] == "closed_accuracy"}
    assert found == {"strict": 0.5, "llava_med": 1, "vila_m3": 0}
    assert len(rows) == 4  # and how much strict could not parse


def test_a_mode_gives_the_baseline_in_the_words_of_its_convention():
    rows = score([line(0, "yes", YES, baseline=NO), line(1, "yes", NO, baseline=NO)], modes=["llava_med"]).rows
    result = row(rows, mode="llava_med", language="en", metric="closed_accuracy")
    assert (result["value"], result["baseline"]) == (0.5, 0.5)


def test_parts_by_modality_and_topic_are_rows_of_the_breakdown():
    about = {"modality": "CT", "topic": "closed/ORGAN"}
    predictions = [
        line(0, "yes", YES, **about),
        line(1, "no", YES, **about),
        line(2, "yes", YES, **{**about, "modality": "MR"}),
        line(3, "no", YES, **{**about, "modality": None}),
    ]
    scores = score(predictions, modes=["vila_m3"])
    parts = [r for r in scores.breakdown if r["metric"] == "closed_accuracy" and r["language"] == "en"]
    assert {(r["mode"], r["by"], r["part"], r["value"], r["n"]) for r in parts} == {
        (mode, "modality", *rest) for mode in ("strict", "vila_m3") for rest in (("CT", 0.5, 2), ("MR", 1, 1))
    }  # one topic only: nothing to divide
    assert not any("by" in r for r in scores.rows)


def test_a_metric_that_is_undefined_is_left_out_and_named():
    scores = score([line(i, "yes", YES, scores=[0.9, 0.1]) for i in range(3)])
    assert {r["metric"] for r in scores.rows} == {"closed_accuracy", "accuracy_by_likelihood", "ece", "unparsed"}
    assert "strict auc vqa d en" in scores.not_computed


def test_confidences_of_boxes_order_the_hits():
    truth = boxes_target(Frame("raw", (1000, 1000)), [("a", [0, 0, 100, 100]), ("a", [10, 0, 110, 100])])
    text = "(2,0),(102,100) (0,0),(70,100)"

    def ap(**more):
        predictions = [line(0, text, truth, task="detection", **more)]
        return row(score(predictions).rows, metric="ap_0.40_0.75", language="en")["value"]

    assert ap() == pytest.approx((3 + 5 / 3) / 8)
    assert ap(scores=[0.2, 0.9]) == pytest.approx((6 + 2 / 3) / 8)


def test_predictions_and_scores_survive_the_disk(tmp_path):
    predictions = [line(0, "是", options_target(["是", "否"], 0, 1), language="zh")]
    (tmp_path / "predictions.jsonl").write_text(json.dumps(predictions[0], ensure_ascii=False) + "\n", "utf-8")
    assert read_predictions(tmp_path / "predictions.jsonl") == predictions
    scores = score(predictions)
    write_scores(tmp_path, scores)
    assert json.loads((tmp_path / "scores.json").read_text("utf-8")) == scores.rows
    assert {r["schema"] for r in scores.rows} == {1}
    assert json.loads((tmp_path / "breakdown.json").read_text("utf-8")) == []
    assert {path.name for path in tmp_path.iterdir()} == {"predictions.jsonl", "scores.json", "breakdown.json"}


GOOD = json.dumps(line(0, "yes", YES))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("{", "Expecting property name"),
        ("[]", "expected an object, found list"),
        (json.dumps({**line(1, "", YES), "truth": None}), "truth: expected dict, found None"),
        (json.dumps(line(1, 3, YES)), "text: expected str, found 3"),
        (json.dumps(line(1, "", {"kind": "boxs"})), "truth: target.kind: expected options, boxes, points or text"),
        (json.dumps(line(1, "", YES, baseline=text_target("yes"))), "baseline: expected ('options', None)"),
        (GOOD, "id '0' is already on line 1"),
        (json.dumps(line(1, "", YES, patinet_id="p")), "'patinet_id': unknown field (did you mean patient_id?)"),
        (json.dumps(line(1, "", YES, schema=99)), "'schema': unknown field (expected one of id, task, dataset"),
        (json.dumps(line(1, "", YES, task="vqaa")), "task: expected one of vqa, report, classification, detection"),
        (json.dumps(line(1, "", YES, language="English")), "language: expected one of en, zh, found 'English'"),
        (json.dumps(line(1, "", YES, heldout="site")), "heldout: expected one of patient, region, found 'site'"),
        (json.dumps(line(1, "", YES, config_hash=[1])), "config_hash: expected str, found [1]"),
        (json.dumps(line(1, "", YES, seed=True)), "seed: expected int, found True"),
        (json.dumps(line(1, "", YES, run=2)), "run: expected str, found 2"),
        (json.dumps(line(1, "", YES, variant=3)), "variant: expected str, found 3"),
        (json.dumps(line(1, "", {**YES, "options": ["yes", "yes"]})), "truth: target.options: repeated option in"),
        (json.dumps(line(1, "", {**YES, "first": 1.0})), "truth: target.first: expected 0 or 1, found 1.0"),
        (json.dumps(line(1, "", YES, topic="\ud800")), "topic: half of a character"),
        (json.dumps(line(1, "", {**YES, "options": ["yes", "\ud800"]})), "truth: half of a character"),
        (json.dumps(line(1, "", YES, scores=[float("nan"), 1])), "scores: expected finite numbers"),
        (json.dumps(line(1, "", YES, scores=[10**400, 1])), "scores: expected finite numbers"),
        ("[" * 100_000, "nested too deeply"),
        (json.dumps(line(1, "", YES))[:-1] + ', "seed": ' + "9" * 5000 + "}", "4300 digits"),
        (b"\xff\xfe", "invalid start byte"),
    ],
)
def test_a_broken_line_is_named_by_file_and_number(tmp_path, bad, message):
    path = tmp_path / "predictions.jsonl"
    path.write_bytes(GOOD.encode() + b"\n\n" + (bad if isinstance(bad, bytes) else bad.encode()) + b"\n")
    with pytest.raises(PredictionError, match=re.escape(f"{path}:3: ") + ".*" + re.escape(message)):
        read_predictions(path)


@pytest.mark.parametrize("number", [math.nan, math.inf, 10**400, "1", True, None], ids=lambda n: str(n)[:5])
@pytest.mark.parametrize("field", ["truth", "baseline", "spoken"])
def test_a_number_that_is_none_is_named_by_its_field(tmp_path, field, number):
    frame = Frame("raw", (10, 10), (1, 1))
    box, point = boxes_target(frame, [("a", [0, 0, 5, 5])]), points_target(frame, [("a", [5, 5])])
    json_frame = frame.to_json()
    frames = [{**json_frame, "mm_per_unit": [number, 1]}, {**json_frame, "size": [10, number]}]
    broken = [{**target, "frame": one} for target in (box, point) for one in frames]
    broken += [{**box, "items": [{"label": "a", "box": [0, 0, 5, number]}]}, {**box, "items": [number]}]
    broken += [{**point, "items": [{"label": "a", "point": [number, 5]}]}]
    for wrong in frames if field == "spoken" else broken:
        good = box if field == "spoken" or wrong["kind"] == "boxes" else point
        (tmp_path / "p.jsonl").write_text(json.dumps({**line(0, "", good, task="detection"), field: wrong}))
        with pytest.raises(
            PredictionError, match=rf"p\.jsonl:1: {field}: (?:target\.items|frame\.(?:size|mm_per_unit)): "
        ):
            read_predictions(tmp_path / "p.jsonl")


def test_absurd_numbers_of_an_answer_are_refused_and_counted(tmp_path):
    frame = Frame("raw", (100, 100), (1, 1))
    box, point = boxes_target(frame, [("a", [0, 0, 5, 5])]), points_target(frame, [("a", [5, 5])])
    far, long = "9" * 400, "9" * 5000
    said = [line(i, t, box, task="detection") for i, t in enumerate([f"(1,2),({far},4)", f"1 2 {far} 4", f"({far},1)"])]
    said += [line(i, text, point, task="landmark") for i, text in enumerate([f"[{far},1]", f"[1,{long}]", f"{far} 1"])]
    words = [long, f"{long}: yes", f"answer {long}", f"{long}: 9"]
    said += [line(i, text, YES) for i, text in enumerate(words)]
    said += [line("text", f"{long}: a \ud800", text_target("a"))]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(each) + "\n" for each in said))
    predictions = read_predictions(tmp_path / "p.jsonl")
    modes = ["llava_med", "medevalkit", "m3d"]
    assert row(score(predictions, modes=modes).rows, task="landmark", metric="unparsed", language="en")["value"] == 1
    found = refused(predictions)
    assert found["landmark"] == {"number too large": 3}
    assert found["detection"]["number too large"] == 3
    assert found["vqa"] == {"no such option": 2, "no option named": 2}


def test_a_file_without_predictions_is_an_error_that_names_it(tmp_path):
    (tmp_path / "predictions.jsonl").write_text("\n")
    with pytest.raises(PredictionError, match=r"predictions\.jsonl: expected at least one prediction"):
        read_predictions(tmp_path / "predictions.jsonl")


def test_what_parsing_refused_is_counted_by_reason():
    truth = boxes_target(Frame("raw", (10, 10)), [("liver", [0, 0, 5, 5])])
    predictions = [line(i, "(9,9),(1,1)", truth, task="detection") for i in range(3)] + [line(9, "yes or no", YES)]
    assert refused(predictions) == {"detection": {"inverted box": 3}, "vqa": {"ambiguous answer": 1}}
