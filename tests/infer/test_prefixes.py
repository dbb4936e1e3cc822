"""Questions about one image: what they share is read once, and no answer changes."""

import dataclasses

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.infer.test_buckets import CONFIG, Prompt, make_prompt
from umit_jax.infer import buckets as buckets_module
from umit_jax.infer import generate as generate_module
from umit_jax.infer.buckets import answer_all, plan, prefixes, sizes
from umit_jax.infer.sampling import Sampling, row_keys
from umit_jax.model.param import init_params

END = 7


@pytest.fixture(scope="module")
def params():
    return jax.tree.map(lambda x: 4 * x if x.ndim > 2 else x, init_params(CONFIG, jax.random.key(0)))


def about(image: Prompt, words: int, seed: int) -> Prompt:
    """Another question about an image: the same prompt with `words` other tokens after its vision tokens."""
    merged = int((image.vision_index_S >= 0).sum())
    ids = np.random.default_rng(seed).integers(0, 500, words)
    tokens = np.concatenate([image.tokens_S[:merged], ids])
    return dataclasses.replace(
        image,
        tokens_S=tokens,
        positions_S3=np.concatenate([image.positions_S3[:merged], merged + np.arange(words)[:, None].repeat(3, 1)]),
        vision_index_S=np.where(np.arange(len(tokens)) < merged, np.arange(len(tokens)), -1),
    )


def mixed() -> list[Prompt]:
    """Three images with four, three and one question, and a question without one, in no order."""
    first, second, third = make_prompt(30, 24, seed=1), make_prompt(20, 16, seed=2), make_prompt(18, 12, seed=3)
    asked = [about(first, 5 + 4 * i, i) for i in range(4)] + [about(second, 12 - i, 10 + i) for i in range(3)]
    asked += [about(third, 9, 20), make_prompt(25, seed=4)]
    return [asked[i] for i in (4, 0, 8, 1, 5, 7, 2, 6, 3)]


def test_prompts_share_what_comes_up_to_their_last_vision_token():
    asked = mixed()
    other_pixels = dataclasses.replace(asked[0], patches_PC=255 - asked[0].patches_PC)
    no_question = dataclasses.replace(
        asked[0], **{name: getattr(asked[0], name)[:16] for name in ("tokens_S", "positions_S3", "vision_index_S")}
    )
    number_N, tokens_N = prefixes([*asked, other_pixels, no_question]).T
    assert number_N.tolist() == [0, 1, -1, 1, 0, 2, 1, 0, 1, 3, -1]
    assert tokens_N.tolist() == [16, 24, 0, 24, 16, 12, 24, 16, 24, 16, 0]


def test_answers_and_likelihoods_are_those_of_prompts_read_whole(params, monkeypatch):
    asked = mixed()
    options = [[[11, 12, END], [21, END]] if i % 2 else [] for i in range(len(asked))]
    arguments = {"max_new_tokens": [3 + i for i in range(9)], "eos_ids": (END,), "options": options, "rows": 4}
    read = []
    real = buckets_module.pad
    monkeypatch.setattr(buckets_module, "pad", lambda prompts, *rest: read.append(prompts) or real(prompts, *rest))
    shared = answer_all(CONFIG, params, asked, shapes=3, **arguments)
    images = [p.patches_PC.tobytes() for batch in read for p in batch if p is not None and len(p.patches_PC)]
    assert len(images) == len(set(images)) == 3
    whole = answer_all(CONFIG, params, asked, shapes=1, **arguments)
    monkeypatch.setattr(generate_module, "_ROOM", 4)  # of limits up to eleven, so that caches grow
    grown = answer_all(CONFIG, params, asked, shapes=3, **arguments)
    assert [answer.tokens for answer in grown] == [answer.tokens for answer in whole]
    assert [answer.tokens for answer in shared] == [answer.tokens for answer in whole]
    assert len({tuple(answer.tokens) for answer in whole}) > 6
    for ours, theirs in zip(shared, whole, strict=True):
        assert ours.logps == pytest.approx(theirs.logps, abs=1e-4)
        assert (ours.options or []) == pytest.approx(theirs.options or [], abs=1e-4)


