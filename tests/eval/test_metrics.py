"""Golden values, worked out by hand or by an independent library."""

import dataclasses
import itertools

import nltk.translate.bleu_score as nltk_bleu
import numpy as np
import pytest
import sacrebleu
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a
from sklearn.metrics import f1_score

from umit_jax.eval.metrics import Item, classify, detect, landmark, report, vqa
from umit_jax.targets import Frame, boxes_target, options_target, points_target, text_target

ABC = ["a", "b", "c"]


def points(statistics):
    return {name: statistic.point for name, statistic in statistics.items()}


def text_item(truth, said, language="en"):
    return Item(text_target(truth), None if said is None else text_target(said), language)


def option_item(truth, said, topic=None, options=ABC):
    answer = None if said is None else options_target(options, said, 0)
    return Item(options_target(options, truth, 0), answer, "en", topic)


def test_closed_accuracy_counts_an_unparsed_answer_as_wrong():
    items = [option_item(0, 0), option_item(1, 0), option_item(2, 2), option_item(2, None)]
    assert points(vqa.closed(items)) == {"closed_accuracy": 0.5}


@pytest.mark.parametrize(
    ("truth", "said", "language", "f1", "recall", "exact"),
    [
        ("left lung", "The left lung.", "en", 1, 1, 1),
        ("left lung", "lung", "en", 2 / 3, 1 / 2, 0),
        ("left lung", "lung lung lung lung", "en", 2 / 6, 1 / 2, 0),  # a right word said again gains nothing
        ("2.5 cm", "25 cm", "en", 1 / 2, 1 / 2, 0),
        ("pleural effusion", "none", "en", 0, 0, 0),
        ("pleural effusion", None, "en", 0, 0, 0),
        ("左肺结节", "右肺结节", "zh", 6 / 8, 3 / 4, 0),
        ("ＣＴ", "CT。", "zh", 1, 1, 1),
        ("阴性(-)", "阴性(+)", "zh", 1, 1, 1),  # signs go with the punctuation
        ("T2+", "t2", "en", 1, 1, 1),
        ("...", None, "en", 0, 0, 0),
    ],
)
def test_open_answers_are_scored_by_shared_tokens(truth, said, language, f1, recall, exact):
    scores = points(vqa.open_ended([text_item(truth, said, language)]))
    assert scores == pytest.approx({"token_f1": f1, "token_recall": recall, "exact_match": exact})


def test_macro_f1_is_scikit_learns_with_an_unparsed_answer_as_a_miss():
    rng = np.random.default_rng(0)
    truth, said = rng.integers(0, 3, 60), rng.integers(0, 4, 60)  # 3 = unparsed
    items = [option_item(int(t), None if s == 3 else int(s)) for t, s in zip(truth, said, strict=True)]
    expected = f1_score(truth, said, labels=[0, 1, 2], average="macro")
    assert points(classify.classification(items)) == pytest.approx(
        {"accuracy": (truth == said).mean(), "macro_f1": expected}
    )


def test_a_class_is_its_words_and_its_topic_whatever_the_order_of_the_options():
    items = [option_item(0, 0, "organ"), option_item(0, 0, "organ", ["B", "A"]), option_item(0, 1, "plane")]
    # organ a: F1 1; organ b: F1 1; plane a: never said, 0; plane b: never true, 0
    assert points(classify.classification(items)) == pytest.approx({"accuracy": 2 / 3, "macro_f1": 0.5})


REPORTS = [
    ("The liver is normal in size and shape.", "The liver is normal in size."),
    ("No pleural effusion on either side, 2.5 cm nodule.", "No effusion on the left side, 2.5 cm nodule."),
]
CHINESE = [
    ("肝脏大小形态正常，未见异常。", "肝脏大小正常，未见异常。"),
    ("双肺纹理清晰，CT未见结节。", "双肺纹理增多，CT未见结节。"),
]


def test_bleu_equals_nltks_corpus_bleu_on_the_same_tokens():
    tokens = [[Tokenizer13a()(text).split() for text in pair] for pair in REPORTS]
    ours = points(report.report([text_item(*pair) for pair in REPORTS]))
    for order in range(1, 5):
        expected = nltk_bleu.corpus_bleu([[t] for t, _ in tokens], [s for _, s in tokens], [1 / order] * order)
        assert ours[f"bleu{order}"] == pytest.approx(expected)


def test_bleu4_is_what_sacrebleu_prints_in_both_languages():
    for pairs, language, tokenizer in ((REPORTS, "en", "13a"), (CHINESE, "zh", "zh")):
        truths, said = zip(*pairs, strict=True)
        expected = sacrebleu.corpus_bleu(list(said), [list(truths)], tokenize=tokenizer).score / 100
        ours = report.report([text_item(truth, answer, language) for truth, answer in pairs])["bleu4"].point
        assert ours == pytest.approx(expected)
        assert 0.2 < ours < 0.9


