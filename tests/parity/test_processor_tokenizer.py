"""The released Qwen vocabulary: our ids and texts are those of transformers' AutoTokenizer, for any string."""

import numpy as np
import pytest

from data_pipelines.tokenizer import SPECIAL_TOKENS, load_tokenizer

pytest.importorskip("torch")
pytest.importorskip("transformers")

COUNT = 4000
TEXT = """The patient's liver isn't enlarged; we'll RE-check 12.5 mm, 3 x 4 cm² (p<0.05) — naïve Ångström fi ﬁ ½ Ⅷ
图像 中 能看到 肝脏 吗 ？ 左肾 １２ 。 右肺上叶 に 腫瘤 가슴 صورة الصدر תמונה ภาพ हिन्दी"""
WORDS = TEXT.split()
ODD = [
    "😀",
    "👩‍⚕️",
    "🇨🇭",
    "e\u0301",
    "\u0301",
    "ａ",
    "\u3000",
    "\u00a0",
    "\u200b",
    "\u200d",
    "\ufeff",
    "\u2028",
    "\x00",
    "\x1b[0m",
]
ODD += ["\r\n", "\n\n", "\t", "  ", "\x85", "\u0130", "ẞ", "\U0010ffff", "\ue000", "\ufffd", "Ġ", "Ċ", "▁", "<0x0A>"]
ALIKE = [
    *SPECIAL_TOKENS,
    "<|im_start",
    "|im_end|>",
    "<|im_start|>>",
    "<<|im_end|>",
    "< |im_end|>",
    "<|IM_END|>",
    "＜|im_end|＞",
]
ALIKE += ["<|im_end|><|im_end|>", "<|image_pad|>" * 3, "<|vision_start|><|image_pad|><|vision_end|>", "<|", "|>"]


def string(rng: np.random.Generator) -> str:
    kind = rng.integers(5)
    if kind == 0:  # anything that Unicode has, but for halves of surrogate pairs
        points = rng.integers(0, 0x110000, rng.integers(1, 20))
        return "".join(chr(p) for p in points if not 0xD800 <= p < 0xE000)
    if kind == 1:  # control characters and Latin letters
        return "".join(map(chr, rng.integers(0, 0x180, rng.integers(1, 30))))
    if kind == 2:  # Chinese
        return "".join(map(chr, rng.integers(0x4E00, 0x9FFF, rng.integers(1, 30))))
    pools = [WORDS, WORDS + ODD, WORDS + ODD + ALIKE][rng.integers(3)]
    joints = ["", " ", "  ", "\n"]
    return "".join(str(rng.choice(pools)) + str(rng.choice(joints)) for _ in range(rng.integers(1, 12)))


@pytest.fixture(scope="module")
def strings():
    rng = np.random.default_rng(0)
    return [*WORDS, *ODD, *ALIKE, "", *(string(rng) for _ in range(COUNT))]


@pytest.fixture(scope="module")
def ours(qwen_directory):
    return load_tokenizer(qwen_directory)


@pytest.fixture(scope="module")
def theirs(qwen_directory):
    from tests.parity.processor_oracle import auto_tokenizer

    return auto_tokenizer(qwen_directory)


def test_the_class_of_the_hub_is_the_oracle(theirs):
    assert type(theirs).__name__.startswith("Qwen2Tokenizer")
    assert theirs.is_fast


def test_ids_are_those_of_autotokenizer(ours, theirs, strings):
    expected = theirs(strings)["input_ids"]
    for text, ids in zip(strings, expected, strict=True):
        assert ours.encode(text) == ids, repr(text)


@pytest.mark.parametrize("skip_special", [False, True])
def test_texts_are_those_of_autotokenizer(ours, theirs, strings, skip_special):
    rng = np.random.default_rng(1)
    for text in strings[::4]:
        ids = ours.encode(text)
        rng.shuffle(ids)  # as a model may say them: characters cut in two, special tokens anywhere
        assert ours.decode(ids, skip_special) == theirs.decode(ids, skip_special_tokens=skip_special), repr(text)


def test_a_text_comes_back_in_composed_form(ours, strings):
    import unicodedata

    for text in strings:
        assert ours.decode(ours.encode(text)) == unicodedata.normalize("NFC", text), repr(text)
