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
"""

import argparse
import dataclasses
import json
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
    sample: oracle.Sample
    limit: int

    @property
    def prompt(self) -> Any:
        """As umit_jax.infer.buckets.Prompt."""
        sample = self.sample
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
        asked.append(Question(sample, limit))
    return asked


def theirs(model: Any, asked: list[Question], batch: int) -> list[list[int]]:
    answers: dict[int, list[int]] = {}
    for limit in sorted({question.limit for question in asked}):
        own = [i for i, question in enumerate(asked) if question.limit == limit]
        for start in range(0, len(own), batch):
            numbers = own[start : start + batch]
            inputs = padded([asked[i].sample for i in numbers])
            with torch.no_grad():
                out = model.generate(**inputs, max_new_tokens=limit, do_sample=False, eos_token_id=None, pad_token_id=0)
            for row, number in enumerate(numbers):
                answers[number] = out[row, inputs["input_ids"].shape[1] :].tolist()
    return [answers[i] for i in range(len(asked))]


def padded(samples: list[oracle.Sample]) -> dict[str, Any]:
    """A left-padded batch; images and videos one after another, as the processor has them."""
    longest = max(len(sample.tokens) for sample in samples)
    joined: dict[str, Any] = {}
    for name in ("input_ids", "mm_token_type_ids"):
        rows = [torch.nn.functional.pad(s.inputs[name][0], (longest - len(s.tokens), 0)) for s in samples]
        joined[name] = torch.stack(rows)
    ones = [torch.ones(len(sample.tokens), dtype=torch.long) for sample in samples]
    joined["attention_mask"] = torch.stack([torch.nn.functional.pad(o, (longest - len(o), 0)) for o in ones])
    for name in dict.fromkeys(key for sample in samples for key in sample.inputs if key not in joined):
        joined[name] = torch.cat([sample.inputs[name] for sample in samples if name in sample.inputs])
    return joined


def cpu_seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.process_time()
    done = work()
    return time.process_time() - start, done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--examples", type=int, default=12)
    parser.add_argument("--an-image", type=int, default=4, help="questions about each image; 1: no image comes twice")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=32, help="most of a batch on both sides; `umit eval` has 32")
    args = parser.parse_args()

    model = torch_model(args.size)
    config, params = oracle.our_params(model)
    assert isinstance(config, ModelConfig)
    asked = questions(model, args.examples, args.an_image)
    prompts, limits = [question.prompt for question in asked], [question.limit for question in asked]

    def ours() -> list[list[int]]:
        found = answer_all(config, params, prompts, max_new_tokens=limits, eos_ids=(), rows=args.rows)
        return [answer.tokens for answer in found]

    sides: dict[str, Callable[[], list[list[int]]]] = {
        "ours": ours,
        "one by one": lambda: theirs(model, asked, 1),
        "batches": lambda: theirs(model, asked, args.rows),
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
    report = {
        "size": args.size,
        "parameters": sum(p.numel() for p in model.parameters()),
        "examples": args.examples,
        "questions_an_image": args.an_image,
        "rows": args.rows,
        "new_tokens": sum(limits),
        "cpu_s_first_round": {name: round(seconds, 2) for name, (seconds, _) in first.items()},
        "cpu_s_round": {name: round(seconds, 2) for name, seconds in medians.items()},
        "cpu_ms_per_token": {name: round(1000 * seconds / sum(limits), 3) for name, seconds in medians.items()},
        "ratio": {name: round(statistics.median(each), 3) for name, each in ratios.items()},
        "ratios": {name: [round(ratio, 3) for ratio in each] for name, each in ratios.items()},
        "same_answers": {name: sum(a == b for a, b in zip(said["ours"], said[name], strict=True)) for name in ratios},
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
