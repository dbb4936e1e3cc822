import collections
import itertools
import math
import types

import numpy as np
import pytest
from toy_records import image, record

from configs import common
from data_pipelines.example import Processing
from data_pipelines.lengths import LengthError
from data_pipelines.mixture import StreamError, make_stream
from data_pipelines.shards import ShardError, ShardWriter
from data_pipelines.tokenizer import train_sentencepiece
from umit_jax.batch import check_batch

PROCESSING = Processing(28 * 28, 6 * 28 * 28)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return train_sentencepiece(["Is the liver seen?", "yes"] * 20, tmp_path_factory.mktemp("tokenizer"), 330)


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    out = tmp_path_factory.mktemp("shards")
    rng = np.random.default_rng(0)
    for name, count in (("first", 40), ("second", 24)):
        with ShardWriter(out / name, name) as writer:
            for i in range(count):
                media = (image(*rng.integers(20, 90, 2).tolist(), seed=i),) if i % 4 else ()
                text = "Is the liver seen? " * int(rng.integers(1, 4))
                r = record(i, media=media, question=text, task=("vqa", "caption")[i % 2])
                writer.add(types.SimpleNamespace(**vars(r)) and r.__class__(**{**vars(r), "id": f"{name}/{i}"}))
    return {out / "first": 1.0, out / "second": 0.5}


def settings(**changes):
    values = {
        "split": "train",
        "tasks": (),
        "row_tokens": 160,
        "row_patches": 96,
        "rows": 4,
        "oversize": "shrink",
        "loss_weight": "token",
        "temperature": 1.0,
        "window": 32,
        "workers": 0,
        "prefetch": 2,
        "augment": common.augment(),
    }
    return types.SimpleNamespace(**{**values, **changes})


def take(stream, count, start=0):
    iterator = stream.batches(start)
    taken = list(itertools.islice(iterator, count))
    iterator.close()
    return taken


def assert_same(batches, others):
    assert len(batches) == len(others)
    for (batch, info), (other, other_info) in zip(batches, others, strict=True):
        assert info == other_info
        for field, ours, theirs in zip(batch._fields, batch, other, strict=True):
            np.testing.assert_array_equal(ours, theirs, err_msg=field)


def test_batches_are_valid_and_of_one_shape(sources, tokenizer):
    stream = make_stream(settings(), sources, tokenizer, PROCESSING)
    batches = take(stream, 12)
    assert {tuple(a.shape for a in check_batch(batch)) for batch, _ in batches} == {
        tuple(a.shape for a in batches[0][0])
    }
    assert batches[0][0].patches_BPC.shape == (4, 96, 1176)
    for batch, info in batches:
        assert info.tokens == (batch.segments_BS > 0).sum()


def test_an_epoch_holds_every_sample_as_often_as_its_weight_says(sources, tokenizer):
    stream = make_stream(settings(rows=1), sources, tokenizer, PROCESSING)
    epochs = [stream.plan.rows_in_epoch(e) for e in (0, 1)]
    assert stream.rows_per_epoch == epochs[0]
    ids = [info.sample_ids[0] for _, info in take(stream, sum(epochs))]
    counts = [collections.Counter(itertools.chain(*part)) for part in (ids[: epochs[0]], ids[epochs[0] :])]
    for count in counts:
        assert {id: n for id, n in count.items() if id.startswith("first")} == {f"first/{i}": 1 for i in range(40)}
        assert sum(n for id, n in count.items() if id.startswith("second")) == 12
    both = counts[0] + counts[1]
    assert {both[f"second/{i}"] for i in range(24)} == {1}


@pytest.mark.parametrize("hosts", [2, 4])
def test_any_number_of_hosts_makes_the_same_global_batches(sources, tokenizer, hosts):
    whole = take(make_stream(settings(), sources, tokenizer, PROCESSING), 20)
    parts = [
        take(make_stream(settings(), sources, tokenizer, PROCESSING, process_index=p, process_count=hosts), 20)
        for p in range(hosts)
    ]
    for step, (batch, info) in enumerate(whole):
        for i, field in enumerate(batch._fields):
            joined = np.concatenate([part[step][0][i] for part in parts])
            np.testing.assert_array_equal(batch[i], joined, err_msg=field)
        assert info.sample_ids == tuple(itertools.chain(*(part[step][1].sample_ids for part in parts)))


