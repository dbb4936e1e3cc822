"""The finding labeller on sentences written for it, and its metrics against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import precision_recall_fscore_support

from umit_jax.eval.metrics import Item
from umit_jax.eval.metrics.findings import FINDINGS, FIVE, NEGATED, PRESENT, UNCERTAIN, findings, label
from umit_jax.targets import text_target

SHORT = {
    "ECM": "Enlarged Cardiomediastinum",
    "CM": "Cardiomegaly",
    "LO": "Lung Opacity",
    "LL": "Lung Lesion",
    "ED": "Edema",
    "CO": "Consolidation",
    "PN": "Pneumonia",
    "AT": "Atelectasis",
    "PTX": "Pneumothorax",
    "PE": "Pleural Effusion",
    "PO": "Pleural Other",
    "FX": "Fracture",
    "SD": "Support Devices",
    "NF": "No Finding",
}
SIGNS = {"+": PRESENT, "?": UNCERTAIN, "-": NEGATED}

ENGLISH = [
    ("The heart is enlarged.", "CM+"),
    ("Heart size is normal.", "CM- NF+"),
    ("The heart is not enlarged.", "CM- NF+"),
    ("Heart size is at the upper limits of normal, borderline cardiomegaly.", "CM?"),
    ("The heart is enlarged with normal pulmonary vascularity.", "CM+"),
    ("Cardiac silhouette is within normal limits.", "CM- NF+"),
    ("The cardiomediastinal silhouette is unremarkable.", "ECM- NF+"),
    ("Widening of the mediastinum.", "ECM+"),
    ("No focal consolidation, pleural effusion, or pneumothorax.", "CO- PE- PTX- NF+"),
    ("No focal consolidation, pneumothorax, pleural effusion.", "CO- PE- PTX- NF+"),
    ("No pneumothorax, small left pleural effusion.", "PTX- PE+"),
    ("No consolidation, small effusion or pneumothorax.", "CO- PE- PTX- NF+"),
    ("No pneumothorax but a moderate right effusion.", "PTX- PE+"),
    ("No effusion and the heart is enlarged.", "PE- CM+"),
    ("Lungs are clear.", "LO- NF+"),
    ("The lungs are not clear.", "LO+"),
    ("Lungs are clear except for minimal bibasilar atelectasis.", "LO- AT+"),
    ("Patchy opacity in the left base, likely atelectasis.", "LO+ AT?"),
    ("Opacity likely representing pneumonia.", "LO+ PN?"),
    ("Atelectasis versus consolidation at the right base.", "AT? CO?"),
    ("Pneumonia cannot be excluded.", "PN?"),
    ("Cannot exclude a small pneumothorax.", "PTX?"),
    ("No evidence to suggest pneumonia.", "PN- NF+"),
    ("Possible small pleural effusion.", "PE?"),
    ("A small effusion may be present.", "PE?"),
    ("Pneumothorax is unlikely.", "PTX?"),
    ("Pulmonary edema has resolved.", "ED- NF+"),
    ("Pleural effusion is not seen.", "PE- NF+"),
    ("Opacity has cleared.", "LO- NF+"),
    ("Effusions have cleared.", "PE- NF+"),
    ("The previously seen pneumothorax is gone.", "PTX- NF+"),
    ("The opacities are gone.", "LO- NF+"),
    ("Consolidation has completely resolved.", "CO- NF+"),
    ("The nodule is no longer seen.", "LL- NF+"),
    ("Edema no longer seen.", "ED- NF+"),
    ("Interval clearing of the left effusion.", "PE- NF+"),
    ("Opacity has not cleared.", "LO+"),
    ("Opacity has partially cleared.", "LO+"),
    ("Effusion has not resolved.", "PE+"),
    ("Pneumonia has not completely resolved.", "PN+"),
    ("Incomplete resolution of the effusion.", "PE+"),
    ("The effusion is not gone.", "PE+"),
    ("The opacity has cleared and the effusion is unchanged.", "LO- PE+"),
    ("The opacity has cleared, but a small effusion persists.", "LO- PE+"),
    ("Pneumonia has cleared, effusion persists.", "PN- PE+"),
    ("History of pneumonia.", "PN- NF+"),
    ("History of pneumonia, now with new consolidation.", "PN- CO+"),
    ("History of pneumonia with new consolidation.", "PN- CO+"),
    ("History of pneumonia. Recurrent pneumonia on the left.", "PN+"),
    ("Patient with a history of effusion and a new nodule.", "PE- LL+"),
    ("Fracture was ruled out.", "FX- NF+"),
    ("No significant change in the left pleural effusion.", "PE+"),
    ("No increase in the size of the right nodule.", "LL+"),
    ("Effusion is not significantly changed.", "PE+"),
    ("Blunting of the left costophrenic angle.", "PE+"),
    ("Costophrenic angles are sharp.", "PE- NF+"),
    ("A 2.5 cm nodule in the right upper lobe. No mass.", "LL+"),
    ("Old healed rib fractures.", "FX+"),
    ("Right-sided PICC with its tip in the SVC. No pneumothorax.", "SD+ PTX- NF+"),
    ("Endotracheal tube has been removed.", "SD- NF+"),
    ("Biapical pleural thickening and scarring.", "PO+ LO+"),
    ("Mild vascular congestion; no overt edema.", "ED+"),
    ("Small pericardial effusion.", "NF+"),
    ("Status post sternotomy. Heart failure.", "ED+"),
    ("No acute disease.", "NF+"),
    ("", ""),
]
CHINESE = [
    ("心影增大。", "CM+"),
    ("心影大小、形态正常。", "CM- NF+"),
    ("双肺未见实变、结节及气胸。", "CO- LL- PTX- NF+"),
    ("心影增大，未见胸腔积液。", "CM+ PE-"),
    ("无胸腔积液，右肺上叶结节。", "PE- LL+"),
    ("左肺下叶斑片影，考虑肺炎。", "LO+ PN?"),
    ("少量胸腔积液不除外。", "PE?"),
    ("疑似骨折。", "FX?"),
    ("胸腔积液已吸收。", "PE- NF+"),
    ("肺炎已消散。", "PN- NF+"),
    ("胸腔积液未完全吸收。", "PE+"),
    ("既往有肺炎病史。", "PN- NF+"),
    ("肺炎病史，现见左肺实变。", "PN- CO+"),
    ("右侧胸腔积液较前无明显变化。", "PE+"),
    ("不能排除气胸。", "PTX?"),
    ("双肺野清晰，纵隔居中。", "LO- ECM- NF+"),
    ("未见肺不张，但右侧胸膜增厚。", "AT- PO+"),
    ("右侧PICC置管，未见气胸。", "SD+ PTX- NF+"),
    ("心包积液。", "NF+"),
]


def expected(signs):
    return {SHORT[sign[:-1]]: SIGNS[sign[-1]] for sign in signs.split()}


@pytest.mark.parametrize(("text", "signs"), ENGLISH)
def test_english_sentences(text, signs):
    assert label(text, "en") == expected(signs)


@pytest.mark.parametrize(("text", "signs"), CHINESE)
def test_chinese_sentences(text, signs):
    assert label(text, "zh") == expected(signs)


def test_over_a_report_present_wins_over_doubt_and_doubt_over_denial():
    assert label("No effusion. Possible effusion. Small effusion. No effusion.", "en") == {"Pleural Effusion": PRESENT}
    assert label("No effusion. Possible effusion. No effusion.", "en") == {"Pleural Effusion": UNCERTAIN}


def item(truth, said, language="en", **more):
    return Item(text_target(truth), None if said is None else text_target(said), language, **{"modality": "DX", **more})


SENTENCES = [text for text, _ in ENGLISH[:40]]


def test_metrics_are_scikit_learns_over_the_labels():
    rng = np.random.default_rng(0)
    pairs = [(" ".join(rng.choice(SENTENCES, 3)), " ".join(rng.choice(SENTENCES, 3))) for _ in range(40)]
    ours = findings([item(*pair) for pair in pairs])
    true, said = (
        np.array([[label(t, "en").get(n) == PRESENT for n in FINDINGS] for t in side])
        for side in zip(*pairs, strict=True)
    )
    for average in ("micro", "macro"):
        values = precision_recall_fscore_support(true, said, average=average, zero_division=0)
        for kind, value in zip(("precision", "recall", "f1"), values, strict=False):
            assert ours[f"findings_{kind}_{average}"].point == pytest.approx(value)
    five = [FINDINGS.index(name) for name in FIVE]
    value = precision_recall_fscore_support(true[:, five], said[:, five], average="micro", zero_division=0)[2]
    assert ours["findings_f1_micro_5"].point == pytest.approx(value)


def test_doubt_is_not_positive_and_an_unparsed_report_has_no_finding():
    ours = findings([item("Small effusion.", "Possible effusion."), item("No acute disease.", None)])
    assert ours["findings_f1_micro"].point == 0
    assert ours["findings_f1_micro"].count == 2
    assert findings([item("Small effusion.", "An effusion.")])["findings_f1_micro"].point == 1


def test_reports_of_other_images_weigh_nothing():
    radiograph = item("Small effusion.", "Small effusion.")
    scan = item("Small effusion.", "Clear.", modality="CT")
    ours = findings([radiograph, scan])["findings_recall_micro"]
    assert (ours.point, ours.count) == (1, 1)
    assert findings([scan]) == {}
    assert findings([item("Small effusion.", "x", modality=None, dataset="iu_xray")]) != {}
    assert findings([item("A hand.", "A hand.")]) == {}  # no finding is named in any truth


def test_chinese_reports_are_read_by_chinese_rules():
    ours = findings([item("心影增大。", "心影增大，未见气胸。", "zh"), item("少量气胸。", "未见气胸。", "zh")])
    assert ours["findings_recall_micro"].point == pytest.approx(1 / 2)
    # said: cardiomegaly (right), and "no finding" for the second (wrong)
    assert ours["findings_precision_micro"].point == pytest.approx(1 / 2)
