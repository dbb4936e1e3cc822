"""`umit eval`: held-out records -> answers with likelihoods -> predictions.jsonl -> scores.json, report.html.

Any number of processes and any mesh give the same predictions; the first process writes them. Running it again with the
same --out after it was killed takes over the answers that are there. The baseline is learned from the targets of the
training split of the same shards and travels in predictions.jsonl, so that `umit score` repeats everything without a
model.
"""

import argparse
import collections
import hashlib
import json
import logging
import pathlib
import tempfile
from typing import TYPE_CHECKING, Any

from launch import answers, config_file, prediction, processes, workdir
from launch.score import add_scoring, write_files
from launch.summary import config_hash, write_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jax.sharding import Mesh

    from data_pipelines.questions import Place, Questions
    from launch.model import LoadedModel
    from umit_jax.eval.score import Scores
    from umit_jax.infer.buckets import Answer

logger = logging.getLogger(__name__)
_WITHOUT_EFFECT = ("baseline_split", "mesh", "report")  # on the answers


def add_arguments(parser: argparse.ArgumentParser) -> None:
    config_file.add_argument(parser)
    parser.add_argument("--checkpoint", type=workdir.path, required=True, help="workdir or one of its checkpoints")
    parser.add_argument("--base", type=workdir.path, help="where the base of a LoRA run is now, if it has moved")
    parser.add_argument("--out", type=workdir.local, required=True, help="directory for predictions and scores")
    text = "also ask in other ways: blank, swap, options, negated, flip, corrupt:NAME:SEVERITY (docs/metrics.md)"
    parser.add_argument("--robustness", nargs="+", default=[], metavar="WAY", help=text)
    add_scoring(parser)


def run(args: argparse.Namespace) -> dict[str, Any] | None:
    import jax

    from data_pipelines.robustness import check_name
    from launch import model as models
    from umit_jax.compilations import compilations
    from umit_jax.eval.modes import check_modes
    from umit_jax.eval.predictions import variant_files
    from umit_jax.parallel.barrier import first_alone
    from umit_jax.parallel.mesh import make_mesh

    config = config_file.load(args.config, args.overrides)
    check_modes(args.mode)
    args.robustness = list(dict.fromkeys(map(check_name, args.robustness)))
    processes.join()
    first = jax.process_index() == 0
    if not first:
        logging.getLogger().setLevel(logging.WARNING)  # what all of them would say, the first one says
    workdir.find(args.checkpoint)
    mesh = make_mesh(config.mesh)
    places = answers.places(config)
    model = models.load(args.checkpoint, base=args.base, mesh=mesh, dtype=config.compute_dtype)
    predictions = args.out / "predictions.jsonl"
    if first:
        args.out.mkdir(parents=True, exist_ok=True)
        for stale in variant_files(predictions)[0]:
            stale.unlink()  # of an earlier run, perhaps of another model
    with compilations("prefill", "decode", "option_logps") as compiled:
        done = _predict(args, places, config, model, mesh)
    summary = None
    with first_alone("scores"):  # the others wait: jax ends all processes soon after the first to leave
        if first:
            summary = _score(args, predictions, places, config, model)
            summary |= done | {"compilations": len(compiled)}
            summary |= {"processes": jax.process_count(), "mesh": dict(mesh.shape)}
            summary |= {"config": json.loads(config.to_json_best_effort())}
    return summary


def _score(
    args: argparse.Namespace, predictions: pathlib.Path, places: "list[Place]", config: Any, model: "LoadedModel"
) -> dict[str, Any]:
    from launch import report
    from umit_jax.eval.predictions import read_predictions
    from umit_jax.eval.report_html.pictures import FOLDER

    read = read_predictions(predictions)

    def page(path: pathlib.Path, scores: "Scores", other_ways: "Sequence[dict[str, Any]]") -> dict[str, Any]:
        pictures = args.out / FOLDER
        return report.of_evaluation(path, pictures, read, scores, places, model.checkpoint, config.report, other_ways)

    return {"predictions": str(predictions), "n": len(read)} | write_files(args, predictions, read, page)


