"""`umit prepare chimed_vl`: ChiMed-VL, Chinese captions and questions, translated (Liu et al. 2023).

| file                             | read as                                                                |
| ChiMed-VL-Alignment.jsonl        | captions: an image with a context and a description                    |
| ChiMed-VL-Instruction.json       | questions and answers                                                  |
| images, which are not in the set | those of PMC-OA and PMC-VQA, below one folder, by file name            |

The images of both downloads can lie side by side in the folder that `--images` names: unpacked into folders, however
nested, or as the zip archives that they come in (see image_files). A name of two images that differ is refused.
What the files call their fields is nowhere written down, so the first rows are looked at: a conversation, a question
with an answer, or a text, beside an image. Rows of none of these forms end the run with the keys that were found.
"""

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_pipelines.media import MediaError
from data_pipelines.parts import Rejected
from data_pipelines.publish import Rules
from data_pipelines.record import MEDIA_TOKEN, Record
from data_pipelines.sources.catalogue import catalogue
from data_pipelines.sources.conversations import form_of, image_names, language_of, read_talk
from data_pipelines.sources.folder import split_of
from data_pipelines.sources.image_files import ImageFiles, image_files
from data_pipelines.sources.layout import LayoutError, one_of
from data_pipelines.sources.make import Maker, RowError, plain, topic_of, vqa
from data_pipelines.sources.rows import Rows, Span, read_row
from data_pipelines.sources.source_files import find, missing, patient_of, stamp
from umit_jax.targets import text_target

NAME = "chimed_vl"
FILES = {"alignment": "ChiMed-VL-Alignment.json*", "instruction": "ChiMed-VL-Instruction.json*"}
TASKS = {"alignment": "caption", "instruction": "vqa"}
IMAGES = ("image", "images", "img", "image_path", "img_path", "image_name", "image_file", "file_name", "filename")
QUESTIONS = ("question", "query", "instruction", "prompt")
ANSWERS = ("answer", "response", "output")
TEXTS = ("caption", "description", "context", "text")
_LOOKED_AT = 20  # rows, before a file is refused


@dataclasses.dataclass(frozen=True)
class Form:
    """How a file's rows are read. talk: as a conversation; otherwise a question with an answer, or texts."""

    image: str
    talk: bool = False
    question: str = ""
    answer: str = ""
    texts: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class ChimedVl:
    """files: {part: its file}. images: a folder or a zip archive."""

    source: Path
    files: Mapping[str, Path]
    images: Path
    listing: str  # of what is in them, see ImageFiles.digest
    seed: int = 0
    name: str = NAME
    near: bool = True

    @property
    def rules(self) -> Rules:
        subsets = catalogue()[NAME].subsets
        return Rules(leaks="report", expected={k: n for part in self.files for k, n in subsets[part].items()})

    @property
    def options(self) -> Mapping[str, Any]:
        return {"seed": self.seed, "images": self.listing, "files": stamp(*self.files.values())}

    def units(self) -> Rows:
        """Raises LayoutError for a file whose rows have another form."""
        patient_of(self.source, "")  # makes the key before several workers want it
        for part, file in self.files.items():
            _form(part, file)
        return Rows(list(self.files.values()))

    def records(self, unit: Span) -> Iterator[Record | Rejected]:
        number, start, length, row = unit
        part, file = list(self.files.items())[number]
        name = ""
        try:
            values = read_row(file, start, length)
            form = _form(part, file)
            name = " ".join(Path(n).name for n in image_names(values, (form.image,)))
            yield from self._records(part, form, row, values)
        except (RowError, MediaError) as error:
            yield Rejected(f"{part}, row {row}" + (f", {name}" if name else ""), str(error))

    def _records(self, part: str, form: Form, row: int, values: Mapping[str, Any]) -> Iterator[Record]:
        names = image_names(values, (form.image,))
        if not names:
            raise RowError("no image named")
        task, first = TASKS[part], Path(names[0]).name
        shared: dict[str, Any] = {
            "split": split_of(first, self.seed),
            "patient": first,
            "task": task,
            "media": [image_files(self.images, self.listing).read(name) for name in names],
            "origin": f"{self.files[part].name}, row {row}",
            "label_kind": "model",
        }
        maker, key = Maker(NAME, catalogue()[NAME].license, self.source, self.seed), f"{part}/{row}"
        if form.texts:
            texts = {text: plain(values.get(text)) for text in form.texts if plain(values.get(text))}
            if not texts:
                raise RowError("no text")
            for text, said in texts.items():
                own = f"{key}/{text}" if len(form.texts) > 1 else key
                asked, target = maker.ask(own, task, task, "zh"), text_target(said)
                topic = f"{task}/{text}"
                yield maker.record(own, language="zh", topic=topic, question=asked, target=target, **shared)
        elif form.question:
            question, target = vqa(plain(values.get(form.question)), plain(values.get(form.answer)), "zh")
            topic = topic_of(question, target)
            yield maker.record(key, language="zh", topic=topic, question=question, target=target, **shared)
        else:
            said = form_of(values)
            turns = read_talk({"image": values[form.image], said: values.get(said)}).turns
            target, language = text_target(turns[-1].text), language_of(turns)
            topic = topic_of(turns[-2].text.replace(MEDIA_TOKEN, ""), target) if task == "vqa" else task
            made = maker.record(key, language=language, topic=topic, question="-", target=target, **shared)
            yield dataclasses.replace(made, turns=turns)


def converter(source: Path, *, images: Path, subset: Sequence[str] = (), seed: int = 0) -> ChimedVl:
    """images: the folder with the images of PMC-OA and PMC-VQA, or with their archives, or one such archive. subset:
    which of FILES; all that are there by default. Raises LayoutError."""
    for value in subset:
        one_of("subset", value, list(catalogue()[NAME].subsets))
    files: dict[str, Path] = {}
    for part in subset or FILES:
        found = find(source, FILES[part])
        if found:
            files[part] = found[0]
        elif subset:
            raise missing(source, (FILES[part],))
    if not files:
        raise missing(source, FILES.values())
    return ChimedVl(source, files, images, ImageFiles(images).digest, seed)


@functools.lru_cache(maxsize=4)
def _form(part: str, file: Path) -> Form:
    """The form of the first row that has one. Raises LayoutError naming the keys that were found."""
    seen: dict[str, None] = {}
    for _, start, length, _ in Rows([file])[:_LOOKED_AT]:
        try:
            row = read_row(file, start, length)
        except RowError:
            continue
        seen.update(dict.fromkeys(row))
        image = next((key for key in IMAGES if key in row), "")
        question = next((key for key in QUESTIONS if key in row), "")
        answer = next((key for key in ANSWERS if key in row), "")
        texts = tuple(key for key in TEXTS if key in row)
        if image and form_of(row) not in ("", "query"):
            return Form(image, talk=True)
        if image and question and answer:
            return Form(image, question=question, answer=answer)
        if image and texts and part == "alignment":
            return Form(image, texts=texts)
    raise LayoutError(
        f"{file}: expected an image under {' or '.join(IMAGES[:3])}, ... and conversations, question and answer, or "
        f"caption, found only the keys {', '.join(seen) or 'of no row at all'}"
    )
