"""`umit eval`: held-out records -> greedy answers -> predictions.jsonl -> scores.json, beside a naive baseline.

Running it again with the same --out after it was killed takes over the answers that are there. The baseline is
learned from the targets of the training split of the same shards and travels in predictions.jsonl, so that `umit score`
repeats everything without a model.
"""

import argparse
import hashlib
import json
import logging
import pathlib
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from launch import config_file, workdir
from launch.cli import UsageError
from launch.score import add_mode

if TYPE_CHECKING:
    from launch.model import LoadedModel

logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    config_file.add_argument(parser)
    parser.add_argument("--checkpoint", type=workdir.path, required=True, help="workdir or one of its checkpoints")
    parser.add_argument("--base", type=workdir.path, help="where the base of a LoRA run is now, if it has moved")
    parser.add_argument("--out", type=workdir.local, required=True, help="directory for predictions and scores")
    add_mode(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    from launch import model as models
    from umit_jax.eval.modes import check_modes
    from umit_jax.eval.predictions import read_predictions
    from umit_jax.eval.score import score, write_scores

    config = config_file.load(args.config, args.overrides)
    check_modes(args.mode)
    workdir.find(args.checkpoint)
    model = models.load(args.checkpoint, base=args.base)
    args.out.mkdir(parents=True, exist_ok=True)
    predictions = args.out / "predictions.jsonl"
    taken_over = _write_predictions(predictions, config, model)
    scores = score(read_predictions(predictions), modes=args.mode)
    write_scores(args.out, scores)
    return {
        "predictions": str(predictions),
        "scores": str(args.out / "scores.json"),
        "breakdown": str(args.out / "breakdown.json"),
        "not_computed": scores.not_computed,
        "n": sum(1 for _ in predictions.open(encoding="utf-8")),
        "taken_over": taken_over,
        "config": json.loads(config.to_json_best_effort()),
    }


def selected(config: Any, directory: pathlib.Path) -> Iterator[Any]:
    """The records of one shard directory that the config asks for, at most `limit` of them, evenly spaced."""
    from data_pipelines.shards import open_shards

    records = [r for r in open_shards(directory, config.split) if r.task in config.tasks]
    step = max(1.0, len(records) / config.limit) if config.limit else 1.0
    yield from (records[int(i * step)] for i in range(int(len(records) / step)))


def _write_predictions(path: pathlib.Path, config: Any, model: "LoadedModel") -> int:
    """Generates and writes every prediction aside, then renames. Returns how many answers were there already."""
    from data_pipelines.example import build_prompt
    from data_pipelines.shards import open_shards
    from umit_jax.eval.baseline import fit
    from umit_jax.eval.partial import PartialAnswers
    from umit_jax.infer.buckets import answer_all

    if not config.sources:
        raise UsageError("--config.sources: no shard directory given, expected (directory, ...)")
    records, truths = [], []
    for source in map(pathlib.Path, config.sources):
        records += selected(config, source)
        truths += [_identity(r) for r in open_shards(source, config.baseline_split) if r.task in config.tasks]
    if not records:
        raise UsageError(f"--config.split: no record of split {config.split!r} for tasks {tuple(config.tasks)}")
    baseline = fit(truths)
    counts = training_words(truths)
    prompts = [build_prompt(r, model.tokenizer, model.processing) for r in records]
    limits = [config.max_new_tokens[r.task] for r in records]
    partial = PartialAnswers(path.with_name(".answers.partial.jsonl"), _key(config, model), [r.id for r in records])
    taken_over = len(partial.known)
    answers = answer_all(
        model.config,
        model.params,
        prompts,
        max_new_tokens=limits,
        eos_ids=model.tokenizer.eos_ids,
        rows=config.rows,
        known=dict(partial.known),
        report=partial.add,
    )
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
        for record, prompt, ids in zip(records, prompts, answers, strict=True):
            text = model.tokenizer.decode(ids).strip()
            line = _prediction(record, prompt.spoken, text, baseline) | rare_words(record, counts)
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    pathlib.Path(file.name).chmod(0o644)
    pathlib.Path(file.name).replace(path)
    partial.remove()
    return taken_over


def _key(config: Any, model: "LoadedModel") -> str:
    """A hash of all that the answers depend on."""
    from data_pipelines.shards import open_shards
    from umit_jax import __version__
    from umit_jax.train.weights import fingerprint

    shards = [shard["sha256"] for d in config.sources for shard in open_shards(pathlib.Path(d), config.split).shards]
    settings = {key: value for key, value in config.to_dict().items() if key != "baseline_split"}
    parts = [__version__, fingerprint(model.checkpoint.path), model.config.to_hf(), model.tokenizer.fingerprint]
    parts += [model.processing.to_json(), shards, settings]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=list).encode()).hexdigest()


def training_words(truths: list[dict[str, Any]]) -> dict[str, Any]:
    """Words of the English training reports of each data set, counted: mode r2gen hides the rare ones."""
    from umit_jax.eval.metrics.r2gen import count_words

    reports: dict[str, list[str]] = {}
    for item in truths:
        if _is_english_report(item["task"], item["language"], item["target"]):
            reports.setdefault(item["dataset"], []).append(item["target"]["text"])
    return {dataset: count_words(texts, dataset) for dataset, texts in reports.items()}


def rare_words(record: Any, counts: dict[str, Any]) -> dict[str, list[str]]:
    from umit_jax.eval.metrics import r2gen

    if record.dataset not in counts or not _is_english_report(record.task, record.language, record.target):
        return {}
    return {"rare_words": r2gen.rare_words(record.target["text"], record.dataset, counts[record.dataset])}


def _is_english_report(task: str, language: str, target: dict[str, Any]) -> bool:
    return task == "report" and language == "en" and target["kind"] == "text"


def _identity(record: Any) -> dict[str, Any]:
    keys = ("id", "task", "dataset", "language", "topic", "patient_id", "heldout", "synthetic")
    return {**{key: getattr(record, key) for key in keys}, "target": record.target}


def _prediction(record: Any, spoken: Any, text: str, baseline: Any) -> dict[str, Any]:
    """One line. spoken: the frame in which the model was shown to say 2D boxes, None for 0-1000."""
    from data_pipelines.spoken import spoken_target
    from umit_jax.eval.parse import parse

    item = _identity(record)
    truth = item.pop("target")
    if truth["kind"] == "text":  # boxes inside a text are compared as text, so they must speak the same frame
        truth = spoken_target(record, spoken)
    return {
        **item,
        "modality": "+".join(dict.fromkeys(media.modality for media in record.media)) or None,
        "prompt": record.turns[-2].text,
        "text": text,
        "parsed": parse(text, truth, record.language, spoken),
        "truth": truth,
        **({} if spoken is None else {"spoken": spoken.to_json()}),
        "baseline": baseline.predict({**item, "target": truth}),
    }
