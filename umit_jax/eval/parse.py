"""What a model said -> a target, spelled as in a Record, or None where the text is no answer or not one answer.

| truth   | accepted text                                                                                     |
| options | `1:yes`, `1：是`, the number alone, the option alone (any case or width), an option among other words |
| boxes   | 2D: `(x1,y1),(x2,y2)` with or without <|box_start|> and <|object_ref_start|>, or JSON objects     |
|         | `{"bbox_2d": [x1, y1, x2, y2], "label": name}`, one or a list, fenced or bare; in 0-1000, or in    |
|         | the frame that was spoken, or where the truth's frame is "resized" in that                        |
|         | 3D: six numbers in any brackets, in the truth's own frame                                         |
| points  | `[x,y]` or `[x,y,z]` in any brackets, in the truth's own frame                                    |
| text    | anything but white space                                                                          |

The strict rule everywhere: two readings that differ are no answer. Coordinates are never clipped or guessed into
another frame: a box that reaches out of the image keeps its numbers. Of the truth only what the question shows is
used: the options and the number of the first, the frame, and the labels asked about. An answer without coordinates is
an empty list of boxes or points where it says that nothing is there (denial.py), whatever the truth; else no answer.
All boxes and points of a question about one label have that label, whatever words or numbers stand around them.
"""

import dataclasses
import re
from collections.abc import Callable

from umit_jax.eval.denial import says_nothing
from umit_jax.eval.json_boxes import json_boxes
from umit_jax.eval.normalise import drop_special_tokens, fold, is_chinese
from umit_jax.targets import LARGEST, Frame, Target, convert

UNNAMED = "unnamed"  # label of a box or point whose text names none although several were asked about

_SPOKEN_INDEX = re.compile(r"[(\[]?(\d+)\s*[:.)\]、,]?\s*$")
_INDEX_OPTION = re.compile(r"(\d+)\s*:\s*(\S.*)$", re.DOTALL)
_CUED_INDEX = re.compile(
    r"(?:answer|option|choice|choose|答案|选项|选择|选)\s*(?:is|:|为|是)?\s*[(\[]?(\d+)(?![\d.]*\d)"
)
_NEGATED = re.compile(
    r"(?:\b(?:not|no|non|without|never|neither|nor|isn't|aren't)(?:\s+(?:an?|the))?[\s-]*|[不非无未没](?:有|见|是)?)$"
)
_BEFORE = 80  # characters before an option in which it can be negated
_QUOTES = r"[\s:\"'“”‘’「」《》-]*"
_NEGATED_YES_NO = re.compile(  # "no" is an answer itself here, so only other words negate it
    rf"(?:\b(?:not|never|neither|nor|cannot|(?:is|are|was|ca|does|do)n['’]t)"
    rf"(?:\s+(?:an?|the|be|really|exactly|quite|simply|just))*{_QUOTES}|[不非](?:为|是|能)?{_QUOTES})$"
)
_YES_NO = {"yes": ("yes", "是", "是的"), "no": ("no", "否", "不是")}
_YES_NO |= {"是": _YES_NO["yes"], "否": _YES_NO["no"]}

_NUMBER = r"[-+]?\d+(?:\.\d+)?"
_GROUP = re.compile(rf"[(\[{{<【]\s*({_NUMBER}(?:\s*[,;、\s]\s*{_NUMBER})*)\s*[)\]}}>】]")
_BETWEEN_CORNERS = re.compile(r"[\s,;、()\[\]{}<>【】]*")
_BARE_NUMBER = re.compile(rf"(?<![\w.]){_NUMBER}(?![\w]|\.\d)")
_SPECIAL_MARK = "\ue000"  # stands for a special token, so that a box never spans two of them
_NAMELESS = re.compile(  # words around a box that name nothing
    r"\b(?:the|an?|i|is|are|can|be|see|at|in|on|of|to|it|its|this|there|here|and|as|follows|with|image|shown|lies"
    r"|located|location|position|around|box|boxes|bounding|bbox|bbox_2d|coordinates?|detected|found|region|answer)\b"
    r"|位于|位置|坐标|检测到|检测|框|在|为|是|和|答案|图中|[\W_]"
)


@dataclasses.dataclass(frozen=True)
class Reading:
    """target: the answer, or None. problems: one short fixed phrase for each thing in the text that was refused."""

    target: Target | None
    problems: tuple[str, ...] = ()


