"""One line of predictions.jsonl: what was asked, what was said, what is true, and how sure the model was."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from data_pipelines.questions import Asked
    from data_pipelines.tokenizer import Tokenizer
    from umit_jax.eval.baseline import Baseline
    from umit_jax.infer.buckets import Answer


def line(
    asked: "Asked", answer: "Answer", tokenizer: "Tokenizer", baseline: "Baseline | None", stop: tuple[str, ...] = ()
) -> dict[str, Any]:
    """baseline: None where none is wanted. scores: the probability of each option or box, as
    umit_jax/eval/predictions.py has them."""
    from data_pipelines.spoken import spoken_target
    from umit_jax.eval.confidence import box_confidences
    from umit_jax.eval.parse import parse
    from umit_jax.infer.score import probabilities

    record, spoken = asked.record, asked.spoken
    item = identity(record)
    truth = item.pop("target")
    if truth["kind"] == "text":  # boxes inside a text are compared as text, so they must speak the same frame
        truth = spoken_target(record, spoken)

    def text_of(tokens: Any) -> str:
        return before(tokenizer.decode(list(tokens)), stop).strip()

    def read(text: str) -> Any:
        return parse(text, truth, record.language, spoken)

    scores = None
    if answer.options is not None:
        scores = probabilities(answer.options)
    elif truth["kind"] == "boxes":
        scores = box_confidences(answer.tokens, answer.logps, text_of, read)
    text = text_of(answer.tokens)
    return {
        **item,
        "modality": "+".join(dict.fromkeys(media.modality for media in record.media)) or None,
        "images": list(asked.images),
        "prompt": record.turns[-2].text,
        "text": text,
        "parsed": read(text),
        "truth": truth,
        **({} if scores is None else {"scores": scores}),
        **({} if spoken is None else {"spoken": spoken.to_json()}),
        "baseline": None if baseline is None else baseline.predict({**item, "target": truth}),
    }


def before(text: str, stop: tuple[str, ...]) -> str:
    """The text up to the first of the strings that end an answer."""
    places = [place for word in stop if (place := text.find(word)) >= 0]
    return text[: min(places, default=len(text))]


def identity(record: Any) -> dict[str, Any]:
    keys = ("id", "task", "dataset", "language", "topic", "patient_id", "heldout", "synthetic")
    return {**{key: getattr(record, key) for key in keys}, "target": record.target}


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
