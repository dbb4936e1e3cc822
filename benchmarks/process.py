"""CPU-seconds of preparing picture questions: our Record -> Example against transformers' processor.

Both start from the same encoded files and end with the ids and patches of the same images: ours as uint8, which the
device normalises, and with positions; theirs as normalised float32, the positions being left to its model. Files are
read by load_image and resized in Pillow by its processor. The two take turns, picture by picture; a ratio below 1 means
that ours takes less.

    python benchmarks/process.py --images 24 --rounds 5
"""

import argparse
import io
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from data_pipelines.example import Processing, build_prompt
from data_pipelines.record import MEDIA_TOKEN, Media, Record, Turn
from data_pipelines.tokenizer import load_tokenizer

BOUNDS = {"min_pixels": 4 * 784, "max_pixels": 768 * 784}
QUESTION = "Is the liver enlarged? Answer with one of the options.\n1:yes\n2:no"
TEXT = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<|vision_start|><|image_pad|>"
    f"<|vision_end|>{QUESTION}<|im_end|>\n<|im_start|>assistant\n"
)


def pictures(count: int) -> list[bytes]:
    """PNG and JPEG files of 256 to 1,200 pixels a side, grey and RGB: smooth with some noise, as radiographs are."""
    out = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        width, height = map(int, rng.integers(256, 1200, 2))
        small = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)).convert("L" if seed % 2 else "RGB")
        pixels = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC), np.int16)
        pixels = np.clip(pixels + rng.integers(-6, 7, pixels.shape), 0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(
            buffer, "PNG" if seed % 4 < 2 else "JPEG", **({} if seed % 4 < 2 else {"quality": 90})
        )
        out.append(buffer.getvalue())
    return out


def question(data: bytes) -> Record:
    with Image.open(io.BytesIO(data)) as image:
        media = Media((data,), "image", "OT", image.size)
    turns = (Turn("user", MEDIA_TOKEN + QUESTION), Turn("assistant", "1:yes"))
    about = {"dataset": "benchmark", "patient_id": "none", "topic": "size", "license": "none", "source": "random"}
    about |= {"split": "test", "task": "vqa", "language": "en", "label_kind": "synthetic"}
    return Record(id="x", media=(media,), turns=turns, target={"kind": "text", "text": "1:yes"}, **about)


def cpu_seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()

    import torch
    from transformers.image_utils import load_image

    from tests.data.qwen_vocabulary import write_tokenizer_json
    from tests.parity.family_processing import FAMILIES, levels, row_by_row
    from tests.parity.processor_oracle import auto_tokenizer, oracle

    torch.set_num_threads(1)
    directory = Path(tempfile.mkdtemp())
    write_tokenizer_json(directory)
    (directory / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "Qwen2Tokenizer"}))
    tokenizer, files = load_tokenizer(directory), pictures(args.images)
    for family, numbers in FAMILIES.items():
        processing = Processing(**BOUNDS, total_pixels=10**9, **numbers)
        reference = oracle(family, auto_tokenizer(directory), BOUNDS)

        def ours(data: bytes, processing: Processing = processing):
            return build_prompt(question(data), tokenizer, processing)

        def theirs(data: bytes, reference=reference):
            return reference.processor(
                text=[TEXT], images=[load_image(Image.open(io.BytesIO(data)))], return_tensors="np"
            )

        for data in files[:4]:  # the same work, and both warm
            example, expected = ours(data), theirs(data)
            assert example.tokens_S.tolist() == expected["input_ids"][0].tolist()
            np.testing.assert_array_equal(row_by_row(example), np.rint(levels(expected["pixel_values"])))
        ratios, spent = [], [0.0, 0.0]
        for _ in range(args.rounds):
            seconds = [(cpu_seconds(lambda d=d: ours(d)), cpu_seconds(lambda d=d: theirs(d))) for d in files]
            totals = np.sum(seconds, axis=0)
            ratios.append(totals[0] / totals[1])
            spent = [a + float(b) for a, b in zip(spent, totals, strict=True)]
        each = [1000 * total / args.rounds / len(files) for total in spent]
        print(
            f"{family}: ours {each[0]:.1f} ms, transformers {each[1]:.1f} ms of CPU an image; "
            f"ratio {statistics.median(ratios):.3f} (median of {args.rounds}: {min(ratios):.3f} to {max(ratios):.3f})"
        )


if __name__ == "__main__":
    main()
