"""The Batch contract: what the host hands to the device, with static shapes, batch first.

Dims: B packed rows, S tokens per row, P patches per row, C values per patch. A row packs several samples; everything
that must not cross from one sample to the next is separated by segment ids, 0 being padding.

| field            | dtype | meaning                                                                             |
| tokens_BS        | i32   | token ids                                                                           |
| positions_BS3    | i32   | M-RoPE position of each token (t, h, w), starting at 0 in every sample              |
| segments_BS      | i32   | sample number in the row, from 1; 0 = padding                                       |
| targets_BS       | i32   | token that follows (already shifted)                                                |
| weights_BS       | f32   | loss weight of targets_BS; 0 on prompts, padding and the last token of a sample     |
| tasks_BS         | i32   | index in TASKS of the sample each token belongs to; read only where weights_BS > 0  |
| patches_BPC      | u8    | pixels of each patch, (channel, time, y, x) order, normalised on the device         |
| patch_hw_BP2     | i32   | row and column of the patch in its image's patch grid, for the 2D rope              |
| patch_segments_BP| i32   | unique per image and frame in the row, from 1; 0 = padding                          |
| vision_index_BS  | i32   | which merged patch (patch number // 4) of the row stands here, -1 = text            |

numpy only, so that the host side can import it.
"""

from typing import Any, NamedTuple

import numpy as np

TASKS = ("vqa", "report", "classification", "detection", "landmark", "caption", "comparison")

Array = Any  # numpy array on the host, jax.Array or ShapeDtypeStruct on the device


class Batch(NamedTuple):
    tokens_BS: Array
    positions_BS3: Array
    segments_BS: Array
    targets_BS: Array
    weights_BS: Array
    tasks_BS: Array
    patches_BPC: Array
    patch_hw_BP2: Array
    patch_segments_BP: Array
    vision_index_BS: Array


DTYPES = Batch(*(np.dtype(d) for d in ["i4", "i4", "i4", "i4", "f4", "i4", "u1", "i4", "i4", "i4"]))


def batch_shapes(rows: int, tokens: int, patches: int, patch_values: int) -> Batch:
    """Shapes of every field as a Batch of tuples. patches must be a multiple of 4 (the 2x2 merge)."""
    if patches % 4:
        raise ValueError(f"patches: expected a multiple of 4 (2x2 merge), found {patches}")
    bs, bp = (rows, tokens), (rows, patches)
    return Batch(bs, (*bs, 3), bs, bs, bs, bs, (*bp, patch_values), (*bp, 2), bp, bs)


def empty_batch(rows: int, tokens: int, patches: int, patch_values: int) -> Batch:
    """All padding: segments 0, vision_index -1, weights 0."""
    shapes = batch_shapes(rows, tokens, patches, patch_values)
    batch = Batch(*(np.zeros(shape, dtype) for shape, dtype in zip(shapes, DTYPES, strict=True)))
    batch.vision_index_BS[:] = -1
    return batch


def check_batch(batch: Batch) -> Batch:
    """Returns the batch, or raises ValueError naming the field whose shape, dtype or content is wrong."""
    (rows, tokens), (_, patches, values) = np.shape(batch.tokens_BS), np.shape(batch.patches_BPC)
    expected = batch_shapes(rows, tokens, patches, values)
    for name, array, shape, dtype in zip(Batch._fields, batch, expected, DTYPES, strict=True):
        if tuple(array.shape) != shape or np.dtype(array.dtype) != dtype:
            raise ValueError(f"{name}: expected {dtype}{list(shape)}, found {array.dtype}{list(array.shape)}")
    if (np.asarray(batch.weights_BS)[np.asarray(batch.segments_BS) == 0] != 0).any():
        raise ValueError("weights_BS: padding (segments_BS == 0) carries loss weight")
    index = np.asarray(batch.vision_index_BS)
    if index.min(initial=-1) < -1 or index.max(initial=-1) >= patches // 4:
        raise ValueError(f"vision_index_BS: expected -1..{patches // 4 - 1}, found {index.min()}..{index.max()}")
    segments = np.asarray(batch.patch_segments_BP)
    for row in range(rows):
        used = index[row][index[row] >= 0]
        if len(np.unique(used)) != len(used):
            raise ValueError(f"vision_index_BS: row {row} uses a merged patch twice")
        if (segments[row].reshape(-1, 4)[used] == 0).any():
            raise ValueError(f"vision_index_BS: row {row} points at padding patches")
    tasks = np.asarray(batch.tasks_BS)
    if tasks.min(initial=0) < 0 or tasks.max(initial=0) >= len(TASKS):
        raise ValueError(f"tasks_BS: expected 0..{len(TASKS) - 1}, found {tasks.min()}..{tasks.max()}")
    return batch


def fake_batch(
    rows: int, tokens: int, patches: int, patch_values: int, *, vocab_size: int, image_token: int, seed: int = 0
) -> Batch:
    """A valid random batch for tests and compilation: per row one text sample, one sample with a square-ish image of
    all patches (patches = 4 h w), and padding. Needs tokens >= patches // 4 + 16."""
    if tokens < patches // 4 + 16:
        raise ValueError(f"tokens: expected at least {patches // 4 + 16} for {patches} patches, found {tokens}")
    rng = np.random.default_rng(seed)
    batch = empty_batch(rows, tokens, patches, patch_values)
    merged = patches // 4
    h = max(d for d in range(1, int(merged**0.5) + 1) if merged % d == 0)
    w = merged // h
    text = 8 + (tokens - merged - 16) // 2
    image_end = text + 4 + merged + 4  # text sample, 4 tokens, the image, 4 tokens; the rest is padding
    for row in range(rows):
        batch.tokens_BS[row, :image_end] = rng.integers(0, min(vocab_size, image_token), image_end)
        batch.segments_BS[row, :text] = 1
        batch.segments_BS[row, text:image_end] = 2
        span = slice(text + 4, text + 4 + merged)
        batch.tokens_BS[row, span] = image_token
        batch.vision_index_BS[row, span] = np.arange(merged)
        batch.positions_BS3[row, :text] = np.arange(text)[:, None]
        batch.positions_BS3[row, text : text + 4] = np.arange(4)[:, None]
        grid = np.stack(np.broadcast_arrays(0, *np.mgrid[:h, :w]), -1).reshape(-1, 3)
        batch.positions_BS3[row, span] = 4 + grid
        batch.positions_BS3[row, text + 4 + merged : image_end] = 4 + max(h, w) + np.arange(4)[:, None]
        blocks = np.stack(np.meshgrid(np.arange(h), np.arange(w), [0, 1], [0, 1], indexing="ij"), -1).reshape(-1, 4)
        batch.patch_hw_BP2[row] = blocks[:, :2] * 2 + blocks[:, 2:]
    batch.patches_BPC[:] = rng.integers(0, 256, batch.patches_BPC.shape)
    batch.patch_segments_BP[:] = 1
    same = batch.segments_BS[:, 1:] == batch.segments_BS[:, :-1]
    batch.targets_BS[:, :-1] = batch.tokens_BS[:, 1:]
    batch.weights_BS[:, :-1] = same & (batch.segments_BS[:, 1:] > 0) & (batch.vision_index_BS[:, 1:] < 0)
    batch.tasks_BS[:] = np.where(batch.segments_BS == 2, 1, 0)
    return check_batch(batch)
