"""CIDEr-D, held to what pycocoevalcap 1.2 prints for the same words, and by hand."""

import math

import pytest

from umit_jax.eval.metrics import Item
from umit_jax.eval.metrics.cider import cider
from umit_jax.eval.metrics.report import report
from umit_jax.targets import text_target

TRUTHS = [
    "the heart is normal in size and the lungs are clear",
    "there is a small left pleural effusion",
    "no pneumothorax or pleural effusion is seen",
    "the lungs are clear",
]
SAID = [
    "the heart is normal in size the lungs are clear",
    "there is a small right pleural effusion and a nodule",
    "no pleural effusion or pneumothorax",
    "the lungs are are clear clear",
]
PRINTED = [7.01630745, 3.39129499, 2.21886624, 3.19451609]  # Cider().compute_score(references, answers)[1]


def tokens(texts):
    return [text.split() for text in texts]


def test_each_report_scores_what_pycocoevalcap_prints():
    assert cider(tokens(TRUTHS), tokens(SAID)) == pytest.approx(PRINTED, abs=1e-8)


def test_the_library_itself_agrees_where_it_is_installed():
    library = pytest.importorskip("pycocoevalcap.cider.cider")
    texts = [dict(enumerate([t] for t in side)) for side in (TRUTHS, [*SAID[:3], ""])]
    expected = library.Cider().compute_score(*texts)[1]
    assert cider(tokens(TRUTHS), tokens([*SAID[:3], ""])) == pytest.approx(list(expected))


def test_two_reports_by_hand():
    # N = 2, every n-gram in one reference: idf log 2. "a b" against "a c": one word of two shared, no pair shared
    scores = cider([["a", "c"], ["x", "y", "z", "w"]], [["a", "b"], ["x", "y", "z", "w"]])
    assert scores == pytest.approx([10 * (1 / 2) / 4, 10])
    assert cider([["a"], ["b", "c"]], [["a", "a", "a"], []])[0] == pytest.approx(10 * math.exp(-4 / 72) / 3 / 4)


def test_report_cider_ignores_case_and_punctuation_and_counts_an_unparsed_report_as_nothing():
    items = [
        Item(text_target(truth.capitalize() + "."), text_target(said.upper() + " !"))
        for truth, said in zip(TRUTHS, SAID, strict=True)
    ]
    assert report(items)["cider"].point == pytest.approx(sum(PRINTED) / 4, abs=1e-8)
    items[0] = Item(items[0].truth, None)
    assert report(items)["cider"].point == pytest.approx(sum(PRINTED[1:]) / 4, abs=1e-8)


def test_chinese_cider_is_over_characters():
    truths, said = ["肝脏正常。", "左肺结节"], ["肝脏正常", "右肺结节"]
    items = [Item(text_target(t), text_target(s), "zh") for t, s in zip(truths, said, strict=True)]
    expected = cider([list("肝脏正常"), list("左肺结节")], [list("肝脏正常"), list("右肺结节")])
    assert report(items)["cider"].point == pytest.approx(sum(expected) / 2)
    assert expected[0] == pytest.approx(10)
