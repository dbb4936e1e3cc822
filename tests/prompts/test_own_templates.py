"""A user's own wordings replace ours, kind by kind, and what cannot work is refused by the name of the kind."""

from pathlib import Path

import numpy as np
import pytest

from data_pipelines import preparation
from data_pipelines.pipeline import beam_flags
from data_pipelines.preparation import prepare
from data_pipelines.prompts import TemplateError, render_question, templates_version, using_templates
from data_pipelines.prompts.render import wordings
from data_pipelines.shards import open_shards, read_manifest
from data_pipelines.sources.phantom import Phantom

OWN = """
version: umit-released-1
report:
  report:
    en: ["Write the radiology report of this study."]
detection:
  box2d:
    en: ["Find the {target} please."]
"""


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text(OWN, encoding="utf-8")
    return path


def test_the_kinds_it_names_are_replaced_and_the_others_stay(own):
    ours = wordings("caption", "caption", "en"), wordings("report", "report", "zh")
    with using_templates(own):
        rng = np.random.default_rng(0)
        assert render_question(rng, "detection", "box2d", "en", target="liver") == "Find the liver please."
        assert wordings("report", "report", "en") == ["Write the radiology report of this study."]
        assert (wordings("caption", "caption", "en"), wordings("report", "report", "zh")) == ours
        assert templates_version() == "umit-released-1"
    assert wordings("report", "report", "en") != ["Write the radiology report of this study."]


def test_shards_are_worded_by_it_in_every_process(own, tmp_path, monkeypatch):
    monkeypatch.setattr(preparation, "CHUNK_UNITS", 1)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))  # of Beam's worker processes
    for workers in (1, 2):
        out = tmp_path / f"out{workers}"
        prepare(Phantom(patients=3), out, templates=own, pipeline=beam_flags("direct", workers))
        assert read_manifest(out)["templates_version"] == "umit-released-1"
        texts = {r.turns[0].text for r in open_shards(out, "train") if r.task == "report" and r.language == "en"}
        assert texts == {"<media>Write the radiology report of this study."}


PLACED = """
version: 2
classification:
  organ:
    en: ["{plane} slice {slice}: which organ?\\n{options}", "Which organ?\\n{options}"]
caption:
  caption:
    en: ["Describe this {plane} image."]
    zh: ["描述这幅{plane}图像。"]
"""


def test_a_wording_may_name_the_plane_and_the_slice_and_is_not_asked_where_they_are_unknown(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text(PLACED, encoding="utf-8")

    def ask(task, kind, language="en", **slots):
        return {render_question(np.random.default_rng(i), task, kind, language, **slots) for i in range(20)}

    with using_templates(path):
        organ = {"options": ["liver", "spleen"]}
        both = {"axial slice 12/60: which organ?\n0:liver\n1:spleen", "Which organ?\n0:liver\n1:spleen"}
        assert ask("classification", "organ", plane="axial", slice_of=(12, 60), **organ) == both
        assert ask("classification", "organ", plane="axial", **organ) == {"Which organ?\n0:liver\n1:spleen"}
        assert ask("caption", "caption", "zh", plane="coronal") == {"描述这幅冠状面图像。"}
        with pytest.raises(TemplateError, match="caption/caption: every wording needs a plane or slice"):
            ask("caption", "caption")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("version: 1\nvqa: {plane: {en: ['Is it {plane}?']}}", "vqa/plane/en: expected the slots"),
        ("[1, 2", "not YAML"),
        ("report: {}", "without a version"),
        ("version: 1\nreports: {}", "reports: expected one of"),
        ("version: 1\nreport: {raport: {en: [x]}}", "report/raport: expected one of report"),
        ("version: 1\nreport: {report: {fr: [x]}}", "report/report: expected the languages en, zh"),
        ("version: 1\nreport: {report: {en: []}}", "report/report/en: expected a list of wordings"),
        ("version: 1\ndetection: {box2d: {en: [Where]}}", "detection/box2d/en: expected the slots"),
    ],
)
def test_what_cannot_work_is_one_line_naming_the_kind(tmp_path, text, said):
    path = tmp_path / "bad.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(TemplateError, match=said) as caught, using_templates(path):
        pass
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
