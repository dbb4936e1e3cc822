"""Adapters over an imported bfloat16 base: merged into it tensor by tensor, written for PEFT, and read again."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from launch import cli
from tests.export import hub

PREFIX, LAYER = "base_model.model.", "model.language_model.layers.{}.mlp.down_proj"
RANK, ALPHA = 3, 6.0


def umit(*args) -> int:
    return cli.main([str(arg) for arg in args])


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """(workdir, tensors) of an imported base."""
    folder = tmp_path_factory.mktemp("base")
    hub.write_model(folder / "hub", tied=True, dtype=hub.BF16)
    assert umit("import", folder / "hub", "--out", folder / "workdir") == 0
    return folder / "workdir", hub.random_tensors(True, hub.BF16)


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    """(PEFT directory, its tensors), written by hand: one projection of the decoder, and the merger's norm whole."""
    folder, rng = tmp_path_factory.mktemp("adapter"), np.random.default_rng(0)
    arrays = {}
    for layer in range(hub.LAYERS):
        name = PREFIX + LAYER.format(layer)
        arrays[f"{name}.lora_A.weight"] = rng.normal(0, 0.1, (RANK, hub.MLP)).astype(np.float32)
        arrays[f"{name}.lora_B.weight"] = rng.normal(0, 0.1, (hub.TEXT_WIDTH, RANK)).astype(np.float32)
    for name in ("weight", "bias"):
        arrays[f"{PREFIX}model.visual.merger.ln_q.{name}"] = rng.normal(1, 0.1, hub.VISION_WIDTH).astype(np.float32)
    save_file(arrays, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    settings = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "target_modules": ["down_proj"]}
    settings |= {"modules_to_save": ["ln_q"], "lora_dropout": 0.05, "base_model_name_or_path": "org/base"}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder, arrays


@pytest.fixture(scope="module")
def imported(base, adapter, tmp_path_factory):
    out = tmp_path_factory.mktemp("imported") / "workdir"
    assert umit("import", adapter[0], "--base", base[0], "--out", out) == 0
    return out


def test_merging_changes_what_was_adapted_and_no_other_bit(base, adapter, imported, tmp_path):
    assert umit("export", imported, "--out", tmp_path / "merged") == 0
    found, arrays = load_file(tmp_path / "merged" / "model.safetensors"), adapter[1]
    expected = dict(base[1])
    for layer in range(hub.LAYERS):
        name, hf = PREFIX + LAYER.format(layer), f"model.layers.{layer}.mlp.down_proj.weight"
        delta = arrays[f"{name}.lora_B.weight"].astype(np.float64) @ arrays[f"{name}.lora_A.weight"]
        expected[hf] = expected[hf].astype(np.float32) + np.float32(ALPHA / RANK) * delta.astype(np.float32)
        step = np.spacing(np.abs(expected[hf]).astype(hub.BF16)).astype(np.float32)
        assert (np.abs(found[hf].astype(np.float32) - expected[hf]) <= 0.51 * step).all()  # rounded once
        expected[hf] = found[hf]
    for name in ("weight", "bias"):
        expected[f"visual.merger.ln_q.{name}"] = arrays[f"{PREFIX}model.visual.merger.ln_q.{name}"].astype(hub.BF16)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert (found[name].dtype, found[name].tobytes()) == (hub.BF16, value.tobytes()), name


def test_an_adapter_goes_through_us_unchanged(adapter, imported, tmp_path):
    assert umit("export", imported, "--adapter", "--base-name", "org/base", "--out", tmp_path / "adapter") == 0
    found = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert found.keys() == adapter[1].keys()
    for name, value in adapter[1].items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    settings = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (settings["r"], settings["lora_alpha"], settings["target_modules"]) == (RANK, ALPHA, ["down_proj"])
    assert settings["modules_to_save"] == ["model.visual.merger.ln_q"]


def test_what_cannot_be_imported_leaves_nothing(base, adapter, tmp_path, capsys):
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "adapter_config.json").write_bytes((adapter[0] / "adapter_config.json").read_bytes())
    whole = (adapter[0] / "adapter_model.safetensors").read_bytes()
    (damaged / "adapter_model.safetensors").write_bytes(whole[:-10])
    for arguments, message in (
        ((damaged, "--base", base[0]), "adapter_model.safetensors: "),
        ((adapter[0],), "is a PEFT adapter: --base names the imported model it belongs to"),
        ((adapter[0], "--base", tmp_path / "none"), "--base: no such directory"),
    ):
        assert umit("import", *arguments, "--out", tmp_path / "out") == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert message in error
        assert [path.name for path in tmp_path.iterdir()] == ["damaged"]
