"""`umit train`: one stage. Reads top to bottom: tokenizer -> model config -> data stream -> training loop.

The parameters start from, in this order: 1. the newest checkpoint of this workdir (resume, optimizer and data
position included); 2. config.init_from, a checkpoint or a Hugging Face directory; 3. random initialisation.
"""

import argparse
import dataclasses
import json
import logging
import pathlib
import shutil
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import ml_collections

from data_pipelines.paths import as_path, is_remote
from launch import config_file, import_hf, processes, workdir
from launch.cli import UsageError
from launch.held_out import HeldOut
from launch.sources import source_weights
from launch.summary import write_json

if TYPE_CHECKING:
    from umit_jax.convert.from_hf import HfModel
    from umit_jax.model.config import ModelConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    config_file.add_argument(parser)
    parser.add_argument(
        "--workdir",
        type=workdir.path,
        required=True,
        help="checkpoints and logs, also gs://...; resumes if not empty",
    )


def run(args: argparse.Namespace) -> dict[str, Any] | None:
    import jax

    from data_pipelines import chat_template
    from data_pipelines.mixture import make_stream
    from launch import model as models
    from umit_jax.model.lora import Lora, plan
    from umit_jax.parallel.barrier import first_alone
    from umit_jax.parallel.mesh import data_process, make_mesh
    from umit_jax.train.loop import train

    config = config_file.load(args.config, args.overrides)
    processes.join()
    if jax.process_index() > 0:
        logging.getLogger().setLevel(logging.WARNING)  # what all of them would say, the first one says
    sources, caps = source_weights(config.data)
    start = _find_start(config)
    model_dir = args.workdir / "model"
    with first_alone("model"):
        if not (model_dir / "config.json").is_file():
            _write_model_dir(model_dir, config, sources, start)
    model_config, tokenizer, processing = models.load_companions(workdir.local_copy(model_dir))
    chat_template.check(tokenizer)
    lora = Lora.from_config(config.lora)
    if lora is not None:
        plan(
            dataclasses.replace(model_config, lora=lora)
        )  # a wrong pattern is named before the data are looked through
    mesh = make_mesh(config.mesh)
    process_index, process_count = data_process(mesh)
    with first_alone("lengths"):
        stream = make_stream(
            config.data,
            sources,
            tokenizer,
            processing,
            caps=caps,
            seed=config.seed,
            cache_dir=args.workdir / "cache",
            process_index=process_index,
            process_count=process_count,
        )
    if config.epochs > 0:
        config.steps = stream.steps_of_epochs(config.epochs)
    held_out = HeldOut(config, sources, tokenizer, processing, mesh) if config.evaluate.every > 0 else None
    weights = _weights(start, model_config)
    summary = train(config, model_config, stream, args.workdir, mesh, **weights, held_out=held_out)
    if jax.process_index() > 0:
        return None
    return {**summary, "config": json.loads(config.to_json_best_effort())}


def _find_start(config: ml_collections.ConfigDict) -> "workdir.Checkpoint | HfModel | None":
    """What config.init_from names: a workdir, one of its checkpoints, or a Hugging Face directory."""
    directory = as_path(config.init_from or "")
    if not config.init_from:
        if config.lora.rank > 0:
            raise UsageError("--config.init_from: a LoRA run needs a base: expected a workdir, found none")
        return None
    if not (directory / "config.json").is_file() or not any(directory.glob("*.safetensors")):
        return workdir.find(directory, "--config.init_from")
    if is_remote(directory):
        raise UsageError(f"--config.init_from: {directory}: a Hugging Face directory is read from this machine")
    if config.lora.rank > 0:
        raise UsageError(f"--config.init_from: {directory}: a LoRA run names its base: make one with umit import")
    return import_hf.open_directory(directory)


def _weights(start: "workdir.Checkpoint | HfModel | None", model_config: "ModelConfig") -> dict[str, Any]:
    """Where `train` takes its first parameters from; each process reads its own part of them."""
    from umit_jax.convert.from_hf import place
    from umit_jax.train.base import Base
    from umit_jax.train.weights import load_weights

    if start is None:
        return {}
    if not isinstance(start, workdir.Checkpoint):
        return {"init_params": lambda shardings: place(start, shardings)}
    load = lambda shardings: load_weights(start.path, model_config, shardings)  # noqa: E731
    return {"init_params": load, "base": Base(start.path)}


def _write_model_dir(
    model_dir: pathlib.Path,
    config: ml_collections.ConfigDict,
    sources: dict,
    start: "workdir.Checkpoint | HfModel | None",
) -> None:
    """Writes everything of the model but its weights, aside and then renamed."""
    from configs import sizes
    from data_pipelines.example import Processing
    from data_pipelines.tokenizer import load_tokenizer, train_sentencepiece
    from umit_jax.model import families
    from umit_jax.model.config import ModelConfig

    if config.tokenizer_records < 1:
        raise UsageError(f"--config.tokenizer_records: expected at least 1, found {config.tokenizer_records}")
    model_dir.parent.mkdir(parents=True, exist_ok=True)
    beside = None if is_remote(model_dir) else model_dir.parent
    aside = pathlib.Path(tempfile.mkdtemp(dir=beside, prefix=".model."))
    try:
        if config.tokenizer:
            load_tokenizer(pathlib.Path(config.tokenizer)).save(aside)
        elif isinstance(start, workdir.Checkpoint):
            shutil.copytree(start.model_dir, aside, dirs_exist_ok=True)
        elif start is not None:
            import_hf.write_model_dir(start, aside)
        else:
            texts = _texts(sources, config.tokenizer_records)
            train_sentencepiece(texts, aside, config.vocab_size, phrases=config.tokenizer_phrases)
        if start is not None:
            if isinstance(start, workdir.Checkpoint):
                model_config = ModelConfig.from_hf(workdir.read_json(start.model_dir / "config.json"))
            else:
                model_config = start.config
            write_json(aside / "config.json", model_config.to_hf())
        else:
            tokenizer = load_tokenizer(aside)
            model_config = sizes.model_config(config.model, tokenizer, **config.model_overrides.to_dict())
            write_json(aside / "config.json", model_config.to_hf())
        data = config.data
        processing = Processing(
            min_pixels=data.min_pixels,
            max_pixels=data.max_pixels,
            total_pixels=data.total_pixels,
            volume_as=data.volume_as,
            **families.host_numbers(model_config),
        )
        write_json(aside / "preprocess.json", processing.to_json())
        aside.chmod(0o755)
        if beside:
            aside.rename(model_dir)
        else:
            _upload(aside, model_dir)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def _upload(folder: pathlib.Path, model_dir: pathlib.Path) -> None:
    """Into a bucket, config.json last: where that is, all is."""
    for file in sorted(folder.iterdir(), key=lambda file: file.name == "config.json"):
        (model_dir / file.name).write_bytes(file.read_bytes())
    shutil.rmtree(folder)


def _texts(sources: dict[pathlib.Path, float], most: int) -> Iterator[str]:
    """The turns of the training split, all tasks: the corpus a tokenizer is trained on. Of each source at most `most`
    records, evenly spaced: time and memory grow with all of them (docs/log.md).

    Sentencepiece counts a line that comes again once, so the fixed words of the chat format stand before every turn.
    """
    from data_pipelines.chat import SYSTEM
    from data_pipelines.shards import open_shards

    for directory in sources:
        records = open_shards(directory, "train")
        step = max(1.0, len(records) / most)
        for i in range(int(len(records) / step)):
            for turn in records[int(i * step)].turns:
                yield turn.text
                yield from (f"{words}{turn.text}" for words in (SYSTEM, "system", turn.role))