@pytest.mark.parametrize(
    ("truth", "said"),
    [
        ("肝脏大小正常，ＣＴ未见异常。", "肝脏大小正常,CT未见异常."),
        ("结节约１．５ｃｍ；余（双肺）清晰！", "结节约1.5cm;余(双肺)清晰!"),
        ("CT示“结节”。", 'ct示"结节".'),
    ],
)
def test_chinese_reports_that_differ_in_width_and_case_alone_are_equal(truth, said):
    ours = points(report.report([text_item(truth, said, "zh")]))
    assert ours == pytest.approx({**dict.fromkeys(ours, 1.0), "cider": 0})
    assert report.report([text_item(said, truth, "zh")])["bleu4"].point == pytest.approx(1)


def test_chinese_bleu_still_counts_punctuation():
    ours = points(report.report([text_item("肝脏大小正常。", "肝脏大小正常", "zh")]))
    assert ours["rouge_l"] == 1
    assert ours["bleu4"] == pytest.approx(np.exp(-1 / 6))  # 6 of 6 tokens right, 6 for 7: penalty exp(1 - 7/6)


def test_english_bleu_keeps_case_and_width():
    assert report.report([text_item("CT is normal.", "ct is normal.")])["bleu1"].point == pytest.approx(3 / 4)
    assert report.report([text_item("CT is normal.", "ＣＴ is normal.")])["bleu1"].point == pytest.approx(3 / 4)


def test_bleu_and_rouge_by_hand():
    # 3 of 3 words and 2 of 2 pairs are right; 3 words for 4: penalty exp(1 - 4/3)
    ours = points(report.report([text_item("the liver looks normal", "the liver looks")]))
    assert [ours["bleu1"], ours["bleu2"], ours["rouge_l"]] == pytest.approx([np.exp(-1 / 3), np.exp(-1 / 3), 6 / 7])


def longest_common(a, b):
    table = np.zeros((len(a) + 1, len(b) + 1), int)
    for (i, x), (j, y) in itertools.product(enumerate(a), enumerate(b)):
        table[i + 1, j + 1] = table[i, j] + 1 if x == y else max(table[i, j + 1], table[i + 1, j])
    return table[-1, -1]


def test_chinese_rouge_is_over_characters_without_punctuation_and_latin_words_whole():
    scores = []
    for truth, said in CHINESE:
        a, b = (list(text.replace("，", "").replace("。", "").replace("CT", "C")) for text in (truth, said))
        scores.append(2 * longest_common(a, b) / (len(a) + len(b)))
    ours = report.report([text_item(truth, said, "zh") for truth, said in CHINESE])
    assert ours["rouge_l"].point == pytest.approx(np.mean(scores))


def test_an_unparsed_report_is_an_empty_one_and_lowers_every_report_metric():
    full = report.report([text_item(REPORTS[0][0], REPORTS[0][0])])
    half = report.report([text_item(REPORTS[0][0], REPORTS[0][0]), text_item(REPORTS[0][0], None)])
    assert points(full) == pytest.approx({**dict.fromkeys(full, 1.0), "cider": 0})  # CIDEr of one report is 0
    assert half["rouge_l"].point == pytest.approx(0.5)
    assert half["bleu4"].point == pytest.approx(np.exp(-1))  # half the tokens: penalty exp(1 - 2)


def test_reports_of_two_languages_are_not_pooled():
    with pytest.raises(ValueError, match="per language"):
        report.report([text_item("a", "a", "en"), text_item("肝", "肝", "zh")])


def test_iou_equals_counting_pixels_and_voxels():
    rng = np.random.default_rng(1)
    for axes in (2, 3):
        corners = np.sort(rng.integers(0, 12, (20, 2, axes)), axis=1)
        boxes = np.concatenate([corners[:, 0], corners[:, 1] + 1], -1)
        grid = np.stack(np.meshgrid(*[np.arange(14)] * axes, indexing="ij"), -1)
        masks = [((grid >= box[:axes]) & (grid < box[axes:])).all(-1) for box in boxes]
        expected = [[(a & b).sum() / (a | b).sum() for b in masks] for a in masks]
        np.testing.assert_allclose(detect.iou_matrix(boxes.astype(float), boxes.astype(float)), expected)


def box_item(truth, said, size=(100, 100)):
    frame = Frame("raw", size)
    return Item(boxes_target(frame, truth), None if said is None else boxes_target(frame, said))


