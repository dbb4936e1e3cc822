"""What a LoRA run holds, by size and kind of base, and what a quantised base changes in the logits.

    python benchmarks/lora.py [--sizes 2b 7b] [--rank 16] [--error-model quickstart]

Bytes of base, trained parameters and optimizer follow from shapes (no array is made); "arguments" is what XLA's
compiler says a program that takes this state needs, so that packed uint4 is seen as it is stored. The error compares
final logits of a random model with its base in float32 and quantised, relative to their root mean square.
"""

import argparse
import dataclasses
import json
import math
import pathlib
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from configs import common, sizes
from umit_jax.batch import fake_batch
from umit_jax.model.config import ModelConfig
from umit_jax.model.lora import Lora, start, trainable
from umit_jax.model.param import abstract_params, bind, init_params
from umit_jax.parallel.mesh import make_mesh
from umit_jax.train import optimizer as optimizers
from umit_jax.train.state import abstract_state

KINDS = ("full", "lora", "int8", "nf4")


def held(config: ModelConfig) -> dict[str, Any]:
    """Bytes of the training state on one device, with bfloat16 for what is frozen."""
    paths = flatten_dict(abstract_params(config), sep="/").keys()
    trains = None if config.lora is None else trainable(config)
    trained, frozen = optimizers.multipliers(paths, (), trains)
    settings = common.train().optimizer
    optimizer = optimizers.adamw(settings, optimizers.schedule(settings, 1000), trained)
    state = abstract_state(config, make_mesh({"data": 1}, jax.devices()[:1]), optimizer, frozen, jnp.bfloat16)
    taken = jax.jit(lambda state: state, keep_unused=True).lower(state).compile().memory_analysis()
    return {
        "trained": sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        "frozen_bytes": size(state.frozen),
        "trained_bytes": size(state.params),
        "optimizer_bytes": size(state.opt),
        "state_bytes": size(state),
        "argument_bytes": taken.argument_size_in_bytes,
    }


def size(tree: Any) -> int:
    return sum(leaf.size * bits(leaf.dtype) for leaf in jax.tree.leaves(tree)) // 8


def bits(dtype: Any) -> int:
    return jnp.iinfo(dtype).bits if jnp.issubdtype(dtype, jnp.integer) else jnp.finfo(dtype).bits


def error(config: ModelConfig) -> float:
    """Relative error of the logits that the quantised base of `config` makes."""
    plain = dataclasses.replace(config, lora=None)
    base = init_params(plain, jax.random.key(0))
    batch = fake_batch(2, 64, 64, plain.vision.patch_values, vocab_size=plain.text.vocab_size, image_token=1, seed=0)

    def logits(config: ModelConfig, params: Any) -> np.ndarray:
        def run(params: Any, batch: Any) -> jax.Array:
            model = bind(config, params)
            return model.hidden(batch) @ model.head_VD().T

        return np.asarray(jax.jit(run)(params, batch))[np.asarray(batch.segments_BS) > 0]

    expected = logits(plain, base)
    found = logits(config, start(config, base, jax.random.key(1)))
    return float(math.sqrt(np.mean((found - expected) ** 2) / np.mean(expected**2)))


def with_lora(config: ModelConfig, kind: str, rank: int) -> ModelConfig:
    if kind == "full":
        return config
    return dataclasses.replace(config, lora=Lora(rank, 2.0 * rank, quantize="none" if kind == "lora" else kind))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", nargs="+", default=["2b", "7b"], choices=list(sizes.SIZES))
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--error-model", default="quickstart", choices=list(sizes.SIZES))
    args = parser.parse_args()
    figures: dict[str, Any] = {}
    sys.stdout.write("| size | base | trained | frozen GB | trained GB | optimizer GB | state GB | arguments GB |\n")
    for name in args.sizes:
        for kind in KINDS:
            row = held(with_lora(ModelConfig.from_dict(sizes.SIZES[name]), kind, args.rank))
            figures[f"{name} {kind}"] = row
            numbers = [row[key] / 1e9 for key in row if key.endswith("_bytes")]
            cells = " | ".join(f"{number:.2f}" for number in numbers)
            sys.stdout.write(f"| {name} | {kind} | {row['trained'] / 1e6:.1f} M | {cells} |\n")
    for kind in KINDS[2:]:
        config = with_lora(ModelConfig.from_dict(sizes.SIZES[args.error_model]), kind, args.rank)
        figures[f"error {kind}"] = error(config)
        sys.stdout.write(f"{kind}: relative error of the logits {figures[f'error {kind}']:.4f} ({args.error_model})\n")
    sys.stdout.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()
