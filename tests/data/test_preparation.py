import dataclasses
import hashlib
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from PIL import Image
from toy_converter import ToyConverter
from toy_records import image, record

from data_pipelines import preparation
from data_pipelines.parts import write_part
from data_pipelines.pipeline import beam_flags, run
from data_pipelines.preparation import prepare
from data_pipelines.publish import Rules, ShardError, publish
from data_pipelines.shards import open_shards, verify
from launch.cli import main

HERE = Path(__file__).parent
COUNT = 200  # four chunks


def contents(directory: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(directory.iterdir())}


@pytest.fixture(scope="module")
def single(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("single") / "out"
    prepare(ToyConverter(COUNT), out)
    return out


def test_every_unit_comes_out_once_and_in_order(single):
    manifest = verify(single)
    sources = [open_shards(single, split) for split in ("train", "validation", "test")]
    ids = [source[i].id for source in sources for i in range(len(source))]
    wanted = [f"toy/{i}" for split in range(3) for i in range(split, COUNT, 3) if i % 7 != 3]
    assert ids == wanted
    assert manifest["quarantined"] == [{"id": f"unit {i}", "reason": "truncated"} for i in range(3, COUNT, 7)]
    assert len(manifest["shards"]) == 12
    assert not single.with_name("out.partial").exists()


@pytest.fixture
def beam(monkeypatch) -> list[str]:
    """Flags for two processes of Apache Beam that find the toy converter."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), str(HERE.parents[1])]))
    return beam_flags("direct", 2)


def test_apache_beam_writes_the_shards_of_one_process(single, tmp_path, beam):
    prepare(ToyConverter(COUNT), tmp_path / "out", pipeline=beam)
    assert contents(tmp_path / "out") == contents(single)


@pytest.mark.usefixtures("beam")
def test_two_workers_print_lines_of_ours_and_nothing_of_apache_beams(tmp_path):
    script = (
        f"import logging, pathlib, sys; sys.path.insert(0, {str(HERE)!r})\n"
        "from toy_converter import ToyConverter\nfrom data_pipelines.pipeline import beam_flags\n"
        "from data_pipelines.preparation import prepare\n"
        "logging.basicConfig(level=logging.INFO, format='%(message)s')\n"
        f"out, flags = pathlib.Path({str(tmp_path)!r}), beam_flags('direct', 2)\n"
        f"prepare(ToyConverter({COUNT}, warn_at=10), out / 'good', pipeline=flags)\n"
        f"try: prepare(ToyConverter({COUNT}, fail_at=100), out / 'bad', pipeline=flags)\n"
        "except ValueError as error: print('failed:', error, file=sys.stderr)\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert (ran.stdout, ran.stderr) == ("", "unit 10 is odd\nfailed: unit 100 of no use\n")


def test_a_killed_run_goes_on_from_its_finished_chunks(single, tmp_path):
    log = tmp_path / "log"
    script = (
        f"import sys, pathlib; sys.path.insert(0, {str(HERE)!r})\n"
        "from toy_converter import ToyConverter\nfrom data_pipelines.preparation import prepare\n"
        f"converter = ToyConverter({COUNT}, die_at=100, log=pathlib.Path({str(log)!r}))\n"
        f"prepare(converter, pathlib.Path({str(tmp_path / 'out')!r}))"
    )
    first = subprocess.run([sys.executable, "-c", script], check=False)
    assert first.returncode == 9
    assert not (tmp_path / "out").exists()
    seen = len(log.read_text().split())
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
    again = list(map(int, log.read_text().split()[seen:]))
    assert again == list(range(64, COUNT))  # the first chunk of 64 was there
    assert contents(tmp_path / "out") == contents(single)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["log", "out"]


def test_chunks_of_other_options_or_other_code_are_not_reused(tmp_path, monkeypatch):
    converter = ToyConverter(COUNT, log=tmp_path / "log")
    partial = tmp_path / "out.partial"
    preparation._open_job(converter, converter.units(), partial, None)
    preparation._write_chunk(converter, partial, None, (0, range(64)))
    preparation._open_job(converter, converter.units(), partial, None)
    assert (partial / "00000" / "facts.json").exists()
    monkeypatch.setattr(preparation, "_code_digest", lambda: "another version")
    preparation._open_job(converter, converter.units(), partial, None)
    assert not (partial / "00000").exists()
    preparation._write_chunk(converter, partial, None, (0, range(64)))
    preparation._open_job(dataclasses.replace(converter, count=COUNT - 1), range(COUNT - 1), partial, None)
    assert not (partial / "00000").exists()


def test_a_worker_that_is_killed_ends_the_run_with_one_line_and_the_next_goes_on(single, tmp_path, beam, capfd):
    prepare(ToyConverter(10), tmp_path / "out")
    before = contents(tmp_path / "out")
    converter = ToyConverter(COUNT, die_at=100, log=tmp_path / "log")
    with pytest.raises(ShardError, match="a worker process was killed"):
        prepare(converter, tmp_path / "out", pipeline=beam)
    assert contents(tmp_path / "out") == before
    assert not workers()
    assert capfd.readouterr().err == ""
    prepare(converter, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(single)


def test_an_error_of_a_worker_is_its_one_line(tmp_path, beam):
    with pytest.raises(ShardError, match=r"^unit 100 of no use$"):
        prepare(ToyConverter(COUNT, fail_at=100), tmp_path / "out", pipeline=beam)
    assert not workers()


def test_apache_beams_servers_take_connections_from_this_machine_alone(tmp_path, beam):
    """Each unit is slow, so that the servers can be looked at while they run."""
    listening: set[tuple[str, int]] = set()

    def look() -> None:
        listening.update(servers() - before)

    before = servers()
    run(time.sleep, [1, 1], beam, tmp_path / "errors", look)
    assert listening
    assert {address for address, _ in listening} <= {"127.0.0.1", "::1"}


def servers() -> set[tuple[str, int]]:
    """Address and port of this process's own."""
    found = [c for c in psutil.Process().net_connections("tcp") if c.status == psutil.CONN_LISTEN]
    return {(c.laddr.ip.removeprefix("::ffff:"), c.laddr.port) for c in found}


def workers() -> list[psutil.Process]:
    """Worker processes below this one that still run."""
    below = psutil.Process().children(recursive=True)
    return [p for p in below if p.status() != psutil.STATUS_ZOMBIE and "data_pipelines.worker" in p.cmdline()]


@pytest.mark.parametrize(
    ("runner", "workers", "flags"), [("direct", 1, []), ("FlinkRunner", 3, ["--runner=FlinkRunner"])]
)
def test_one_process_needs_no_pipeline_and_other_runners_have_their_own_flags(runner, workers, flags):
    assert beam_flags(runner, workers) == flags


@pytest.fixture
def rows(tmp_path) -> Path:
    """A folder of training files that makes one chunk."""
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    row = {"query": "What is it?", "response": "A liver.", "images": ["a.png"]}
    (tmp_path / "train.jsonl").write_text(json.dumps(row))
    return tmp_path


def test_options_of_a_runner_reach_its_pipeline_and_one_chunk_goes_to_a_runner_too(rows, monkeypatch):
    import apache_beam
    from apache_beam.options.pipeline_options import PipelineOptions

    seen = []

    class Noted(apache_beam.Pipeline):
        def __init__(self, runner, options: PipelineOptions):
            seen.append(options.get_all_options())
            super().__init__("FnApiRunner", options=options)

    monkeypatch.setattr(apache_beam, "Pipeline", Noted)
    monkeypatch.setenv("PYTHONPATH", str(HERE.parents[1]))
    command = ["prepare", "jsonl", "--source", str(rows), "--out", str(rows / "out"), "--runner-flag=--parallelism=3"]
    assert main([*command, "--runner", "FlinkRunner", "--runner-flag=--flink_version=1.20"]) == 0
    assert main([*command, "--workers", "1"]) == 0
    assert (seen[0]["runner"], seen[0]["parallelism"], seen[0]["flink_version"]) == ("FlinkRunner", 3, "1.20")
    assert (seen[1]["runner"], seen[1]["parallelism"], seen[1]["direct_num_workers"]) == ("FnApiRunner", 3, 1)
    assert len(seen) == 2


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--runner-flag=--bogus_flag=1"], "--runner-flag: expected --NAME=VALUE, .* found '--bogus_flag=1'"),
        (["--runner-flag=parallelism"], "--runner-flag: expected --NAME=VALUE, .* found 'parallelism'"),
        (["--runner-flag=--parallelism=x"], "--runner-flag: argument --parallelism: invalid int value: 'x'"),
        (
            ["--runner-flag=--runner=SparkRunner"],
            "--runner-flag: expected --NAME=VALUE, .* found '--runner=SparkRunner'",
        ),
        (["--runner", "FooRunner"], "--runner: Unexpected pipeline runner: FooRunner"),
        (["--runner", "no.such.FooRunner"], "--runner: No module named 'no'"),
    ],
)
def test_a_runner_or_an_option_that_beam_does_not_know_is_one_line(rows, flags, said, capfd):
    assert main(["prepare", "jsonl", "--source", str(rows), "--out", str(rows / "out"), *flags]) == 2
    assert re.fullmatch(f"umit prepare: {said}.*\n", capfd.readouterr().err)
    assert not list(rows.glob("out*"))


