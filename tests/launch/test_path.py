"""The whole path on a few synthetic patients: files that scripts rely on, resume, scores, export, predict."""

import json

import numpy as np
import pytest

from tests.launch.conftest import train_arguments, umit

COMMON = {"command", "version", "config_hash", "seconds", "peak_rss_mb"}


def summary(directory):
    return json.loads((directory / "summary.json").read_text())


def test_prepare_summary_counts_records_by_split_and_task(shards):
    found = summary(shards)
    assert {"records", "quarantined", "duplicates", "leaks", *COMMON} <= set(found)
    assert set(found["records"]["train"]) == {
        "vqa", "report", "classification", "detection", "landmark", "caption", "comparison",
    }  # fmt: skip


def test_train_writes_one_line_a_step_and_compiles_once(stage1, stage2):
    for workdir in (stage1, stage2):
        found = summary(workdir)
        keys = {"step", "loss", "loss_per_task", "tokens_seen", "fill_tokens", "fill_patches", "compilations"}
        assert keys | COMMON <= set(found)
        assert found["compilations"] == 1
        lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
        assert [line["step"] for line in lines] == [1, 2, 3, 4]
        assert all(np.isfinite(line["loss"]) and line["weight"] > 0 for line in lines)
    assert all(line["sample_ids"] for line in lines)


def test_a_finished_run_is_not_trained_again(stage1, shards):
    before = (stage1 / "metrics.jsonl").read_bytes()
    again = umit(*train_arguments("stage1", shards, stage1, 4)).summary
    assert again["step"] == 4
    assert (stage1 / "metrics.jsonl").read_bytes() == before


def test_stage_2_starts_from_stage_1_and_leaves_the_vision_tower_alone(stage1, stage2):
    from launch import model

    first, second = model.load(stage1), model.load(stage2)
    import jax

    for a, b in zip(jax.tree.leaves(first.params["vision"]), jax.tree.leaves(second.params["vision"]), strict=True):
        np.testing.assert_array_equal(a, b)
    embeddings = [np.asarray(m.params["decoder"]["embed"]["embedding"]) for m in (first, second)]
    assert np.abs(embeddings[0] - embeddings[1]).max() > 0


def test_scores_cover_the_five_tasks_with_baseline_and_interval(evaluation):
    rows = json.loads((evaluation / "scores.json").read_text())
    keys = {"task", "dataset", "language", "metric", "mode", "value", "ci95", "baseline", "n"}
    assert all(keys <= set(row) for row in rows)
    assert {row["task"] for row in rows} == {"vqa", "report", "classification", "detection", "landmark"}
    assert all(row["synthetic"] for row in rows)
    metrics = {row["metric"] for row in rows}
    expected = {"closed_accuracy", "token_f1", "accuracy", "macro_f1", "bleu4", "rouge_l", "mean_iou", "acc_at_0.5"}
    assert expected | {"mre_mm", "sdr_2mm", "sdr_2.5mm", "sdr_3mm", "sdr_4mm", "unparsed"} <= metrics


def test_score_repeats_the_numbers_without_a_model(evaluation, tmp_path):
    lines = [json.loads(line) for line in (evaluation / "predictions.jsonl").read_text().splitlines()]
    assert {"id", "task", "dataset", "language", "prompt", "text", "parsed", "truth"} <= set(lines[0])
    assert all(len(line["scores"]) == len(line["truth"]["options"]) for line in lines if "options" in line["truth"])
    boxes = [line for line in lines if line["truth"]["kind"] == "boxes"]
    assert all(len(line["scores"]) == len(line["parsed"]["items"] if line["parsed"] else []) for line in boxes)
    assert all(len(image) == 64 for line in lines for image in line["images"])
    stripped = tmp_path / "predictions.jsonl"
    stripped.write_text("".join(json.dumps({**line, "parsed": None}, ensure_ascii=False) + "\n" for line in lines))
    umit("score", stripped, "--out", tmp_path / "again")
    again = json.loads((tmp_path / "again" / "scores.json").read_text())
    assert again == json.loads((evaluation / "scores.json").read_text())
    assert "No pictures beside" in (tmp_path / "again" / "report.html").read_text()


def test_eval_writes_a_page_with_its_pictures_and_score_takes_them_over(evaluation, tmp_path):
    lines = [json.loads(line) for line in (evaluation / "predictions.jsonl").read_text().splitlines()]
    assert all({"images", "config_hash", "seed"} <= set(line) for line in lines)
    umit("score", evaluation, "--out", tmp_path)
    pages = [(folder / "report.html").read_text() for folder in (evaluation, tmp_path)]
    assert pages[0] == pages[1]
    shown = json.loads((tmp_path / "report_files" / "pictures.json").read_text())["shown"]
    assert {name for line in lines for name in line["images"]} == set(shown)
    assert all((tmp_path / "report_files" / picture["file"]).is_file() for picture in shown.values())
    assert not any(line["patient_id"] in pages[0] for line in lines)


