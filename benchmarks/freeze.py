"""What a frozen vision tower saves: FLOPs, step time and memory of the same step with the tower trained and frozen.

    python benchmarks/freeze.py [--model quickstart] [--rows 8] [--tokens 256] [--patches 512] [--steps 7]

FLOPs are the compiler's cost analysis, which counts the body of a loop once whatever its trip count: compare the two
columns with each other, not with hardware. The two steps alternate, so that a busy machine slows both alike. One JSON
line at the end holds the same figures.
"""

import argparse
import json
import pathlib
import statistics
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from configs import common, sizes
from umit_jax.batch import Batch, fake_batch
from umit_jax.model.config import ModelConfig
from umit_jax.model.param import abstract_params
from umit_jax.parallel.mesh import batch_sharding, global_batch, make_mesh
from umit_jax.parallel.rules import with_shardings
from umit_jax.train import optimizer as optimizers
from umit_jax.train.state import abstract_state, create
from umit_jax.train.step import Compute, make_step

PATTERNS = {"trained": (), "frozen": (("vision/.*", None),)}


def build(config: ModelConfig, patterns: tuple, batch: Batch, compute: Compute) -> tuple[Any, Any, dict[str, float]]:
    """(compiled step, new state, figures known before it runs)."""
    mesh = make_mesh({"data": -1})
    settings = common.train().optimizer
    trained, frozen = optimizers.multipliers(flatten_dict(abstract_params(config), sep="/"), patterns)
    rate = optimizers.schedule(settings, 1000)
    optimizer = optimizers.adamw(settings, rate, trained)
    abstract = abstract_state(config, mesh, optimizer, frozen, compute.dtype)
    placed = with_shardings(batch, Batch(*[batch_sharding(mesh)] * len(batch)))
    compiled = make_step(config, abstract, optimizer, rate, mesh, compute).lower(abstract, placed).compile()
    figures = {
        "flops": compiled.cost_analysis()["flops"],
        "state_bytes": sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(abstract)),
        "optimizer_bytes": sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(abstract.opt)),
        "temporary_bytes": compiled.memory_analysis().temp_size_in_bytes,
    }
    return compiled, create(config, abstract, optimizer, seed=0), figures


def measure(config: ModelConfig, batch: Batch, compute: Compute, steps: int) -> dict[str, dict[str, float]]:
    """Figures of both steps; the first of each is not timed."""
    built = {name: build(config, patterns, batch, compute) for name, patterns in PATTERNS.items()}
    states = {name: state for name, (_, state, _) in built.items()}
    seconds: dict[str, list[float]] = {name: [] for name in built}
    placed = global_batch(make_mesh({"data": -1}), batch)
    for _ in range(steps + 1):
        for name, (compiled, _, _) in built.items():
            started = time.perf_counter()
            states[name], metrics = compiled(states[name], placed)
            jax.block_until_ready((states[name], metrics))
            seconds[name].append(time.perf_counter() - started)
    return {
        name: {**figures, "median_seconds": statistics.median(seconds[name][1:])}
        for name, (_, _, figures) in built.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="quickstart", choices=sizes.SIZES)
    for name, default in (("rows", 8), ("tokens", 256), ("patches", 512), ("steps", 7)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--remat", default="full")
    args = parser.parse_args()
    config = ModelConfig.from_dict(sizes.SIZES[args.model])
    vocabulary = {"vocab_size": config.text.vocab_size, "image_token": config.image_token_id}
    batch = fake_batch(args.rows, args.tokens, args.patches, config.vision.patch_values, **vocabulary)
    dtype = jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
    figures = measure(config, batch, Compute(dtype, args.remat), args.steps)
    out = sys.stdout
    out.write(f"{'':<18}{'trained':>16}{'frozen':>16}{'frozen/trained':>16}\n")
    for key in figures["trained"]:
        trained, frozen = figures["trained"][key], figures["frozen"][key]
        out.write(f"{key:<18}{trained:>16.6g}{frozen:>16.6g}{frozen / trained:>16.3f}\n")
    out.write(json.dumps({"model": args.model, "device": jax.devices()[0].device_kind, **figures}) + "\n")


if __name__ == "__main__":
    main()