def test_iou_does_not_depend_on_anisotropic_units():
    truth, said = np.array([[1, 2, 3, 7, 8, 9.0]]), np.array([[2, 2, 4, 8, 9, 9.0]])
    scale = np.tile([0.7, 0.7, 5.0], 2)
    np.testing.assert_allclose(detect.iou_matrix(truth * scale, said * scale), detect.iou_matrix(truth, said))


@pytest.mark.parametrize(
    ("said", "mean_iou", "accuracy"),
    [
        ([("liver", [0, 0, 10, 10]), ("spleen", [20, 0, 30, 10])], 1, 1),
        ([("Liver", [0, 0, 10, 5])], 0.25, 0.5),  # half the liver, IoU 0.5 counts; the spleen is missing
        ([("spleen", [0, 0, 10, 10]), ("liver", [20, 0, 30, 10])], 0, 0),  # names exchanged
        ([("liver", [0, 0, 10, 10]), ("spleen", [20, 0, 30, 10]), ("liver", [50, 50, 60, 60])], 2 / 3, 2 / 3),
        (None, 0, 0),
    ],
)
def test_boxes_are_matched_by_label_and_missing_or_spare_ones_count_zero(said, mean_iou, accuracy):
    item = box_item([("liver", [0, 0, 10, 10]), ("spleen", [20, 0, 30, 10])], said)
    ours = points(detect.detection([item]))
    assert [ours["mean_iou"], ours["acc_at_0.5"]] == pytest.approx([mean_iou, accuracy])


def test_boxes_of_one_label_are_paired_to_the_largest_total_iou():
    rng = np.random.default_rng(2)
    near = rng.integers(0, 60, (2, 4, 2))
    true, said = np.concatenate([near, near + rng.integers(10, 40, (2, 4, 2))], -1).astype(float)
    matrix = detect.iou_matrix(said, true)
    best = max(sum(matrix[i, p[i]] for i in range(4)) for p in itertools.permutations(range(4)))
    item = box_item([("nucleus", b) for b in true], [("nucleus", b) for b in said])
    assert detect.detection([item])["mean_iou"].point == pytest.approx(best / 4)


def test_a_question_without_any_box_is_right_only_without_any_box():
    items = [box_item([], []), box_item([], [("liver", [0, 0, 1, 1])]), box_item([], None)]
    ours = points(detect.detection(items))
    assert ours == pytest.approx({"mean_iou": 1 / 3, "acc_at_0.5": 1 / 3, "ap_0.40_0.75": 0})


def point_item(true, said, mm=(0.3225, 0.3), size=(600, 800)):
    frame = Frame("resized", size, mm)
    truth = points_target(frame, [("sella", true)])
    return Item(truth, None if said is None else points_target(frame, [("sella", said)]))


def test_radial_error_is_in_millimetres_of_each_axis():
    # 4 units in x: 1.29 mm; 10 in y: 3 mm
    result = points(landmark.landmarks([point_item([300, 400], [304, 400]), point_item([300, 400], [300, 410])]))
    assert result["mre_mm"] == pytest.approx((1.29 + 3) / 2)
    assert [result[f"sdr_{limit}mm"] for limit in ("2", "2.5", "3", "4")] == [0.5, 0.5, 1, 1]


def test_success_includes_the_limit_itself():
    items = [point_item([100, 100], [120, 100], (0.1, 0.1)), point_item([100.3, 100], [120.3, 100], (0.1, 0.1))]
    assert landmark.landmarks(items)["sdr_2mm"].point == 1


def test_an_unparsed_point_misses_and_stands_at_the_farthest_corner():
    result = points(landmark.landmarks([point_item([100, 200], None, (0.5, 0.5)), point_item([9, 9], [9, 9])]))
    assert result["mre_mm"] == pytest.approx(np.hypot(500, 600) * 0.5 / 2)
    assert result["mre_mm_parsed"] == 0
    assert result["sdr_4mm"] == 0.5


def test_an_unparsed_point_misses_even_where_the_whole_image_is_within_the_limit():
    assert landmark.landmarks([point_item([1, 1], None, (0.1, 0.1), (2, 2))])["sdr_4mm"].point == 0


def test_a_3d_landmark_uses_the_spacing_of_every_axis():
    frame = Frame("voxel", (256, 256, 32), (0.7, 0.7, 5))
    item = Item(points_target(frame, [("L3", [1, 2, 3])]), points_target(frame, [("L3", [11, 2, 4])]))
    assert landmark.landmarks([item])["mre_mm"].point == pytest.approx(np.hypot(7, 5))


