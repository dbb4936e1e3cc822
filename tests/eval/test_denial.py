"""Which answers without coordinates say that nothing is there, and what they score."""

import itertools

import pytest

from umit_jax.eval.denial import says_nothing
from umit_jax.eval.metrics import Item, detect, landmark
from umit_jax.eval.parse import parse
from umit_jax.eval.score import score
from umit_jax.targets import Frame, boxes_target, points_target

NOTHING = [
    "Pneumonia: not seen",
    "Findings: no opacity.",
    "影像所见：未见肺炎",
    "肺炎：未见",
    "No pneumonia.",
    "none",
    "none<|im_end|>",
    "[]<|im_end|>",
    "```json\n[]\n```<|im_end|>",
    "无强化",
    "None.",
    "Nothing",
    "no",
    "No.",
    "There is no pneumonia in this image.",
    "No evidence of pneumonia.",
    "No focal consolidation, effusion, or pneumothorax.",
    "Not seen",
    "not visible.",
    "Absent",
    "The liver is not visible in this image.",
    "Pneumonia is absent.",
    "[]",
    "```json\n[]\n```",
    '{"objects": []}',
    "I do not see any lesion.",
    "I don't see any lesion",
    "The image does not show a nodule.",
    "No. The lungs are clear.",
    "No, the lungs are clear.",
    "In this image, no opacity is seen.",
    "Pneumonia: none",
    "Opacity - none",
    "Free of opacity",
    "Negative for pneumonia.",
    "No evidence to suggest pneumonia.",
    "No lung opacity was detected.",
    "The lungs are clear, no opacity.",
    "Lungs clear. No opacity.",
    "Without opacity",
    "there isn't any mass",
    "no boxes",
    "No bounding box.",
    "nothing found",
    "There is no evidence of opacity in the left or right lung.",
    "A tumour cannot be seen.",
    "No opacity is present.",
    "The chest x-ray shows no opacity.",
    "**None**",
    "无",
    "未见肺炎",
    "未见异常。",
    "没有",
    "没有肺炎。",
    "图中未见肺炎。",
    "双肺未见实变、结节及气胸。",
    "无病灶",
    "不存在",
    "肺炎：无",
    "未发现病灶，双肺清晰。",
    "该图像中没有发现肺炎。",
    "看不到",
    "未检测到任何病变",
    "胸腔积液阴性",
    "图像中不存在病灶。",
    "未见明显异常，心影正常",
    "无异常",
    "无明显肺部阴影",
    "<|object_ref_start|>none<|object_ref_end|>",
    "Is there pneumonia? No.",
    "- no pneumonia\n- no effusion",
]
NOT_NOTHING = [
    "no pneumothorax on the right and pneumonia on the left",
    "No effusion with consolidation in the right base",
    "a nodule not seen previously is present now",
    "No normal lung",
    "无回声结节",
    "无强化结节",
    "无钙化结节",
    "ﷺ" * 1000,
    "- no effusion\n- a nodule in the left lung",
    "No effusion\nnodule in the left lung",
    "No effusion - nodule in the left lung",
    "No effusion (nodule in the left lung)",
    "Left lung nodule: no calcification",
    "左肺结节：无钙化",
    "除左肺结节外未见异常",
    "It has no clear border.",
    "No lesion. " * 100,
    "",
    "asdf qwer",
    "yes, pneumonia in the left lung",
    "Yes",
    "pneumonia",
    "Pneumonia in the left lung, no effusion",
    "No effusion, pneumonia in the left lung.",
    "No effusion, small nodule",
    "Left lung opacity without effusion",
    "nodule with no calcification",
    "I cannot tell.",
    "I do not know",
    "not sure",
    "No doubt there is pneumonia",
    "no idea",
    "No change in the opacity",
    "No lesion other than the nodule in the left lobe",
    "no opacity on the right but opacity on the left",
    "Probably no mass",
    "there may be no mass",
    "not normal",
    "The lungs are not clear",
    "No, in the left lung",
    "No, there is an opacity in the left lung",
    "not absent",
    "It is not absent",
    "The opacity has no clear border",
    "normal",
    "Normal chest.",
    "the image is unclear",
    "I cannot identify the location",
    "unlikely",
    "Note: opacity in the left lung",
    "nodule",
    "no pneumonia and a nodule",
    "No image was given",
    "不是没有",
    "有肺炎，左肺",
    "无法判断",
    "左肺结节无钙化",
    "未见肺炎，左肺有结节",
    "可能没有肺炎",
    "并非无异常",
    "有无肺炎",
    "右肺有阴影",
    "无疑是肺炎",
    "正常",
    "没有变化",
    "肺炎",
    "不除外肺炎",
    "未见胸腔积液，但有肺炎",
    "there is no left lung, the tumour is here",
    "Nothing but a large opacity",
    "none other than pneumonia",
    "It is not true, pneumonia is present",
    "左肺",
    "the tumour has no oedema",
    "Yes: a nodule.",
    "无法定位肺炎。",
    "Only a nodule, no effusion",
]


