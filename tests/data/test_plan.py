import collections
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.lengths import Sizes
from data_pipelines.plan import PlanError, RowPlan, best_fit

ROW = {"row_tokens": 64, "row_patches": 80}
sizes_lists = st.lists(st.tuples(st.integers(1, 64), st.integers(0, 20)), min_size=1, max_size=120)


def sizes(pairs):
    tokens, quads = np.array(pairs).T
    index = np.arange(len(pairs)) * 3 + 1
    return Sizes(index, tokens, 4 * quads, np.zeros(len(pairs), int))  # record indices with gaps: some were left out


def random_sizes(count, seed=0):
    rng = random.Random(seed)
    return sizes([(rng.randint(1, 30), rng.randint(0, 6)) for _ in range(count)])


def epoch_rows(plan, epoch):
    first = sum(plan.rows_in_epoch(e) for e in range(epoch))
    return [plan.row(first + r) for r in range(plan.rows_in_epoch(epoch))]


def taken(plan, epoch):
    return collections.Counter(sample for row in epoch_rows(plan, epoch) for sample in row)


@settings(max_examples=60, deadline=None)
@given(sizes_lists, sizes_lists, st.integers(1, 50), st.integers(0, 9), st.integers(0, 2))
def test_every_sample_comes_once_an_epoch_in_rows_that_hold_it(first, second, window, seed, epoch):
    sources = [sizes(first), sizes(second)]
    plan = RowPlan(sources, [1, 1], window=window, seed=seed, **ROW)
    counts = taken(plan, epoch)
    assert counts == collections.Counter((s, int(i)) for s, one in enumerate(sources) for i in one.index_M)
    assert plan.samples_in_epoch(epoch) == len(counts)
    for row in epoch_rows(plan, epoch):
        assert row
        places = [(sources[s], np.flatnonzero(sources[s].index_M == i)[0]) for s, i in row]
        assert sum(int(one.tokens_M[k]) for one, k in places) <= 64
        assert sum(int(one.patches_M[k]) for one, k in places) <= 80


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60), st.sampled_from([0.1, 0.25, 0.5, 0.7, 1.5, 2, 3.25]), st.integers(0, 5))
def test_a_weight_is_how_often_an_epoch_takes_each_sample(count, weight, seed):
    plan = RowPlan([random_sizes(count), random_sizes(40)], [weight, 1], window=32, seed=seed, **ROW)
    total, epochs = collections.Counter(), 20
    for epoch in range(epochs):
        counts = taken(plan, epoch)
        mine = [counts[0, int(i)] for i in plan.sources[0].index_M]
        assert set(mine) <= {int(weight), int(weight) + 1}
        assert abs(sum(mine) - weight * count) <= 1
        assert all(counts[1, int(i)] == 1 for i in plan.sources[1].index_M)
        total.update(dict(enumerate(mine)))
    # No sample is ahead of another by more than one round of the fraction.
    assert max(total.values()) - min(total.values()) <= 1
    assert sum(total.values()) == pytest.approx(weight * count * epochs, abs=1)


def test_a_row_is_the_same_whoever_asks_in_whatever_order():
    source = random_sizes(500)
    one, other = (RowPlan([source], [1.5], window=64, seed=3, **ROW) for _ in range(2))
    rows = [one.row(r) for r in range(400)]
    order = list(range(400))
    random.Random(1).shuffle(order)
    assert {r: other.row(r) for r in order} == dict(enumerate(rows))


def test_a_plan_reads_what_another_left_in_the_cache(tmp_path):
    make = lambda **more: RowPlan([random_sizes(300)], [1], window=64, cache_dir=tmp_path, **ROW, **more)  # noqa: E731
    rows = [make().row(r) for r in range(150)]
    files = list(tmp_path.iterdir())
    assert len(files) == 1
    cached = make()
    assert cached._starts[-1] > 100
    assert [cached.row(r) for r in range(150)] == rows
    assert make(seed=1).row(0) != rows[0]


def test_epochs_and_seeds_differ_in_order():
    plan, other = (RowPlan([random_sizes(200)], [1], window=64, seed=seed, **ROW) for seed in (0, 1))
    assert epoch_rows(plan, 0) != epoch_rows(plan, 1)
    assert epoch_rows(plan, 0) != epoch_rows(other, 0)
    last = plan.rows_in_epoch(0)
    assert [plan.epoch_of_row(r) for r in (0, last - 1, last)] == [0, 0, 1]


def test_large_samples_do_not_come_first_in_a_window():
    plan = RowPlan([sizes([(60, 0)] * 100 + [(5, 0)] * 100)], [1], window=1000, **ROW)
    is_large = [len(row) < 3 for row in epoch_rows(plan, 0)]
    halves = sum(is_large[: len(is_large) // 2]), sum(is_large[len(is_large) // 2 :])
    assert min(halves) > 0.3 * sum(halves)


@settings(max_examples=100, deadline=None)
@given(sizes_lists)
def test_best_fit_uses_no_more_rows_than_needed_twice_over(pairs):
    tokens, quads = np.array(pairs).T
    rows = best_fit(tokens, 4 * quads, 64, 80)
    assert np.bincount(rows, tokens).max() <= 64
    assert np.bincount(rows, 4 * quads).max() <= 80
    assert sorted(set(rows.tolist())) == list(range(rows.max() + 1))
    # Any two rows could not have been one, by more than a row for each of the two bounds.
    needed = max(tokens.sum() / 64, 4 * quads.sum() / 80)
    assert rows.max() + 1 <= 2 * (tokens.sum() / 64 + 4 * quads.sum() / 80) + 1
    assert rows.max() + 1 >= needed


@pytest.mark.parametrize(
    ("text", "vision", "row_tokens", "row_patches", "least"),
    [
        ((30, 120), (16,), 1024, 1024, 0.97),  # thumbnails and short questions
        ((50, 110), (16,), 512, 512, 0.95),  # the quickstart's
        ((30, 300), (4, 64, 609, 729, 768, 1296), 4096, 16384, 0.95),  # the paper's mixture
    ],
)
def test_rows_are_filled(text, vision, row_tokens, row_patches, least):
    rng = np.random.default_rng(0)
    pads = rng.choice(vision, 4096)
    one = Sizes(np.arange(4096), rng.integers(*text, 4096) + pads, 4 * pads, np.zeros(4096, int))
    plan = RowPlan([one], [1], row_tokens=row_tokens, row_patches=row_patches, window=4096)
    tokens, patches = plan.fill(0)
    assert tokens >= least
    assert tokens == pytest.approx(one.tokens_M.sum() / (plan.rows_in_epoch(0) * row_tokens))
    assert patches == pytest.approx(one.patches_M.sum() / (plan.rows_in_epoch(0) * row_patches))


@pytest.mark.parametrize(
    ("pairs", "weights", "message"),
    [
        ([(3, 1)], [0], "weight of source 0: expected a positive number, found 0"),
        ([(3, 1)], [float("nan")], "weight of source 0"),
        ([(65, 1)], [1], "source 0: a sample is larger than a row of 64 and 80"),
        ([(3, 1)], [1, 1], "weights: expected one for each of 1 sources, found 2"),
    ],
)
def test_impossible_mixtures_name_the_source(pairs, weights, message):
    with pytest.raises(PlanError, match=message):
        RowPlan([sizes(pairs)], weights, **ROW)
    with pytest.raises(PlanError, match="no usable sample"):
        RowPlan([Sizes(*np.zeros((4, 0), int))], [1], **ROW)
