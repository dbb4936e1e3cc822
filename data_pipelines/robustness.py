"""The same questions asked in a way that tells seeing from guessing, one way at a time.

| name                  | the question becomes                                 | an answer read from the image |
| blank                 | about black images                                   | changes                       |
| swap                  | about the images of another patient, same task       | changes                       |
| options               | with its options in another order                    | names the same option         |
| negated               | its opposite (prompts/negations.yaml, after ProbMed) | is the opposite one           |
| flip                  | about images mirrored from left to right             | names the other side          |
| corrupt:NAME:SEVERITY | about corrupted images (corruptions.py)              | stays                         |

Only what is shown or asked changes; the truth goes with it. A record for which a way makes no sense is left out with a
reason, never bent to fit.
"""

import functools
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from data_pipelines.corruptions import SEVERITIES, corrupt, known_families
from data_pipelines.image import Show
from data_pipelines.media.raster import read_image, resize
from data_pipelines.prompts.answers import answer_text, options_text
from data_pipelines.record import MEDIA_TOKEN, Record, Turn
from data_pipelines.seeded import generator
from umit_jax.targets import Target

Changed = tuple[Record, Show | None]
Other = Callable[[Record], Record | None]  # the record whose images are shown in its place
PLAIN = ("blank", "swap", "options", "negated", "flip")


class RobustnessError(ValueError):
    """A way of asking that there is not; the message names it."""


class NotAskedError(ValueError):
    """A record that cannot be asked about in this way; the message is a short phrase for counting."""


@functools.cache
def _table() -> Mapping[str, Any]:
    return yaml.safe_load((Path(__file__).parent / "prompts" / "negations.yaml").read_text(encoding="utf-8"))


def check_name(name: str) -> str:
    """Raises RobustnessError where there is no such way."""
    kind, _, rest = name.partition(":")
    if kind == "corrupt":
        family, _, severity = rest.partition(":")
        if family not in known_families() or severity not in map(str, SEVERITIES):
            known = ", ".join(sorted(known_families()))
            raise RobustnessError(f"corrupt: expected corrupt:NAME:1 to 5, NAME one of {known}, found {name!r}")
    elif name not in PLAIN:
        raise RobustnessError(f"robustness: expected {', '.join(PLAIN)} or corrupt:NAME:SEVERITY, found {name!r}")
    return name


def change(record: Record, name: str, seed: int, other: Other) -> Changed:
    """The record asked about in another way. Raises NotAskedError."""
    if name == "options":
        return _shuffled(record, generator(seed, "options", record.id)), None
    if name == "negated":
        return _negated(record), None
    if not record.media:
        raise NotAskedError("no image")
    if name == "blank":
        return record, lambda index, frames, size: np.zeros((len(frames), size[1], size[0], 3), np.uint8)
    if name == "swap":
        return record, _swapped(other(record))
    if name == "flip":
        return _mirrored(record), lambda index, frames, size: _resized(frames, size)[:, :, ::-1]
    _, family, severity = name.split(":")

    def show(index: int, frames: Sequence[np.ndarray], size: tuple[int, int]) -> np.ndarray:
        rng = generator(seed, "corrupt", record.id, str(index))
        modality = record.media[index].modality
        return corrupt(_resized(frames, size), family, int(severity), rng, modality=modality)

    return record, show


def key_of(record: Record) -> tuple[str, ...]:
    """What tells one question from all others."""
    return record.dataset, record.task, record.language, record.id


def others(records: Sequence[Record], seed: int) -> dict[tuple[str, ...], int]:
    """{key_of: number of the record whose images it is shown instead}: of the same task, data set and kinds of media,
    of another patient. Records without such a one are left out."""
    groups: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for number, record in enumerate(records):
        kinds = tuple(media.kind for media in record.media)
        groups[record.dataset, record.task, kinds].append(number)
    found: dict[tuple[str, ...], int] = {}
    for key in sorted(groups, key=str):
        order = generator(seed, "swap", str(key)).permutation(groups[key]).tolist()
        for place, number in enumerate(order):
            turned = order[place + 1 :] + order[:place]
            own = records[number].patient_id
            partner = next((one for one in turned if records[one].patient_id != own), None)
            if partner is not None:
                found[key_of(records[number])] = partner
    return found


