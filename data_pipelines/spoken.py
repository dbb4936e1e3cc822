"""What a record's turns say to a model of one family: texts on disk speak 2D boxes in 0-1000, a family may want pixels.

| Processing.boxes | an answer that is boxes                         | boxes inside other texts (grounded captions)   |
| norm1000         | as on disk                                      | as on disk                                     |
| resized          | its structured target in pixels of the resized  | the same tokens, the numbers in pixels         |
|                  | image, a JSON list (prompts/answers.py)         |                                                |

The size of the resized image depends on the processing and, where a row is short, on what else is in the sample: only
when an example is built is it known. 3D boxes and points speak frames of their own, whatever the family.
"""

import dataclasses
import re
from collections.abc import Sequence

from data_pipelines.image import Processing, Span
from data_pipelines.prompts.answers import answer_text, whole_box
from data_pipelines.record import BOX, Record, Turn
from umit_jax.targets import Frame, Target, convert_target


class SpokenError(ValueError):
    """A record whose boxes cannot be spoken: it is not known in which of its images they are."""


def spoken_frame(record: Record, spans: Sequence[Span], processing: Processing) -> Frame | None:
    """The resized image that 2D boxes of this record are spoken in, or None where they are in 0-1000.

    Of several images, the one whose size the target's frame names, else the first.
    """
    if processing.boxes == "norm1000" or not record.media:
        return None
    sizes = [tuple(map(float, media.size[:2])) for media in record.media]
    named = tuple(record.target["frame"]["size"]) if "frame" in record.target else ()
    index = sizes.index(named) if named in sizes else 0
    grid = next(span.grid for span in spans if span.media == index)
    spacing = record.media[index].spacing_mm
    raw = Frame("raw", sizes[index], None if spacing is None else tuple(spacing[:2]))
    return raw.rescaled("resized", (grid[2] * processing.patch_size, grid[1] * processing.patch_size))


def spoken_turns(record: Record, frame: Frame | None) -> tuple[Turn, ...]:
    """The turns as they are said in this frame (None: as on disk).

    Raises SpokenError for boxes inside a text about several images: their text does not say which.
    """
    if frame is None:
        return record.turns
    turns, target = list(record.turns), record.target
    answered = target["kind"] == "boxes" and len(target["frame"]["size"]) == 2 and turns[-1].role == "assistant"
    if answered:
        text = answer_text(spoken_target(record, frame), task=record.task, language=record.language)
        turns[-1] = dataclasses.replace(turns[-1], text=text)
    others = turns[:-1] if answered else turns
    return (*(dataclasses.replace(t, text=_moved(t.text, record, frame)) for t in others), *turns[len(others) :])


def spoken_target(record: Record, frame: Frame | None) -> Target:
    """The target whose text the last turn is: 2D boxes in this frame, the boxes inside a text too."""
    target = record.target
    if frame is None:
        return target
    if target["kind"] == "text":
        return {**target, "text": _moved(target["text"], record, frame)}
    if target["kind"] == "boxes" and len(target["frame"]["size"]) == 2:
        return convert_target(target, frame)
    return target


def _moved(text: str, record: Record, frame: Frame) -> str:
    """The text with its 0-1000 boxes in the frame."""
    if not BOX.search(text):
        return text
    if len(record.media) > 1:
        raise SpokenError(f"a text with boxes and {len(record.media)} images")

    def move(match: re.Match[str]) -> str:
        x1, y1, x2, y2 = whole_box([float(n) for n in match.groups()], frame.norm1000(), frame)
        return f"<|box_start|>({x1},{y1}),({x2},{y2})<|box_end|>"

    return BOX.sub(move, text)
