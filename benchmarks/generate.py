"""CPU-seconds per generated token: umit_jax's bucketed batches against transformers' generate, on the same random
checkpoint and the same mixed questions, the two taking turns.

Both get the same prompts as arrays and answer until each question's limit; no token ends an answer. Each image is asked
about as often as --an-image says, by default once in each of the four ways, which is less than the sets of the field do
(by their publications VQA-RAD has 2,248 questions on 315 images, PathVQA 32,799 on 4,998, SLAKE 14,028 on 642, M3D-VQA
509,755 on 96,170: five to twenty-two each); with 1 no two questions share anything. transformers answers one question
at a time, and in left-padded batches of questions with the same limit. It has one thread, which costs it the fewest
CPU-seconds. Compilation is out of the ratios and stands beside them: cpu_s_first_round, which is not counted, holds
that of ours, and cpu_s_round does not. Below 1 ours takes less; the tokens are compared.

    python benchmarks/generate.py --size small --examples 12 --rounds 3
    python benchmarks/generate.py --quickstart runs/quickstart --examples 120

The second takes a trained model and its prompts instead: what `make quickstart` left, and of its held-out synthetic
patients the first questions of the five tasks, with the limits of configs/eval.py. Answers end where the model ends
them.
"""

import argparse
import dataclasses
import itertools
import json
import math
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "parity"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import oracle
import torch
import transformers

from umit_jax.infer.buckets import answer_all
from umit_jax.model.config import ModelConfig

# hidden, mlp, heads, kv heads, layers, vocabulary, and the tower's width, heads, layers
SIZES = {"small": (192, 512, 6, 2, 6, 8192, 128, 4, 4), "54m": (512, 1408, 8, 2, 10, 16384, 384, 6, 6)}
BEFORE = 24  # words before an image
MEDIA = [(224, 224), (336, 224), (224, 336), (8, 112, 112)]  # images, and a volume
ASKED = [(40, 8), (16, 96), (24, 48), (32, 24)]  # words after it, limit: closed question, report, box, landmark


