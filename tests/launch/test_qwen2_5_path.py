"""Train, eval, score, predict and export a tiny Qwen2.5-VL: nothing but the size's name differs from Qwen2-VL."""

import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.launch.conftest import CONFIGS, train_arguments, umit

NEW_TOKENS = 12


@pytest.fixture(scope="module")
def trained(work, shards):
    pixels = ("--config.data.max_pixels=40000", "--config.data.total_pixels=160000", "--config.data.row_tokens=768")
    arguments = train_arguments("stage2", shards, work / "qwen2.5", 2)
    done = umit(*arguments, "--config.model=qwen2.5-tiny", *pixels)
    assert done.summary["compilations"] == 1
    assert np.isfinite(done.summary["loss"])
    return work / "qwen2.5"


@pytest.fixture(scope="module")
def hugging_face(work, trained):
    umit("export", trained, "--out", work / "qwen2.5-hf")
    return work / "qwen2.5-hf"


def test_a_run_keeps_what_its_family_wants_of_the_host(trained):
    kept = json.loads((trained / "model" / "preprocess.json").read_text())
    assert (kept["window"], kept["tokens_per_second"], kept["boxes"]) == (4, 2, "resized")
    assert json.loads((trained / "model" / "config.json").read_text())["model_type"] == "qwen2_5_vl"


def test_images_cut_for_another_family_are_refused_by_name(trained, tmp_path):
    from launch.cli import UsageError
    from launch.model import load_companions

    shutil.copytree(trained / "model", tmp_path / "model")
    kept = json.loads((tmp_path / "model" / "preprocess.json").read_text())
    for field in ("window", "tokens_per_second"):
        stale = {key: value for key, value in kept.items() if key != field}
        (tmp_path / "model" / "preprocess.json").write_text(json.dumps(stale))
        with pytest.raises(UsageError, match=rf"preprocess\.json: {field}: expected .* for a qwen2_5_vl, found"):
            load_companions(tmp_path / "model")


def test_predictions_carry_the_frame_of_their_boxes_and_are_scored_again_without_the_model(shards, trained, tmp_path):
    limits = ("--config.limit=24", "--config.tasks=('detection','vqa')", "--config.max_new_tokens.detection=8")
    sources = f"--config.sources=('{shards}',)"
    umit("eval", f"--config={CONFIGS / 'eval.py'}", sources, *limits, "--checkpoint", trained, "--out", tmp_path / "a")
    lines = [json.loads(line) for line in (tmp_path / "a" / "predictions.jsonl").read_text().splitlines()]
    flat = [line for line in lines if line["task"] == "detection" and len(line["truth"]["frame"]["size"]) == 2]
    assert flat
    for line in flat:
        assert line["truth"]["frame"]["name"] == "raw"
        assert line["spoken"]["name"] == "resized"
        assert all(side % 28 == 0 for side in line["spoken"]["size"])
    # what the model should have said, scored from the file alone
    from data_pipelines.prompts import answer_text
    from umit_jax.targets import Frame, convert_target

    for line in flat:
        said = convert_target(line["truth"], Frame.from_json(line["spoken"]))
        line.pop("scores", None)  # of the boxes that the model said
        line["text"] = answer_text(said, task="detection", language=line["language"])
    (tmp_path / "right.jsonl").write_text("".join(json.dumps(line) + "\n" for line in flat))
    umit("score", tmp_path / "right.jsonl", "--out", tmp_path / "b")
    rows = json.loads((tmp_path / "b" / "scores.json").read_text())
    assert all(row["value"] > 0.9 for row in rows if row["metric"] == "mean_iou")
    assert all(row["value"] == 0 for row in rows if row["metric"] == "unparsed")