def test_an_option_that_only_a_job_server_may_know_is_passed_on_and_told(caplog):
    flags = beam_flags("FlinkRunner", 0, ["--object_reuse", "--flink_master=localhost:8081"])
    assert flags == ["--runner=FlinkRunner", "--object_reuse", "--flink_master=localhost:8081"]
    (told,) = [record.getMessage() for record in caplog.records]
    assert "--object_reuse" in told


def test_a_runner_that_does_not_answer_is_one_line_and_leaves_nothing(rows, capfd):
    runner = ["--runner", "PortableRunner", "--runner-flag=--job_endpoint=localhost:1"]
    flags = [*runner, "--runner-flag=--job_server_timeout=1"]
    assert main(["prepare", "jsonl", "--source", str(rows), "--out", str(rows / "out"), *flags]) == 1
    assert capfd.readouterr().err == "umit prepare: --runner: its server does not answer\n"
    assert not list(rows.glob("out*"))


@pytest.mark.parametrize(
    "flags",
    [["--duplicates", "drop"], ["--workers", "2"], ["--runner", "FlinkRunner"], ["--runner-flag=--parallelism=3"]],
)
def test_the_sampler_refuses_the_flags_of_a_pipeline(tmp_path, flags, capfd):
    assert main(["prepare", "sampler", "--out", str(tmp_path / "out"), *flags]) == 2
    flag = flags[0].partition("=")[0]
    assert capfd.readouterr().err == f"umit prepare: {flag}: has no meaning for sampler\n"


