"""The fastest step that fits: meshes first, then what the backward pass keeps, then more rows.

Trying everything with everything would take hours of compilation, so each choice starts from the best of the one
before. Best is the most tokens a second by the roofline of report.py, among what fits. What cannot fit is not compiled:

| left out                               | because                                                          |
| a mesh                                 | the state and a batch alone are more than a device's memory      |
| a remat policy                         | another that keeps less does not fit                             |
| more rows                              | on the line through the two numbers of rows before, it is beyond |
| still more rows                        | the last doubling gained less than a hundredth                   |
"""

import copy
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import ml_collections

from umit_jax.aot.topology import Topology
from umit_jax.model.config import ModelConfig
from umit_jax.model.param import REMAT

log = logging.getLogger(__name__)

Choice = dict[str, Any]  # mesh, remat, rows
Trial = dict[str, Any]  # a choice; then the result of a compilation, or the reason why there is none
Run = Callable[[ml_collections.ConfigDict], dict[str, Any]]

WORTH_MORE_ROWS = 1.01  # a step bound by compute gains nothing from more rows; each doubling is a compilation
_KEPT = ("fits", "peak_bytes", "hbm_bytes", "step_seconds_estimate", "compile_seconds", "compile_cpu_seconds")


def search(
    config: ml_collections.ConfigDict,
    model_config: ModelConfig,
    topology: Topology,
    run: Run,
    *,
    held: Callable[[ml_collections.ConfigDict], int] = lambda config: 0,
    known: Iterable[Trial] = (),
    report: Callable[[Trial], None] = lambda trial: None,
) -> tuple[Trial | None, list[Trial]]:
    """(the best trial or None where nothing fits, all trials in order).

    run: compiles a config and gives report.summarise's result; a ValueError says why the config cannot be. held: bytes
    of a device that its state and batch take. known: trials of a search that was interrupted, which are not run again.
    report: is given each new one.
    """
    earlier = list(known)
    trials: list[Trial] = []
    hbm = topology.chip.hbm_bytes // topology.chip.devices
    devices = topology.chips * topology.chip.devices
    candidates = list(meshes(model_config, devices, topology.slices, config.mesh.context))
    least = len(candidates) + len(REMAT)  # every mesh, every other remat policy, more rows once
    ran: list[float] = []  # seconds of each compilation of this run

    def attempt(mesh: dict[str, int], remat: str, rows: int) -> Trial:
        choice = {"mesh": mesh, "remat": remat, "rows": rows}
        done = _same(trials, choice)
        if done is not None:
            return done
        done = _same(earlier, choice)
        if done is None:
            changed = _changed(config, choice)
            left = _left(ran, least - len(trials))
            log.info("try %d of %d or more%s: %s", len(trials) + 1, least, left, _shown(choice))
            started = time.monotonic()
            done = choice | (_hopeless(choice, trials, hbm) or _outcome(run, held, changed, hbm))
            if not done["reason"]:
                ran.append(time.monotonic() - started)
            report(done)
        trials.append(done)
        log.info("%s", as_line(done))
        return done

    shards = config.data.rows
    for mesh in candidates:
        attempt(mesh, "full", max(shards, mesh["data"] * mesh["fsdp"]))
    best = _best(trials)
    if best is None:
        return None, trials
    for remat in reversed(REMAT):
        attempt(best["mesh"], remat, best["rows"])
    best = _best(trials)
    while best is not None:
        more = attempt(best["mesh"], best["remat"], 2 * best["rows"])
        if not more["fits"] or more["tokens_per_second"] < WORTH_MORE_ROWS * best["tokens_per_second"]:
            break
        best = more
    return _best(trials), trials


def meshes(model_config: ModelConfig, devices: int, slices: int, context: int) -> Iterator[dict[str, int]]:
    """Meshes worth a trial: context as it is asked for, because rows of this length need it or not; tensor as far as
    key-value heads divide, the rest on fsdp, or half of it on data."""
    heads, tensor = (model_config.text.kv_heads, model_config.vision.heads), 1
    while all(count % tensor == 0 for count in heads) and devices // slices % (context * tensor) == 0:
        rest = devices // slices // context // tensor
        yield {"data": slices, "fsdp": rest, "context": context, "tensor": tensor}
        if rest > 64 and rest % 2 == 0:
            yield {"data": 2 * slices, "fsdp": rest // 2, "context": context, "tensor": tensor}
        tensor *= 2


def as_line(trial: Trial) -> str:
    head = _shown(trial)
    if trial["reason"]:
        return f"{head}: {trial['reason']}"
    if not trial["fits"]:
        return f"{head}: does not fit: {trial['peak_bytes'] / 2**30:.2f} GiB"
    return f"{head}: {trial['peak_bytes'] / 2**30:.2f} GiB, {trial['tokens_per_second']:.4g} tokens a second at most"


def _left(ran: list[float], trials: int) -> str:
    """How long so many trials take, if they take as long as those before."""
    return f", {sum(ran) / len(ran) * max(trials, 1) / 60:.1f} minutes left" if ran else ""


def _shown(choice: Choice) -> str:
    mesh = " x ".join(f"{name} {size}" for name, size in choice["mesh"].items())
    return f"{mesh}, remat {choice['remat']}, {choice['rows']} rows"


def _same(trials: list[Trial], choice: Choice) -> Trial | None:
    return next((trial for trial in trials if {key: trial[key] for key in choice} == choice), None)


def _changed(config: ml_collections.ConfigDict, choice: Choice) -> ml_collections.ConfigDict:
    changed = copy.deepcopy(config)
    changed.mesh.update(choice["mesh"])
    changed.remat, changed.data.rows = choice["remat"], choice["rows"]
    return changed


def _hopeless(choice: Choice, trials: list[Trial], hbm: int) -> Trial | None:
    """A trial that says why this choice need not be compiled, from what is known of others; None where it must be."""
    order = list(REMAT)  # from the one that keeps most
    for other in trials:
        keeps_less = other["remat"] in order[order.index(choice["remat"]) + 1 :]
        if keeps_less and not other["fits"] and _same([other], {**choice, "remat": other["remat"]}):
            return _left_out(f"left out: keeps more than remat {other['remat']}, which does not fit")
    known = {t["rows"]: t["peak_bytes"] for t in trials if t["fits"] and _same([t], {**choice, "rows": t["rows"]})}
    rows, half, quarter = (choice["rows"] // part for part in (1, 2, 4))
    if half in known and quarter in known:
        peak = known[half] + (known[half] - known[quarter]) * (rows - half) // (half - quarter)
        if peak > hbm:
            return _left_out(f"left out: would take about {peak / 2**30:.2f} GiB")
    return None


def _outcome(
    run: Run, held: Callable[[ml_collections.ConfigDict], int], config: ml_collections.ConfigDict, hbm: int
) -> Trial:
    try:
        least = held(config)
        if least > hbm:
            return _left_out(f"left out: its state and batch alone take {least / 2**30:.2f} GiB")
        result = run(config)
    except (ValueError, jax.errors.JaxRuntimeError) as error:
        return _left_out(str(error).splitlines()[0])
    seconds = result["step_seconds_estimate"]
    rate = result["rows"] * result["tokens_per_row"] / seconds if seconds else 0.0
    return {"reason": "", "tokens_per_second": rate, **{key: result[key] for key in _KEPT}}


def _left_out(reason: str) -> Trial:
    return {"reason": reason, "fits": False}


def _best(trials: list[Trial]) -> Trial | None:
    return max((trial for trial in trials if trial["fits"]), key=lambda trial: trial["tokens_per_second"], default=None)