def torch_model(size: str) -> Any:
    hidden, mlp, heads, kv_heads, layers, vocabulary, width, tower_heads, depth = SIZES[size]
    half = hidden // heads // 2
    vision = {"depth": depth, "num_heads": tower_heads, "embed_dim": width, "hidden_size": hidden, "mlp_ratio": 4}
    config = oracle.config_dict("gqa2-tied") | {
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "intermediate_size": mlp,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "rope_scaling": {"type": "mrope", "mrope_section": [half - 2 * (half // 3), half // 3, half // 3]},
        "vision_config": vision,
    }
    torch.manual_seed(0)
    config = transformers.Qwen2VLConfig(**config, attn_implementation="sdpa")
    model = transformers.Qwen2VLForConditionalGeneration(config).float().eval()
    with torch.no_grad():  # layers louder than the embedding, or a random model repeats its last token for ever
        for name, param in model.named_parameters():
            if "o_proj" in name or "down_proj" in name:
                param.mul_(8)
    return model


@dataclasses.dataclass
class Question:
    """inputs: as transformers takes them. prompt: as umit_jax.infer.buckets.Prompt."""

    inputs: dict[str, torch.Tensor]
    prompt: Any
    limit: int


def prompt_of(sample: oracle.Sample) -> Any:
    index_S = np.full(len(sample.tokens), -1, np.int32)
    index_S[np.isin(sample.tokens, (oracle.IMAGE, oracle.VIDEO))] = sample.merged_V
    fields = {"tokens_S": sample.tokens, "positions_S3": sample.positions_S3, "patches_PC": sample.patches_PC}
    fields |= {"patch_hw_P2": sample.hw_P2, "patch_segments_P": sample.frame_P, "vision_index_S": index_S}
    return argparse.Namespace(**fields)


def questions(model: Any, count: int, an_image: int) -> list[Question]:
    """Of each image `an_image` questions, which have all before their own words in common."""
    asked = []
    for i in range(count):
        image, (after, limit) = i // an_image, ASKED[i % len(ASKED)]
        sample = oracle.make_sample(model, [BEFORE + image, MEDIA[image % len(MEDIA)], after], seed=image)
        words = np.random.default_rng([image, i]).integers(0, oracle.IMAGE, after)
        sample.inputs["input_ids"][0, -after:] = torch.from_numpy(words)
        asked.append(Question(sample.inputs, prompt_of(sample), limit))
    return asked


def held_out(folder: Path, count: int) -> tuple[Any, Any, list[Question]]:
    """What transformers loads of a quickstart's export, our model, and its first held-out questions."""
    from configs.eval import get_config
    from data_pipelines.example import build_prompt, outline
    from data_pipelines.shards import open_shards
    from launch import model as models

    config, ours = get_config(), models.load(folder / "stage2")
    theirs = transformers.AutoModelForImageTextToText.from_pretrained(folder / "export", dtype=torch.float32).eval()
    shards = open_shards(folder / "data" / "phantom", config.split)
    records = (record for record in map(shards.__getitem__, range(len(shards))) if record.task in config.tasks)
    asked = []
    for record in itertools.islice(records, count):
        prompt = build_prompt(record, ours.tokenizer, ours.processing)
        spans = outline(record, ours.tokenizer, ours.processing, prompt=True).spans
        inputs = their_inputs(theirs.config, prompt, spans, ours.config.image_mean, ours.config.image_std)
        asked.append(Question(inputs, prompt, config.max_new_tokens[record.task]))
    return theirs, ours, asked


def their_inputs(config: Any, prompt: Any, spans: list[Any], mean: Any, std: Any) -> dict[str, torch.Tensor]:
    """The arrays of a prompt as transformers' processor would give them."""
    kinds = np.select([prompt.tokens_S == config.image_token_id, prompt.tokens_S == config.video_token_id], [1, 2], 0)
    inputs = {"input_ids": torch.tensor(prompt.tokens_S[None]).long(), "mm_token_type_ids": torch.tensor(kinds[None])}
    patches_PCX = prompt.patches_PC.reshape(len(prompt.patches_PC), 3, -1) / np.float32(255)
    patches_PCX = (patches_PCX - np.array(mean, np.float32)[:, None]) / np.array(std, np.float32)[:, None]
    values_PC = torch.tensor(patches_PCX.reshape(len(patches_PCX), -1))
    parts = torch.split(values_PC, [math.prod(span.grid) for span in spans])
    for video, values, grid in (
        (False, "pixel_values", "image_grid_thw"),
        (True, "pixel_values_videos", "video_grid_thw"),
    ):
        own = [i for i, span in enumerate(spans) if span.video == video]
        if own:
            inputs[values] = torch.cat([parts[i] for i in own])
            inputs[grid] = torch.tensor([spans[i].grid for i in own])
    return inputs


def theirs(model: Any, asked: list[Question], batch: int, eos_ids: tuple[int, ...]) -> list[list[int]]:
    answers: dict[int, list[int]] = {}
    for limit in sorted({question.limit for question in asked}):
        own = [i for i, question in enumerate(asked) if question.limit == limit]
        for start in range(0, len(own), batch):
            numbers = own[start : start + batch]
            inputs = padded([asked[i].inputs for i in numbers])
            ends = {"eos_token_id": list(eos_ids) or None, "pad_token_id": eos_ids[0] if eos_ids else 0}
            with torch.no_grad():
                out = model.generate(**inputs, max_new_tokens=limit, do_sample=False, **ends)
            for row, number in enumerate(numbers):
                said = out[row, inputs["input_ids"].shape[1] :].tolist()
                answers[number] = list(itertools.takewhile(lambda token: token not in eos_ids, said))
    return [answers[i] for i in range(len(asked))]


def padded(inputs: list[dict[str, torch.Tensor]]) -> dict[str, Any]:
    """A left-padded batch; images and videos one after another, as the processor has them."""
    longest = max(one["input_ids"].shape[1] for one in inputs)
    masked = [one | {"attention_mask": torch.ones_like(one["input_ids"])} for one in inputs]
    joined: dict[str, Any] = {}
    for name in ("input_ids", "mm_token_type_ids", "attention_mask"):
        rows = [torch.nn.functional.pad(one[name][0], (longest - one[name].shape[1], 0)) for one in masked]
        joined[name] = torch.stack(rows)
    for name in dict.fromkeys(key for one in inputs for key in one if key not in joined):
        joined[name] = torch.cat([one[name] for one in inputs if name in one])
    return joined


def cpu_seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.process_time()
    done = work()
    return time.process_time() - start, done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--quickstart", type=Path, help="folder of `make quickstart`, instead of --size and --an-image")
    parser.add_argument("--examples", type=int, default=12)
    parser.add_argument("--an-image", type=int, default=4, help="questions about each image; 1: no image comes twice")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=32, help="most of a batch on both sides; `umit eval` has 32")
    args = parser.parse_args()

    eos_ids: tuple[int, ...] = ()
    if args.quickstart:
        model, loaded, asked = held_out(args.quickstart, args.examples)
        config, params, eos_ids = loaded.config, loaded.params, tuple(sorted(loaded.tokenizer.eos_ids))
        about = {"quickstart": str(args.quickstart)}
    else:
        model = torch_model(args.size)
        config, params = oracle.our_params(model)
        asked = questions(model, args.examples, args.an_image)
        about = {"size": args.size}
    assert isinstance(config, ModelConfig)
    prompts, limits = [question.prompt for question in asked], [question.limit for question in asked]

    def ours() -> list[list[int]]:
        found = answer_all(config, params, prompts, max_new_tokens=limits, eos_ids=eos_ids, rows=args.rows)
        return [answer.tokens for answer in found]

    sides: dict[str, Callable[[], list[list[int]]]] = {
        "ours": ours,
        "one by one": lambda: theirs(model, asked, 1, eos_ids),
        "batches": lambda: theirs(model, asked, args.rows, eos_ids),
    }
    first = {name: cpu_seconds(side) for name, side in sides.items()}  # warms, and compiles ours
    said = {name: answers for name, (_, answers) in first.items()}
    spent: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(args.rounds):
        for name, side in sides.items():
            spent[name].append(cpu_seconds(side)[0])
    medians = {name: statistics.median(seconds) for name, seconds in spent.items()}
    theirs_of = {name: seconds for name, seconds in spent.items() if name != "ours"}
    ratios = {name: [a / b for a, b in zip(spent["ours"], other, strict=True)] for name, other in theirs_of.items()}
    new_tokens = sum(map(len, said["ours"]))
    images = len({prompt.patches_PC.tobytes() for prompt in prompts})
    report = {
        **about,
        "parameters": sum(p.numel() for p in model.parameters()),
        "examples": len(asked),
        "questions_an_image": round(len(asked) / images, 2),
        "rows": args.rows,
        "new_tokens": new_tokens,
        "cpu_s_first_round": {name: round(seconds, 2) for name, (seconds, _) in first.items()},
        "cpu_s_round": {name: round(seconds, 2) for name, seconds in medians.items()},
        "cpu_ms_per_token": {name: round(1000 * seconds / new_tokens, 3) for name, seconds in medians.items()},
        "ratio": {name: round(statistics.median(each), 3) for name, each in ratios.items()},
        "ratios": {name: [round(ratio, 3) for ratio in each] for name, each in ratios.items()},
        "same_answers": {name: sum(a == b for a, b in zip(said["ours"], said[name], strict=True)) for name in ratios},
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