def test_predict_answers_and_says_the_box_in_raw_pixels(trained, tmp_path):
    image = tmp_path / "x.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 200), np.uint8)).save(image)
    done = umit(
        "predict", "--checkpoint", trained, "--image", image, "--prompt", "Where?", "--max-new-tokens", 4, "--json"
    )
    assert len(done.summary["token_ids"]) <= 4

    from launch.conversation import conversation_record
    from launch.predict import _parsed
    from umit_jax.targets import Frame

    record = conversation_record([{"role": "user", "content": "Where?", "images": [str(image)]}], "")
    said = '```json\n[\n\t{"bbox_2d": [14, 7, 98, 42], "label": "liver"}\n]\n```'
    found = _parsed(said, record, Frame("resized", (196, 84)))
    assert found["frame"]["size"] == [200, 90]
    np.testing.assert_allclose(found["items"][0]["box"], [14 * 200 / 196, 7 * 90 / 84, 100, 45])


def test_the_export_is_transformers_qwen2_5_vl_and_says_the_same_tokens(shards, trained, hugging_face):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    pil = pytest.importorskip("transformers.models.qwen2_vl.image_processing_pil_qwen2_vl")
    from data_pipelines.example import build_prompt
    from data_pipelines.shards import open_shards
    from launch import model
    from umit_jax.infer.buckets import answer_all

    ours = model.load(trained)
    theirs = transformers.AutoModelForImageTextToText.from_pretrained(hugging_face, dtype=torch.float32)
    assert type(theirs) is transformers.Qwen2_5_VLForConditionalGeneration
    images = pil.Qwen2VLImageProcessorPil.from_pretrained(hugging_face)
    single = [r for r in open_shards(shards, "test") if len(r.media) == 1 and len(r.turns) == 2]
    records = [r for kind in ("image", "volume") for r in [r for r in single if r.media[0].kind == kind][:2]]
    assert [r.media[0].kind for r in records] == ["image", "image", "volume", "volume"]
    prompts = [build_prompt(record, ours.tokenizer, ours.processing) for record in records]
    assert max(len(prompt.patches_PC) for prompt in prompts) > 16  # several windows
    answers = answer_all(ours.config, ours.params, prompts, max_new_tokens=NEW_TOKENS, eos_ids=())
    for record, prompt, answer in zip(records, prompts, answers, strict=True):
        inputs = hugging_face_inputs(images, record, prompt, ours.config, ours.processing)
        out = theirs.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False, eos_token_id=None, pad_token_id=0)
        assert out[0, len(prompt.tokens_S) :].tolist() == answer.tokens


def hugging_face_inputs(images, record, prompt, config, processing):
    """The prompt as transformers takes it: pixels by the export's own image processor (a video's frames one by one,
    two of them to a patch), a second for each temporal patch."""
    import torch

    (media,) = record.media
    out = images(images=[Image.open(io.BytesIO(f)).convert("RGB") for f in media.frames], return_tensors="np")
    _, rows, columns = out["image_grid_thw"][0].tolist()
    ids = torch.tensor(prompt.tokens_S[None].astype(np.int64))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if media.kind == "image":
        grid = {"pixel_values": torch.tensor(out["pixel_values"]), "image_grid_thw": torch.tensor([[1, rows, columns]])}
        return {**inputs, **grid, "mm_token_type_ids": (ids == config.image_token_id).int()}
    frames = out["pixel_values"].reshape(len(media.frames), rows * columns, 3, 2, 14, 14)[:, :, :, 0]
    frames = np.concatenate([frames, frames[-1:]])[: 2 * -(-len(frames) // 2)]
    pairs = np.stack([frames[0::2], frames[1::2]], axis=3).reshape(-1, 3 * 2 * 14 * 14)
    video = torch.tensor([[len(frames) // 2, rows, columns]])
    seconds = torch.tensor([processing.time_step / config.vision.tokens_per_second])
    kinds = 2 * (ids == config.video_token_id).int()
    return {
        **inputs,
        "pixel_values_videos": torch.tensor(pairs),
        "video_grid_thw": video,
        "second_per_grid_ts": seconds,
        "mm_token_type_ids": kinds,
    }
