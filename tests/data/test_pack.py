import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_records import image, record, volume

from data_pipelines.example import Processing, build_example
from data_pipelines.pack import PackError, Packing, batch_info, pack_rows
from data_pipelines.tokenizer import train_sentencepiece
from umit_jax.batch import TASKS, check_batch


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    tokenizer = train_sentencepiece(["Is it seen?", "yes"] * 20, tmp_path_factory.mktemp("tokenizer"), 320)
    media = [(), (image(56, 84),), (volume(5, 28, 56),), (image(28, 28), volume(2, 56, 56))]
    records = [
        record(i, media=media[i % 4], task=TASKS[i % len(TASKS)], question="Is it seen?" * (i % 3 + 1))
        for i in range(12)
    ]
    return [build_example(r, tokenizer, Processing(28 * 28, 20 * 28 * 28)) for r in records]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.integers(0, 11), max_size=5), min_size=1, max_size=3))
def test_each_sample_can_be_read_back_from_its_row(examples, chosen):
    rows = [[examples[i] for i in row] for row in chosen]
    batch = check_batch(pack_rows(rows, 900, 400))
    for b, row in enumerate(rows):
        token = patch = segment = 0
        for number, e in enumerate(row, start=1):
            at = b, slice(token, token + len(e.tokens_S))
            patches_at = b, slice(patch, patch + len(e.patches_PC))
            for field in ("tokens_S", "targets_S", "weights_S", "positions_S3"):
                np.testing.assert_array_equal(getattr(batch, field.replace("_S", "_BS"))[at], getattr(e, field))
            assert (batch.segments_BS[at] == number).all()
            assert (batch.tasks_BS[at] == TASKS.index(e.task)).all()
            np.testing.assert_array_equal(batch.patches_BPC[patches_at], e.patches_PC)
            np.testing.assert_array_equal(batch.patch_hw_BP2[patches_at], e.patch_hw_P2)
            np.testing.assert_array_equal(batch.patch_segments_BP[patches_at] - segment, e.patch_segments_P)
            seen = batch.vision_index_BS[at]
            np.testing.assert_array_equal(np.where(seen < 0, -1, seen - patch // 4), e.vision_index_S)
            token, patch = token + len(e.tokens_S), patch + len(e.patches_PC)
            segment += int(e.patch_segments_P.max(initial=0))
        assert not batch.segments_BS[b, token:].any()
        assert not batch.patch_segments_BP[b, patch:].any()
        assert len(set(batch.patch_segments_BP[b, :patch].tolist())) == segment
    info = batch_info(rows, 900, 400)
    assert info.tokens == (batch.segments_BS > 0).sum()
    assert info.fill_tokens == pytest.approx((batch.segments_BS > 0).mean())
    assert info.fill_patches == pytest.approx((batch.patch_segments_BP > 0).mean())
    assert info.sample_ids == tuple(tuple(e.id for e in row) for row in rows)


def test_no_token_is_learned_across_two_samples(examples):
    batch = pack_rows([examples[:4]], 900, 400)
    learned = np.flatnonzero(batch.weights_BS[0])
    assert (batch.segments_BS[0, learned] == batch.segments_BS[0, learned + 1]).all()
    np.testing.assert_array_equal(batch.targets_BS[0, learned], batch.tokens_BS[0, learned + 1])


def test_a_sample_that_does_not_fit_is_named(examples):
    with pytest.raises(PackError, match=r"sample 'toy/1': \d+ tokens and 24 patches do not fit into the"):
        pack_rows([[examples[0], examples[1]]], len(examples[0].tokens_S) + 3, 400)


def test_patches_that_were_cut_in_their_room_are_where_copied_ones_would_be(examples):
    packing = Packing(2, 900, 400, 1176)
    for row, numbers in enumerate([(1, 0, 3, 1), (2, 3)]):
        for number in numbers:
            room = packing.room(row, len(examples[number].patches_PC))
            room[:] = examples[number].patches_PC
            packing.add(row, dataclasses.replace(examples[number], patches_PC=room))
    batch, info = packing.finish()
    rows = [[examples[n] for n in numbers] for numbers in [(1, 0, 3, 1), (2, 3)]]
    for field, ours, copied in zip(batch._fields, batch, pack_rows(rows, 900, 400), strict=True):
        np.testing.assert_array_equal(ours, copied, err_msg=field)
    assert info == batch_info(rows, 900, 400)