def test_a_run_that_fails_in_its_first_chunk_leaves_nothing_behind(tmp_path):
    with pytest.raises(ValueError, match="unit 10 of no use"):
        prepare(ToyConverter(COUNT, fail_at=10), tmp_path / "out")
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="unit 100 of no use"):
        prepare(ToyConverter(COUNT, fail_at=100), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out.partial"]


def test_a_full_disk_is_one_line_and_the_same_command_goes_on(tmp_path):
    script = (
        f"import pathlib, resource, signal, sys; sys.path.insert(0, {str(HERE)!r})\n"
        "from toy_converter import ToyConverter\nfrom data_pipelines.preparation import prepare\n"
        "from data_pipelines.publish import ShardError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"  # so that writing beyond the limit fails as on a full disk
        "small = len(sys.argv) > 1\n"
        "if small: resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))\n"
        f"try: prepare(ToyConverter({COUNT}, die_at=None), pathlib.Path({str(tmp_path / 'out')!r}))\n"
        "except ShardError as error: print(error)\n"
    )
    full = subprocess.run([sys.executable, "-c", script, "9000"], capture_output=True, text=True, check=True)
    assert full.stdout.startswith(f"{tmp_path}/out.partial: cannot write: ")
    assert full.stdout.count("\n") == 1
    assert not list(tmp_path.iterdir())  # the first chunk did not fit
    again = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert again.stdout == ""
    assert verify(tmp_path / "out")["records"]["train"] == {"vqa": 57}


def test_counts_that_differ_from_the_published_ones_are_reported(tmp_path):
    converter = ToyConverter(9, expected={"train/vqa": 2, "test/vqa": 3, "test/report": 1})
    manifest = prepare(converter, tmp_path / "out")
    assert manifest["unexpected_counts"] == {"test/report": {"expected": 1, "found": 0}}


@pytest.mark.parametrize(("count", "told"), [(94, True), (95, False), (105, False), (106, True)])
def test_an_approximate_count_is_reported_beyond_its_margin(tmp_path, count, told):
    rules = Rules(leaks="report", expected={"all/vqa": 100}, within=0.05)
    write_part(tmp_path / "part", [record(i, media=(image(seed=i),)) for i in range(count)], near=False)
    found = publish([tmp_path / "part"], tmp_path / "out", "toy", rules)["unexpected_counts"]
    assert found == ({"all/vqa": {"expected": 100, "found": count}} if told else {})


def published(tmp_path, records, **rules):
    write_part(tmp_path / "part", records, near=True)
    return publish([tmp_path / "part"], tmp_path / "out", "toy", Rules(leaks="report", **rules))


def test_dropping_duplicates_keeps_the_held_out_record(tmp_path):
    shared, same = (image(seed=1),), (image(seed=2),)
    records = [
        record(0, media=shared),
        record(1, media=shared, split="test", question="Another?"),
        record(2, media=same),
        record(3, media=same),
        record(4, media=same, question="Another?"),
    ]
    manifest = published(tmp_path, records, duplicates="drop")
    assert manifest["quarantined"] == [
        {"id": "toy/0", "reason": "image is in a later split"},
        {"id": "toy/3", "reason": "duplicate of another record"},
    ]
    assert manifest["records"] == {"train": {"vqa": 2}, "test": {"vqa": 1}}
    assert manifest["leaks"] == manifest["duplicates"] == []
    assert [open_shards(tmp_path / "out", "train")[i].id for i in range(2)] == ["toy/2", "toy/4"]


def test_unknown_rules_are_refused():
    with pytest.raises(ShardError, match=r"duplicates: expected report \| drop, found 'keep'"):
        Rules(duplicates="keep")
