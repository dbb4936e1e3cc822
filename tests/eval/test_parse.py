import pytest

from umit_jax.eval.parse import UNNAMED, parse, read_answer
from umit_jax.targets import Frame, boxes_target, check_target, options_target, points_target, text_target

YES_NO = options_target(["yes", "no"], 0, 1)
SHI_FOU = options_target(["是", "否"], 0, 1)
KIDNEYS = options_target(["left kidney", "kidney", "liver"], 0, 0)
NORMAL = options_target(["normal", "abnormal"], 0, 0)
ZHENGCHANG = options_target(["正常", "异常"], 0, 0)
COUNTS = options_target(["2", "3"], 0, 1)
ORGANS = boxes_target(Frame("raw", (500, 250)), [("liver", [50, 25, 250, 125]), ("left kidney", [0, 0, 10, 10])])
LIVER = boxes_target(Frame("raw", (500, 250)), [("liver", [50, 25, 250, 125])])
TUMOUR_3D = boxes_target(Frame("voxel", (256, 256, 32), (0.7, 0.7, 5)), [("tumour", [1, 2, 3, 4, 5, 6])])
SELLA = points_target(Frame("resized", (600, 800), (0.3225, 0.3)), [("sella", [300, 400])])


@pytest.mark.parametrize(
    ("truth", "text", "option"),
    [
        (YES_NO, "1:yes", "yes"),
        (YES_NO, "２：ＮＯ", "no"),
        (YES_NO, " 2 : No.<|im_end|>", "no"),
        (YES_NO, "1", "yes"),
        (YES_NO, "(2)", "no"),
        (YES_NO, "Yes.", "yes"),
        (YES_NO, "No lesion is visible", "no"),
        (YES_NO, "No, not a mass", "no"),
        (YES_NO, "No, no mass", "no"),
        (YES_NO, "Not sure, but yes", "yes"),
        (YES_NO, "The answer is 2.", "no"),
        (YES_NO, "The answer is 2: no", "no"),
        (YES_NO, "是", "yes"),
        (SHI_FOU, "1：是", "是"),
        (SHI_FOU, "是的", "是"),
        (SHI_FOU, "不是", "否"),
        (SHI_FOU, "答案：2", "否"),
        (KIDNEYS, "It is the LEFT KIDNEY", "left kidney"),
        (KIDNEYS, "0", "left kidney"),
        (KIDNEYS, "2:liver", "liver"),
        (NORMAL, "the image is abnormal", "abnormal"),
        (ZHENGCHANG, "图像显示正常", "正常"),
        (COUNTS, "1:2", "2"),
        (COUNTS, "There are 3 of them", "3"),
    ],
)
def test_an_option_is_read_from_its_number_its_words_or_both(truth, text, option):
    target = parse(text, truth, "en")
    assert target is not None
    assert check_target(target)["options"][target["index"]] == option


@pytest.mark.parametrize(
    ("truth", "text", "problem"),
    [
        (YES_NO, "yes or no", "ambiguous answer"),
        (YES_NO, "1:yes\n2:no", "no option named"),
        (YES_NO, "1:no", "no option named"),
        (YES_NO, "The answer is 1: no", "ambiguous answer"),
        (YES_NO, "normal nodule", "no option named"),
        (YES_NO, "3", "no such option"),
        (YES_NO, "0", "no such option"),
        (YES_NO, "1:banana", "no option named"),
        (YES_NO, "There are 2 lesions", "no option named"),
        (YES_NO, " <|im_end|>", "empty answer"),
        (SHI_FOU, "该图像是CT", "no option named"),
        (KIDNEYS, "liver or kidney", "ambiguous answer"),
        (YES_NO, "Not yes", "ambiguous answer"),
        (YES_NO, "It is not a yes.", "ambiguous answer"),
        (YES_NO, "not \u201cyes\u201d", "ambiguous answer"),
        (YES_NO, "The answer isn\u2019t yes", "ambiguous answer"),
        (YES_NO, "not no", "ambiguous answer"),
        (YES_NO, "1: not yes", "no option named"),
        (YES_NO, "不是“否”", "ambiguous answer"),
        (SHI_FOU, "不是“是”", "ambiguous answer"),
        (SHI_FOU, '答案不是"是"', "ambiguous answer"),
        (SHI_FOU, "并非：否", "ambiguous answer"),
        (SHI_FOU, "不是是", "no option named"),
        (NORMAL, "not normal", "ambiguous answer"),
        (ZHENGCHANG, "不正常", "ambiguous answer"),
        (COUNTS, "2", "ambiguous answer"),
    ],
)
def test_an_answer_that_is_no_option_or_two_is_refused_with_a_reason(truth, text, problem):
    reading = read_answer(text, truth, "en")
    assert reading.target is None
    assert reading.problems == (problem,)


