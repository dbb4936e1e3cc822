"""Record -> Example: one conversation tokenised, its media cut into patches, everything still ragged.

`outline` does all that needs no pixels: it is what `lengths.py` counts and what `build_example` fills in, so a planned
length is the built one by construction. A vision span is shrunk or refused, never cut.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from data_pipelines import chat, chat_template
from data_pipelines.image import (
    ImageError,
    Processing,
    Show,
    Span,
    in_order,
    media_patches,
    patch_hw,
    plan_spans,
    window_order,
)
from data_pipelines.positions import mrope_positions
from data_pipelines.record import Record
from data_pipelines.spoken import SpokenError, spoken_frame, spoken_turns
from data_pipelines.tokenizer import Tokenizer
from umit_jax.targets import Frame

__all__ = ["Example", "ExampleError", "Limits", "Outline", "Processing", "build_example", "build_prompt", "outline"]

PADS = "<|image_pad|>", "<|video_pad|>"  # one stands for each span, until it is filled

# Number of patches -> where they go, uint8 and contiguous: in a packed row, so that nobody copies them there.
Room = Callable[[int], np.ndarray]


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
    the merged patches (four consecutive ones) of this sample from 0, -1 = text. spoken: the frame in which 2D boxes are
    said, None where it is 0-1000. augmented: of each kind of augmentation that is on, what was done or why not.
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
    spoken: Frame | None = None
    augmented: Mapping[str, str] | None = None

    @property
    def nbytes(self) -> int:
        return sum(value.nbytes for value in vars(self).values() if isinstance(value, np.ndarray))


@dataclasses.dataclass(frozen=True)
class Outline:
    """A sample but for its pixels: ids with one pad token per span, which of them are learned, the spans, and the frame
    in which it speaks 2D boxes (None: 0-1000)."""

    ids: list[int]
    learned: list[bool]
    spans: list[Span]
    merge: int
    spoken: Frame | None

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
    room = None
    while True:
        try:
            spans = plan_spans(record.media, processing, room)
        except ImageError as error:
            raise ExampleError(record, "images do not fit", str(error)) from error
        plan = outline_as(record, spans, tokenizer, processing, prompt=prompt)
        if limits is None:
            return plan
        if plan.text_tokens > limits.tokens:
            detail = f"{plan.text_tokens} tokens, row_tokens is {limits.tokens}"
            raise ExampleError(record, "text longer than a row", detail)
        # What is said may depend on the images' sizes, so after shrinking them its length is counted again.
        room = min(limits.tokens - plan.text_tokens, limits.patches // processing.merge**2)
        if plan.vision_tokens <= room:
            return plan


def outline_as(
    record: Record, spans: list[Span], tokenizer: Tokenizer, processing: Processing, *, prompt: bool = False
) -> Outline:
    """The sample without its pixels, its media shown as these spans. Raises ExampleError when it cannot be made."""
    as_video = processing.volume_as == "video"
    videos = [[True] if media.kind == "volume" and as_video else [False] * len(media.frames) for media in record.media]
    try:
        frame = spoken_frame(record, spans, processing)
        pieces = chat_template.render(tokenizer, spoken_turns(record, frame), videos, prompt=prompt)
        ids, learned = chat.encode(pieces, tokenizer)
    except chat.ChatError as error:
        raise ExampleError(record, "conversation that cannot be written", str(error)) from error
    except SpokenError as error:
        raise ExampleError(record, "boxes of which image", str(error)) from error
    return Outline(ids, learned, spans, processing.merge, frame)


def build_example(
    record: Record,
    tokenizer: Tokenizer,
    processing: Processing,
    limits: Limits | None = None,
    room: Room | None = None,
) -> Example:
    """The training example of a record: all its answers are learned."""
    return fill(record, outline(record, tokenizer, processing, limits), tokenizer, processing, room=room)


def build_prompt(record: Record, tokenizer: Tokenizer, processing: Processing, show: Show | None = None) -> Example:
    """The record without its last answer, ending in the assistant's header: what generation starts from. Its tokens
    are the first tokens of the training example. show: brings decoded frames to their size, changing them or not."""
    return fill(record, outline(record, tokenizer, processing, prompt=True), tokenizer, processing, show)


def build_text(record: Record, tokenizer: Tokenizer, processing: Processing) -> Example:
    """As build_prompt, without the patches: no image is decoded."""
    return fill(record, outline(record, tokenizer, processing, prompt=True), tokenizer, processing, pixels=False)


def shared_prefix(plan: Outline, tokenizer: Tokenizer) -> tuple[tuple[int, ...], int]:
    """The ids of an outline up to its last span, which samples with the same images may share, and how many tokens of
    the sample they are. Empty where there is no span."""
    pads = {tokenizer.special_ids[name] for name in PADS}
    end = max((place + 1 for place, token in enumerate(plan.ids) if token in pads), default=0)
    return tuple(plan.ids[:end]), end - len(plan.spans) + plan.vision_tokens


def fill(
    record: Record,
    plan: Outline,
    tokenizer: Tokenizer,
    processing: Processing,
    show: Show | None = None,
    room: Room | None = None,
    pixels: bool = True,
) -> Example:
    """The example of an outlined record: its arrays, with pixels as `show` brings them to their planned size. Without
    `pixels` it has no patches."""
    image_pad, video_pad = (tokenizer.special_ids[name] for name in PADS)
    ids, counts = np.array(plan.ids, np.int32), np.ones(len(plan.ids), np.int64)
    places = np.flatnonzero((ids == image_pad) | (ids == video_pad))
    if (ids[places] == video_pad).tolist() != [span.video for span in plan.spans]:
        raise ExampleError(record, "images and places differ", f"{len(plan.spans)} spans, {len(places)} pad tokens")
    counts[places] = [span.tokens(plan.merge) for span in plan.spans]
    tokens_S = np.repeat(ids, counts)
    learned_S = np.repeat(np.array(plan.learned, bool), counts)
    starts = np.cumsum(counts) - counts
    vision_S = (tokens_S == image_pad) | (tokens_S == video_pad)
    grids = [span.grid for span in plan.spans]
    orders = [window_order(grid, processing.window, plan.merge) for grid in grids]
    patches = plan.patches if pixels else 0
    patches_PC = room(patches) if room else np.empty((patches, processing.patch_values), np.uint8)
    if pixels:
        _fill_patches(record, plan.spans, processing, show, patches_PC)
    # One segment for each image and each temporal patch of a video; its patches stay together in any order of windows.
    sizes = [h * w for t, h, w in grids for _ in range(t)]
    # The tokens of a span stand row by row; the patches of each are found where the order put them.
    firsts = np.cumsum([0, *map(len, orders)])
    merged = [first + np.argsort(order) for first, order in zip(firsts[:-1], orders, strict=True)]
    vision_index_S = np.full(len(tokens_S), -1, np.int32)
    vision_index_S[vision_S] = np.concatenate([np.zeros(0, np.int64), *merged])
    return Example(
        id=record.id,
        task=record.task,
        dataset=record.dataset,
        tokens_S=tokens_S,
        positions_S3=mrope_positions(
            len(tokens_S), zip(starts[places], grids, strict=True), plan.merge, processing.time_step
        ),
        targets_S=np.append(tokens_S[1:], 0).astype(np.int32),
        weights_S=np.append(learned_S[1:], False).astype(np.float32),
        patches_PC=patches_PC,
        patch_hw_P2=np.concatenate(
            [np.zeros((0, 2), np.int32)]
            + [in_order(patch_hw(grid, plan.merge), order) for grid, order in zip(grids, orders, strict=True)]
        ),
        patch_segments_P=np.repeat(np.arange(1, len(sizes) + 1, dtype=np.int32), sizes),
        vision_index_S=vision_index_S,
        spoken=plan.spoken,
    )


def _fill_patches(
    record: Record, spans: Sequence[Span], processing: Processing, show: Show | None, out_PC: np.ndarray
) -> None:
    end = 0
    try:
        for index, group in itertools.groupby(spans, lambda span: span.media):
            own = list(group)
            start, end = end, end + sum(math.prod(span.grid) for span in own)
            media_patches(index, record.media[index], own, processing, show, out_PC[start:end])
    except ValueError as error:
        raise ExampleError(record, "undecodable media", str(error)) from error
