"""Sentences of captions and reports: in both languages, complete, and apart from each other."""

import itertools

import pytest

from data_pipelines.prompts import TermError, join, measure_list, name_list, say, state, statements, term

SECTIONS = ("findings", "enlarged", "sides")


def test_every_sentence_is_there_in_both_languages():
    for section, entries in statements._statements().items():
        if section == "version":
            continue
        for key, value in entries.items():
            pairs = value.values() if section in SECTIONS else [value]
            for english, chinese in pairs:
                assert english.isascii(), (section, key)
                assert any("\u4e00" <= c <= "\u9fff" for c in chinese) or "{" in chinese, (section, key)


def test_keys_of_findings_are_terms():
    for section in SECTIONS:
        for key in statements._statements()[section]:
            assert key == "any" or term(key, "en")


def test_a_wrong_finding_shares_no_four_words_in_a_row_with_the_right_one():
    for section in SECTIONS:
        for key, values in statements._statements()[section].items():
            for one, two in itertools.combinations([state(section, key, v, "en") for v in values if key != "any"], 2):
                grams = [
                    {tuple(words[i : i + 4]) for i in range(len(words) - 3)} for words in (one.split(), two.split())
                ]
                assert not grams[0] & grams[1], (key, one, two)


def test_slots_take_names_and_capitals():
    assert state("findings", "pneumonia", "left", "en") == "Pneumonia on the left."
    assert state("findings", "pneumonia", "left", "zh") == "左侧肺炎。"
    assert say("shown/projection", "en", modality="X-ray", view="frontal") == "Frontal X-ray."
    assert say("lists/count", "en", key="nucleus", number="3") == "Cell nuclei: 3."


def test_lists_and_sentences_are_joined_as_the_language_does():
    assert name_list(["liver", "spleen"], "en") == "liver, spleen"
    assert name_list(["liver", "spleen"], "zh") == "肝脏、脾脏"
    assert measure_list({"liver": 1482.3}, "mL", "en") == "liver 1482 mL"
    assert measure_list({"liver": 1482.3}, "mL", "zh") == "肝脏1482 mL"
    assert join(["A.", "B."], "en") == "A. B."
    assert join(["甲。", "乙。"], "zh") == "甲。乙。"


def test_what_is_not_there_is_an_error_that_names_it():
    with pytest.raises(TermError, match="shown/hologram"):
        say("shown/hologram", "en")
    with pytest.raises(TermError, match="sides/liver/both"):
        state("sides", "liver", "both", "en")
