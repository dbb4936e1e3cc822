"""What `umit eval` puts into report.html beside predictions and scores: the pictures, out of the shards.

Pictures are taken from a record's media, already windowed and de-identified, decoded and written anew as PNG, so that
no byte of the source but the pixels travels. A volume becomes one sheet with its slices row by row.
"""

import hashlib
import math
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from data_pipelines.media import MediaError
from data_pipelines.media.raster import decode, encode_png, resize
from data_pipelines.questions import Place
from data_pipelines.record import Media
from launch.workdir import Checkpoint
from umit_jax.eval.predictions import Prediction
from umit_jax.eval.report_html import write_report
from umit_jax.eval.report_html.judge import Judged, evenly, judge
from umit_jax.eval.report_html.pictures import Picture, Pictures, write_pictures

if TYPE_CHECKING:
    from umit_jax.eval.score import Scores

_SHEET = 4096  # longest side of a sheet of slices, in pixels
_GAP = 2  # pixels around a slice, so that a browser that smooths does not mix two
_MOST_UNEVEN = 8.0  # a pixel is drawn at most so many times as long as wide


def of_evaluation(
    page: pathlib.Path,
    folder: pathlib.Path,
    predictions: Sequence[Prediction],
    scores: "Scores",
    places: Sequence[Place],
    checkpoint: Checkpoint,
    limits: Any,
    other_ways: Sequence[dict[str, Any]] = (),
) -> dict[str, Any]:
    """Writes the page, and its pictures into the folder; returns what the summary says of them.
    places: of the record of each prediction. limits: config.report. other_ways: rows of robustness.json."""
    judged = judge(predictions)
    shown = [judged[i] for i in evenly([example.about for example in judged], limits.examples)]
    pictures = _pictures(folder, shown, places, checkpoint, limits)
    return write_report(
        page, predictions, scores, pictures, limit=limits.examples, judged=judged, robustness=other_ways
    )


def _pictures(
    folder: pathlib.Path, shown: Sequence[Judged], places: Sequence[Place], checkpoint: Checkpoint, limits: Any
) -> Pictures:
    with_image = [example for example in shown if example.prediction["images"]]
    chosen = [with_image[i] for i in evenly([example.about for example in with_image], limits.pictures)]
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, Picture] = {}
    undecodable: set[str] = set()
    shrunk = 0
    for example in tqdm(chosen, desc="pictures", disable=None):
        hashes = example.prediction["images"]
        if found.keys() | undecodable >= set(hashes):
            continue
        shards, index = places[example.number - 1]
        for key, media in zip(hashes, shards[index].media, strict=True):
            if key not in found:
                try:
                    found[key], smaller = picture_of(media, limits.side, folder)
                    shrunk += smaller
                except (MediaError, ValueError):
                    undecodable.add(key)
    left_out = {
        "limit": sum(not found.keys() | undecodable >= set(e.prediction["images"]) for e in with_image),
        "undecodable": sum(not undecodable.isdisjoint(e.prediction["images"]) for e in with_image),
        "shrunk": shrunk,
    }
    pictures = Pictures(found, left_out, {"name": checkpoint.path.parent.parent.name, "step": checkpoint.step})
    write_pictures(folder, pictures)
    return pictures


def picture_of(media: Media, side: int, folder: pathlib.Path) -> tuple[Picture, bool]:
    """One picture, written into the folder; and whether it is smaller than its media."""
    frames = [decode(data) for data in media.frames]
    columns = max(1, round(math.sqrt(len(frames) * frames[0].shape[0] / frames[0].shape[1])))
    width, height = media.size[:2]
    largest = (
        side if media.kind == "image" else min(side, _SHEET // max(columns, -(-len(frames) // columns)) - 2 * _GAP)
    )
    scale = min(1.0, largest / max(width, height))
    cell = max(1, round(width * scale)), max(1, round(height * scale))
    frames = [resize(frame, cell) for frame in frames]
    pixels = frames[0] if media.kind == "image" else _sheet(frames, columns)
    if (pixels == pixels[..., :1]).all():
        pixels = pixels[..., 0]
    data = encode_png(pixels)
    name = f"{hashlib.sha256(data).hexdigest()[:20]}.png"
    if not (folder / name).is_file():
        (folder / f".{name}.tmp").write_bytes(data)
        (folder / f".{name}.tmp").replace(folder / name)
    layout = {} if media.kind == "image" else {"columns": columns, "cell": cell, "gap": _GAP}
    about = {"kind": media.kind, "modality": media.modality, "window": media.window, "size": tuple(media.size)}
    return Picture(file=name, aspect=_aspect(media), **about, **layout), scale < 1


def _sheet(frames: Sequence[np.ndarray], columns: int) -> np.ndarray:
    """Frames (h, w, 3) row by row, each with a margin of its own edge."""
    cells = [np.pad(frame, ((_GAP, _GAP), (_GAP, _GAP), (0, 0)), "edge") for frame in frames]
    cells += [np.zeros_like(cells[0])] * (-len(cells) % columns)
    return np.concatenate([np.concatenate(cells[i : i + columns], 1) for i in range(0, len(cells), columns)])


def _aspect(media: Media) -> tuple[float, float]:
    if media.spacing_mm is None:
        return 1.0, 1.0
    x, y = media.spacing_mm[:2]
    return round(min(x / min(x, y), _MOST_UNEVEN), 4), round(min(y / min(x, y), _MOST_UNEVEN), 4)