def test_no_sample_is_lost_or_repeated_where_the_number_of_hosts_changes_within_an_epoch(sources, tokenizer):
    """1, then 2, then 4 hosts and then 1, each going on where those before stopped."""

    def stream(host=0, hosts=1):
        whole = dict.fromkeys(sources, 1.0)
        return make_stream(settings(), whole, tokenizer, PROCESSING, process_index=host, process_count=hosts)

    alone = stream()
    steps = math.ceil(alone.steps_per_epoch / 4)
    rows: list[tuple[str, ...]] = []
    for turn, hosts in enumerate((1, 2, 4, 1)):
        parts = [take(stream(host, hosts), steps, turn * steps) for host in range(hosts)]
        rows += [row for of_a_step in zip(*parts, strict=True) for _, info in of_a_step for row in info.sample_ids]
    assert rows == [row for _, info in take(alone, 4 * steps) for row in info.sample_ids]
    seen = collections.Counter(itertools.chain.from_iterable(rows[: alone.rows_per_epoch]))
    assert seen == dict.fromkeys([f"first/{i}" for i in range(40)] + [f"second/{i}" for i in range(24)], 1)


def test_a_stream_goes_on_from_any_step_also_beyond_an_epoch(sources, tokenizer, tmp_path):
    stream = make_stream(settings(), sources, tokenizer, PROCESSING)
    assert stream.steps_per_epoch < 15
    whole = take(stream, 24)
    for start in (1, 7, 20):
        resumed = make_stream(settings(), sources, tokenizer, PROCESSING, cache_dir=tmp_path)
        assert_same(take(resumed, 24 - start, start), whole[start:])


def test_worker_processes_give_the_same_batches_in_a_process_that_uses_jax(sources, tokenizer):
    jax = pytest.importorskip("jax")
    assert jax.numpy.arange(3).sum() == 3
    inside = take(make_stream(settings(), sources, tokenizer, PROCESSING), 7, 2)
    outside = take(make_stream(settings(workers=2), sources, tokenizer, PROCESSING), 7, 2)
    assert_same(inside, outside)


def test_a_small_memory_for_examples_changes_nothing(sources, tokenizer):
    """The first 100 kB of examples are kept, the patches of the others are cut straight into their batches."""
    sizes = 0, 100_000, 1 << 30
    none, some, every = (make_stream(settings(), sources, tokenizer, PROCESSING, cache_bytes=n) for n in sizes)
    batches = take(none, 20)  # beyond an epoch, so that examples come again
    assert_same(batches, take(some, 20))
    assert_same(batches, take(every, 20))
    assert none._loader._bytes == 0 < some._loader._bytes <= 100_000 < every._loader._bytes


def test_seeds_give_other_orders(sources, tokenizer):
    first = [take(make_stream(settings(), sources, tokenizer, PROCESSING, seed=s), 1)[0][1].sample_ids for s in (0, 1)]
    assert first[0] != first[1]


def test_tasks_choose_samples(sources, tokenizer):
    stream = make_stream(settings(tasks=("caption",)), sources, tokenizer, PROCESSING)
    ids = {id for _, info in take(stream, 8) for row in info.sample_ids for id in row}
    assert ids
    assert all(int(id.split("/")[1]) % 2 for id in ids)


def test_summary_tells_fill_rates_and_what_was_shrunk_before_the_first_step(sources, tokenizer):
    summary = make_stream(settings(row_patches=16), sources, tokenizer, PROCESSING).summary()
    assert summary["samples_per_epoch"] == 40 + 12
    assert summary["steps_per_epoch"] == summary["rows_per_epoch"] / 4
    assert 0 < summary["fill_patches"] <= 1
    assert summary["shrunk"]
    assert summary["dropped"] == []


