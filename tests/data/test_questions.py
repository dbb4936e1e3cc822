"""Held-out records as prompts: which of them begin alike, and their text without pixels."""

import dataclasses

import numpy as np
import pytest

from data_pipelines.example import Processing
from data_pipelines.questions import Questions
from data_pipelines.record import MEDIA_TOKEN, Turn
from data_pipelines.tokenizer import train_sentencepiece
from tests.data.toy_records import image, record, volume
from umit_jax.infer.buckets import prefixes

PROCESSING = Processing(min_pixels=784, max_pixels=16 * 784)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    texts = [f"Is the liver seen in number {i}? yes no" for i in range(40)]
    return train_sentencepiece(texts, tmp_path_factory.mktemp("model"), 320)


def records():
    first, second = (image(seed=1),), (image(seed=2), volume(seed=3))
    asked = [
        record(0, media=first, question="Is the liver seen?"),
        record(1, media=second, question="Is the liver seen?"),
        record(2, media=first, question="yes or no?"),
        record(3, media=second, question="What is seen?"),
        record(4, media=(image(seed=1), image(seed=2)), question="What is seen?"),
        record(5, media=(), question="What is seen?"),
    ]
    after_words = Turn("user", f"What is this? {MEDIA_TOKEN} Is the liver seen?")
    other_way = dataclasses.replace(record(6, media=first), turns=(after_words, Turn("assistant", "yes")))
    return [*asked, other_way]


def test_questions_about_the_same_media_that_begin_alike_share_a_prefix(tokenizer):
    asked = records()
    found = Questions([(asked, i) for i in range(len(asked))], tokenizer, PROCESSING)
    assert found.prefixes_N2[:, 0].tolist() == [0, 1, 0, 1, 2, -1, 3]
    number_N, tokens_N = prefixes([found[i] for i in range(len(asked))]).T  # from the arrays themselves
    assert number_N.tolist() == found.prefixes_N2[:, 0].tolist()
    assert tokens_N.tolist() == found.prefixes_N2[:, 1].tolist()


def test_what_is_shown_otherwise_is_not_shared(tokenizer):
    def swapped(index, frames, size_wh):
        return np.zeros((len(frames), size_wh[1], size_wh[0], 3), np.uint8)

    asked = records()
    places = [(asked, i) for i in range(len(asked))]
    found = Questions(places, tokenizer, PROCESSING, lambda record: (record, swapped))
    assert found.prefixes_N2.tolist() == [[-1, 0]] * len(asked)


def test_the_text_of_a_prompt_is_that_of_the_prompt_with_pixels(tokenizer):
    asked = records()
    found = Questions([(asked, i) for i in range(len(asked))], tokenizer, PROCESSING)
    for i in range(len(asked)):
        whole, text = found[i], found.text(i)
        assert not len(text.patches_PC)
        for name in ("tokens_S", "positions_S3", "vision_index_S"):
            assert getattr(whole, name).tolist() == getattr(text, name).tolist()
        end = found.prefixes_N2[i, 1]  # what follows has one position on all three axes
        assert (whole.positions_S3[end:] == whole.positions_S3[end:, :1]).all()
        assert [found.sizes_N2[i].tolist()] == [[len(whole.tokens_S), len(whole.patches_PC)]]
