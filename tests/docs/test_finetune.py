"""Every command of docs/finetune.md runs, in order, on a random tiny checkpoint of the published layout."""

import csv
import json
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests import torchvision_wheel
from tests.export import hub
from tests.export.test_round_trip import all_tensors
from tests.media import dicom_files

ROOT = pathlib.Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "finetune.md").read_text(encoding="utf-8")
SETTINGS, *COMMANDS = re.findall(r"```bash\n(.*?)```", PAGE, re.S)
(TABLE,) = re.findall(r"```csv\n(.*?)```", PAGE, re.S)
(SERVE,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
SMALL = (
    "--config.steps=3 --config.compute_dtype=float32 --config.data.rows=2 --config.data.row_tokens=512 "
    "--config.data.row_patches=512 --config.data.max_pixels=12544 --config.data.total_pixels=12544"
)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """The reader's folder: the weights, scans as the page's table names them, and `umit` on the path."""
    work = tmp_path_factory.mktemp("finetune")
    hub.write_model(work / "published", files=2)
    rng = np.random.default_rng(0)
    for row in csv.DictReader(TABLE.splitlines()):
        path = work / "scans" / row["file"]
        path.parent.mkdir(parents=True)
        scan = rng.integers(-500, 500, (96, 80)).astype(np.int16)
        path.write_bytes(dicom_files.write(scan, PatientID=row["patient"]))
    (work / "labels.csv").write_text(TABLE)
    (work / "configs").symlink_to(ROOT / "configs")
    (work / "bin").mkdir()
    (work / "bin" / "umit").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m launch "$@"\n')
    (work / "bin" / "umit").chmod(0o755)
    return work


@pytest.fixture(scope="module")
def commands_ran(work):
    values = {"PUBLISHED": work / "published", "SCANS": work / "scans", "LABELS": work / "labels.csv"}
    values |= {"IMAGE": work / "scans" / "p01" / "0001.dcm", "FLAGS": SMALL}
    assert set(re.findall(r"^(\w+)=", SETTINGS, re.M)) == set(values), "the page's settings are those replaced here"
    environment = {**os.environ, **{key: str(value) for key, value in values.items()}, "PYTHONPATH": str(ROOT)}
    environment |= {"PATH": f"{work / 'bin'}:{os.environ['PATH']}", "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    assert len(COMMANDS) >= 5
    for command in COMMANDS:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=work,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stderr}"
    return work


def test_the_pages_commands_train_adapters_score_them_and_export_both_forms(commands_ran):
    work = commands_ran
    lines = [json.loads(line) for line in (work / "runs" / "mine" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3]
    scores = json.loads((work / "runs" / "mine-eval" / "scores.json").read_text())
    assert {row["task"] for row in scores} == {"classification"}
    assert (work / "served-adapter" / "adapter_model.safetensors").is_file()
    before, after = all_tensors(work / "published"), all_tensors(work / "served")
    assert {name: (t.dtype, t.shape) for name, t in before.items()} == {n: (t.dtype, t.shape) for n, t in after.items()}
    changed = {name for name in before if before[name].tobytes() != after[name].tobytes()}
    assert "visual.merger.mlp.2.weight" in changed
    assert any(name.endswith("self_attn.q_proj.weight") for name in changed)
    assert not any(name.startswith("visual.blocks.") for name in changed)
    limits = json.loads((work / "served" / "preprocessor_config.json").read_text())
    assert limits["max_pixels"] == 12544


def test_the_pages_script_serves_what_umit_predicts(commands_ran, tmp_path, monkeypatch):
    """transformers generates the tokens that our own decoding does, from the page's own image and question."""
    work = commands_ran
    torchvision = torchvision_wheel.unpack(tmp_path)
    monkeypatch.chdir(work)
    ending = '\nimport json\njson.dump(answer[0].tolist(), open("answer.json", "w"))\n'
    torchvision_wheel.run(torchvision, SERVE + ending, home=tmp_path)
    found = json.loads((work / "answer.json").read_text())
    assert 0 < len(found) <= 16

    from launch import cli

    Image.fromarray(np.full((112, 84, 3), 128, np.uint8)).save(work / "grey.png")
    arguments = ["--image", work / "grey.png", "--prompt", "Is there an effusion?", "--max-new-tokens", 16]
    printed = []
    monkeypatch.setattr("builtins.print", lambda *values, **_: printed.append(values[0]))
    assert cli.main([str(a) for a in ("predict", "--checkpoint", "runs/mine", *arguments, "--json")]) == 0
    ours = json.loads(printed[-1])["token_ids"]
    assert found[: len(ours)] == ours
    assert len(ours) == 16 or found[len(ours)] in (hub.ID["<|im_end|>"], hub.ID["<|endoftext|>"])