@pytest.mark.parametrize(
    ("changes", "options", "error", "message"),
    [
        ({"rows": 5}, {"process_count": 2}, StreamError, "data.rows: 5 rows cannot be shared by 2 hosts"),
        ({"row_patches": 30}, {}, StreamError, "data.row_patches: expected a multiple of 4, found 30"),
        ({"split": "test"}, {}, ShardError, "split: expected one of train, found 'test'"),
        ({"tasks": ("report",)}, {}, LengthError, "no usable sample of tasks report in split 'train'"),
        ({"row_tokens": 10}, {}, LengthError, "no usable sample in split 'train'"),
    ],
)
def test_impossible_settings_are_one_line(sources, tokenizer, changes, options, error, message):
    with pytest.raises(error, match=message) as caught:
        make_stream(settings(**changes), sources, tokenizer, PROCESSING, **options)
    assert "\n" not in str(caught.value)


def test_a_shard_damaged_after_opening_is_named_by_the_stream(tmp_path, tokenizer):
    with ShardWriter(tmp_path / "out", "toy") as writer:
        for i in range(20):
            writer.add(record(i))
    stream = make_stream(settings(), {tmp_path / "out": 1}, tokenizer, PROCESSING)
    path = next(p for p in (tmp_path / "out").iterdir() if "array_record" in p.name)
    data = bytearray(path.read_bytes())
    data[500 : len(data) // 2] = bytes(len(data) // 2 - 500)
    path.write_bytes(data)
    stream._loader.sources[0]._source = None
    with pytest.raises(ShardError, match=rf"{path.name}: corrupt shard"):
        take(stream, 5)


def test_a_sample_weighs_one_in_all_when_asked_to(sources, tokenizer):
    """Every answer token 1 by default; with loss_weight sample, the weights of a segment add up to 1."""
    for loss_weight in ("token", "sample"):
        stream = make_stream(settings(loss_weight=loss_weight), sources, tokenizer, PROCESSING)
        for batch, info in take(stream, 6):
            for row, ids in enumerate(info.sample_ids):
                sums = [batch.weights_BS[row][batch.segments_BS[row] == n + 1].sum() for n in range(len(ids))]
                if loss_weight == "sample":
                    np.testing.assert_allclose(sums, 1, rtol=1e-6)
                else:
                    assert all(s > 1 and s == int(s) for s in sums)


def test_counts_of_all_hosts_add_up_to_what_is_in_the_batches(sources, tokenizer):
    stream = make_stream(settings(), sources, tokenizer, PROCESSING, process_index=1, process_count=2)
    whole = take(make_stream(settings(), sources, tokenizer, PROCESSING), 9)
    for step, (batch, info) in enumerate(whole):
        counts = stream.counts(step)
        entries = [entry for tasks in counts.values() for entry in tasks.values()]
        assert sum(entry["tokens"] for entry in entries) == info.tokens == (batch.segments_BS > 0).sum()
        assert sum(entry["patches"] for entry in entries) == (batch.patch_segments_BP > 0).sum()
        for name, tasks in counts.items():
            ids = [id for row in info.sample_ids for id in row if id.startswith(f"{name}/")]
            parity = {"vqa": 0, "caption": 1}
            assert {t: e["samples"] for t, e in tasks.items()} == {
                t: n for t in tasks if (n := sum(int(id.split("/")[1]) % 2 == parity[t] for id in ids))
            }


def test_temperature_and_caps_change_how_often_a_source_comes(sources, tokenizer):
    """40 samples once and 24 half: 52 an epoch. Equal shares: 26 each; then at most 10 of the second."""
    second = list(sources)[1]
    stream = make_stream(settings(temperature=1e6), sources, tokenizer, PROCESSING, caps={second: 10})
    drawn = collections.Counter(s for row in range(stream.rows_per_epoch) for s, _ in stream.plan.row(row))
    assert drawn == {0: 26, 1: 10}


def test_epochs_are_counted_in_steps(sources, tokenizer):
    stream = make_stream(settings(), sources, tokenizer, PROCESSING)
    rows = [stream.plan.rows_in_epoch(epoch) for epoch in range(3)]
    assert stream.steps_of_epochs(2) == math.ceil(sum(rows[:2]) / 4)
    assert stream.steps_of_epochs(0.5) == math.ceil(math.ceil(rows[0] / 2) / 4)
    assert stream.steps_of_epochs(2.5) == math.ceil((sum(rows[:2]) + math.ceil(rows[2] / 2)) / 4)
