"""`umit compile`: the training step of a config compiled for a TPU slice, on a machine that has no TPU.

The compiler is the real one, from the package libtpu; docs/pods.md holds what it said of each size and slice.
"""

import argparse
import ctypes
import importlib.metadata
import json
import pathlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import ml_collections

from launch import config_file, workdir
from launch.summary import config_hash
from umit_jax import __version__

if TYPE_CHECKING:
    from umit_jax.aot.topology import Topology
    from umit_jax.model.config import ModelConfig

_ARENA_MAX = -8  # of mallopt(3)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    config_file.add_argument(parser)
    parser.add_argument("--topology", required=True, metavar="NAME", help="v5e-256, v5p-512, v5e:16x16, ...")
    parser.add_argument("--slices", type=int, default=1, help="slices of this topology, joined by the data axis")
    parser.add_argument(
        "--search",
        action="store_true",
        help="try meshes, remat policies and more rows, print the fastest that fits; with --out it can be interrupted",
    )
    parser.add_argument("--out", type=pathlib.Path, help="directory for summary.json and the program, step.hlo.txt")


def run(args: argparse.Namespace) -> dict[str, Any]:
    share_heap()
    from umit_jax.aot import report, topology
    from umit_jax.aot.compile import compile_step

    config = config_file.load(args.config, args.overrides)
    slices = topology.parse(args.topology, args.slices)
    model_config = _model_config(config)
    slices.devices()  # refused before anything is written
    if args.out is not None:
        args.out.mkdir(parents=True, exist_ok=True)
    programs: dict[str, str | None] = {}

    def compiled(config: ml_collections.ConfigDict) -> dict[str, Any]:
        step = compile_step(config, model_config, slices, config.mesh)
        programs["last"] = step.hlo
        return report.summarise(config, model_config, slices, step)

    if args.search:
        result = _search(config, model_config, slices, compiled, args.out)
    else:
        result = compiled(config)
        print(report.as_text(result))
        if args.out is not None and programs["last"] is not None:
            (args.out / "step.hlo.txt").write_text(programs["last"], encoding="utf-8")
    return {**result, "config": json.loads(config.to_json_best_effort())}


def share_heap() -> None:
    """From here on all threads of this process allocate from one heap. glibc would give each its own, and what the
    compiler frees in one is of no use to the others; of other C libraries nothing is known."""
    adjust = getattr(ctypes.CDLL(None), "mallopt", None)
    if adjust is not None:
        adjust(_ARENA_MAX, 1)


def _search(
    config: ml_collections.ConfigDict,
    model_config: "ModelConfig",
    slices: "Topology",
    compiled: Callable[[ml_collections.ConfigDict], dict[str, Any]],
    out: pathlib.Path | None,
) -> dict[str, Any]:
    """The search; with a directory, one that was interrupted goes on: each trial is a line of trials.jsonl in it."""
    from umit_jax.aot.compile import held_bytes
    from umit_jax.aot.search import as_line, search
    from umit_jax.journal import Journal

    def held(config: ml_collections.ConfigDict) -> int:
        return held_bytes(config, model_config, slices, config.mesh)

    keeping: dict[str, Any] = {}
    if out is not None:
        versions = [__version__, *(importlib.metadata.version(name) for name in ("jax", "jaxlib", "libtpu"))]
        key = config_hash([config.to_dict(), model_config.to_hf(), slices.name, slices.slices, versions])
        journal = Journal(out / "trials.jsonl", key, "trials of another config, slice or compiler")
        keeping = {"known": journal.entries, "report": lambda trial: journal.add([trial])}
    best, trials = search(config, model_config, slices, compiled, held=held, **keeping)
    print(f"best: {as_line(best)}" if best else "nothing fits")
    return {"best": best, "trials": trials}


def _model_config(config: ml_collections.ConfigDict) -> "ModelConfig":
    """The shape of the model that this config trains: init_from's, or a size, with its own or a tokenizer's vocabulary.

    A tokenizer that training would make from the corpus is not known here: the size's own vocabulary stands for it.
    """
    from configs import sizes
    from umit_jax.model.config import ModelConfig

    if config.init_from:
        directory = pathlib.Path(config.init_from)
        if not (directory / "config.json").is_file():
            directory = workdir.find(directory, "--config.init_from").model_dir
        return ModelConfig.from_hf(workdir.read_json(directory / "config.json"))
    if config.tokenizer:
        from data_pipelines.tokenizer import load_tokenizer

        return sizes.model_config(
            config.model, load_tokenizer(pathlib.Path(config.tokenizer)), **config.model_overrides.to_dict()
        )
    return sizes.published(config.model, **config.model_overrides.to_dict())