def test_images_without_spacing_are_left_out_of_millimetres_and_their_fraction_is_told():
    result = landmark.landmarks([point_item([1, 1], [1, 1]), point_item([1, 1], [9, 9], None)])
    assert result["mre_mm"].point == 0
    assert result["mre_mm"].count == 1
    assert result["no_spacing"].point == 0.5
    assert set(landmark.landmarks([point_item([1, 1], [9, 9], None)])) == {"no_spacing"}


@pytest.mark.parametrize(
    ("true", "said", "scores", "value"),
    [
        ([[0, 0, 10, 10]], [[0, 0, 10, 5.2]], None, 3 / 8),  # IoU 0.52 is above 0.40, 0.45 and 0.50
        ([[0, 0, 10, 10]], [[0, 0, 10, 4]], None, 0),  # 0.40 is not above 0.40
        ([[0, 0, 10, 10], [20, 0, 30, 10]], [[0, 0, 10, 10]], None, 1 / 2),
        ([[0, 0, 10, 10]], [[0, 0, 10, 10], [50, 0, 60, 10]], None, 1 / 2),
        ([[0, 0, 10, 10]], [[0, 0, 10, 10], [0, 0, 10, 10]], None, 1 / 2),  # the second finds it taken
        # the wide box may take either true one, the narrow one only the first above 0.50: who comes first decides
        ([[0, 0, 10, 10], [1, 0, 11, 10]], [[0.2, 0, 10.2, 10], [0, 0, 7, 10]], None, (3 + 5 / 3) / 8),
        ([[0, 0, 10, 10], [1, 0, 11, 10]], [[0.2, 0, 10.2, 10], [0, 0, 7, 10]], [0.1, 0.9], (6 + 2 / 3) / 8),
        ([], [[0, 0, 1, 1]], None, 0),
        ([[0, 0, 1, 1]], [], None, 0),
        ([[0, 0, 1, 1]], None, None, 0),
        ([], None, None, 0),
    ],
)
def test_rsna_precision_by_hand(true, said, scores, value):
    item = box_item([("a", box) for box in true], None if said is None else [("a", box) for box in said])
    item = dataclasses.replace(item, scores=scores)
    assert detect.precision(item) == pytest.approx(value)


def test_an_image_without_boxes_of_which_nothing_is_said_is_not_scored():
    items = [box_item([], []), box_item([("a", [0, 0, 1, 1])], [("a", [0, 0, 1, 1])])]
    statistic = detect.detection(items)["ap_0.40_0.75"]
    assert (statistic.point, statistic.count) == (1, 1)


def test_hits_at_each_threshold_are_those_of_coco_evaluation():
    faster_coco_eval = pytest.importorskip("faster_coco_eval")
    rng = np.random.default_rng(3)
    images = []
    for _ in range(20):
        near = rng.integers(0, 20, (2, 3, 2))
        images.append(np.concatenate([near, near + rng.integers(10, 30, (2, 3, 2)) + rng.random((2, 3, 2))], -1))
    confidences = rng.permutation(60).reshape(20, 3) / 60

    def rows(side, **more):
        return [
            {"id": 3 * i + j + 1, "image_id": i, "category_id": 1, "iscrowd": 0, "area": float(np.prod(b[2:] - b[:2]))}
            | {"bbox": [*b[:2], *(b[2:] - b[:2])], **{key: float(value[i, j]) for key, value in more.items()}}
            for i, image in enumerate(images)
            for j, b in enumerate(image[side])
        ]

    truth = faster_coco_eval.COCO()
    truth.dataset = {"images": [{"id": i} for i in range(20)], "categories": [{"id": 1, "name": "a"}]}
    truth.dataset["annotations"] = rows(0)
    truth.createIndex()
    evaluation = faster_coco_eval.COCOeval_faster(truth, truth.loadRes(rows(1, score=confidences)), "bbox")
    evaluation.params.iouThrs = np.array(detect.AP_THRESHOLDS)
    evaluation.run()
    # recall at each threshold over all images is the number of hits over 60 true boxes
    expected = evaluation.eval["recall"][:, 0, 0, -1] * 60
    hits = np.zeros(len(detect.AP_THRESHOLDS))
    for image, scores in zip(images, confidences, strict=True):
        item = box_item([("a", b) for b in image[0]], [("a", b) for b in image[1]])
        matrix = detect.iou_matrix(image[1][np.argsort(-scores)], image[0])
        counts = [detect.greedy_hits(matrix, t) for t in detect.AP_THRESHOLDS]
        hits += counts
        expected_value = np.mean([c / (6 - c) for c in counts])
        assert detect.precision(dataclasses.replace(item, scores=scores)) == pytest.approx(expected_value)
    assert hits == pytest.approx(expected)