@pytest.mark.parametrize(
    "text",
    [
        "<|object_ref_start|>liver<|object_ref_end|><|box_start|>(100,100),(500,500)<|box_end|><|im_end|>",
        "liver(100,100),(500,500)",
        "(100,100),(500,500)",
        "<|box_start|>(100, 100), (500, 500)<|box_end|>",
        "（100，100），（500，500）",
        "The liver is located at [100, 100, 500, 500].",
        "100,100,500,500",
    ],
)
def test_a_2d_box_is_spoken_in_thousandths_and_comes_back_in_the_frame_of_the_truth(text):
    assert parse(text, LIVER, "en") == LIVER


def test_a_2d_box_in_a_resized_frame_is_spoken_in_that_frame():
    truth = boxes_target(Frame("resized", (500, 250)), [("liver", [50, 25, 250, 125])])
    assert parse("liver(50,25),(250,125)", truth, "en") == truth


def test_several_boxes_are_read_with_their_labels_with_and_without_special_tokens():
    tokens = (
        "<|object_ref_start|>left kidney<|object_ref_end|><|box_start|>(0,0),(20,40)<|box_end|>"
        "<|object_ref_start|>Liver<|object_ref_end|><|box_start|>(100,100),(500,500)<|box_end|>"
    )
    plain = "left kidney(0,0),(20,40)Liver(100,100),(500,500)"
    expected = [{"label": "left kidney", "box": [0, 0, 10, 10]}, {"label": "liver", "box": [50, 25, 250, 125]}]
    assert [parse(text, ORGANS, "en")["items"] for text in (tokens, plain)] == [expected, expected]


def test_boxes_that_follow_one_name_all_have_it():
    name = "<|object_ref_start|>liver<|object_ref_end|>"
    text = name + "<|box_start|>(1,2),(3,4)<|box_end|><|box_start|>(5,6),(7,8)<|box_end|>"
    assert [item["label"] for item in parse(text, ORGANS, "en")["items"]] == ["liver", "liver"]


def test_of_several_labels_a_box_of_another_name_keeps_that_name_and_one_without_a_name_has_none():
    assert parse("spleen(1,2),(3,4)", ORGANS, "en")["items"][0]["label"] == "spleen"
    assert parse("(1,2),(3,4)", ORGANS, "en")["items"][0]["label"] == UNNAMED


OPACITY = boxes_target(Frame("raw", (500, 250)), [("lung opacity", [0, 0, 250, 125])])


@pytest.mark.parametrize(
    "text",
    [
        "1. (0,0),(500,500)",
        "opacity (0,0),(500,500)",
        "Box 1: (0,0),(500,500)",
        "Pneumonia at [0, 0, 500, 500]",
        '[{"bbox_2d": [0, 0, 500, 500], "label": "opacity"}]',
    ],
)
def test_where_one_label_is_asked_about_every_box_has_it_whatever_stands_around(text):
    assert parse(text, OPACITY, "en") == OPACITY


def test_several_boxes_under_numbers_all_have_the_only_label_asked_about():
    items = parse("1. (0,0),(500,500)\n2. (500,0),(1000,500)", OPACITY, "en")["items"]
    assert [item["label"] for item in items] == ["lung opacity"] * 2


def test_one_label_with_two_true_boxes_is_one_label():
    boxes = [("lung opacity", [0, 0, 250, 125]), ("lung opacity", [250, 0, 500, 125])]
    truth = boxes_target(Frame("raw", (500, 250)), boxes)
    assert parse("1. (0,0),(500,500) 2. (500,0),(1000,500)", truth, "en") == truth


