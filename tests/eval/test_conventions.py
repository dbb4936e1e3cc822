"""Other projects' conventions: what their own scripts print for the same texts, and their faults worked out by hand.

The numbers marked PRINTED come from running the projects' files themselves (LLaVA-Med v1.0.0, MedEvalKit, R2Gen) and
the package rouge 1.0.1 on these texts.
"""

import dataclasses
import math

import pytest

from umit_jax.eval.metrics import Item, detect, llava_med, m3d, medevalkit, r2gen, vila_m3
from umit_jax.eval.metrics.texts import said
from umit_jax.targets import Frame, boxes_target, options_target, text_target

YES_NO = ["yes", "no"]


def open_item(truth, text, dataset=""):
    return Item(text_target(truth), text_target(text) if text else None, text=text, dataset=dataset)


def closed_item(truth, text, options=YES_NO, dataset=""):
    return Item(options_target(options, options.index(truth), 1), None, text=text, dataset=dataset)


def points(statistics):
    return {name: statistic.point for name, statistic in statistics.items()}


def test_the_number_our_prompts_ask_for_is_not_part_of_what_other_rules_read():
    assert said(closed_item("yes", "1:yes<|im_end|>")) == "yes"
    assert said(closed_item("yes", "2：否", ["是", "否", "yes"])) == "否"
    assert said(closed_item("yes", "7:yes")) == "7:yes"  # no option has it
    assert said(open_item("x", "1:yes")) == "1:yes"


# llava_med: PRINTED recall, precision, F1, "exact match", BLEU with weights on 1, 2 and 3, BLEU-4
LLAVA_MED = [
    ("left lung", "The left lung, and the left lower lobe.", [1, 0.5, 0.666667, 0.333333, 0.333333, 0.2, 0, 0]),
    ("Three nodules", "3 nodules; two-sided", [1, 0.5, 0.666667, 0.5, 0.5, 0.333333, 0, 0]),
    ("pleural effusion", "No effusion (5,000 ml).", [0.5, 0.25, 0.333333, 0.25, 0.25, 0, 0, 0]),
    ("cardiomegaly", "dont know", [0] * 8),
    ("The heart", "heart heart", [1, 1, 1, 0.5, 0.5, 0, 0, 0]),
    ("2.5 cm", "about 2.5 cm.", [1, 0.666667, 0.8, 0.666667, 0.666667, 0.5, 0, 0]),
    ("lung", "", [0] * 8),
]


@pytest.mark.parametrize(("truth", "text", "printed"), LLAVA_MED)
def test_llava_med_open_scores_are_what_its_script_prints(truth, text, printed):
    ours = points(llava_med.open_ended([open_item(truth, text)]))
    names = ("token_recall", "token_precision", "token_f1", "exact_match", "bleu1", "bleu2", "bleu3", "bleu4")
    assert [ours[name] for name in names] == pytest.approx(printed, abs=1e-6)


@pytest.mark.parametrize(
    ("text", "normal"),
    [  # PRINTED by its normalize_word
        ("The left lung, and the left lower lobe.", "left lung and left lower lobe"),
        ("3 nodules; two-sided", "3 nodules 2 sided"),
        ("No effusion (5,000 ml).", "no effusion 5000 ml"),
        ("dont know", "don't know"),
    ],
)
def test_llava_med_normalises_as_its_script_does(text, normal):
    assert llava_med.normalised(text) == normal


@pytest.mark.parametrize(
    ("truth", "text", "options", "hit"),
    [
        ("no", "a nodule", YES_NO, 1),  # "no" inside a word
        ("no", "normal", YES_NO, 1),
        ("yes", "absent", YES_NO, 0),
        ("yes", "yes and no", YES_NO, 1),
        ("Liver", "Liver", ["Liver", "Lung"], 0),  # neither yes nor no
        ("Liver", "Liver, not the lung", ["Liver", "Lung"], 1),
        ("no", "2:no", YES_NO, 1),
    ],
)
def test_llava_med_closed_answers_are_searched_for_as_pieces_of_words(truth, text, options, hit):
    assert points(llava_med.closed([closed_item(truth, text, options)])) == {"closed_accuracy": hit}


def test_the_pathvqa_script_forgets_wrong_answers_that_say_yes_or_no():
    items = [closed_item("yes", text) for text in ("yes", "no", "no", "unclear")]
    assert points(llava_med.closed(items)) == {"closed_accuracy": 0.25}
    forgetful = llava_med.closed_pathvqa(items)["closed_accuracy"]
    assert (forgetful.point, forgetful.count) == (0.5, 2)


