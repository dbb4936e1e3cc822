import pytest

from umit_jax.eval.normalise import answer_tokens


@pytest.mark.parametrize(
    ("text", "language", "tokens"),
    [
        ("The left lung, a nodule.", "en", ["left", "lung", "nodule"]),
        ("2.5 cm", "en", ["2.5", "cm"]),
        ("X-ray", "en", ["xray"]),
        ("Ｃｔ！<|im_end|>", "en", ["ct"]),
        ("...", "en", []),
        ("左肺有2.5cm结节。", "zh", ["左", "肺", "有", "2.5cm", "结", "节"]),
        ("ＣＴ，轴位", "zh", ["ct", "轴", "位"]),
        ("", "zh", []),
    ],
)
def test_tokens_of_an_answer(text, language, tokens):
    assert answer_tokens(text, language) == tokens