def test_each_shape_is_compiled_once_and_known_answers_are_not_generated_again(params):
    asked = [about(make_prompt(40, 32, seed=i // 3), 10, i) for i in range(12)]
    programs = (generate_module.prefill, generate_module.prefill_prefix, generate_module.prefill_rest)
    programs += (generate_module.decode,)
    before = [program._cache_size() for program in programs]
    arguments = {"max_new_tokens": 6, "eos_ids": (), "rows": 2, "shapes": 2}
    reported = []
    answers = answer_all(CONFIG, params, asked, report=reported.append, **arguments)
    assert [program._cache_size() - size for program, size in zip(programs, before, strict=True)] == [0, 1, 1, 1]
    assert sorted(number for new in reported for number in new) == list(range(12))
    known = {number: answer for new in reported[:-1] for number, answer in new.items()}
    again = []
    assert answer_all(CONFIG, params, asked, known=known, report=again.append, **arguments) == answers
    assert again == reported[-1:]


def test_rows_that_are_done_leave_and_the_others_answer_as_before(params):
    asked = [make_prompt(20, 8, seed=i) for i in range(16)]
    keys = row_keys(0, [str(i) for i in range(16)])
    limits = [3] * 7 + [9] * 5 + [40] * 4
    arguments = {"eos_ids": (), "sampling": Sampling(1.0, top_p=0.9), "shapes": 1}
    before = generate_module.decode._cache_size()
    together = answer_all(CONFIG, params, asked, max_new_tokens=limits, keys_N2=keys, rows=16, **arguments)
    assert generate_module.decode._cache_size() - before == 2  # of 16 rows and, once twelve are done, of 4
    alone = answer_all(CONFIG, params, asked, max_new_tokens=limits, keys_N2=keys, rows=2, **arguments)
    assert [answer.tokens for answer in together] == [answer.tokens for answer in alone]
    assert [len(answer.tokens) for answer in together] == limits


def test_a_batch_of_which_a_text_is_over_goes_on_with_the_rest(params):
    asked = [make_prompt(20, 8, seed=i) for i in range(8)]
    arguments = {"max_new_tokens": 48, "eos_ids": (), "shapes": 1}
    free = answer_all(CONFIG, params, asked, rows=8, **arguments)
    stop = free[0].tokens[20]
    found = answer_all(CONFIG, params, asked, rows=8, ended=lambda tokens: stop in tokens, **arguments)
    for answer, whole in zip(found, free, strict=True):
        assert answer.tokens == whole.tokens[: len(answer.tokens)]
        assert len(answer.tokens) == 48 or stop in answer.tokens
    assert len(found[0].tokens) < 48


drawn = st.lists(st.tuples(st.integers(0, 9), st.integers(1, 60), st.integers(1, 90)), min_size=1, max_size=60)


@settings(max_examples=50, deadline=None)
@given(drawn, st.integers(1, 40), st.integers(2, 5), st.integers(1, 4))
def test_every_prompt_is_in_one_batch_after_its_prefix(drawn, rows, shapes, shards):
    rows = rows * shards
    merged = {image: 4 + 30 * image for image, _, _ in drawn}
    prefixes_N2 = np.array([(image if image else -1, merged[image] if image else 0) for image, _, _ in drawn])
    sizes_N2 = np.array([(merged[image] + words, 4 * merged[image]) for image, words, _ in drawn])
    limits = np.array([limit for *_, limit in drawn])
    found = plan(sizes_N2, limits, rows=rows, shapes=shapes, shards=shards, prefixes_N2=prefixes_N2)
    assert len(found) <= shapes
    assert sorted(i for bucket in found for i in bucket.prompts) == list(range(len(drawn)))
    for bucket in found:
        assert bucket.rows <= rows
        assert bucket.rows % shards == bucket.prefixes % shards == 0
        assert bucket.new_tokens == max(limits[list(bucket.prompts)])
        for window in bucket.windows:
            assert len(window.first) <= bucket.prefixes
            first = prefixes_N2[list(window.first), 0].tolist()
            assert len(set(first)) == len(first)
            for numbers in window.batches:
                assert len(numbers) <= bucket.rows
                for i in numbers:
                    assert sizes_N2[i, 1] <= bucket.patches
                    if bucket.rest:
                        assert prefixes_N2[i, 0] in first
                        assert prefixes_N2[i, 1] <= bucket.tokens
                        assert sizes_N2[i, 0] - prefixes_N2[i, 1] <= bucket.rest
                    else:
                        assert sizes_N2[i, 0] <= bucket.tokens


def test_an_image_with_many_questions_is_read_once_and_one_that_pays_little_is_not():
    many = [about(make_prompt(200, 180, seed=0), 20, i) for i in range(50)]
    (bucket,) = plan(sizes(many), np.full(50, 8), rows=16, shapes=4, prefixes_N2=prefixes(many))
    assert (bucket.prefixes, bucket.rest, len(bucket.windows), len(bucket.batches())) == (1, 32, 1, 4)
    small = [about(make_prompt(20, 1, seed=0), 60, i) for i in range(2)]
    (bucket,) = plan(sizes(small), np.full(2, 8), rows=16, shapes=4, prefixes_N2=prefixes(small))
    assert (bucket.prefixes, bucket.rest) == (0, 0)


def test_large_images_with_many_questions_do_not_fill_memory_with_their_keys():
    prefixes_N2 = np.array([(i // 20, 3104) for i in range(80)])
    sizes_N2 = np.array([(3150, 12288)] * 80)
    (bucket,) = plan(sizes_N2, np.full(80, 8), rows=32, shapes=4, prefixes_N2=prefixes_N2)
    assert (bucket.prefixes, bucket.rest, bucket.rows) == (1, 48, 5)
    assert bucket.rows * (bucket.tokens + bucket.rest) <= 2**14


def test_a_text_is_asked_about_at_the_same_tokens_whatever_other_rows_there_are(params):
    asked = [make_prompt(20, 8, seed=i) for i in range(8)]
    seen = {}

    def lengths(limits):
        seen.clear()

        def ended(tokens):
            seen.setdefault(tuple(tokens[:5]), []).append(len(tokens))
            return False

        arguments = {"max_new_tokens": limits, "eos_ids": (), "shapes": 1, "rows": 8}
        answer = answer_all(CONFIG, params, asked, ended=ended, **arguments)[0]
        return seen[tuple(answer.tokens[:5])]

    assert lengths([48] * 8) == lengths([48] + [7] * 7) == [16, 32, 48]
