"""What augmentation costs and how often it can be done: CPU-seconds of an augmented example over a plain one.

Slides of 300 to 1,000 pixels a side with one to four boxes asked for, from PNG to patches. Plain and augmented take
turns, sample by sample. `done`: the share of the samples drawn for a kind whose answer is no longer than planned.

    python benchmarks/augment.py --samples 60 [--tokenizer DIR]
"""

import argparse
import dataclasses
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from configs import common
from data_pipelines.augment import DONE, Augmenter
from data_pipelines.augment_settings import Settings
from data_pipelines.example import Limits, Processing, build_example
from data_pipelines.media.raster import encode_png, resize
from data_pipelines.prompts import answer_text
from data_pipelines.record import MEDIA_TOKEN, Media, Record, Turn
from data_pipelines.tokenizer import load_tokenizer, train_sentencepiece
from umit_jax.targets import Frame, boxes_target

KINDS = ("flip", "crop", "resize", "intensity", "corrupt")
LIMITS = Limits(4096, 14336)
QUESTION = "Draw a box around each cell nucleus."


def slide(number: int) -> Record:
    rng = np.random.default_rng(number)
    width, height = (int(n) for n in rng.integers(300, 1000, 2))
    media = Media((encode_png(resize(rng.integers(0, 256, (40, 40, 3), np.uint8), (width, height))),), "image", "SM",
                  (width, height))  # fmt: skip
    near = rng.uniform(0, 0.8, (int(rng.integers(1, 5)), 2))
    far = np.minimum(near + rng.uniform(0.05, 0.3, near.shape), 1)
    items = [("cell nucleus", [*(a * (width, height)), *(b * (width, height))]) for a, b in zip(near, far, strict=True)]
    target = boxes_target(Frame("raw", (float(width), float(height))), items)
    answer = answer_text(target, task="detection", language="en")
    return Record(
        f"slides/{number}", "slides", "train", f"p{number}", "detection", "en", "box/nucleus", (media,),
        (Turn("user", MEDIA_TOKEN + QUESTION), Turn("assistant", answer)), target, "synthetic", "CC0-1.0", "drawn",
    )  # fmt: skip


def only(kind: str) -> Settings:
    config = common.augment()
    config[kind] = 1.0
    settings = Settings.from_config(config)
    assert settings is not None
    return settings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=60)
    parser.add_argument("--tokenizer", type=Path, help="directory with tokenizer.json; by default one is trained")
    args = parser.parse_args()
    records = [slide(number) for number in range(args.samples)]
    with tempfile.TemporaryDirectory() as folder:
        texts = [turn.text for record in records for turn in record.turns]
        tokenizer = load_tokenizer(args.tokenizer) if args.tokenizer else train_sentencepiece(texts, Path(folder), 400)
        for boxes in ("norm1000", "resized"):
            processing = dataclasses.replace(Processing(), boxes=boxes)
            makers = {kind: Augmenter(only(kind), tokenizer, processing, LIMITS, 0) for kind in KINDS}
            ratios: dict[str, list[float]] = {kind: [] for kind in KINDS}
            done: dict[str, int] = dict.fromkeys(KINDS, 0)
            for record in records:
                build_example(record, tokenizer, processing, LIMITS)  # neither is the first to touch the file
                for kind, maker in makers.items():
                    start = time.process_time()
                    build_example(record, tokenizer, processing, LIMITS)
                    middle = time.process_time()
                    done[kind] += (maker.example(record, epoch=0).augmented or {})[kind] == DONE
                    ratios[kind].append((time.process_time() - middle) / (middle - start))
            print(json.dumps({
                "boxes": boxes,
                "samples": len(records),
                "done": {kind: round(n / len(records), 3) for kind, n in done.items()},
                "cpu_ratio": {kind: round(statistics.median(r), 2) for kind, r in ratios.items()},
            }))  # fmt: skip


if __name__ == "__main__":
    main()
