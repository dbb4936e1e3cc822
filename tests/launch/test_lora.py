"""A LoRA run from the command line: train, resume, inspect, predict, merged export, adapter out and in again."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.launch.conftest import train_arguments, umit

ADAPTERS = ("--config.lora.rank=4", "--config.lora.alpha=8.0", "--config.lora.full=('projector/.*',)")


@pytest.fixture(scope="module")
def lora(work, shards, stage1):
    workdir = work / "lora"
    umit(*train_arguments("stage2", shards, workdir, 4), f"--config.init_from={stage1}", *ADAPTERS)
    return workdir


@pytest.fixture(scope="module")
def merged(work, lora):
    umit("export", lora, "--out", work / "merged")
    return load_file(work / "merged" / "model.safetensors")


def test_inspect_says_what_it_holds_and_stands_on(lora, stage1):
    found = umit("inspect", lora, "--json").summary
    assert (found["kind"], found["step"], found["lora"]["rank"]) == ("checkpoint", 4, 4)
    assert found["base"]["path"] == str(stage1.resolve() / "checkpoints" / "4")
    assert found["base"]["found"]
    assert set(found["parameters_by_part"]) == {"projector", "decoder"}
    assert found["parameters"] < umit("inspect", stage1, "--json").summary["parameters"] / 2


def test_the_merged_export_is_the_base_but_for_what_trained(work, merged, stage1):
    umit("export", stage1, "--out", work / "base_export")
    base = load_file(work / "base_export" / "model.safetensors")
    assert merged.keys() == base.keys()
    changed = {name for name in base if (merged[name] != base[name]).any()}
    assert "model.layers.0.self_attn.q_proj.weight" in changed
    assert "visual.merger.mlp.0.weight" in changed
    rest = {name for name in changed if not name.startswith("visual.merger")}
    assert not any(name.startswith("visual") or "embed" in name or "norm" in name for name in rest)


def test_an_adapter_comes_back_as_the_same_model(work, lora, stage1, merged):
    umit("export", lora, "--adapter", "--base-name", "org/base", "--out", work / "adapter")
    settings = json.loads((work / "adapter" / "adapter_config.json").read_text())
    assert (settings["base_model_name_or_path"], settings["r"]) == ("org/base", 4)
    assert umit("inspect", work / "adapter", "--json").summary["kind"] == "adapter"
    umit("import", work / "adapter", "--base", stage1, "--out", work / "again")
    umit("export", work / "again", "--out", work / "again_export")
    again = load_file(work / "again_export" / "model.safetensors")
    for name, expected in merged.items():
        np.testing.assert_array_equal(again[name], expected, err_msg=name)
    done = umit("import", work / "adapter", "--out", work / "nowhere", check=False)
    assert (done.returncode, (work / "nowhere").exists()) == (2, False)
    assert "is a PEFT adapter: --base names the imported model" in done.stderr


def test_a_run_that_cannot_be_is_refused_in_one_line(work, shards, stage1):
    wrong = {
        "--config.init_from: a LoRA run needs a base": (),
        "lora.full[0] 'projektor': matches no parameter; the nearest is projector/": (
            f"--config.init_from={stage1}",
            "--config.lora.full=('projektor',)",
        ),
    }
    for message, arguments in wrong.items():
        done = umit(*train_arguments("stage2", shards, work / "wrong", 2), *ADAPTERS[:2], *arguments, check=False)
        assert done.returncode == 2
        assert message in done.stderr.strip().splitlines()[-1]


def test_a_moved_base_is_named_and_found(work, lora, stage1):
    moved = work / "moved"
    shutil.copytree(stage1, moved)
    shutil.copytree(lora, work / "orphan")
    data = work / "orphan" / "checkpoints" / "4" / "data" / "metadata"
    data.write_text(data.read_text().replace(str(stage1.resolve()), "/gone"))
    done = umit("predict", "--checkpoint", work / "orphan", "--prompt", "hi", "--max-new-tokens", 2, check=False)
    assert (done.returncode, len(done.stderr.strip().splitlines())) == (2, 1)
    assert (
        "the base of this LoRA run is not at /gone/checkpoints/4: name where it is (--base, or init_from)"
        in done.stderr
    )
    question = ("--prompt", "hi", "--max-new-tokens", 2, "--json")
    found = umit("predict", "--checkpoint", work / "orphan", "--base", moved, *question).summary
    assert found["token_ids"] == umit("predict", "--checkpoint", lora, *question).summary["token_ids"]
    refused = umit("export", stage1, "--adapter", "--out", work / "no", check=False)
    assert (refused.returncode, (work / "no").exists()) == (2, False)
    assert "is not of a LoRA run" in refused.stderr
