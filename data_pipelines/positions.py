"""M-RoPE positions: text counts up on all three axes, an image or video spreads over (time, row, column).

After a span of vision tokens the text goes on at its start + max(rows, columns): time is not counted, so that the
positions of a long video run into those of the text after it, as in the released model.

| family     | one temporal patch further in a video is                                              |
| Qwen2-VL   | one position                                                                          |
| Qwen2.5-VL | tokens_per_second x its seconds, rounded down (Processing.time_step: a volume's speed) |

Reference: transformers, get_rope_index of models/qwen2_vl and models/qwen2_5_vl.
"""

from collections.abc import Iterable

import numpy as np

from data_pipelines.image import Grid


def mrope_positions(length: int, spans: Iterable[tuple[int, Grid]], merge: int = 2, time_step: float = 1) -> np.ndarray:
    """positions_S3 int32 (t, h, w) of a sample of `length` tokens.

    spans: (index of the first vision token, grid in patches) of each image or video, in order. time_step: positions
    from one temporal patch to the next.
    """
    positions_S3 = np.empty((length, 3), np.int32)
    done, position = 0, 0
    for start, (t, h, w) in spans:
        positions_S3[done:start] = position + np.arange(start - done)[:, None]
        position += start - done
        rows, columns = h // merge, w // merge
        done = start + t * rows * columns
        places = np.indices((t, rows, columns)).reshape(3, -1).T
        places[:, 0] = places[:, 0] * time_step
        positions_S3[start:done] = position + places
        position += max(rows, columns)
    positions_S3[done:] = position + np.arange(length - done)[:, None]
    return positions_S3
