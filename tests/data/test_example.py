import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from toy_records import image, record, volume

from data_pipelines.example import ExampleError, Limits, Processing, build_example, build_prompt, outline
from data_pipelines.image import media_patches, plan_spans
from data_pipelines.record import Media
from data_pipelines.tokenizer import train_sentencepiece

PROCESSING = Processing(min_pixels=28 * 28, max_pixels=20 * 28 * 28)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    texts = ["Is the liver seen in this image?", "yes", "no", "肝脏在哪里？"] * 20
    return train_sentencepiece(texts, tmp_path_factory.mktemp("tokenizer"), 340)


RECORDS = {
    "text": record(media=()),
    "image": record(media=(image(90, 150),)),
    "two images": record(media=(image(90, 150), image(60, 60, seed=1)), answer="The second."),
    "volume": record(media=(volume(5, 60, 90),), question="肝脏在哪里？"),
    "image and volume": record(media=(image(), volume(4))),
}


def patches_of(media, span, processing):
    return media_patches(0, media, [span], processing)


@pytest.mark.parametrize("how", ["video", "slices"])
@pytest.mark.parametrize("name", RECORDS)
def test_vision_tokens_stand_where_their_patches_go(tokenizer, name, how):
    processing = Processing(28 * 28, 20 * 28 * 28, volume_as=how)
    example = build_example(RECORDS[name], tokenizer, processing)
    spans = plan_spans(RECORDS[name].media, processing)
    pads = {video: tokenizer.token_id(f"<|{'video' if video else 'image'}_pad|>") for video in (False, True)}
    vision = np.isin(example.tokens_S, list(pads.values()))
    assert example.vision_index_S[vision].tolist() == list(range(len(example.patches_PC) // 4))
    assert (example.vision_index_S[~vision] == -1).all()
    expected = [patches_of(RECORDS[name].media[s.media], s, processing) for s in spans]
    np.testing.assert_array_equal(example.patches_PC, np.concatenate([np.zeros((0, 1176), np.uint8), *expected]))
    sizes = [s.grid[1] * s.grid[2] for s in spans for _ in range(s.grid[0])]
    assert np.bincount(example.patch_segments_P, minlength=1)[1:].tolist() == sizes
    kinds = [
        tokenizer.token_id(f"<|{'video' if s.video else 'image'}_pad|>") for s in spans for _ in range(s.tokens(2))
    ]
    assert example.tokens_S[vision].tolist() == kinds


def test_targets_are_the_next_tokens_and_weights_mark_the_answer(tokenizer):
    example = build_example(RECORDS["two images"], tokenizer, PROCESSING)
    np.testing.assert_array_equal(example.targets_S[:-1], example.tokens_S[1:])
    assert tokenizer.decode(example.targets_S[example.weights_S > 0].tolist()) == "The second.<|im_end|>"
    assert example.weights_S[-1] == 0


@pytest.mark.parametrize("name", RECORDS)
def test_prompt_is_the_beginning_of_the_training_example(tokenizer, name):
    prompt = build_prompt(RECORDS[name], tokenizer, PROCESSING)
    example = build_example(RECORDS[name], tokenizer, PROCESSING)
    n = len(prompt.tokens_S)
    assert tokenizer.decode(prompt.tokens_S.tolist()).endswith("<|im_start|>assistant\n")
    for field in ("tokens_S", "positions_S3", "vision_index_S"):
        np.testing.assert_array_equal(getattr(prompt, field), getattr(example, field)[:n])
    np.testing.assert_array_equal(prompt.patches_PC, example.patches_PC)
    assert tokenizer.decode(example.tokens_S[n:].tolist()) == RECORDS[name].turns[-1].text + "<|im_end|>"
    assert prompt.weights_S.sum() == 0


@settings(max_examples=60, deadline=None)
@given(st.integers(14, 400), st.integers(14, 400), st.integers(1, 9), st.integers(90, 250), st.integers(120, 400))
def test_limits_shrink_images_and_the_outline_counts_what_is_built(tokenizer, h, w, depth, tokens, patches):
    frame = image(h, w).frames
    media = (Media(frame, "image", "CT", (w, h)), Media(frame * depth, "volume", "CT", (w, h, depth)))
    limits = Limits(tokens, patches)
    text_and_smallest = outline(record(media=media), tokenizer, Processing(1, 1)).tokens
    assume(text_and_smallest + 40 < tokens and patches > 120)
    plan = outline(record(media=media), tokenizer, PROCESSING, limits)
    example = build_example(record(media=media), tokenizer, PROCESSING, limits)
    assert len(example.tokens_S) == plan.tokens <= tokens
    assert len(example.patches_PC) == plan.patches <= patches
    assert plan.text_tokens == (example.vision_index_S < 0).sum()


def test_unusable_records_name_the_record_and_the_reason(tokenizer):
    with pytest.raises(ExampleError, match=r"record 'toy/0': text longer than a row: .* row_tokens is 20"):
        build_example(record(), tokenizer, PROCESSING, Limits(20, 400))
    with pytest.raises(ExampleError, match="images do not fit"):
        build_example(record(), tokenizer, PROCESSING, Limits(400, 3))
    broken = Media((image().frames[0][:200],), "image", "CT", (56, 40))
    with pytest.raises(ExampleError, match="undecodable media"):
        build_example(record(media=(broken,)), tokenizer, PROCESSING)