@pytest.mark.parametrize("text", NOTHING)
def test_a_denial_is_read(text):
    assert says_nothing(text)


@pytest.mark.parametrize("text", NOT_NOTHING)
def test_whatever_claims_doubts_or_leaves_open_is_no_denial(text):
    assert not says_nothing(text)


FRAME = Frame("raw", (1000, 1000), (1, 1))
BOX, POINT = [100, 100, 300, 300], [100, 100]
TEXTS = {
    "empty": "",
    "garbage": "asdf qwer",
    "positive": "yes, pneumonia in the left lung",
    "negative": "No pneumonia.",
    "boxes": "(100,100),(300,300)",
}
EXPECTED = {  # mean_iou, ap and whether it counts there, unparsed
    (0, "empty"): (0, 0, True, 1),
    (0, "garbage"): (0, 0, True, 1),
    (0, "positive"): (0, 0, True, 1),
    (0, "negative"): (1, 0, False, 0),
    (0, "boxes"): (0, 0, True, 0),
    (1, "empty"): (0, 0, True, 1),
    (1, "garbage"): (0, 0, True, 1),
    (1, "positive"): (0, 0, True, 1),
    (1, "negative"): (0, 0, True, 0),
    (1, "boxes"): (1, 1, True, 0),
}


@pytest.mark.parametrize(("boxes", "said"), list(itertools.product((0, 1), TEXTS)))
def test_what_each_answer_scores_where_something_is_there_and_where_nothing_is(boxes, said):
    truth = boxes_target(FRAME, [("pneumonia", BOX)] * boxes)
    about = {"id": "a", "task": "detection", "dataset": "d", "language": "en"}
    rows = {
        r["metric"]: r for r in score([{**about, "truth": truth, "text": TEXTS[said]}]).rows if r["language"] == "en"
    }
    iou, ap, counts, unparsed = EXPECTED[boxes, said]
    assert (rows["mean_iou"]["value"], rows["acc_at_0.5"]["value"], rows["unparsed"]["value"]) == (iou, iou, unparsed)
    assert ("ap_0.40_0.75" in rows) == counts
    assert not counts or rows["ap_0.40_0.75"]["value"] == ap
    item = Item(truth, parse(TEXTS[said], truth, "en"))
    assert detect.detection([item])["mean_iou"].point == iou


def test_a_point_that_is_said_not_to_be_there_is_a_miss_and_no_parsed_point():
    truth = points_target(FRAME, [("sella", POINT)])
    absent, found = (Item(truth, parse(text, truth, "en")) for text in ("Not visible.", "[100,103]"))
    assert absent.answer == points_target(FRAME, [])
    metrics = landmark.landmarks([absent, found])
    assert (metrics["sdr_4mm"].point, metrics["mre_mm_parsed"].point, metrics["mre_mm_parsed"].count) == (0.5, 3, 1)
    assert metrics["mre_mm"].point == pytest.approx((900 * 2**0.5 + 3) / 2)


def test_of_an_answer_with_one_of_two_points_the_other_stands_at_the_farthest_corner():
    truth = points_target(FRAME, [("a", POINT), ("b", [0, 0])])
    metrics = landmark.landmarks([Item(truth, parse("a [100,100]", truth, "en"))])
    assert metrics["mre_mm_parsed"].point == metrics["mre_mm"].point == pytest.approx(1000 * 2**0.5 / 2)
