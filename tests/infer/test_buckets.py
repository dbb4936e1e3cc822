import dataclasses

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.sizes import SIZES
from umit_jax.batch import check_batch
from umit_jax.infer import generate as generate_module
from umit_jax.infer.buckets import answer_all, pad, plan, sizes
from umit_jax.infer.generate import generate
from umit_jax.model.config import ModelConfig
from umit_jax.model.param import init_params

CONFIG = ModelConfig.from_dict(SIZES["tiny"])


@dataclasses.dataclass
class Prompt:
    tokens_S: np.ndarray
    positions_S3: np.ndarray
    patches_PC: np.ndarray
    patch_hw_P2: np.ndarray
    patch_segments_P: np.ndarray
    vision_index_S: np.ndarray


def make_prompt(tokens, merged=0, seed=0, values=CONFIG.vision.patch_values) -> Prompt:
    """`merged` image tokens (a row of merged patches) first, then text."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 500, tokens)
    ids[:merged] = CONFIG.image_token_id
    positions = np.repeat(np.arange(tokens)[:, None], 3, 1)
    positions[:merged, :2] = 0
    return Prompt(
        ids,
        positions,
        rng.integers(0, 256, (4 * merged, values)).astype(np.uint8),
        rng.integers(0, 4, (4 * merged, 2)),
        np.ones(4 * merged, int),
        np.where(np.arange(tokens) < merged, np.arange(tokens), -1),
    )


drawn = st.lists(st.tuples(st.integers(1, 400), st.integers(0, 300), st.integers(1, 90)), min_size=1, max_size=60)


@settings(max_examples=50, deadline=None)
@given(drawn, st.integers(1, 40), st.integers(1, 5))
def test_every_prompt_is_in_one_bucket_that_holds_it(drawn, rows, shapes):
    prompts = [make_prompt(text + merged, merged, values=1) for text, merged, _ in drawn]
    limits = np.array([limit for *_, limit in drawn])
    buckets = plan(sizes(prompts), limits, rows=rows, shapes=shapes)
    assert len(buckets) <= shapes
    assert sorted(i for bucket in buckets for i in bucket.prompts) == list(range(len(prompts)))
    for bucket in buckets:
        assert bucket.rows <= rows
        assert sorted(i for numbers in bucket.batches() for i in numbers) == sorted(bucket.prompts)
        for i in bucket.prompts:
            assert len(prompts[i].tokens_S) <= bucket.tokens
            assert len(prompts[i].patches_PC) <= bucket.patches
            assert limits[i] <= bucket.new_tokens


def test_small_and_large_prompts_are_not_padded_to_one_shape():
    prompts = [make_prompt(20, 0, values=1)] * 50 + [make_prompt(300, 256, values=1)] * 5
    small, large = plan(sizes(prompts), np.full(55, 8), rows=32, shapes=4)
    assert (small.tokens, small.patches, large.tokens, large.patches) == (32, 0, 304, 1024)


def test_few_prompts_of_close_sizes_are_one_batch_and_many_are_one_for_each_size():
    def found(count):
        prompts = [make_prompt(60, values=1), make_prompt(100, values=1)] * count
        return plan(sizes(prompts), np.full(2 * count, 90), rows=8, shapes=4)

    assert [(b.tokens, b.rows) for b in found(2)] == [(112, 4)]
    assert [(b.tokens, len(b.batches())) for b in found(40)] == [(64, 5), (112, 5)]


def test_large_images_have_fewer_rows_a_batch():
    prompts = [make_prompt(800, 768, values=1)] * 20
    (bucket,) = plan(sizes(prompts), np.full(20, 8), rows=32, shapes=4)
    assert bucket.rows == 1


def test_padded_rows_are_a_valid_batch():
    prompts = [make_prompt(9, 4), make_prompt(5), make_prompt(30, 12)]
    (bucket,) = plan(sizes(prompts), np.full(3, 8), rows=8, shapes=1)
    batch = check_batch(pad([prompts[i] for i in bucket.prompts], bucket, CONFIG.vision.patch_values))
    assert batch.segments_BS.sum(1).tolist() == [30, 9, 5]


def test_answers_come_in_the_order_of_the_prompts_and_each_shape_is_compiled_once():
    params = init_params(CONFIG, jax.random.key(0))
    params = jax.tree.map(lambda x: 4 * x if x.ndim > 2 else x, params)
    kinds = [(9, 4, 3), (40, 0, 6), (5, 0, 3), (60, 24, 6)]
    prompts = [make_prompt(*kinds[i % 4][:2], seed=i) for i in range(18)]
    limits = [kinds[i % 4][2] for i in range(18)]
    programs = (generate_module.prefill, generate_module.decode)
    before = [program._cache_size() for program in programs]
    answers = answer_all(CONFIG, params, prompts, max_new_tokens=limits, eos_ids=(7,), rows=4, shapes=2)
    assert [program._cache_size() - size for program, size in zip(programs, before, strict=True)] == [2, 2]
    for prompt, limit, answer in zip(prompts, limits, answers, strict=True):
        (bucket,) = plan(sizes([prompt]), np.array([limit]), rows=1, shapes=1)
        bucket = dataclasses.replace(bucket, tokens=64, patches=96, new_tokens=6)
        tokens_BN, lengths_B, *_ = generate(
            CONFIG,
            params,
            pad([prompt], bucket, CONFIG.vision.patch_values),
            max_new_tokens=6,
            eos_ids=(7,),
            limits_B=np.array([limit]),
        )
        assert answer.tokens == tokens_BN[0, : lengths_B[0]].tolist()


def test_no_prompts_have_no_answers():
    assert answer_all(CONFIG, {}, [], max_new_tokens=4, eos_ids=()) == []


def test_rows_and_shapes_must_be_positive():
    with pytest.raises(ValueError, match="rows and shapes: expected at least 1, found 0 and 4"):
        plan(sizes([]), np.zeros(0), rows=0, shapes=4)