# medevalkit: PRINTED em, BLEU-1 to 4, ROUGE-1, 2 and L, and its "precision", "recall" and "f1"
MEDEVALKIT = [
    (
        "left lung",
        "The left lung, and the left lower lobe.",
        [0, 0.111111, 0, 0, 0, 0.25, 0, 0.25, 0.25, 0.166667, 0.5],
    ),
    ("pleural effusion", "No effusion (5,000 ml).", [0, 0.2, 0, 0, 0, 0.333333, 0, 0.333333, 0.333333, 0.25, 0.5]),
    ("The heart", "heart heart", [0, 0.5, 0, 0, 0, 0.666667, 0, 0.666667, 0.666667, 1, 0.5]),
    (
        "2.5 cm",
        "about 2.5 cm.",
        [0, 0.6, 0.547723, 0.464159, 0, 0.857143, 0.8, 0.857143, 0.4, 0.333333, 0.5],
    ),
    (
        "the lungs are clear. no effusion.",
        "no effusion is seen. the lungs are are clear.",
        [0, 0.727273, 0.603023, 0.432333, 0, 0.857143, 0.615385, 0.857143, 0.714286, 0.625, 0.833333],
    ),
    ("yes", "<answer>yes</answer>", [1, 1, 0, 0, 0, 1, 0, 1, 1, 1, 1]),
    ("lung", "", [0] * 11),  # its script ends with an error here
]


@pytest.mark.parametrize(("truth", "text", "printed"), MEDEVALKIT)
def test_medevalkit_open_scores_are_what_its_script_prints(truth, text, printed):
    ours = points(medevalkit.open_ended([open_item(truth, text)]))
    names = ("exact_match", "bleu1", "bleu2", "bleu3", "bleu4", "rouge1", "rouge2", "rouge_l")
    names += ("token_precision", "token_recall", "token_f1")
    assert [ours[name] for name in names] == pytest.approx(printed, abs=1e-6)


@pytest.mark.parametrize(
    ("truth", "text", "options", "dataset", "hit"),
    [  # PRINTED by its judge_judgement and judge_close_end_vqa
        ("yes", "Yes, it is.", YES_NO, "vqa_rad", 1),
        ("no", "no. There is nothing", YES_NO, "vqa_rad", 1),
        ("yes", "yes and no", YES_NO, "vqa_rad", 0),
        ("no", "normal", YES_NO, "vqa_rad", 1),
        ("yes", "The final answer is: yes", YES_NO, "path_vqa", 1),
        ("yes", "Yes, it is.", YES_NO, "slake", 0),
        ("yes", "Yes.", YES_NO, "slake", 1),
        ("Liver", "liver.", ["Liver", "Lung"], "slake", 1),
        ("Liver", "the liver", ["Liver", "Lung"], "slake", 0),
        ("no", r"so \boxed{no}", YES_NO, "vqa_rad", 1),
        ("是", "1：是", ["是", "否"], "slake", 1),
    ],
)
def test_medevalkit_closed_answers(truth, text, options, dataset, hit):
    assert points(medevalkit.closed([closed_item(truth, text, options, dataset)])) == {"closed_accuracy": hit}


def test_medevalkit_reports_are_scored_alone_and_an_empty_one_counts_nothing():
    truth, text = "the lungs are clear. no effusion.", "no effusion is seen. the lungs are are clear."
    ours = points(medevalkit.report([open_item(truth, text), open_item(truth, "")]))
    assert ours["bleu1"] == pytest.approx(0.727273 / 2, abs=1e-6)
    assert ours["rouge2"] == pytest.approx(0.615385 / 2, abs=1e-6)


def test_vila_m3_wants_the_words_of_the_truth_and_no_others():
    items = [closed_item("yes", "Yes"), closed_item("yes", "1:yes"), closed_item("yes", "yes."), closed_item("no", "")]
    assert points(vila_m3.closed(items)) == {"closed_accuracy": 0.5}
    items = [open_item("Left lung", "left LUNG"), open_item("Left lung", "the left lung")]
    assert points(vila_m3.open_ended(items)) == {"exact_match": 0.5}


@pytest.mark.parametrize(
    ("text", "hit"), [("B. lung", 1), ("The answer is B.", 1), ("2:lung", 1), ("lung", 0), ("B", 0), ("A. B.", 1)]
)
def test_m3d_looks_for_the_letter_and_a_full_stop(text, hit):
    item = closed_item("lung", text, ["liver", "lung", "spleen", "heart"])
    assert points(m3d.closed([item])) == {"closed_accuracy": hit, "closed_accuracy_by_type": hit}


def test_m3d_averages_over_types_of_questions():
    items = [closed_item("yes", text) for text in ("A.", "A.", "A.", "B.")]
    items = [dataclasses.replace(item, topic=topic) for item, topic in zip(items, "1112", strict=True)]
    ours = points(m3d.closed(items))
    assert ours == pytest.approx({"closed_accuracy": 3 / 4, "closed_accuracy_by_type": 1 / 2})


def test_m3d_scores_each_text_by_shared_words():
    # "left lower lobe ." against "left lobe .": 3 of 4 words right; against 4 for 3: penalty exp(1 - 4 / 3)
    ours = points(m3d.texts([open_item("left lobe.", "left lower lobe."), open_item("left lower lobe.", "left lobe.")]))
    assert ours["bleu1"] == pytest.approx((3 / 4 + math.exp(-1 / 3)) / 2)
    assert ours["rouge1"] == pytest.approx(4 / 5)
    assert points(m3d.texts([open_item("x", "")])) == {"bleu1": 0, "rouge1": 0}


