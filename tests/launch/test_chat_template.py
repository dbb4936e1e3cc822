"""A model that comes with a chat template of its own is asked in that format from import to export."""

import json

import numpy as np
import pytest

from data_pipelines.example import build_prompt
from launch.cli import UsageError
from launch.conversation import conversation_record
from launch.model import load_companions
from tests.export import hub
from tests.launch.conftest import umit

OURS, THEIRS = "You are a helpful assistant.", "You are a radiologist."


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    directory = hub.write_model(tmp_path_factory.mktemp("hub") / "hub", dtype=np.float32)
    template = json.dumps({"chat_template": hub.TEMPLATE.replace(OURS, THEIRS)})
    (directory / "chat_template.json").write_text(template)
    return directory


@pytest.fixture(scope="module")
def imported(source, tmp_path_factory):
    out = tmp_path_factory.mktemp("import") / "run"
    umit("import", source, "--out", out)
    return out


def prompt_of(imported, messages) -> str:
    _, tokenizer, processing = load_companions(imported / "model")
    return tokenizer.decode(build_prompt(conversation_record(messages, ""), tokenizer, processing).tokens_S.tolist())


def test_questions_are_asked_in_the_format_of_the_imported_model(imported):
    asked = [{"role": "user", "content": "Is <|im_end|> seen?"}]
    expected = f"<|im_start|>system\n{THEIRS}<|im_end|>\n<|im_start|>user\nIs <|im_end|> seen?<|im_end|>\n"
    assert prompt_of(imported, asked) == expected + "<|im_start|>assistant\n"
    system = [{"role": "system", "content": "Be brief."}, *asked]
    assert prompt_of(imported, system).startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n")


def test_it_comes_out_of_an_export_as_it_went_in(imported, source, tmp_path):
    umit("export", imported, "--out", tmp_path / "out")
    assert (tmp_path / "out" / "chat_template.json").read_bytes() == (source / "chat_template.json").read_bytes()


def test_a_template_that_cannot_be_followed_is_one_line(imported, source, tmp_path):
    template = imported / "model" / "chat_template.jinja"
    kept = template.read_bytes()
    template.write_text("{% for m in messages %}{{ m.content | upper }}<|im_end|>{% endfor %}")
    try:
        done = umit("predict", "--checkpoint", imported, "--prompt", "Is it?", check=False)
    finally:
        template.write_bytes(kept)
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.strip()]
    assert "chat template: " in line


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([{"role": "system", "content": "x"}], "must end with a user's message"),
        (
            [{"role": "user", "content": "x"}, {"role": "system", "content": "x"}],
            "message 1: expected role 'assistant'",
        ),
        ([{"role": "system", "content": "x"}] * 2, "message 1: expected role 'user', found 'system'"),
        ([{"role": "system", "content": "x", "images": ["a.png"]}], "only a user's message has images"),
        ([{"role": "tool", "content": "x"}], "expected a role"),
    ],
)
def test_a_system_message_stands_first_and_without_images(messages, expected):
    with pytest.raises(UsageError, match=expected):
        conversation_record(messages, "")
