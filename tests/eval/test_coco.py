"""pycocoevalcap's BLEU, ROUGE-L and METEOR: what version 1.2 prints, and the library itself where it is installed."""

import numpy as np
import pytest

from tests.eval.test_cider import SAID, TRUTHS
from umit_jax.eval.metrics import Item, coco
from umit_jax.targets import text_target

needs_java = pytest.mark.skipif(not coco.available(), reason=str(coco.missing()))

# PRINTED by Bleu(4).compute_score and Rouge().compute_score for the four pairs
BLEU = [0.8064516128772112, 0.6913011297963316, 0.5718512422840075, 0.4709951146944918]
ROUGE_L = [0.94427245, 0.72908367, 0.48541114, 0.82993197]
# The 23 statistics that meteor-1.5.jar gives for the same pairs, and what it then prints for each and for all
STATISTICS = """
10 11 5 6 5 5 5 5 0 0 0 0 0 0 0 0 0 0 0 0 2 10 10
10 7 5 3 3 3 3 3 0 0 0 0 0 0 0 0 0 0 0 0 2 6 6
5 7 2 3 3 3 2 2 0 0 0 0 0 0 0 0 0 0 0 0 4 5 5
6 4 3 2 2 2 2 2 0 0 0 0 0 0 0 0 0 0 0 0 2 4 4
0 4 0 2 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0
"""
METEOR = [0.5420932391303431, 0.39493719081437073, 0.3255606598184553, 0.4443438716486749, 0.0]
METEOR_ALL = 0.38439566044431756


def test_bleu_and_rouge_are_what_the_library_prints():
    ours = coco.bleu_and_rouge(TRUTHS, SAID)
    assert [ours[f"bleu{n}"].point for n in range(1, 5)] == pytest.approx(BLEU, abs=1e-12)
    assert ours["rouge_l"].sums_NK[:, 0] == pytest.approx(ROUGE_L, abs=1e-8)


def test_meteor_of_the_programs_statistics_is_what_the_program_prints():
    sums = np.array([line.split() for line in STATISTICS.strip().splitlines()], float)
    assert coco.meteor_value(sums) == pytest.approx(METEOR)
    assert coco.meteor_value(sums.sum(0)) == pytest.approx(METEOR_ALL)


def test_a_text_that_is_said_exactly_has_no_fragments():
    sums = np.array([4, 4, 2, 2, 2, 2, 2, 2, *[0] * 12, 1, 4, 4], float)
    assert coco.meteor_value(sums) == 1


def test_reports_in_chinese_have_no_english_meteor():
    assert coco.report_meteor([Item(text_target("肝"), None, "zh", text="肝")]) == {}
    assert coco.report_ptb([Item(text_target("肝"), None, "zh", text="肝")]) == {}


@pytest.mark.slow
@needs_java
def test_meteor_runs_as_in_the_library():
    ours = coco.meteor([*TRUTHS, "the lungs are clear"], [*SAID, ""])["meteor"]
    assert ours.point == pytest.approx(METEOR_ALL)


@pytest.mark.slow
@needs_java
def test_ptb_tokens_are_the_librarys():
    tokenizer = pytest.importorskip("pycocoevalcap.tokenizer.ptbtokenizer").PTBTokenizer()
    texts = ["The heart's size (normal), isn't enlarged; 2.5 cm.", "", 'No effusion -- "stable".', "ends blank "]
    theirs = tokenizer.tokenize({i: [{"caption": text}] for i, text in enumerate(texts)})
    assert coco.ptb_tokens(texts) == [theirs[i][0] for i in range(len(texts))]
