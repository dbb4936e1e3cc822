import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from toy_records import image, record, volume

from data_pipelines.inspect import read_back
from data_pipelines.publish import read_raw
from data_pipelines.record import RecordError
from data_pipelines.shards import ShardError, ShardWriter, open_shards, read_manifest, verify


def write(out, records, quarantined=(), **options):
    with ShardWriter(out, "toy", **options) as writer:
        for r in records:
            writer.add(r)
        for id, reason in quarantined:
            writer.quarantine(id, reason)
    return writer.manifest


def mixed_records():
    kinds = [(image(seed=1),), (volume(seed=10),), (), (image(seed=2), volume(seed=20))]
    split = ("train", "test")
    return [
        record(i, split=split[i % 2], media=kinds[i % 4], question=f"第{i}个?\n") for i in range(8) if i < 4 or i == 6
    ]


def test_records_come_back_equal_in_order(tmp_path):
    records = mixed_records()
    write(tmp_path / "out", records, leaks="report", shard_bytes=4000)
    for split in ("train", "test"):
        source = open_shards(tmp_path / "out", split)
        assert [source[i] for i in range(len(source))] == [r for r in records if r.split == split]
        assert pickle.loads(pickle.dumps(source))[0] == source[0]
    assert len(read_manifest(tmp_path / "out")["shards"]) > 2


