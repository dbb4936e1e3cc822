import numpy as np
import pytest
from toy_records import image, record, volume

from data_pipelines.example import Limits, Processing, build_example
from data_pipelines.lengths import LengthError, fit, measure
from data_pipelines.shards import ShardWriter, open_shards
from data_pipelines.tokenizer import train_sentencepiece

PROCESSING = Processing(28 * 28, 30 * 28 * 28)
LIMITS = Limits(160, 80)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return train_sentencepiece(["Is the liver seen?", "yes"] * 20, tmp_path_factory.mktemp("tokenizer"), 330)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    rng, out = np.random.default_rng(0), tmp_path_factory.mktemp("shards") / "out"
    with ShardWriter(out, "toy") as writer:
        for i in range(30):
            side = rng.integers(14, 200, 4).tolist()
            media = [(), (image(*side[:2], seed=i),), (image(*side[:2], seed=i), volume(1 + i % 4, *side[2:], seed=i))]
            text = "Is the liver seen? " * int(rng.integers(1, 5))
            writer.add(record(i, media=media[i % 3], question=text, task=("vqa", "report")[i % 2]))
        writer.add(record(30, question="seen? " * 200))
        writer.add(record(31, media=(image(1, 201),)))
    return open_shards(out, "train")


@pytest.mark.parametrize("how", ["video", "slices"])
def test_planned_sizes_are_exactly_those_of_the_built_examples(source, tokenizer, how):
    processing = Processing(28 * 28, 30 * 28 * 28, volume_as=how)
    sizes = fit(source, measure(source, tokenizer, processing), tokenizer, processing, LIMITS)
    assert sizes.shrunk
    assert len(sizes.index_M) + len(sizes.dropped) == len(source)
    for index, tokens, patches in zip(sizes.index_M, sizes.tokens_M, sizes.patches_M, strict=True):
        example = build_example(source[int(index)], tokenizer, processing, LIMITS)
        assert (len(example.tokens_S), len(example.patches_PC)) == (tokens, patches)
        assert tokens <= LIMITS.tokens
        assert patches <= LIMITS.patches


def test_only_shrunk_samples_differ_from_what_they_would_be_alone(source, tokenizer):
    sizes = fit(source, measure(source, tokenizer, PROCESSING), tokenizer, PROCESSING, LIMITS)
    for index, patches in zip(sizes.index_M, sizes.patches_M, strict=True):
        alone = build_example(source[int(index)], tokenizer, PROCESSING)
        assert (len(alone.patches_PC) != patches) == (alone.id in sizes.shrunk)


def test_what_cannot_be_used_is_listed_with_its_reason(source, tokenizer):
    sizes = fit(source, measure(source, tokenizer, PROCESSING), tokenizer, PROCESSING, LIMITS)
    assert list(sizes.dropped) == [
        {"id": "toy/31", "reason": "images do not fit"},
        {"id": "toy/30", "reason": "text longer than a row"},
    ]


def test_policy_drop_leaves_out_what_shrink_would_shrink(source, tokenizer):
    lengths = measure(source, tokenizer, PROCESSING)
    shrink, drop = (fit(source, lengths, tokenizer, PROCESSING, LIMITS, how) for how in ("shrink", "drop"))
    assert drop.shrunk == ()
    assert {d["id"] for d in drop.dropped} == {*shrink.shrunk, "toy/30", "toy/31"}
    assert {d["reason"] for d in drop.dropped} == {"larger than a row", "images do not fit"}


def test_policy_error_names_the_sample(source, tokenizer):
    lengths = measure(source, tokenizer, PROCESSING)
    with pytest.raises(LengthError, match=r"record 'toy/\d+' takes \d+ tokens and \d+ patches, a row holds 160 and 80"):
        fit(source, lengths, tokenizer, PROCESSING, LIMITS, "error")


def test_tasks_select_and_unknown_names_are_refused(source, tokenizer):
    lengths = measure(source, tokenizer, PROCESSING)
    reports = fit(source, lengths, tokenizer, PROCESSING, LIMITS, tasks=["report"])
    assert {source[int(i)].task for i in reports.index_M} == {"report"}
    assert {int(i) for i in reports.index_M} >= {1, 3, 5}
    with pytest.raises(LengthError, match=r"tasks: expected some of vqa, .*, found 'poetry'"):
        fit(source, lengths, tokenizer, PROCESSING, LIMITS, tasks=["poetry"])
    with pytest.raises(LengthError, match=r"oversize: expected shrink \| drop \| error, found 'cut'"):
        fit(source, lengths, tokenizer, PROCESSING, LIMITS, "cut")


def test_counting_is_done_once_for_the_same_shards_tokenizer_and_processing(source, tokenizer, tmp_path, monkeypatch):
    first = measure(source, tokenizer, PROCESSING, tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(type(source), "__getitem__", lambda *_: pytest.fail("read a record again"))
        again = measure(source, tokenizer, PROCESSING, tmp_path)
    for field in ("text_N", "vision_N", "task_N"):
        np.testing.assert_array_equal(getattr(first, field), getattr(again, field))
    assert first.unusable == again.unusable
    measure(source, tokenizer, Processing(28 * 28, 20 * 28 * 28), tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_counting_decodes_no_pixels(source, tokenizer, monkeypatch):
    monkeypatch.setattr("data_pipelines.image.load", lambda _: pytest.fail("decoded an image"))
    assert len(measure(source, tokenizer, PROCESSING).text_N) == len(source)