def test_inspect_tells_shards_checkpoints_and_exports_apart(shards, stage2, exported):
    found = {d: umit("inspect", d, "--json").summary for d in (shards, stage2, exported)}
    assert [found[d]["kind"] for d in (shards, stage2, exported)] == ["shards", "checkpoint", "hugging_face"]
    assert found[stage2]["parameters"] == found[exported]["parameters"]
    assert found[stage2]["step"] == 4


def test_inspect_prints_records_a_line_each_without_pixels(shards):
    done = umit("inspect", shards, "--records", 5, "--json")
    records = [json.loads(line) for line in done.stdout.splitlines()[:5]]
    assert all({"id", "turns", "target", "media"} <= set(record) for record in records)
    assert all(len(media["sha256"]) == 64 for record in records for media in record["media"])


def test_predict_answers_a_question_about_a_file(stage2, work):
    from PIL import Image

    image = work / "x.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 120), np.uint8)).save(image)
    overlay = work / "overlay.png"
    question = ("--prompt", "Where is the heart?", "--max-new-tokens", 6)
    done = umit("predict", "--checkpoint", stage2, "--image", image, *question, "--overlay", overlay, "--json")
    assert len(done.summary["token_ids"]) <= 6
    assert done.summary["parsed"]["kind"] in ("text", "boxes", "points")
    assert Image.open(overlay).size[0] >= 120


def test_predict_takes_a_conversation(stage2, work):
    from PIL import Image

    image = work / "y.png"
    Image.fromarray(np.full((60, 60), 128, np.uint8)).save(image)
    messages = work / "messages.json"
    messages.write_text(
        json.dumps(
            [
                {"role": "user", "content": "Which modality is this?", "images": [str(image)]},
                {"role": "assistant", "content": "CT"},
                {"role": "user", "content": "Which plane?"},
            ]
        )
    )
    found = umit("predict", "--checkpoint", stage2, "--messages", messages, "--max-new-tokens", 3, "--json").summary
    assert len(found["token_ids"]) <= 3
    assert set(found) >= {"text", "parsed", "token_ids", *COMMON}


def test_the_export_loads_in_transformers_and_says_the_same_tokens_on_held_out_images(shards, stage2, exported):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    pil = pytest.importorskip("transformers.models.qwen2_vl.image_processing_pil_qwen2_vl")
    from data_pipelines.example import build_prompt
    from data_pipelines.shards import open_shards
    from launch import model
    from umit_jax.infer.buckets import answer_all

    ours = model.load(stage2)
    theirs = transformers.AutoModelForImageTextToText.from_pretrained(exported, dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(exported)
    # AutoProcessor as a whole needs torchvision for videos: tests/export/test_processor.py has it.
    images = pil.Qwen2VLImageProcessorPil.from_pretrained(exported)
    held_out = open_shards(shards, "test")
    records = [r for r in held_out if r.task == "vqa" and all(m.kind == "image" for m in r.media)][:6]
    prompts = [build_prompt(record, ours.tokenizer, ours.processing) for record in records]
    answers = answer_all(ours.config, ours.params, prompts, max_new_tokens=12, eos_ids=ours.tokenizer.eos_ids)
    assert len(records) >= 2
    for record, prompt, answer in zip(records, prompts, answers, strict=True):
        inputs = hugging_face_inputs(tokenizer, images, record)
        assert inputs["input_ids"][0].tolist() == prompt.tokens_S.tolist()
        kinds = (inputs["input_ids"] == tokenizer.convert_tokens_to_ids("<|image_pad|>")).int()
        out = theirs.generate(**inputs, mm_token_type_ids=kinds, max_new_tokens=12, do_sample=False)
        said = out[0, inputs["input_ids"].shape[1] :].tolist()
        said = said[: next((i for i, t in enumerate(said) if t in ours.tokenizer.eos_ids), len(said))]
        assert said == answer.tokens


def hugging_face_inputs(tokenizer, images, record):
    """The record's question through the export's own image processor, tokenizer and chat template."""
    import io

    import torch
    from PIL import Image

    pictures = [Image.open(io.BytesIO(media.frames[0])).convert("RGB") for media in record.media]
    pixels = images(images=pictures, return_tensors="pt")
    content = [{"type": "image"} for _ in pictures]
    content.append({"type": "text", "text": record.turns[0].text.replace("<media>", "")})
    messages = [{"role": "user", "content": content}]
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    for grid in pixels["image_grid_thw"]:
        text = text.replace("<|image_pad|>", "<|hole|>" * int(grid.prod() // 4), 1)
    text = text.replace("<|hole|>", "<|image_pad|>")
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), **pixels}


def test_a_tokenizers_corpus_is_capped_and_evenly_spaced(shards):
    from data_pipelines.shards import open_shards
    from launch.train import _texts

    records = open_shards(shards, "train")
    first_turns = [record.turns[0].text for record in records]
    spoken = set(_texts({shards: 1.0}, 2))
    assert {first_turns[0], first_turns[len(records) // 2]} <= spoken
    assert len(list(_texts({shards: 1.0}, 2))) == 4 * sum(len(records[i].turns) for i in (0, len(records) // 2))
    assert set(first_turns) <= set(_texts({shards: 1.0}, 10**6))
