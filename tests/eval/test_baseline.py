import pytest

from umit_jax.eval.baseline import fit
from umit_jax.targets import Frame, boxes_target, options_target, points_target, text_target


def item(target, dataset="d", task="vqa", language="en", topic="t"):
    return {"dataset": dataset, "task": task, "language": language, "topic": topic, "target": target}


def option(name, options=("yes", "no")):
    return options_target(list(options), options.index(name), 1)


def test_majority_answer_is_found_by_its_words_whatever_the_order_of_the_options():
    baseline = fit([item(option("no")), item(option("No", ("No", "Yes"))), item(option("yes"))])
    assert baseline.predict(item(option("yes", ("no", "yes")))) == option("no", ("no", "yes"))


def test_majority_answer_is_among_the_options_offered():
    baseline = fit([item(option("CT", ("CT", "MR")))] * 3 + [item(option("no"))])
    assert baseline.predict(item(option("yes")))["index"] == 1


def test_an_unseen_group_falls_back_level_by_level():
    records = [
        item(text_target("finest")),
        *[item(text_target("other language"), language="zh")] * 2,
        *[item(text_target("other dataset"), dataset="e")] * 4,
        *[item(text_target("other topic"), topic="u")] * 8,
    ]
    baseline = fit(records)
    asked = text_target("?")
    assert baseline.predict(item(asked))["text"] == "finest"
    assert baseline.predict(item(asked, language="fr"))["text"] == "other language"
    assert baseline.predict(item(asked, dataset="f"))["text"] == "other dataset"
    assert baseline.predict(item(asked, topic="v"))["text"] == "other topic"
    assert baseline.predict(item(asked, task="report")) is None


def test_equal_counts_do_not_depend_on_the_order_of_the_records():
    records = [item(text_target("b")), item(text_target("a"))]
    assert fit(records).predict(item(text_target("?"))) == fit(records[::-1]).predict(item(text_target("?")))


def test_mean_box_is_per_label_and_in_fractions_of_the_image():
    small, large = Frame("raw", (100, 50)), Frame("raw", (1000, 1000))
    baseline = fit(
        [
            item(boxes_target(small, [("liver", [0, 0, 50, 25]), ("spleen", [90, 40, 100, 50])])),
            item(boxes_target(large, [("Liver", [200, 0, 700, 700])])),
        ]
    )
    asked = boxes_target(Frame("raw", (10, 10)), [("liver", [1, 1, 2, 2]), ("liver", [3, 3, 4, 4])])
    answer = baseline.predict(item(asked))
    assert [i["label"] for i in answer["items"]] == ["liver"]
    assert answer["items"][0]["box"] == pytest.approx([1, 0, 6, 6])
    assert answer["frame"] == asked["frame"]


def test_a_label_never_seen_gets_the_mean_over_all_labels():
    frame = Frame("raw", (10, 10))
    baseline = fit([item(points_target(frame, [("L1", [2, 2])])), item(points_target(frame, [("L2", [4, 6])]))])
    answer = baseline.predict(item(points_target(frame, [("L3", [0, 0])])))
    assert [i["label"] for i in answer["items"]] == ["L3"]
    assert answer["items"][0]["point"] == pytest.approx([3, 4])


def test_2d_and_3d_are_never_averaged_together():
    baseline = fit([item(points_target(Frame("raw", (10, 10)), [("L1", [2, 2])]))])
    assert baseline.predict(item(points_target(Frame("voxel", (10, 10, 10)), [("L1", [2, 2, 2])]))) is None


def test_an_item_without_a_topic_has_a_baseline():
    record = {"dataset": "d", "task": "report", "language": "en", "target": text_target("normal")}
    assert fit([record]).predict(record) == text_target("normal")


@pytest.mark.parametrize(("with_box", "said"), [(2, 0), (3, 1)])
def test_whether_anything_is_there_is_not_taken_from_the_truth(with_box, said):
    frame = Frame("raw", (10, 10))
    box = boxes_target(frame, [("pneumonia", [2, 2, 6, 6])])
    baseline = fit([item(box)] * with_box + [item(boxes_target(frame, []))] * (5 - with_box))
    for truth in (box, boxes_target(frame, [])):
        answer = baseline.predict(item(truth))
        assert [i["label"] for i in answer["items"]] == ["pneumonia"] * said
        assert [i["box"] for i in answer["items"]] == [pytest.approx([2, 2, 6, 6])] * said
