"""Held-out records as the prompts of an evaluation: sizes known at once, pixels decoded when they are asked.

Only what a prediction says of a record stays in memory, never its media: ten thousand volumes are as many prompts.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Sequence

import numpy as np

from data_pipelines import chat, chat_template
from data_pipelines.example import Example, Processing, build_prompt, build_text, outline, shared_prefix
from data_pipelines.image import Show
from data_pipelines.prompts.answers import answer_text
from data_pipelines.record import Record, Turn
from data_pipelines.robustness import NotAskedError
from data_pipelines.shards import RecordSource
from data_pipelines.tokenizer import Tokenizer
from umit_jax.targets import Frame

Place = tuple[RecordSource, int]  # where a record is: shards[index]
Change = Callable[[Record], tuple[Record, Show | None]]  # another question about a record, and how its images are shown


def as_it_is(record: Record) -> tuple[Record, Show | None]:
    return record, None


@dataclasses.dataclass(frozen=True)
class Asked:
    """A question without its pixels. record: its media have no frames. images: SHA-256 of the encoded frames of each
    of its media. spoken: the frame in which the model says 2D boxes, None for 0-1000."""

    record: Record
    images: tuple[str, ...]
    spoken: Frame | None


class Questions(Sequence[Example]):
    """Prompts by number, each read from its shard when it is asked for. sizes_N2: (tokens, patches) of each.
    prefixes_N2: (number of a prefix, its tokens) of each; those with the same number show the same images and begin
    with the same tokens up to the last of them, so that a model need read these once. (-1, 0): not known to."""

    def __init__(
        self, places: Sequence[Place], tokenizer: Tokenizer, processing: Processing, change: Change = as_it_is
    ) -> None:
        """Raises ExampleError for a record that cannot be written as a prompt; one that `change` refuses is left out,
        as (id, reason) in left_out."""
        self._tokenizer, self._processing, self._change = tokenizer, processing, change
        self._places: list[Place] = []
        self.asked: list[Asked] = []
        self.left_out: list[tuple[str, str]] = []
        sizes, prefixes = [], []
        seen: dict[bytes, int] = {}
        for shards, index in places:
            record = shards[index]
            try:
                record, show = change(record)
            except NotAskedError as error:
                self.left_out.append((record.id, str(error)))
                continue
            self._places.append((shards, index))
            plan = outline(record, tokenizer, processing, prompt=True)
            sizes.append((plan.tokens, plan.patches))
            images = tuple(hashlib.sha256(b"".join(media.frames)).hexdigest() for media in record.media)
            ids, tokens = shared_prefix(plan, tokenizer)
            if ids and show is None:  # what is shown otherwise may differ from question to question
                digest = hashlib.sha256(repr((images, plan.spans, ids)).encode()).digest()
                prefixes.append((seen.setdefault(digest, len(seen)), tokens))
            else:
                prefixes.append((-1, 0))
            bare = tuple(dataclasses.replace(media, frames=()) for media in record.media)
            self.asked.append(Asked(dataclasses.replace(record, media=bare), images, plan.spoken))
        self.sizes_N2 = np.array(sizes, np.int64).reshape(-1, 2)
        self.prefixes_N2 = np.array(prefixes, np.int64).reshape(-1, 2)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, number: int) -> Example:  # type: ignore[override]
        shards, index = self._places[number]
        record, show = self._change(shards[index])
        return build_prompt(record, self._tokenizer, self._processing, show)

    def text(self, number: int) -> Example:
        """The prompt without its patches."""
        shards, index = self._places[number]
        record, _ = self._change(shards[index])
        return build_text(record, self._tokenizer, self._processing)

    def options(self) -> list[list[list[int]]]:
        """Of each question, every answer it offers as token ids with their end token; none for other questions."""
        known: dict[str, list[int]] = {}

        def ids(text: str) -> list[int]:
            if text not in known:
                known[text] = answer_ids(text, self._tokenizer)
            return known[text]

        return [[ids(text) for text in option_texts(asked.record)] for asked in self.asked]


def option_texts(record: Record) -> list[str]:
    """What each option is answered with, `1:yes`; none where the truth is no option."""
    target = record.target
    if target["kind"] != "options":
        return []
    about = {"task": record.task, "language": record.language}
    return [answer_text({**target, "index": i}, **about) for i in range(len(target["options"]))]


def answer_ids(text: str, tokenizer: Tokenizer) -> list[int]:
    """The ids of an answer and its end token, as they are learned: they depend on nothing that stands before them."""
    pieces = chat_template.render(tokenizer, [Turn("user", "?"), Turn("assistant", text)], [])
    return chat.encode(pieces[-2:], tokenizer)[0]