def _predict(
    args: argparse.Namespace, places: "list[Place]", config: Any, model: "LoadedModel", mesh: "Mesh"
) -> dict[str, Any]:
    """Generates and writes the predictions, as they are and in each way of args.robustness, aside and then renamed.
    Returns how many answers were there already and why how many questions were left out."""
    import jax

    from data_pipelines.questions import Questions
    from umit_jax.eval.partial import PartialAnswers
    from umit_jax.eval.predictions import variant_path

    key = _key(config, model)  # in every process: Orbax reads together
    main = Questions(places, model.tokenizer, model.processing)
    partials, left_out, taken_over = [], {}, 0
    for name in ("", *args.robustness):
        questions = main if not name else _changed(name, main, places, config, model)
        left_out |= {name: _counted(questions.left_out)} if name else {}
        if jax.process_index() > 0:
            answers.answer(questions, config, model, mesh)
            continue
        path = args.out / "predictions.jsonl"
        path = variant_path(path, name) if name else path
        ids = [asked.record.id for asked in questions.asked]
        partial = PartialAnswers(path.with_name(f".answers.{path.stem}.partial.jsonl"), f"{key} {name}", ids)
        partials.append(partial)
        taken_over += len(partial.known)
        found = answers.answer(questions, config, model, mesh, known=dict(partial.known), report=partial.add)
        about = {"variant": name} if name else {}
        about |= {"seed": config.seed, "config_hash": config_hash(_settings(config)), "run": key[:16]}
        _write(path, questions, found, config, model, about)
        if name:
            write_json(path.with_suffix(".left_out.json"), [{"id": i, "reason": r} for i, r in questions.left_out])
    for partial in partials:  # not before: a run that is killed in a later one would begin again
        partial.remove()
    return {"taken_over": taken_over, **({"left_out": left_out} if left_out else {})}


def _changed(name: str, main: "Questions", places: "list[Place]", config: Any, model: "LoadedModel") -> "Questions":
    """The questions asked in another way."""
    from data_pipelines.questions import Questions
    from data_pipelines.robustness import change, key_of, others

    instead = others([asked.record for asked in main.asked], config.seed)

    def other(record: Any) -> Any:
        shards, index = places[instead[key_of(record)]] if key_of(record) in instead else (None, 0)
        return None if shards is None else shards[index]

    return Questions(places, model.tokenizer, model.processing, lambda record: change(record, name, config.seed, other))


def _counted(left_out: list[tuple[str, str]]) -> dict[str, int]:
    return dict(collections.Counter(reason for _, reason in left_out))


def _write(
    path: pathlib.Path,
    questions: "Questions",
    found: "list[Answer]",
    config: Any,
    model: "LoadedModel",
    about: dict[str, Any],
) -> None:
    from data_pipelines.shards import open_shards
    from umit_jax.eval.baseline import fit

    training = [open_shards(pathlib.Path(directory), config.baseline_split) for directory in config.sources]
    records = (shards[i] for shards in training for i in range(len(shards)))
    truths = [prediction.identity(record) for record in records if record.task in config.tasks]
    baseline, counts = fit(truths), prediction.training_words(truths)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
        for asked, answer in zip(questions.asked, found, strict=True):
            line = prediction.line(asked, answer, model.tokenizer, baseline, tuple(config.stop))
            line |= prediction.rare_words(asked.record, counts) | about
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    pathlib.Path(file.name).chmod(0o644)
    pathlib.Path(file.name).replace(path)


def _settings(config: Any) -> dict[str, Any]:
    return {key: value for key, value in config.to_dict().items() if key not in _WITHOUT_EFFECT}


def _key(config: Any, model: "LoadedModel") -> str:
    """A hash of all that the answers depend on."""
    from data_pipelines.shards import open_shards
    from umit_jax import __version__
    from umit_jax.train.weights import fingerprint

    shards = [shard["sha256"] for d in config.sources for shard in open_shards(pathlib.Path(d), config.split).shards]
    parts = [__version__, fingerprint(model.checkpoint.path), model.config.to_hf(), model.tokenizer.fingerprint]
    parts += [model.processing.to_json(), shards, _settings(config)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=list).encode()).hexdigest()