def _resized(frames: Sequence[np.ndarray], size_wh: tuple[int, int]) -> np.ndarray:
    return np.stack([resize(frame, size_wh) for frame in frames])


def _swapped(other: Record | None) -> Show:
    """Shows the media of the other record; of a volume with another number of slices, those at the same share of it."""
    if other is None:
        raise NotAskedError("no image of another patient with the same task")
    media = other.media

    def show(index: int, frames: Sequence[np.ndarray], size_wh: tuple[int, int]) -> np.ndarray:
        theirs = media[index].frames
        picked = np.linspace(0, len(theirs) - 1, len(frames)).round().astype(int)
        return _resized([read_image(theirs[i]) for i in picked], size_wh)

    return show


def _asked(record: Record, question: str, target: Target) -> Record:
    """The record with another last question and truth."""
    answer = answer_text(target, task=record.task, language=record.language)
    turns = (*record.turns[:-2], Turn("user", question), Turn("assistant", answer))
    return replace(record, turns=turns, target=target)


def _listed(record: Record) -> tuple[Target, str, str]:
    """(target, last question, its list of options)."""
    target, question = record.target, record.turns[-2].text
    if target["kind"] != "options":
        raise NotAskedError("no options")
    block = options_text(target["options"], target["first"], record.language)
    if question.count(block) != 1:
        raise NotAskedError("options not listed in the question")
    return target, question, block


def _shuffled(record: Record, rng: np.random.Generator) -> Record:
    target, question, block = _listed(record)
    count = len(target["options"])
    order = rng.permutation(count).tolist()
    if order == list(range(count)):
        order = [*order[1:], order[0]]
    options = [target["options"][i] for i in order]
    turned = {**target, "options": options, "index": order.index(target["index"])}
    return _asked(record, question.replace(block, options_text(options, target["first"], record.language)), turned)


def _negated(record: Record) -> Record:
    target, question, block = _listed(record)
    said = [option.casefold() for option in target["options"]]
    if not any(sorted(said) == sorted(pair) for pair in _table()["opposite"]):
        raise NotAskedError("not a yes/no question")
    before, _, after = question.partition(block)
    words = before.replace(MEDIA_TOKEN, "").strip()
    for pattern, replacement in _table()["rules"][record.language]:
        if re.search(pattern, words):
            if re.search(_table()["negative"][record.language], words):
                raise NotAskedError("already negative")
            opposite = before.replace(words, re.sub(pattern, replacement, words))
            return _asked(record, opposite + block + after, {**target, "index": 1 - target["index"]})
    raise NotAskedError("no rule says its opposite")


def mirrored_words(text: str, language: str) -> str:
    """The text with its sides exchanged: "left kidney" is "right kidney" in a mirror."""
    left, right = _table()["sides"][language]
    bounds = r"(?<![^\W\d_]){}(?![^\W\d_])" if language == "en" else "{}"
    pattern = re.compile("|".join(bounds.format(word) for word in (left, right)), re.IGNORECASE)

    def exchange(match: re.Match[str]) -> str:
        word = right if match[0].lower() == left else left
        return word.capitalize() if match[0][0].isupper() else word

    return pattern.sub(exchange, text)


def _mirrored(record: Record) -> Record:
    target, question, block = _listed(record)
    options, language = target["options"], record.language
    mirrored = [mirrored_words(option, language) for option in options]
    truth = mirrored[target["index"]]
    if truth == options[target["index"]] or truth not in options:
        raise NotAskedError("answer that names no side")
    before = question.partition(block)[0]
    if sorted(mirrored_words(before, language)) != sorted(before):
        raise NotAskedError("question that names one side")
    if any(media.orientation and media.orientation[0] not in "RL" for media in record.media):
        raise NotAskedError("image whose rows do not run from side to side")
    return _asked(record, question, {**target, "index": options.index(truth)})
