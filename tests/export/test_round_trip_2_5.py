"""A Qwen2.5-VL through umit import and umit export: as transformers 5 writes it and with the hub's config.json."""

import json

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from launch import cli  # noqa: E402
from launch.model import load_companions  # noqa: E402
from tests.export import hub  # noqa: E402

VISION = {
    "depth": 3,
    "hidden_size": 32,
    "num_heads": 2,
    "intermediate_size": 40,
    "out_hidden_size": hub.TEXT_WIDTH,
    "fullatt_block_indexes": [1],
    "window_size": 112,
    "tokens_per_second": 2,
    "in_chans": 3,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "spatial_patch_size": 14,
    "temporal_patch_size": 2,
    "hidden_act": "silu",
}


def flat_config(tied: bool) -> dict:
    """config.json as the hub's Qwen2.5-VL has it."""
    names = {"architectures": ["Qwen2_5_VLForConditionalGeneration"], "model_type": "qwen2_5_vl"}
    return {**hub.config_json(tied), **names, "vision_config": VISION}


def random_model(tied: bool):
    torch.manual_seed(0)
    return transformers.Qwen2_5_VLForConditionalGeneration(transformers.Qwen2_5_VLConfig(**flat_config(tied)))


def files_of(directory) -> dict:
    from safetensors.torch import load_file

    return {name: t for file in sorted(directory.glob("*.safetensors")) for name, t in load_file(file).items()}


@pytest.mark.parametrize("form", ["hub config", "transformers 5 config"])
@pytest.mark.parametrize(("tied", "dtype"), [(True, "bfloat16"), (False, "float32")])
def test_every_tensor_and_number_comes_back_and_transformers_loads_it(tmp_path, tied, dtype, form):
    source = tmp_path / "hub"
    model = random_model(tied).to(getattr(torch, dtype))
    model.save_pretrained(source, max_shard_size="80KB")
    hub.write_companions(source)
    if form == "hub config":
        hub.write_json(source / "config.json", flat_config(tied) | {"torch_dtype": dtype})
    for command in (("import", source, "--out", tmp_path / "w"), ("export", tmp_path / "w", "--out", tmp_path / "out")):
        assert cli.main([str(part) for part in command]) == 0

    expected, found = files_of(source), files_of(tmp_path / "out")
    assert len(list(source.glob("*.safetensors"))) > 1
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype, name
        assert torch.equal(found[name], value), name
    again = transformers.AutoModelForImageTextToText.from_pretrained(tmp_path / "out", dtype="auto")
    assert type(again) is transformers.Qwen2_5_VLForConditionalGeneration
    assert again.dtype == model.dtype
    for field in VISION.keys() - {"in_chans", "spatial_patch_size"}:
        assert getattr(again.config.vision_config, field) == VISION[field], field
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert written["vision_config"] == written["vision_config"] | VISION
    _, _, processing = load_companions(tmp_path / "w" / "model")
    assert (processing.window, processing.tokens_per_second, processing.boxes) == (8, 2, "resized")


def test_weights_of_the_other_family_are_refused_by_the_first_tensor_that_does_not_fit(tmp_path, capsys):
    source = hub.write_model(tmp_path / "hub")  # Qwen2-VL's tensors
    hub.write_json(source / "config.json", flat_config(tied=True))
    assert cli.main(["import", str(source), "--out", str(tmp_path / "w")]) == 2
    message = capsys.readouterr().err
    assert "visual." in message
    assert len(message.strip().splitlines()) == 1
    assert not (tmp_path / "w").exists()