def parse(text: str, truth: Target, language: str, spoken: Frame | None = None) -> Target | None:
    """The answer that `text` gives to a question whose truth is `truth`, as a target in truth's frame, or None.

    spoken: the frame of the numbers of 2D boxes; None: what Frame.spoken says of the truth's frame.
    """
    return read_answer(text, truth, language, spoken).target


def read_answer(text: str, truth: Target, language: str, spoken: Frame | None = None) -> Reading:
    """parse(), with the reasons for what was refused."""
    readers: dict[str, Callable[[str, Target], Reading]] = {
        "options": _read_options,
        "boxes": lambda text, truth: _read_boxes(text, truth, spoken),
        "points": _read_points,
        "text": _read_text,
    }
    del language  # both languages are accepted everywhere: a Chinese question may be answered with English options
    return readers[truth["kind"]](text, truth)


def _read_text(text: str, truth: Target) -> Reading:
    stripped = drop_special_tokens(text, " ").strip()
    return Reading({"kind": "text", "text": stripped}) if stripped else Reading(None, ("empty answer",))


# options


def _read_options(text: str, truth: Target) -> Reading:
    said = fold(drop_special_tokens(text, " ")).rstrip(".。!")
    options, first = [fold(option) for option in truth["options"]], truth["first"]
    if not said:
        return Reading(None, ("empty answer",))
    readings = {i for i, option in enumerate(options) if said == option.rstrip(".。!")}
    if bare := _SPOKEN_INDEX.fullmatch(said):
        readings |= {_position(bare[1], first)}
    elif not readings and (pair := _INDEX_OPTION.match(said)):
        index, words = _position(pair[1], first), pair[2]
        agree = words in options[index : index + 1] or _mentioned(words, options) == {index}
        readings = {index} if index >= 0 and agree else set()
    elif not readings:
        readings = _mentioned(said, options)
        cued = {_position(number, first) for number in _CUED_INDEX.findall(said)}
        readings = cued if cued and readings <= cued else readings | cued
    if len(readings) != 1:
        return Reading(None, ("ambiguous answer" if readings else "no option named",))
    (index,) = readings
    if not 0 <= index < len(options):
        return Reading(None, ("no such option",))
    return Reading({**truth, "index": index})


def _position(number: str, first: int) -> int:
    """Of the option with this number; -1, where no option is, for one that is longer than any question's."""
    return int(number) - first if len(number) < 10 else -1


def _mentioned(said: str, options: list[str]) -> set[int]:
    """Options that `said` names as whole words. A longer option hides a shorter one inside it ("left kidney" hides
    "kidney"). A negated mention ("not normal", "not yes", 不正常) makes the answer name everything: ambiguous."""
    found: set[int] = set()
    for i in sorted(range(len(options)), key=lambda i: -len(options[i])):
        negated = _NEGATED_YES_NO if options[i] in _YES_NO else _NEGATED
        for word in _YES_NO.get(options[i], (options[i],)):
            pattern = _whole_word(word)
            for match in pattern.finditer(said):
                if negated.search(said[max(match.start() - _BEFORE, 0) : match.start()]):
                    return set(range(len(options)))
                found.add(i)
            said = pattern.sub(_SPECIAL_MARK, said)
    return found


def _whole_word(word: str) -> re.Pattern[str]:
    """Matches the word where no letter of the same script continues it. 是, 否 and any single Chinese character are
    too common inside other words and must stand alone in their clause."""
    if (len(word) == 1 and is_chinese(word)) or word in _YES_NO["yes"] + _YES_NO["no"]:
        return re.compile(rf"(?<!\w){word}(?!\w)")
    before = "" if is_chinese(word[:1]) else r"(?<![^\W\u3400-\u9fff])"
    after = "" if is_chinese(word[-1:]) else r"(?![^\W\u3400-\u9fff])"
    return re.compile(before + re.escape(word) + after)


# boxes and points


@dataclasses.dataclass(frozen=True)
class _Numbers:
    """Coordinates found in a text: values, and where they stand."""

    values: tuple[float, ...]
    start: int
    end: int