@pytest.mark.parametrize(
    "text",
    [
        "[(1,2,3),(4,5,6)]",
        "((1, 2, 3), (4, 5, 6))",
        "[[1,2,3],[4,5,6]]",
        "[1,2,3,4,5,6]",
        "{1 2 3} {4 5 6}",
        "<1,2,3><4,5,6>",
        "【（1，2，3），（4，5，6）】",
        "tumour: [(1.0,2.0,3.0),(4.0,5.0,6.0)]",
        "1, 2, 3, 4, 5, 6",
    ],
)
def test_a_3d_box_is_read_in_any_brackets_in_the_frame_of_the_truth(text):
    assert parse(text, TUMOUR_3D, "en") == TUMOUR_3D


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("liver(500,100),(100,500)", ("inverted box",)),
        ("liver(100,100),(100,500)", ("empty box",)),
        ("liver(100,100),(50", ("half a box",)),
        ("liver(100,100,100),(500,500,500)", ("wrong number of coordinates",) * 2),
        ("the liver is in the left lung", ("no box",)),
        ("I cannot tell where the liver is", ("no box",)),
        ("", ("no box",)),
    ],
)
def test_a_text_without_a_usable_box_is_refused_with_a_reason(text, problems):
    assert read_answer(text, LIVER, "en") == read_answer(text, ORGANS, "en")
    assert read_answer(text, LIVER, "en").target is None
    assert read_answer(text, LIVER, "en").problems == problems


def test_a_bad_box_among_good_ones_is_left_out_and_counted():
    reading = read_answer("liver(100,100),(500,500)left kidney(20,20),(10,40)", ORGANS, "en")
    assert [item["label"] for item in reading.target["items"]] == ["liver"]
    assert reading.problems == ("inverted box",)


def test_a_box_that_reaches_out_of_the_image_is_not_clipped():
    assert parse("(0,0),(1200,1000)", LIVER, "en")["items"][0]["box"] == [0, 0, 600, 250]


@pytest.mark.parametrize(
    "text", ["[300,400]", "(300, 400)", "300,400", "Sella turcica: [300.0, 400.0]", "［300，400］"]
)
def test_a_point_is_read_in_the_frame_of_the_truth(text):
    assert parse(text, SELLA, "zh") == SELLA


def test_a_3d_point_is_read():
    truth = points_target(Frame("voxel", (256, 256, 32)), [("L3", [10, 20, 30])])
    assert parse("L3 [10,20,30]", truth, "en") == truth


FLAT, DEEP = Frame("raw", (100, 100), (1, 1)), Frame("voxel", (64, 64, 32), (1, 1, 1))


@pytest.mark.parametrize(
    "text", ["", "asdf qwer", "yes, pneumonia in the left lung", "No pneumonia.", "[]", "未见肺炎"]
)
@pytest.mark.parametrize(("target", "item"), [(boxes_target, [1, 1, 2, 2]), (points_target, [1, 1])])
def test_whether_an_answer_says_nothing_is_there_does_not_depend_on_the_truth(target, item, text):
    empty, one, two = (target(FLAT, [(label, item) for label in labels]) for labels in ([], ["a"], ["a", "b"]))
    nothing = text in ("No pneumonia.", "[]", "未见肺炎")
    for truth in (empty, one, two):
        assert parse(text, truth, "en") == ({**truth, "items": []} if nothing else None)


def test_the_same_of_three_axes():
    truth = boxes_target(DEEP, [("tumour", [1, 1, 1, 2, 2, 2])])
    assert parse("没有肿瘤。", truth, "zh") == boxes_target(DEEP, [])
    assert parse("肿瘤", truth, "zh") is None


def test_a_denial_beside_a_broken_box_is_no_answer():
    reading = read_answer("no liver (500,100),(100,500)", LIVER, "en")
    assert (reading.target, reading.problems) == (None, ("inverted box",))


@pytest.mark.parametrize("text", ["[300,400] [310,400]", "[1,2,3]", "the sella", ""])
def test_no_point_or_several_for_one_landmark_is_no_answer(text):
    assert parse(text, SELLA, "en") is None


def test_free_text_is_the_text_without_special_tokens_and_empty_text_is_no_answer():
    assert parse(" A small nodule.<|im_end|>\n", text_target("x"), "en") == text_target("A small nodule.")
    assert parse(" \n", text_target("x"), "en") is None
