"""`umit eval` on any mesh and in any number of processes writes the bytes of one device."""

import json
import os
import subprocess
import sys

import pytest

from launch import cli
from tests.toy_evaluation import RECORDS, ROOT, arguments, evaluate, make_work, one_device

MESHES = [
    {"data": 2, "fsdp": 2, "tensor": 2},
    *(pytest.param(mesh, marks=pytest.mark.slow) for mesh in ({"data": 8, "fsdp": 1}, {"fsdp": 4, "tensor": 2})),
]
DRAWN = {"sampling.temperature": 1.0, "sampling.top_k": 40, "sampling.top_p": 0.9}


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return make_work(tmp_path_factory.mktemp("work"))


@pytest.fixture(scope="module")
def alone(work):
    """One process on one device: its directory."""
    summary = evaluate(work, work / "alone", **DRAWN)
    assert (summary["n"], summary["processes"]) == (RECORDS, 1)
    assert 0 < summary["compilations"] <= 4 * 4  # prefix, rest, decode and options of four shapes; two rows stay two
    return work / "alone"


def assert_same(out, alone):
    lines = (alone / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["id"] for line in lines] == [f"toy/{i}" for i in range(RECORDS)]
    assert len({json.loads(line)["text"] for line in lines}) > RECORDS // 2
    for name in ("predictions.jsonl", "scores.json"):
        assert (out / name).read_bytes() == (alone / name).read_bytes()


@pytest.mark.parametrize("mesh", MESHES, ids=str)
def test_a_mesh_changes_no_byte_and_loses_no_question(work, alone, tmp_path, mesh, capsys):
    settings = DRAWN | {f"mesh.{axis}": size for axis, size in mesh.items()}
    assert cli.main(arguments(work, tmp_path, **settings)) == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert summary["mesh"] == {"data": 1, "context": 1, "tensor": 1, **mesh}
    assert_same(tmp_path, alone)


@pytest.mark.slow
def test_a_stop_string_cuts_the_answers_that_hold_it_and_leaves_the_others(work, alone, tmp_path):
    texts = [
        json.loads(line)["text"] for line in (alone / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    held = {character: sum(character in text for text in texts) for text in texts for character in text.strip()}
    stop = next(character for character, count in sorted(held.items()) if count < RECORDS and character.isalpha())
    assert evaluate(work, tmp_path / "cut", **DRAWN, stop=(stop,))["n"] == RECORDS
    lines = (tmp_path / "cut" / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["text"] for line in lines] == [text.partition(stop)[0].strip() for text in texts]


@pytest.mark.slow
def test_two_processes_write_what_one_does(work, alone, tmp_path):
    _, config, file, _, checkpoint, _, _, _, *settings = arguments(
        work, tmp_path, **DRAWN, **{"mesh.data": 2, "mesh.fsdp": 1}
    )
    call = [sys.executable, "-m", "launch", "launch", "local", "--processes", "2", config, file, *settings]
    call += ["--evaluate", checkpoint, "--workdir", str(tmp_path), "--json"]
    done = subprocess.run(call, cwd=ROOT, env=one_device(), capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert (summary["n"], summary["processes"]) == (RECORDS, 2)
    assert_same(tmp_path, alone)
    assert sorted(os.listdir(tmp_path)) == sorted(os.listdir(alone))