def _read_boxes(text: str, truth: Target, spoken: Frame | None) -> Reading:
    frame, asked = Frame.from_json(truth["frame"]), list(dict.fromkeys(item["label"] for item in truth["items"]))
    source = spoken if spoken is not None and frame.ndim == 2 else frame.spoken()
    if frame.ndim == 2 and (objects := json_boxes(text)):
        labelled, problems = objects.named(asked, UNNAMED), objects.problems
    else:
        said = fold(drop_special_tokens(text, _SPECIAL_MARK))
        found, problems = _coordinates(said, frame.ndim, corners=2)
        labelled = [(label, numbers.values) for label, numbers in _labelled(said, found, truth)]
    items = []
    for label, values in labelled:
        low, high = values[: frame.ndim], values[frame.ndim :]
        if all(a < b for a, b in zip(low, high, strict=True)):
            items.append({"label": asked[0] if len(asked) == 1 else label, "box": convert(values, source, frame)})
        else:
            inverted = any(a > b for a, b in zip(low, high, strict=True))
            problems.append("inverted box" if inverted else "empty box")
    if items or (not problems and says_nothing(text)):
        return Reading({"kind": "boxes", "frame": truth["frame"], "items": items}, tuple(problems))
    return Reading(None, tuple(problems) or ("no box",))


def _read_points(text: str, truth: Target) -> Reading:
    ndim = Frame.from_json(truth["frame"]).ndim
    said = fold(drop_special_tokens(text, _SPECIAL_MARK))
    found, problems = _coordinates(said, ndim, corners=1)
    if len(truth["items"]) == 1:  # one landmark a question: whatever the words around it, the point is its
        named = [(truth["items"][0]["label"], numbers) for numbers in found]
    else:
        named = _labelled(said, found, truth)
    points = dict.fromkeys((label, numbers.values) for label, numbers in named)
    labels = [label for label, _ in points]
    if len(set(labels)) != len(labels):
        return Reading(None, (*problems, "several points for one landmark"))
    items = [{"label": label, "point": list(values)} for label, values in points]
    if items or (not problems and says_nothing(text)):
        return Reading({"kind": "points", "frame": truth["frame"], "items": items}, tuple(problems))
    return Reading(None, tuple(problems) or ("no point",))


def _coordinates(said: str, ndim: int, corners: int) -> tuple[list[_Numbers], list[str]]:
    """Boxes (corners=2) or points (corners=1) in the order of the text, and a problem for each bracket of numbers
    that is neither. A box is one bracket of 2 * ndim numbers or two adjacent brackets of ndim numbers."""
    found: list[_Numbers] = []
    problems: list[str] = []
    pending: _Numbers | None = None
    for match in _GROUP.finditer(said):
        values = tuple(float(number) for number in re.findall(_NUMBER, match[1]))
        if any(abs(value) > LARGEST for value in values):
            problems.append("number too large")
            pending = None
            continue
        group = _Numbers(values, match.start(), match.end())
        if pending and len(values) == ndim and _BETWEEN_CORNERS.fullmatch(said[pending.end : group.start]):
            found.append(_Numbers(pending.values + values, pending.start, group.end))
            pending = None
            continue
        if pending:
            problems.append("half a box")
            pending = None
        if len(values) == corners * ndim:
            found.append(group)
        elif corners == 2 and len(values) == ndim:
            pending = group
        elif len(values) > 1:  # a single number in brackets belongs to a name
            problems.append("wrong number of coordinates")
    if pending:
        problems.append("half a box")
    if not found and not problems:  # no brackets at all: take the numbers if they are exactly one answer
        numbers = list(_BARE_NUMBER.finditer(said))
        if len(numbers) == corners * ndim:
            values = tuple(float(number[0]) for number in numbers)
            if any(abs(value) > LARGEST for value in values):
                return [], ["number too large"]
            found.append(_Numbers(values, numbers[0].start(), numbers[-1].end()))
    return found, problems


def _labelled(said: str, found: list[_Numbers], truth: Target) -> list[tuple[str, _Numbers]]:
    """Each found item with its label: the asked-about label that the text before it names last; else whatever name
    stands there; with no name, the label of the item before it, else the only label asked about."""
    asked = {fold(item["label"]): item["label"] for item in truth["items"]}
    only = next(iter(asked.values())) if len(asked) == 1 else UNNAMED
    labelled: list[tuple[str, _Numbers]] = []
    end = 0
    for numbers in found:
        before = said[end : numbers.start]
        named = [
            (match.end(), len(key), label) for key, label in asked.items() for match in [_last(key, before)] if match
        ]
        if named:
            label = max(named)[2]
        elif _NAMELESS.sub("", before):
            label = before.strip(f" ,.;:()[]{{}}<>{_SPECIAL_MARK}")
        else:
            label = labelled[-1][0] if labelled else only
        labelled.append((label, numbers))
        end = numbers.end
    return labelled


def _last(key: str, text: str) -> re.Match[str] | None:
    matches = list(_whole_word(key).finditer(text))
    return matches[-1] if matches else None
