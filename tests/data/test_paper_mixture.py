"""The config of the paper's mixture on replicas of its data sets, prepared into one folder as its page says."""

import importlib
import subprocess
from pathlib import Path

import numpy as np
import pytest

from configs import umit
from data_pipelines.image import Processing
from data_pipelines.mixture import make_stream
from data_pipelines.preparation import prepare
from data_pipelines.sources.catalogue import catalogue
from data_pipelines.sources.medmnist import sets
from data_pipelines.tokenizer import Tokenizer, train_sentencepiece
from launch.cli import UsageError
from launch.config_file import load
from launch.sources import source_weights
from tests.replicas import medmnist
from tests.replicas.registry import REPLICAS

LAYOUTS = {"path_vqa": "hub", "vqa_rad": "original", "m3d_cap": "prepared", "m3d_seg": "original", "pmc_oa": "beta"}
LAYOUTS |= {"iu_xray": "r2gen", "chimed_vl": "texts"}
FOLDERS = [entry[0] for entry in umit.STAGE1 + umit.STAGE2]


def prepared(folder: str, raw: Path, out: Path) -> None:
    name, _, subset = folder.partition("/")
    if subset:
        shape = (28, 28, 28) if sets()[subset].solid else (28, 28)
        columns = len(sets()[subset].labels) if sets()[subset].multi else 1
        labels = {split: np.zeros((rows, columns)) for split, rows in medmnist.ROWS.items()}
        np.savez(raw / f"{subset}.npz", **medmnist.arrays(subset, shape, labels))
        options = {"source": raw, "subset": [subset]}
    else:
        options = REPLICAS[f"{name}/{LAYOUTS[name]}" if name in LAYOUTS else name](raw / name)
    prepare(importlib.import_module(f"data_pipelines.sources.{name}").converter(**options), out)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    raw, root = tmp_path_factory.mktemp("raw"), tmp_path_factory.mktemp("root")
    for folder in dict.fromkeys(FOLDERS):
        prepared(folder, raw, root / folder)
    return root


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Tokenizer:
    return train_sentencepiece(["Is there a mass? No.", "Axial CT of the chest."], tmp_path_factory.mktemp("t"), 420)


def test_every_source_is_one_that_prepare_knows():
    names = [folder.split("/") for folder in FOLDERS]
    assert {name[0] for name in names} <= set(catalogue())
    assert {name[1] for name in names if len(name) > 1} == set(sets())


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_the_stream_of_a_stage_takes_every_source_as_its_weight_and_cap_say(stage, root, tokenizer):
    config = umit.get_config(stage)
    config.data.update(root=str(root), rows=1)
    sources, caps = source_weights(config.data)
    processing = Processing(config.data.min_pixels, config.data.max_pixels, config.data.total_pixels)
    stream = make_stream(config.data, sources, tokenizer, processing, caps=caps)
    steps = stream.steps_of_epochs(config.epochs)
    found = [sample for step in range(steps) for row in stream.row_samples(step) for sample in row]
    for number, (entry, sizes) in enumerate(zip(config.data.sources, stream._sizes, strict=True)):
        assert sum(source == number for source, _ in found) >= entry[1] * len(sizes.index_M)
    batch, info = next(stream.batches(0))
    assert batch.patches_BPC.any()
    assert len(info.sample_ids[0]) > 1


def test_every_missing_folder_is_named_in_one_line(tmp_path):
    config = umit.get_config("stage1")
    config.data.root = str(tmp_path)
    with pytest.raises(UsageError) as raised:
        source_weights(config.data)
    folders = f"{tmp_path}/pmc_oa, {tmp_path}/chimed_vl"
    expected = f"--config.data.sources: {folders} hold no manifest.json: not made by umit prepare"
    assert str(raised.value) == expected


def test_sources_are_left_out_by_name_or_by_folder(root):
    data = umit.get_config("stage2").data
    data.update(root=str(root), leave_out=("m3d_cap", "medmnist", "isbi2015"))
    sources, _ = source_weights(data)
    left = [f for f, *_ in umit.STAGE2 if f not in ("m3d_cap", "isbi2015") and not f.startswith("medmnist/")]
    assert list(sources) == [root / folder for folder in left]
    data.leave_out = ("m3d_cup",)
    with pytest.raises(UsageError, match=r"leave_out: no source 'm3d_cup' \(did you mean m3d_cap\?\)"):
        source_weights(data)


def test_the_commands_of_the_page_prepare_every_source_and_name_configs_that_load():
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    script = 'umit() { printf "%s\\n" "$*"; }\n' + page.partition("```bash\n")[2].partition("```")[0]
    said = subprocess.run(["bash", "-ec", script], capture_output=True, text=True, check=True).stdout
    commands = [line.split() for line in said.splitlines()]
    prepares, trains = ([c[1:] for c in commands if c[0] == name] for name in ("prepare", "train"))
    made = [c[c.index("--out") + 1].removeprefix("/data/umit/") for c in prepares]
    assert sorted(made) == sorted(set(FOLDERS))
    for name, *flags in prepares:
        given = {flag.removeprefix("--") for flag in flags if flag.startswith("--")} - {"out"}
        assert set(catalogue()[name].required) <= given <= set(catalogue()[name].flags)
    for _, config, *overrides in trains:
        loaded = load(config, [flag for flag in overrides if flag.startswith("--config.")])
        assert loaded.data.root == "/data/umit"
