"""Training that starts from a Hugging Face directory itself, or from what umit import made of it: the same run."""

import json

import numpy as np
import pytest

from tests.export import hub
from tests.export.test_round_trip import all_tensors
from tests.launch.conftest import CONFIGS, umit

SMALL = (
    "--config.data.rows=2",
    "--config.data.row_tokens=768",
    "--config.data.row_patches=512",
    "--config.steps=2",
    "--config.checkpoint_every=2",
)


def train(shards, workdir, start, **kwargs):
    sources = f"--config.data.sources=(('{shards}', 1.0),)"
    config = f"--config={CONFIGS / 'quickstart.py'}:stage2"
    return umit(
        "train", config, "--workdir", workdir, sources, f"--config.init_from={start}", *SMALL, *kwargs.pop("flags", ()),
        "--json", **kwargs,
    )  # fmt: skip


def losses(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return hub.write_model(tmp_path_factory.mktemp("hub") / "hub", dtype=np.float32, files=2)


def test_training_starts_from_a_hugging_face_directory_as_from_its_import(tmp_path, shards, source):
    umit("import", source, "--out", tmp_path / "imported")
    train(shards, tmp_path / "direct", source)
    train(shards, tmp_path / "by_import", tmp_path / "imported")
    assert losses(tmp_path / "direct") == losses(tmp_path / "by_import")
    assert len(losses(tmp_path / "direct")) == 2
    assert (tmp_path / "direct" / "model" / "origin" / "tensors.json").is_file()
    umit("export", tmp_path / "direct", "--out", tmp_path / "export")
    # Stage 2 leaves the tower alone: it comes out as it went in.
    before, after = all_tensors(source), all_tensors(tmp_path / "export")
    same = {name for name in before if np.array_equal(before[name], after[name])}
    assert {name for name in before if name.startswith("visual.blocks.")} <= same
    assert "model.layers.0.mlp.up_proj.weight" not in same


def test_a_lora_run_asks_for_an_import(tmp_path, shards, source):
    flags = ("--config.lora.rank=2",)
    done = train(shards, tmp_path / "run", source, flags=flags, check=False)
    assert done.returncode == 2
    assert "a LoRA run names its base: make one with umit import" in done.stderr
    assert not (tmp_path / "run" / "model").exists()
