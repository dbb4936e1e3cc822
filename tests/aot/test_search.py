import json

import pytest

from configs import stage2_instruct
from configs.sizes import published
from umit_jax.aot.search import meshes, search
from umit_jax.aot.topology import parse

GIB = 1 << 30


def fake(peaks):
    """A compilation that takes `peaks` GiB a row and device by remat, and whose time tensor and recomputation cost."""

    def run(config):
        if config.mesh.tensor == 4:
            raise ValueError("decoder/layers/attn/k/kernel: axis 'kv_heads' does not divide")
        rows = config.data.rows / (config.mesh.data * config.mesh.fsdp)
        peak = int((1 + peaks[config.remat] * rows) * GIB)
        seconds = config.data.rows * (1 + 0.1 * config.mesh.tensor) * {"none": 1, "dots": 1.1}.get(config.remat, 1.3)
        return {
            "rows": config.data.rows,
            "tokens_per_row": 4096,
            "fits": peak <= 16 * GIB,
            "peak_bytes": peak,
            "hbm_bytes": 16 * GIB,
            "step_seconds_estimate": seconds + 8,
            "compile_seconds": 1.0,
            "compile_cpu_seconds": 1.0,
        }

    return run


def trials(peaks, size="7b", **options):
    config = stage2_instruct.get_config()
    config.data.rows = 16
    return search(config, published(size), parse("v5e-16"), fake(peaks), **options)


USUAL = {"none": 40, "dots": 6, "attention": 3, "full": 2}


def test_the_fastest_that_fits_wins_and_rows_grow_as_long_as_it_helps():
    best, tried = trials(USUAL)
    assert best is not None
    assert (best["mesh"], best["remat"], best["rows"]) == (
        {"data": 1, "fsdp": 16, "context": 1, "tensor": 1},
        "dots",
        32,
    )
    assert not any(trial["fits"] for trial in tried if trial["remat"] == "none")
    assert tried[-1]["rows"] == 64


def test_a_mesh_that_cannot_be_is_listed_with_its_reason():
    _, tried = trials(USUAL)
    reasons = [trial["reason"] for trial in tried if trial["mesh"]["tensor"] == 4]
    assert reasons == ["decoder/layers/attn/k/kernel: axis 'kv_heads' does not divide"]


def test_where_nothing_fits_there_is_no_best():
    best, tried = trials({"none": 40, "dots": 40, "attention": 40, "full": 40})
    assert best is None
    assert len(tried) == 3


def test_what_keeps_more_than_what_does_not_fit_is_left_out():
    _, tried = trials({"none": 10, "dots": 20, "attention": 3, "full": 2})
    found = {trial["remat"]: trial for trial in tried if trial["rows"] == 16 and trial["mesh"]["tensor"] == 1}
    assert found["dots"]["peak_bytes"] == 21 * GIB
    assert found["none"]["reason"] == "left out: keeps more than remat dots, which does not fit"


def test_rows_beyond_the_memory_that_fewer_took_are_not_compiled():
    best, tried = trials({"none": 40, "dots": 3, "attention": 3, "full": 2})
    assert best is not None
    assert (best["remat"], best["rows"]) == ("dots", 64)  # 1 + 3 x 4 = 13 GiB of 16
    assert tried[-1]["rows"] == 128
    assert tried[-1]["reason"] == "left out: would take about 25.00 GiB"


def test_rows_that_gain_less_than_a_hundredth_are_the_last():
    config = stage2_instruct.get_config()
    config.data.rows = 16

    def bound_by_compute(config):
        result = fake(USUAL)(config)
        return {**result, "peak_bytes": GIB, "fits": True, "step_seconds_estimate": config.data.rows + 0.001}

    _, tried = search(config, published("7b"), parse("v5e-16"), bound_by_compute)
    assert max(trial["rows"] for trial in tried) == 32


def test_a_mesh_whose_state_alone_is_too_large_is_not_compiled():
    best, tried = trials(USUAL, held=lambda config: (20 if config.mesh.tensor == 1 else 1) * GIB)
    assert best is not None
    assert best["mesh"]["tensor"] == 2
    assert tried[0]["reason"] == "left out: its state and batch alone take 20.00 GiB"


def test_a_search_that_was_interrupted_runs_only_what_is_missing():
    reported = []
    best, tried = trials(USUAL, report=reported.append)
    assert reported == tried
    again = []
    known = json.loads(json.dumps(tried[:3]))
    assert trials(USUAL, known=known, report=again.append) == (best, tried)
    assert again == tried[3:]


@pytest.mark.parametrize(("size", "tensor"), [("2b", [1, 2]), ("7b", [1, 2, 4]), ("72b", [1, 2, 4, 8])])
def test_meshes_fill_the_slices_and_divide_the_heads(size, tensor):
    found = list(meshes(published(size), 512, 2, context=2))
    assert sorted({mesh["tensor"] for mesh in found}) == tensor
    assert all(mesh["data"] * mesh["fsdp"] * 2 * mesh["tensor"] == 512 and mesh["data"] % 2 == 0 for mesh in found)