def box_item(truth, answer):
    frame = Frame("voxel", (10, 10, 10))
    boxes = [boxes_target(frame, [("liver", box)]) if box else None for box in (truth, answer)]
    return Item(boxes[0], boxes[1])


def test_m3d_divides_by_the_box_around_both():
    # 8 voxels each, 1 shared: union 15, the box around both 27
    pair = box_item([0, 0, 0, 2, 2, 2], [1, 1, 1, 3, 3, 3])
    assert points(m3d.boxes([pair])) == pytest.approx({"mean_iou": 1 / 27, "acc_at_0.25": 0, "acc_at_0.5": 0}, abs=1e-4)
    assert m3d.boxes([Item(pair.answer, pair.truth)])["mean_iou"].point == pytest.approx(1 / 27, abs=1e-4)
    assert detect.detection([pair])["mean_iou"].point == pytest.approx(1 / 15)
    behind = box_item([0, 0, 0, 2, 2, 2], [0, 0, 1, 2, 2, 3])
    assert m3d.boxes([behind])["mean_iou"].point == pytest.approx(1 / 3, abs=1e-4)
    assert m3d.boxes([behind])["acc_at_0.25"].point == 1
    assert m3d.boxes([box_item([0, 0, 0, 2, 2, 2], None)])["mean_iou"].point == 0


@pytest.mark.parametrize(
    ("text", "iu", "mimic"),
    [  # PRINTED by its clean_report_iu_xray and clean_report_mimic_cxr
        (
            "1. Heart size is normal. 2. No pleural effusion; no pneumothorax.. [XXXX] (stable).",
            "heart size is normal . no pleural effusion no pneumothorax . xxxx stable .",
            "heart size is normal . no pleural effusion no pneumothorax . xxxx stable .",
        ),
        (
            'The lungs are clear, 2.5 cm nodule in the right-upper lobe/base: "unchanged". <b>',
            "the lungs are clear 25 cm nodule in the right-upper lobebase unchanged . b .",
            "the lungs are clear 25 cm nodule in the right-upper lobebase unchanged . b .",
        ),
        (
            "Multiple   lines.\nFindings: ___ ___ are  STABLE. 3. End. ",
            "multiple lines findings are stable . end .",
            "multiple lines . findings are stable . end .",
        ),
    ],
)
def test_r2gen_cleans_reports_as_its_tokenizer_does(text, iu, mimic):
    assert " ".join(r2gen.cleaned(text, "iu_xray")) == iu
    assert " ".join(r2gen.cleaned(text, "mimic_cxr")) == mimic


def test_r2gen_cuts_the_truth_and_hides_its_rare_words():
    counts = r2gen.count_words(["clear lungs. clear heart.", "Clear lungs", "lungs and heart"], "iu_xray")
    assert r2gen.rare_words("The lungs are clear.", "iu_xray", counts) == ["are", "the"]
    item = Item(text_target("The lungs are clear. " * 20), None, dataset="iu_xray", rare_words=("are", "the"))
    words = r2gen.reference(item).split()
    assert (len(words), words[:6]) == (59, ["<unk>", "lungs", "<unk>", "clear", ".", "<unk>"])
    mimic = Item(item.truth, None, dataset="mimic_cxr")
    assert len(r2gen.reference(mimic).split()) == 99


def test_r2gen_says_nothing_of_chinese_whose_words_no_space_divides():
    item = Item(text_target("心影增大。"), text_target("心影增大。"), "zh", text="心影增大。")
    assert r2gen.report([item]) == {}
    assert r2gen.report_meteor([item]) == {}


def test_r2gen_scores_against_the_cut_truth():
    item = open_item("word " * 100, "Word " * 59, dataset="iu_xray")
    assert points(r2gen.report([item])) == pytest.approx(
        {"bleu1": 59 / 60, "bleu2": (59 * 58 / 60 / 59) ** (1 / 2)}
        | {"bleu3": (59 * 58 * 57 / 60 / 59 / 58) ** (1 / 3), "bleu4": (59 * 58 * 57 * 56 / 60 / 59 / 58 / 57) ** 0.25}
        | {"rouge_l": (1 + 1.44) * 59 / 60 / (1 + 1.44 * 59 / 60)}
    )  # the answer keeps its closing full stop, which the cut takes from the truth


def test_an_evaluation_counts_rare_words_in_the_english_training_reports_of_the_same_data_set():
    from types import SimpleNamespace

    from launch.prediction import rare_words, training_words

    def truth(text, dataset="d", language="en", task="report"):
        return {"task": task, "language": language, "dataset": dataset, "target": text_target(text)}

    others = [truth("nodule", "e")] * 3 + [truth("nodule", language="zh")] * 3 + [truth("nodule", task="vqa")] * 3
    counts = training_words([truth("clear lungs")] * 3 + others)
    record = SimpleNamespace(**truth("Clear lungs. A nodule."))
    assert rare_words(record, counts) == {"rare_words": ["a", "nodule"]}
    assert rare_words(SimpleNamespace(**truth("Clear lungs.", "f")), counts) == {}
    assert rare_words(SimpleNamespace(**truth("Clear lungs.", task="vqa")), counts) == {}
