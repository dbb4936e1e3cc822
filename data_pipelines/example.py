"""Record -> Example: one conversation tokenised, its media cut into patches, everything still ragged.

`outline` does all that needs no pixels: it is what `lengths.py` counts and what `build_example` fills in, so a planned
length is the built one by construction. A vision span is shrunk or refused, never cut.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from data_pipelines import chat
from data_pipelines.image import ImageError, Processing, Span, patch_hw, plan_spans, span_patches
from data_pipelines.positions import mrope_positions
from data_pipelines.record import Record
from data_pipelines.tokenizer import Tokenizer

__all__ = ["Example", "ExampleError", "Limits", "Outline", "Processing", "build_example", "build_prompt", "outline"]


class ExampleError(ValueError):
    """A record that cannot become an example; `reason` is a short phrase for counting, the message names the record."""

    def __init__(self, record: Record, reason: str, detail: str = "") -> None:
        super().__init__(f"record {record.id!r}: {reason}" + (f": {detail}" if detail else ""))
        self.reason = reason


@dataclasses.dataclass(frozen=True)
class Limits:
    """What one packed row holds; media of a sample are shrunk until it fits."""

    tokens: int
    patches: int


@dataclasses.dataclass
class Example:
    """Dims: S tokens, P patches, C values per patch. Dtypes as in umit_jax.batch; segments count from 1.

    targets_S is the token that follows; weights_S is 1 where that token is part of an answer. vision_index_S numbers
    the merged patches (four consecutive ones) of this sample from 0, -1 = text.
    """

    id: str
    task: str
    dataset: str
    tokens_S: np.ndarray
    positions_S3: np.ndarray
    targets_S: np.ndarray
    weights_S: np.ndarray
    patches_PC: np.ndarray
    patch_hw_P2: np.ndarray
    patch_segments_P: np.ndarray
    vision_index_S: np.ndarray

    @property
    def nbytes(self) -> int:
        return sum(value.nbytes for value in vars(self).values() if isinstance(value, np.ndarray))


@dataclasses.dataclass(frozen=True)
class Outline:
    """A sample but for its pixels: ids with one pad token per span, which of them are learned, and the spans."""

    ids: list[int]
    learned: list[bool]
    spans: list[Span]
    merge: int

    @property
    def vision_tokens(self) -> int:
        return sum(span.tokens(self.merge) for span in self.spans)

    @property
    def text_tokens(self) -> int:
        return len(self.ids) - len(self.spans)

    @property
    def tokens(self) -> int:
        return self.text_tokens + self.vision_tokens

    @property
    def patches(self) -> int:
        return self.vision_tokens * self.merge**2


def outline(
    record: Record,
    tokenizer: Tokenizer,
    processing: Processing,
    limits: Limits | None = None,
    *,
    prompt: bool = False,
) -> Outline:
    """The sample without its pixels. Raises ExampleError when it cannot be made, or not within the limits."""
    as_video = processing.volume_as == "video"
    videos = [[True] if media.kind == "volume" and as_video else [False] * len(media.frames) for media in record.media]
    try:
        pieces = chat.render(record.turns, [chat.placeholder(v) for v in videos], prompt=prompt)
    except chat.ChatError as error:
        raise ExampleError(record, "special token in the text", str(error)) from error
    ids, learned = chat.encode(pieces, tokenizer)
    room = None
    if limits is not None:
        text = len(ids) - sum(map(len, videos))
        if text > limits.tokens:
            raise ExampleError(record, "text longer than a row", f"{text} tokens, row_tokens is {limits.tokens}")
        room = min(limits.tokens - text, limits.patches // processing.merge**2)
    try:
        spans = plan_spans(record.media, processing, room)
    except ImageError as error:
        raise ExampleError(record, "images do not fit", str(error)) from error
    return Outline(ids, learned, spans, processing.merge)


def build_example(
    record: Record, tokenizer: Tokenizer, processing: Processing, limits: Limits | None = None
) -> Example:
    """The training example of a record: all its answers are learned."""
    return _fill(record, outline(record, tokenizer, processing, limits), tokenizer, processing)


def build_prompt(record: Record, tokenizer: Tokenizer, processing: Processing) -> Example:
    """The record without its last answer, ending in the assistant's header: what generation starts from. Its tokens
    are the first tokens of the training example."""
    return _fill(record, outline(record, tokenizer, processing, prompt=True), tokenizer, processing)


def _fill(record: Record, plan: Outline, tokenizer: Tokenizer, processing: Processing) -> Example:
    image_pad, video_pad = tokenizer.special_ids["<|image_pad|>"], tokenizer.special_ids["<|video_pad|>"]
    ids, counts = np.array(plan.ids, np.int32), np.ones(len(plan.ids), np.int64)
    places = np.flatnonzero((ids == image_pad) | (ids == video_pad))
    if len(places) != len(plan.spans):
        raise ExampleError(record, "images and places differ", f"{len(plan.spans)} spans, {len(places)} pad tokens")
    counts[places] = [span.tokens(plan.merge) for span in plan.spans]
    tokens_S = np.repeat(ids, counts)
    learned_S = np.repeat(np.array(plan.learned, bool), counts)
    starts = np.cumsum(counts) - counts
    vision_S = (tokens_S == image_pad) | (tokens_S == video_pad)
    patches_PC, segments_P = _patches(record, plan.spans, processing)
    grids = [span.grid for span in plan.spans]
    return Example(
        id=record.id,
        task=record.task,
        dataset=record.dataset,
        tokens_S=tokens_S,
        positions_S3=mrope_positions(len(tokens_S), zip(starts[places], grids, strict=True), plan.merge),
        targets_S=np.append(tokens_S[1:], 0).astype(np.int32),
        weights_S=np.append(learned_S[1:], False).astype(np.float32),
        patches_PC=patches_PC,
        patch_hw_P2=np.concatenate([patch_hw(g, plan.merge) for g in grids] or [np.zeros((0, 2), np.int32)]),
        patch_segments_P=segments_P,
        vision_index_S=np.where(vision_S, np.cumsum(vision_S) - 1, -1).astype(np.int32),
    )


def _patches(record: Record, spans: Sequence[Span], processing: Processing) -> tuple[np.ndarray, np.ndarray]:
    """(patches_PC, patch_segments_P): one segment for each image and each temporal patch of a video."""
    patches = [np.zeros((0, processing.patch_values), np.uint8)]
    sizes = [h * w for t, h, w in (span.grid for span in spans) for _ in range(t)]
    for span in spans:
        try:
            patches.append(span_patches(record.media[span.media], span, processing))
        except ValueError as error:
            raise ExampleError(record, "undecodable media", str(error)) from error
    segments_P = np.repeat(np.arange(1, len(sizes) + 1, dtype=np.int32), sizes)
    return np.concatenate(patches), segments_P
