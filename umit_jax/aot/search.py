"""The fastest step that fits: meshes first, then what the backward pass keeps, then more rows.

Trying everything with everything would take hours of compilation, so each choice starts from the best of the one
before. Best is the most tokens a second by the roofline of report.py, among what fits.
"""

import copy
import logging
from collections.abc import Callable, Iterator
from typing import Any

import ml_collections

from umit_jax.aot.topology import Topology
from umit_jax.model.config import ModelConfig
from umit_jax.model.param import REMAT

log = logging.getLogger(__name__)

Trial = dict[str, Any]  # mesh, remat, rows; then the result of a compilation, or why there is none


def search(
    config: ml_collections.ConfigDict,
    model_config: ModelConfig,
    topology: Topology,
    run: Callable[[ml_collections.ConfigDict], dict[str, Any]],
) -> tuple[Trial | None, list[Trial]]:
    """(the best trial or None where nothing fits, all trials in order).

    run: compiles a config and gives report.summarise's result; a ValueError says why the config cannot be.
    """
    trials: list[Trial] = []

    def attempt(mesh: dict[str, int], remat: str, rows: int) -> Trial:
        choice = {"mesh": mesh, "remat": remat, "rows": rows}
        done = next((trial for trial in trials if {key: trial[key] for key in choice} == choice), None)
        if done is None:
            done = choice | _outcome(run, _changed(config, choice))
            trials.append(done)
            log.info("%s", as_line(done))
        return done

    shards = config.data.rows
    for mesh in meshes(model_config, topology.chips * topology.chip.devices, topology.slices):
        attempt(mesh, "full", max(shards, mesh["data"] * mesh["fsdp"]))
    best = _best(trials)
    if best is None:
        return None, trials
    for remat in REMAT:
        attempt(best["mesh"], remat, best["rows"])
    best = _best(trials)
    while best is not None and attempt(best["mesh"], best["remat"], 2 * best["rows"]) is _best(trials):
        best = _best(trials)
    return _best(trials), trials


def meshes(model_config: ModelConfig, devices: int, slices: int) -> Iterator[dict[str, int]]:
    """Meshes worth a trial: tensor as far as key-value heads divide, the rest on fsdp, or half of it on data."""
    heads, tensor = (model_config.text.kv_heads, model_config.vision.heads), 1
    while all(count % tensor == 0 for count in heads) and devices // slices % tensor == 0:
        rest = devices // slices // tensor
        yield {"data": slices, "fsdp": rest, "tensor": tensor}
        if rest > 64 and rest % 2 == 0:
            yield {"data": 2 * slices, "fsdp": rest // 2, "tensor": tensor}
        tensor *= 2


def as_line(trial: Trial) -> str:
    mesh = " x ".join(f"{name} {size}" for name, size in trial["mesh"].items())
    head = f"{mesh}, remat {trial['remat']}, {trial['rows']} rows"
    if trial["reason"]:
        return f"{head}: {trial['reason']}"
    if not trial["fits"]:
        return f"{head}: does not fit: {trial['peak_bytes'] / 2**30:.2f} GiB"
    return f"{head}: {trial['peak_bytes'] / 2**30:.2f} GiB, {trial['tokens_per_second']:.4g} tokens a second at most"


def _changed(config: ml_collections.ConfigDict, choice: dict[str, Any]) -> ml_collections.ConfigDict:
    changed = copy.deepcopy(config)
    changed.mesh.update(choice["mesh"])
    changed.remat, changed.data.rows = choice["remat"], choice["rows"]
    return changed


def _outcome(run: Callable[..., dict[str, Any]], config: ml_collections.ConfigDict) -> dict[str, Any]:
    try:
        result = run(config)
    except ValueError as error:
        return {"reason": str(error), "fits": False}
    seconds = result["step_seconds_estimate"]
    rate = result["rows"] * result["tokens_per_row"] / seconds if seconds else 0.0
    return {"reason": "", "tokens_per_second": rate, **{key: result[key] for key in _KEPT}}


_KEPT = ("fits", "peak_bytes", "step_seconds_estimate", "compile_seconds")


def _best(trials: list[Trial]) -> Trial | None:
    return max((trial for trial in trials if trial["fits"]), key=lambda trial: trial["tokens_per_second"], default=None)
