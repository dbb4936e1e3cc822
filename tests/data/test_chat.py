import jinja2.sandbox
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.chat import CHAT_TEMPLATE, encode, placeholder, render
from data_pipelines.record import MEDIA_TOKEN, Turn
from data_pipelines.tokenizer import SPECIAL_TOKENS, train_sentencepiece

SYSTEM = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
IMAGE, VIDEO = [False], [True]
TURNS = [
    Turn("user", f"{MEDIA_TOKEN}Is {MEDIA_TOKEN} larger?"),
    Turn("assistant", "1:yes"),
    Turn("user", "为什么？"),
    Turn("assistant", "大 13 mm"),
]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return train_sentencepiece([t.text for t in TURNS] * 20, tmp_path_factory.mktemp("tokenizer"), 340)


def joined(pieces):
    return "".join(piece.text for piece in pieces)


def test_a_conversation_renders_in_the_released_format():
    assert joined(render(TURNS, [IMAGE, VIDEO])) == (
        SYSTEM + "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Is "
        "<|vision_start|><|video_pad|><|vision_end|> larger?<|im_end|>\n"
        "<|im_start|>assistant\n1:yes<|im_end|>\n<|im_start|>user\n为什么？<|im_end|>\n"
        "<|im_start|>assistant\n大 13 mm<|im_end|>"
    )


def test_slices_are_one_span_each():
    assert placeholder([False, False]) == "<|vision_start|><|image_pad|><|vision_end|>" * 2


def test_learned_are_all_answers_and_their_end_tokens(tokenizer):
    ids, learned = encode(render(TURNS, [IMAGE, IMAGE]), tokenizer)
    taught = tokenizer.decode([i for i, learn in zip(ids, learned, strict=True) if learn])
    assert taught == "1:yes<|im_end|>大 13 mm<|im_end|>"


@pytest.mark.parametrize("count", [2, 4])
def test_prompt_ids_are_the_first_ids_of_the_sample(tokenizer, count):
    prompt, learned = encode(render(TURNS[:count], [IMAGE, IMAGE], prompt=True), tokenizer)
    sample, _ = encode(render(TURNS[:count], [IMAGE, IMAGE]), tokenizer)
    assert sample[: len(prompt)] == prompt
    assert tokenizer.decode(sample[len(prompt) :]) == f"{TURNS[count - 1].text}<|im_end|>"
    assert sum(learned) == (0 if count == 2 else len(tokenizer.encode("1:yes")) + 1)


def test_prompt_of_a_conversation_without_an_answer_keeps_its_question():
    assert joined(render(TURNS[:3], [IMAGE, IMAGE], prompt=True)) == joined(render(TURNS, [IMAGE, IMAGE], prompt=True))


def test_the_ids_are_those_of_the_whole_text(tokenizer):
    pieces = render(TURNS, [IMAGE, IMAGE])
    assert encode(pieces, tokenizer)[0] == tokenizer.encode(joined(pieces))


def test_the_jinja_template_renders_the_same_text():
    template = jinja2.sandbox.ImmutableSandboxedEnvironment().from_string(CHAT_TEMPLATE)
    content = [
        {"type": "image"},
        {"type": "text", "text": "Is "},
        {"type": "video"},
        {"type": "text", "text": " larger?"},
    ]
    messages = [{"role": "user", "content": content}]
    messages += [{"role": turn.role, "content": turn.text} for turn in TURNS[1:3]]
    ours = joined(render(TURNS, [IMAGE, VIDEO], prompt=True))
    assert template.render(messages=messages, add_generation_prompt=True) == ours
    assert template.render(messages=messages[:2]) == joined(render(TURNS[:2], [IMAGE, VIDEO])) + "\n"


def test_a_system_turn_takes_the_place_of_the_usual_one():
    pieces = render([Turn("system", "Be brief."), *TURNS[2:]], [])
    assert joined(pieces).startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n为什么")
    assert [piece.text for piece in pieces if piece.learned] == ["大 13 mm", "<|im_end|>"]


FORMAT = [name for name in SPECIAL_TOKENS if "box" not in name and "quad" not in name and "object" not in name]
fakes = st.lists(
    st.sampled_from([*FORMAT, "<|im_end|>\n<|im_start|>assistant\n", "<|im_", "end|>", "肝", " x "]), max_size=6
)


@settings(max_examples=200, deadline=None)
@given(fakes.map("".join), fakes.map("".join))
def test_nobody_writes_a_token_of_the_format(tokenizer, question, answer):
    turns = [Turn("user", MEDIA_TOKEN + question), Turn("assistant", "a" + answer)]
    plain = [Turn("user", MEDIA_TOKEN), Turn("assistant", "a")]
    (ids, learned), (expected, _) = (encode(render(t, [IMAGE]), tokenizer) for t in (turns, plain))
    steering = {tokenizer.token_id(name) for name in FORMAT}
    assert [i for i in ids if i in steering] == [i for i in expected if i in steering]
    assert tokenizer.decode(ids) == joined(render(turns, [IMAGE]))
    assert tokenizer.decode([i for i, learn in zip(ids, learned, strict=True) if learn]) == f"a{answer}<|im_end|>"


def test_boxes_are_spoken_in_tokens(tokenizer):
    ids, _ = encode(render([Turn("user", "<|box_start|>(1,2),(3,4)<|box_end|>"), TURNS[1]], []), tokenizer)
    assert tokenizer.token_id("<|box_start|>") in ids
