"""AutoProcessor of an export prepares a conversation exactly as training and generation do."""

import json

import jax
import jinja2
import numpy as np
import pytest

from configs.sizes import model_config
from data_pipelines.chat import CHAT_TEMPLATE
from data_pipelines.example import Processing, build_prompt
from data_pipelines.media.raster import decode
from data_pipelines.record import MEDIA_TOKEN, Media, Record, Turn
from data_pipelines.tokenizer import train_sentencepiece
from tests import torchvision_wheel
from tests.data.toy_records import image, record, volume
from umit_jax.convert.to_hf import write_hf
from umit_jax.model.param import init_params
from umit_jax.model.vision import normalise

PROCESSING = Processing(min_pixels=28 * 28, max_pixels=16 * 28 * 28)

# What the second Python does: argv is the export, a JSON of messages, and where the outputs go.
SCRIPT = """
import json, sys
import numpy as np
from transformers import AutoProcessor
processor = AutoProcessor.from_pretrained(sys.argv[1])
messages = json.loads(sys.argv[2])
arrays = dict(np.load(sys.argv[3]))
images = [arrays[name] for name in sorted(arrays) if name.startswith("image")]
videos = [arrays[name] for name in sorted(arrays) if name.startswith("video")]
text = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
out = processor(text=[text], images=images or None, videos=videos or None, return_tensors="np")
np.savez(sys.argv[4], text=text, processor=type(processor).__name__, **out)
"""


@pytest.fixture(scope="module")
def torchvision(tmp_path_factory):
    return torchvision_wheel.unpack(tmp_path_factory.mktemp("torchvision"))


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    """config, tokenizer and an exported directory."""
    model_dir = tmp_path_factory.mktemp("model")
    tokenizer = train_sentencepiece(["Is the liver seen? 肝脏可见吗？ yes no\n"] * 20, model_dir, 400)
    (model_dir / "preprocess.json").write_text(json.dumps(PROCESSING.to_json()))
    config = model_config("tiny", tokenizer)
    out = tmp_path_factory.mktemp("export") / "hf"
    write_hf(init_params(config, jax.random.key(0)), config, out, model_dir, chat_template=CHAT_TEMPLATE)
    return config, tokenizer, out


def conversation() -> Record:
    """Two images, a first answer, then a volume shown as a video of four slices; sides are multiples of 28."""
    first, second, third = image(56, 84, 1), image(28, 112, 2), volume(4, 56, 28, 3)
    turns = (
        Turn("user", f"{MEDIA_TOKEN}{MEDIA_TOKEN}Is the liver seen?"),
        Turn("assistant", "yes"),
        Turn("user", f"肝脏可见吗？{MEDIA_TOKEN}"),
        Turn("assistant", "no"),
    )
    made = record(media=(first, second, third))
    return type(made)(**{**vars(made), "turns": turns})


def messages(of: Record) -> list[dict]:
    """The record but its last answer, as transformers takes a conversation."""
    kinds = iter("video" if media.kind == "volume" else "image" for media in of.media)
    out = []
    for turn in of.turns[:-1]:
        first, *rest = turn.text.split(MEDIA_TOKEN)
        parts = [{"type": "text", "text": first}] if first else []
        for text in rest:
            parts.append({"type": next(kinds)})
            parts += [{"type": "text", "text": text}] if text else []
        out.append({"role": turn.role, "content": parts})
    return out


def pixels(media: Media) -> np.ndarray:
    frames = np.stack([decode(frame) for frame in media.frames])
    return frames if media.kind == "volume" else frames[0]


def test_autoprocessor_gives_the_tokens_and_pixels_of_training(torchvision, export, tmp_path):
    config, tokenizer, out = export
    of = conversation()
    arrays = {f"{'video' if m.kind == 'volume' else 'image'}{i}": pixels(m) for i, m in enumerate(of.media)}
    np.savez(tmp_path / "in.npz", **arrays)
    files = tmp_path / "in.npz", tmp_path / "out.npz"
    torchvision_wheel.run(torchvision, SCRIPT, out, json.dumps(messages(of)), *files, home=tmp_path)
    theirs = np.load(tmp_path / "out.npz")
    assert theirs["processor"] == "Qwen2VLProcessor"

    ours = build_prompt(of, tokenizer, PROCESSING)
    assert theirs["input_ids"][0].tolist() == ours.tokens_S.tolist()
    assert theirs["image_grid_thw"].tolist() == [[1, 4, 6], [1, 2, 8]]
    assert theirs["video_grid_thw"].tolist() == [[2, 4, 2]]
    expected = np.concatenate([theirs["pixel_values"], theirs["pixel_values_videos"]])
    found = np.asarray(normalise(ours.patches_PC[None], config))[0]
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)


def test_the_chat_template_renders_a_system_turn_of_the_users_own(export):
    template = jinja2.Template((export[2] / "chat_template.jinja").read_text())
    found = template.render(messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}])
    assert found == "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
