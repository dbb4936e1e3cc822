"""Samples of the mixture's sizes for benchmarks/train.py, and the batches that each side makes of them.

Sizes are drawn from the published counts of the stage-2 data sets (benchmarks/input.py): tokens of an image, a video's
frames for volumes, text around it, whose last third is the answer that is learned. Pixels and ids are random: a step
costs the same whatever they show. numpy only, so that the process that runs torch holds nothing of jax.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from benchmarks.input import STAGE2
from data_pipelines.example import Example
from data_pipelines.image import patch_hw
from data_pipelines.pack import pack_rows
from data_pipelines.plan import best_fit
from data_pipelines.positions import mrope_positions
from umit_jax.batch import Batch, check_batch

IMAGE, VIDEO, START, END, BOS, EOS = range(6)  # ids; text takes those from ORDINARY on
ORDINARY = 8
FRAMES = {"m3d": 16, "medmnist 3D": 14}  # temporal patches of a volume, by the data set's name
VIEWS = {"iu_xray": 2}
MULTIPLE = 64  # rows are as long as the samples need, rounded up to this


@dataclasses.dataclass(frozen=True)
class Sample:
    """One conversation: `example` as our side takes it; grids (t, h, w) in patches and kind as transformers does."""

    example: Example
    grids: list[tuple[int, int, int]]
    video: bool


def draw(count: int, vocab_size: int, seed: int, most: int = 10**6) -> list[Sample]:
    """`count` samples of the mixture. most: vision tokens that an image or volume has at most."""
    rng = np.random.default_rng(seed)
    share = np.array([samples for _, samples, _, _ in STAGE2], float)
    samples = []
    for number in range(count):
        name, _, vision, (mean, deviation) = STAGE2[rng.choice(len(STAGE2), p=share / share.sum())]
        low, high = vision if isinstance(vision, tuple) else (vision, vision)
        tokens, text = int(rng.integers(low, high + 1)), int(np.clip(rng.normal(mean, deviation), 20, 1500))
        samples.append(_sample(rng, f"{number} {name}", name, min(tokens, most), text, vocab_size))
    return samples


def _sample(rng: np.random.Generator, id_: str, name: str, vision: int, text: int, vocab_size: int) -> Sample:
    frames = next((n for prefix, n in FRAMES.items() if name.startswith(prefix)), 0)
    views = next((n for prefix, n in VIEWS.items() if name.startswith(prefix)), 1)
    each = max(vision // (frames or views), 1)
    rows = max(1, math.isqrt(each))
    grids = [(max(frames, 1), 2 * rows, 2 * (each // rows))] * views
    ids, starts = [], []
    pad = VIDEO if frames else IMAGE
    for t, h, w in grids:
        starts.append(len(ids) + 1)
        ids += [START, *[pad] * (t * h * w // 4), END]
    ids += rng.integers(ORDINARY, vocab_size, text).tolist()
    tokens_S = np.array(ids, np.int32)
    weights_S = np.zeros(len(ids), np.float32)
    weights_S[-1 - max(text // 3, 4) : -1] = 1
    vision_S = tokens_S == pad
    patches = sum(t * h * w for t, h, w in grids)
    frame_sizes = [h * w for t, h, w in grids for _ in range(t)]
    example = Example(
        id=id_,
        task="vqa",
        dataset=name,
        tokens_S=tokens_S,
        positions_S3=mrope_positions(len(ids), zip(starts, grids, strict=True)),
        targets_S=np.append(tokens_S[1:], 0).astype(np.int32),
        weights_S=weights_S,
        patches_PC=rng.integers(0, 256, (patches, 1176), dtype=np.uint8),
        patch_hw_P2=np.concatenate([patch_hw(grid) for grid in grids]),
        patch_segments_P=np.repeat(np.arange(1, len(frame_sizes) + 1, dtype=np.int32), frame_sizes),
        vision_index_S=np.where(vision_S, np.cumsum(vision_S) - 1, -1).astype(np.int32),
    )
    return Sample(example, grids, bool(frames))


def packed(samples: Sequence[Sample], rows: int, steps: int = 0, length: int = 0) -> list[Batch]:
    """Batches of `rows` rows that hold all samples. Either so many `steps`, with the shortest rows into which best fit
    gets them (over a long epoch it fills rows of any length), or rows of `length` tokens, as many as it takes."""
    examples = [sample.example for sample in samples]
    tokens = np.array([len(example.tokens_S) for example in examples])
    patches = np.array([len(example.patches_PC) for example in examples])
    longest = length or _up(max(int(tokens.max()), math.ceil(int(tokens.sum()) / (steps * rows))))
    while True:
        row_patches = max(_up(math.ceil(longest * patches.sum() / tokens.sum() * 1.05)), _up(int(patches.max())))
        row_N = best_fit(tokens, patches, longest, row_patches)
        if length or row_N.max() < steps * rows:
            break
        longest += MULTIPLE
    steps = steps or math.ceil((int(row_N.max()) + 1) / rows)
    filled = [[e for e, row in zip(examples, row_N, strict=True) if row == i] for i in range(steps * rows)]
    filled.sort(key=lambda row: sum(len(example.tokens_S) for example in row))  # rows of a step alike in length
    row_tokens = length or _up(max(sum(len(example.tokens_S) for example in row) for row in filled))
    row_patches = _up(max(sum(len(example.patches_PC) for example in row) for row in filled))
    return [check_batch(pack_rows(filled[i * rows : (i + 1) * rows], row_tokens, row_patches)) for i in range(steps)]


def padded(samples: Sequence[Sample]) -> Batch:
    """torch's batch in our form: every sample padded to the longest, and as there all patches one after the other. So
    it is one row, in which each sample has a place of equal length."""
    tokens = max(len(sample.example.tokens_S) for sample in samples)
    alone = [pack_rows([[sample.example]], tokens, len(sample.example.patches_PC)) for sample in samples]
    row = {name: np.concatenate([getattr(one, name) for one in alone], axis=1) for name in Batch._fields}
    patches = np.array([one.patches_BPC.shape[1] for one in alone])
    frames = np.array([one.patch_segments_BP.max(initial=0) for one in alone])
    row["segments_BS"] *= np.repeat(np.arange(1, len(alone) + 1, dtype=np.int32), tokens)
    row["patch_segments_BP"] += np.repeat(np.cumsum(frames) - frames, patches).astype(np.int32)
    first = np.repeat((np.cumsum(patches) - patches) // 4, tokens).astype(np.int32)
    row["vision_index_BS"] += np.where(row["vision_index_BS"] >= 0, first, 0)
    return check_batch(Batch(**row))


def collated(samples: Sequence[Sample], mean: Sequence[float], std: Sequence[float]) -> dict[str, np.ndarray]:
    """What transformers' model takes: padded to the longest on the right, pixels normalised, labels -100 where nothing
    is learned."""
    length = max(len(sample.example.tokens_S) for sample in samples)
    shape = (len(samples), length)
    out = {"input_ids": np.full(shape, EOS, np.int64), "attention_mask": np.zeros(shape, np.int64)}
    out |= {"labels": np.full(shape, -100, np.int64), "mm_token_type_ids": np.zeros(shape, np.int32)}
    for row, sample in enumerate(samples):
        ids = sample.example.tokens_S
        here = (row, slice(0, len(ids)))
        out["input_ids"][here], out["attention_mask"][here] = ids, 1
        out["mm_token_type_ids"][here] = np.where(ids == IMAGE, 1, np.where(ids == VIDEO, 2, 0))
        learned = np.flatnonzero(sample.example.weights_S) + 1
        out["labels"][row, learned] = ids[learned]
    values = np.repeat(np.asarray([mean, std], np.float32), 1176 // 3, axis=1)
    for video, name, grid in (
        (False, "pixel_values", "image_grid_thw"),
        (True, "pixel_values_videos", "video_grid_thw"),
    ):
        mine = [sample for sample in samples if sample.video == video]
        if mine:
            pixels = np.concatenate([sample.example.patches_PC for sample in mine]).astype(np.float32)
            out[name] = (pixels / 255 - values[0]) / values[1]
            out[grid] = np.array([grid for sample in mine for grid in sample.grids], np.int64)
    return out


def _up(size: int) -> int:
    return -(-size // MULTIPLE) * MULTIPLE