def test_two_runs_give_identical_bytes(tmp_path):
    for name in "ab":
        write(tmp_path / name, mixed_records(), leaks="report", shard_bytes=4000)
    files = sorted(p.name for p in (tmp_path / "a").iterdir())
    assert files == sorted(p.name for p in (tmp_path / "b").iterdir())
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_tfds_reads_the_directory_without_tensorflow(tmp_path):
    write(tmp_path / "out", [record(0)])
    script = (
        "import sys, tensorflow_datasets as tfds\n"
        f"row = tfds.builder_from_directory({str(tmp_path / 'out')!r}).as_data_source('train')[0]\n"
        "print(row['id'].decode(), row['frames'][0][1:4].decode(), 'tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["toy/0", "PNG", "False"]


def test_importing_shards_imports_neither_tfds_nor_tensorflow():
    script = "import sys, data_pipelines.shards; print({'tensorflow', 'tensorflow_datasets', 'jax'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_manifest_counts_by_split_task_and_reason(tmp_path):
    records = [record(0), record(1, task="report"), record(2, split="test", language="zh")]
    manifest = write(tmp_path / "out", records, quarantined=[("a.dcm", "truncated"), ("b.dcm", "truncated")])
    assert manifest == read_manifest(tmp_path / "out")
    assert manifest["records"] == {"train": {"report": 1, "vqa": 1}, "test": {"vqa": 1}}
    assert manifest["quarantined_reasons"] == {"truncated": 2}
    assert manifest["quarantined"][0] == {"id": "a.dcm", "reason": "truncated"}
    assert manifest["licenses"] == {"CC0-1.0": 3}
    assert manifest["languages"] == {"en": 2, "zh": 1}
    assert manifest["label_kinds"] == {"synthetic": 3}
    assert manifest["synthetic"] is True
    assert manifest["duplicates"] == manifest["leaks"] == []


def test_duplicates_are_same_media_and_question_in_one_split(tmp_path):
    same = (image(seed=5),)
    records = [record(0, media=same), record(1, media=same, question="Other?"), record(2, media=same, answer="no")]
    assert write(tmp_path / "out", records)["duplicates"] == [{"id": "toy/2", "same_as": "toy/0"}]


@pytest.mark.parametrize(
    ("kind", "pair"),
    [
        ("patient", [record(0, patient="p"), record(1, patient="p", split="test")]),
        ("media", [record(0, media=(image(seed=3),)), record(1, media=(image(seed=3),), split="test")]),
    ],
)
def test_leak_between_splits_is_an_error_unless_reported(tmp_path, kind, pair):
    with pytest.raises(ShardError, match=f"1 leaks between splits, the first: same {kind} in train toy/0, test toy/1"):
        write(tmp_path / "out", pair)
    assert list(tmp_path.iterdir()) == []
    leaks = write(tmp_path / "out", pair, leaks="report")["leaks"]
    assert leaks == [{"kind": kind, "records": {"train": "toy/0", "test": "toy/1"}}]


def test_patient_split_by_region_is_counted_and_no_leak(tmp_path):
    pair = [record(0, patient="p"), record(1, patient="p", split="test", heldout="region")]
    manifest = write(tmp_path / "out", pair)
    assert manifest["leaks"] == []
    assert manifest["patients_split_by_region"] == 1


def test_repeated_record_id_is_an_error(tmp_path):
    with pytest.raises(ShardError, match="record id 'toy/0' is used twice"):
        write(tmp_path / "out", [record(0), record(0, question="Other?")])


def test_nothing_usable_is_one_line_with_the_reasons(tmp_path):
    with pytest.raises(ShardError) as caught:
        write(tmp_path / "out", [], quarantined=[("a", "truncated"), ("b", "truncated"), ("c", "no pixels")])
    assert str(caught.value) == f"{tmp_path}/out: no usable record; quarantined 3: truncated (2), no pixels (1)"


def test_failure_leaves_the_previous_set_untouched(tmp_path):
    write(tmp_path / "out", [record(0)])
    before = read_manifest(tmp_path / "out")
    with pytest.raises(RecordError, match="toy/1"):
        write(tmp_path / "out", [record(1, task="nonsense")])
    assert read_manifest(tmp_path / "out") == before
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert write(tmp_path / "out", [record(7)])["records"] == {"train": {"vqa": 1}}
    assert open_shards(tmp_path / "out", "train")[0].id == "toy/7"


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path):
    script = (
        "import resource, signal, sys\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from toy_records import image, record\n"
        "from data_pipelines.shards import ShardError, ShardWriter\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"  # so that writing beyond the limit fails as on a full disk
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "try:\n"
        f"    with ShardWriter({str(tmp_path / 'out')!r}, 'toy') as writer:\n"
        "        for i in range(20):\n"
        "            writer.add(record(i, media=(image(100, 100, i),)))\n"
        "except ShardError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"{tmp_path}/out: cannot write: ")
    assert done.stdout.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_is_no_shard_set_is_not_overwritten(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.doc").write_text("mine")
    with pytest.raises(ShardError, match=r"not overwritten"):
        ShardWriter(tmp_path / "out", "toy")


def shard_file(out):
    return next(p for p in out.iterdir() if "array_record" in p.name)


def test_truncated_shard_is_named_on_opening(tmp_path):
    write(tmp_path / "out", [record(i) for i in range(4)])
    path = shard_file(tmp_path / "out")
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ShardError, match=rf"{path.name}: corrupt shard: expected \d+ bytes"):
        open_shards(tmp_path / "out", "train")


def test_missing_shard_is_named_on_opening(tmp_path):
    write(tmp_path / "out", [record(0)])
    path = shard_file(tmp_path / "out")
    path.unlink()
    with pytest.raises(ShardError, match=rf"{path.name}: missing shard"):
        open_shards(tmp_path / "out", "train")


def test_flipped_bytes_never_give_a_wrong_record(tmp_path):
    records = [record(i) for i in range(4)]
    write(tmp_path / "out", records)
    path = shard_file(tmp_path / "out")
    whole, messages = path.read_bytes(), []
    for at in range(0, len(whole), len(whole) // 40):
        data = bytearray(whole)
        data[at : at + 64] = bytes(b ^ 0xFF for b in data[at : at + 64])
        path.write_bytes(data)
        with pytest.raises(ShardError, match=rf"{path.name}: corrupt shard: sha256"):
            verify(tmp_path / "out")
        source = open_shards(tmp_path / "out", "train")
        try:  # padding between blocks holds nothing that a record needs
            assert [source[i] for i in range(4)] == records
        except ShardError as error:
            messages.append(str(error))
    assert len(messages) >= 5
    assert all(f"{path.name}: corrupt shard: " in text and "\n" not in text for text in messages)


@pytest.mark.parametrize("text", [None, "{", "[]", '{"schema": 99}'])
def test_missing_or_broken_manifest_is_one_line(tmp_path, text):
    if text is not None:
        (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ShardError, match=str(tmp_path)) as caught:
        open_shards(tmp_path, "train")
    assert "\n" not in str(caught.value)


def test_unknown_split_names_those_there_are(tmp_path):
    write(tmp_path / "out", [record(0)])
    with pytest.raises(ShardError, match=r"split: expected one of train, found 'test'"):
        open_shards(tmp_path / "out", "test")


def test_read_back_replaces_media_by_shape_spacing_and_digest(tmp_path):
    write(tmp_path / "out", [record(0, media=(image(), volume()))])
    (row,) = read_back(tmp_path / "out", 5)
    assert json.loads(json.dumps(row)) == row
    assert [m["shape"] for m in row["media"]] == [[40, 56], [5, 30, 44]]
    assert row["media"][0]["spacing_mm"] == [0.3225, 0.3]
    assert len(row["media"][0]["sha256"]) == 64
    assert "frames" not in row["media"][0]
    assert row["turns"][1] == {"role": "assistant", "text": "yes"}


def test_an_image_with_many_questions_is_stored_once_a_split_and_comes_back_with_each(tmp_path):
    shared, other = image(64, 64, seed=1), volume(seed=3)
    asked = [(shared,), (other, shared), (), (shared, shared), (other,), (image(64, 64, seed=2),)]
    records = [record(i, media=media, question=f"Question {i}?") for i, media in enumerate(asked)]
    records += [record(9, media=(shared,), split="test")]
    write(tmp_path / "out", records, leaks="report")
    source = open_shards(tmp_path / "out", "train")
    assert [source[i] for i in (4, 3, 0, 1, 2, 5)] == [records[i] for i in (4, 3, 0, 1, 2, 5)]
    assert open_shards(tmp_path / "out", "test")[0] == records[-1]
    for split, wanted in (("train", [shared, other, image(64, 64, seed=2)]), ("test", [shared])):
        (path,) = (tmp_path / "out").glob(f"*{split}.array_record*")
        data = b"".join(read_raw(path, range(len(open_shards(tmp_path / "out", split)))))
        assert [data.count(media.frames[0]) for media in wanted] == [1] * len(wanted)


def test_shared_images_are_found_from_every_shard(tmp_path):
    records = [record(i, media=(image(64, 64, seed=i // 8),), question=f"Question {i}?") for i in range(40)]
    manifest = write(tmp_path / "out", records, shard_bytes=30_000)
    source = open_shards(tmp_path / "out", "train")
    assert len(manifest["shards"]) > 2
    assert [source[i] for i in range(40)] == records
