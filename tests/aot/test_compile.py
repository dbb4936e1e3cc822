"""The step that training runs, compiled: for fake CPU devices here, for a TPU slice where libtpu is installed."""

import dataclasses
import importlib.util
import json
import pathlib
import platform
import subprocess
import sys

import jax
import numpy as np
import pytest

from configs import stage2_instruct
from launch.cli import UsageError, main
from launch.compile import _model_config
from launch.config_file import load
from tests.train.toy import FROZEN_TOWER, MODEL, toy_config
from umit_jax.aot import topology
from umit_jax.aot.compile import needed_bytes
from umit_jax.aot.flops import model_flops
from umit_jax.aot.hlo import Module
from umit_jax.aot.hlo_flops import flops
from umit_jax.model.config import ConfigError
from umit_jax.parallel.mesh import abstract_batch, make_mesh
from umit_jax.train.program import build

ROOT = pathlib.Path(__file__).parents[2]
ROWS, TOKENS, PATCHES = 8, 32, 16
PRESET = "configs/stage2_instruct.py:2b@v5e-16"
SETTINGS = [f"--config.{key}" for key in ("model=tiny", "data.rows=4", "data.row_tokens=256", "data.row_patches=256")]


@pytest.mark.parametrize("patterns", [(), FROZEN_TOWER])
def test_executed_flops_are_the_models_where_nothing_is_computed_twice(patterns):
    """But for the logits, which the backward pass computes again, and attention, which "xla" gives its whole square."""
    config = toy_config(remat="none", attention="xla", optimizer__patterns=patterns)
    mesh = make_mesh({}, jax.devices()[:1])
    program = build(config, MODEL, mesh)
    batch = abstract_batch(mesh, ROWS, TOKENS, PATCHES, MODEL.vision.patch_values)
    text = program.step.lower(program.abstract, batch).compile().as_text()
    executed = sum(flops(e) * e.times for e in Module(text).walk({"vocabulary_loss": TOKENS // config.loss_chunk}))
    frozen = {f"vision/{path}" for path in ["", *_paths(program.abstract.frozen.get("vision", {}))]}
    parts = model_flops(MODEL, frozen, rows=ROWS, tokens=TOKENS, patches=PATCHES, image_patches=PATCHES)
    parts["head"] *= 4 / 3
    parts["decoder_attention"] *= 2
    if not patterns:  # pixels need no gradient
        parts["vision"] -= 2 * ROWS * PATCHES * MODEL.vision.patch_values * MODEL.vision.width
    np.testing.assert_allclose(executed, sum(parts.values()), rtol=0.01)


def _instructions(layers: int) -> int:
    """In the step of a model with so many layers in tower and decoder, optimised but not by the CPU's own compiler."""
    parts = {name: dataclasses.replace(getattr(MODEL, name), layers=layers) for name in ("vision", "text")}
    model, mesh = dataclasses.replace(MODEL, **parts), make_mesh({}, jax.devices()[:1])
    program = build(toy_config(remat="full"), model, mesh)
    batch = abstract_batch(mesh, ROWS, TOKENS, PATCHES, model.vision.patch_values)
    options = {"xla_backend_optimization_level": 0}
    text = program.step.lower(program.abstract, batch).compile(compiler_options=options).as_text()
    return sum(map(len, Module(text).computations.values()))


def test_a_program_is_no_longer_with_more_layers():
    assert _instructions(7) < 1.01 * _instructions(2)


def _paths(tree, prefix=""):
    for key, value in tree.items():
        yield from _paths(value, f"{prefix}{key}/") if isinstance(value, dict) else [f"{prefix}{key}"]


@pytest.mark.parametrize(
    ("error", "gib"),
    [
        ("RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 17.50G of 15.75G hbm. Exceeded by", 17.5),
        (
            "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (87.5G) "
            "exceeds available HBM (15.75G).",
            89.5,
        ),
        ("INTERNAL: Mosaic failed to compile", None),
    ],
)
def test_what_a_program_needs_that_does_not_fit_is_read_from_the_error(error, gib):
    assert needed_bytes(error, arguments=2 << 30) == (None if gib is None else gib * (1 << 30))


def test_without_the_compiler_one_line_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(topology.importlib.util, "find_spec", lambda name: None)
    command = ["compile", "--config", "configs/stage2_instruct.py", "--topology", "v5e-4", *SETTINGS]
    assert main(command) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "pip install 'jax[tpu]'" in line
    assert line.startswith("umit compile: --topology v5e:2x2:")


def test_a_config_changes_single_numbers_of_a_published_size():
    config = stage2_instruct.get_config("2b@v5e-16")
    with config.unlocked():
        config.model_overrides.text = {"layers": 14}
    text = _model_config(config).text
    assert (text.layers, text.width) == (14, 1536)


def test_numbers_of_the_model_are_changed_on_the_command_line():
    overrides = ["text.layers=14", "text.mrope_section=(8, 8, 48)", "tied_head=False"]
    config = load(PRESET, [f"--config.model_overrides.{override}" for override in overrides])
    model = _model_config(config)
    assert (model.text.layers, model.text.mrope_section, model.tied_head) == (14, (8, 8, 48), False)
    assert model.text.width == 1536
    with pytest.raises(UsageError, match=r"model_overrides.text.layers: expected a number.* found 'many'"):
        load(PRESET, ["--config.model_overrides.text.layers=many"])
    with pytest.raises(ConfigError, match=r"unknown name text\.laiers; the nearest known one is text.layers"):
        _model_config(load(PRESET, ["--config.model_overrides.text.laiers=14"]))


HEAPS = """
import ctypes, sys, threading
from launch.compile import share_heap
if sys.argv[1] == "shared":
    share_heap()
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
all_have = threading.Barrier(4)
threads = [threading.Thread(target=lambda: (libc.malloc(1000), all_have.wait())) for _ in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
file = ctypes.c_void_p(libc.fopen(b"/dev/stdout", b"w"))
libc.malloc_info(0, file)
libc.fclose(file)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of other C libraries nothing is known")
def test_all_threads_of_a_compilation_allocate_from_one_heap():
    def heaps(how):
        done = subprocess.run([sys.executable, "-c", HEAPS, how], cwd=ROOT, capture_output=True, text=True, check=True)
        return done.stdout.count("<heap nr")

    assert heaps("apart") > 1
    assert heaps("shared") == 1


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu: pip install 'jax[tpu]'")
def test_a_step_compiles_for_a_slice(tmp_path):
    out = tmp_path / "out"
    command = ["compile", "--config", "configs/stage2_instruct.py", "--topology", "v5e-4", "--out", str(out), *SETTINGS]
    assert main(command) == 0
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["devices"], summary["rows"], summary["tokens_per_row"], summary["patches_per_row"]) == (
        4,
        4,
        256,
        256,
    )
    assert summary["fits"]
    assert 0 < summary["argument_bytes"] < summary["peak_bytes"] < summary["hbm_bytes"] == 16 << 30
    assert summary["flops"] > summary["model_flops"] > 0
    gathers = [c for c in summary["collectives"] if (c["kind"], c["place"]) == ("all-gather", "layer_loop")]
    assert gathers
    assert summary["step_seconds_estimate"] == max(summary["roofline"].values())
