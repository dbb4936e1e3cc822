"""How the cost of our step grows: with tokens a row, rows a step, layers and devices (run by benchmarks/train.py).

A model of about a million parameters on generated batches, float32 on CPU devices; one thing varies at a time. The
steps of all variants of a thing take turns, and each variant is told as its CPU-seconds over those of the first.
Devices are fake ones that share the machine's cores, so that what grows with them is what the splitting costs.
"""

import json
import os
import pathlib
import statistics
import subprocess
import sys
import time
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

BASE = {"tokens": 512, "rows": 8, "layers": 4, "devices": 1}
VARY = {"tokens": (256, 512, 1024, 2048), "rows": (4, 8, 16, 32), "layers": (2, 4, 8, 16), "devices": (1, 2, 4, 8)}
STEPS = 2  # of a turn


def scaling(rounds: int) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for thing, values in VARY.items():
        processes, compiled = {}, {}
        for value in values:
            settings = BASE | {thing: value}
            flags = f"--xla_force_host_platform_device_count={settings['devices']}"
            processes[value] = subprocess.Popen(
                [sys.executable, __file__, json.dumps(settings)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags},
            )
            compiled[value] = _answer(processes[value])
        spent: dict[int, list[float]] = {value: [] for value in values}
        for _ in range(rounds):
            for value, process in processes.items():
                spent[value].append(_ask(process))
        for process in processes.values():
            assert process.stdin
            process.stdin.close()
            process.wait()
        medians = {value: statistics.median(times) for value, times in spent.items()}
        out[thing] = {
            value: {
                "cpu_seconds_a_step": round(median, 3),
                "over_first": round(median / medians[values[0]], 2),
                "compile_cpu_seconds": round(compiled[value], 1),
            }
            for value, median in medians.items()
        }
        print(thing, json.dumps(out[thing]), file=sys.stderr, flush=True)
    return {"base": BASE, **out}


def _ask(process: Any) -> float:
    process.stdin.write("turn\n")
    process.stdin.flush()
    return _answer(process)


def _answer(process: Any) -> float:
    line = process.stdout.readline()
    if not line:
        raise SystemExit(f"a process ended with status {process.wait()}")
    return float(line)


def worker(settings: dict[str, int]) -> None:
    """CPU-seconds of the compilation, then for every line on stdin those of a step."""
    import jax.numpy as jnp
    from flax.traverse_util import flatten_dict

    from configs import common, sizes
    from umit_jax.batch import fake_batch
    from umit_jax.model.config import ModelConfig
    from umit_jax.model.param import abstract_params
    from umit_jax.parallel.mesh import abstract_batch, global_batch, make_mesh
    from umit_jax.train import optimizer as optimizers
    from umit_jax.train.state import abstract_state, create
    from umit_jax.train.step import Compute, make_step

    config = ModelConfig.from_dict(sizes.SIZES["quickstart"], {"text.layers": settings["layers"]})
    shape = settings["rows"], settings["tokens"], settings["tokens"], config.vision.patch_values
    batch = fake_batch(*shape, vocab_size=config.text.vocab_size, image_token=config.image_token_id)
    mesh, adam = make_mesh({"fsdp": -1}), common.train().optimizer
    trained, frozen = optimizers.multipliers(flatten_dict(abstract_params(config), sep="/"), (("vision/.*", None),))
    rate = optimizers.schedule(adam, 1000)
    optimizer, compute = optimizers.adamw(adam, rate, trained), Compute(jnp.dtype("float32"), "full")
    abstract = abstract_state(config, mesh, optimizer, frozen, compute.dtype)
    run = make_step(config, abstract, optimizer, rate, mesh, compute)
    state = create(config, abstract, optimizer, 0)
    began = time.process_time()
    run.lower(state, abstract_batch(mesh, *shape)).compile()
    print(time.process_time() - began, flush=True)
    placed = global_batch(mesh, batch)
    state, metrics = run(state, placed)
    float(metrics["loss_sum"])
    for _ in sys.stdin:
        began = time.process_time()
        for _ in range(STEPS):
            state, metrics = run(state, placed)
            float(metrics["loss_sum"])
        print((time.process_time() - began) / STEPS, flush=True)


if __name__ == "__main__":
    worker(json.loads(sys.argv[1]))
