"""Small pictures with real encodings, for the replicas."""

import io
from pathlib import Path

import numpy as np
from PIL import Image


def pixels(seed: int, width: int = 24, height: int = 16) -> np.ndarray:
    """uint8 (h, w, 3): smooth enough for JPEG, and of no two seeds alike."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))


def encoded(seed: int, kind: str = "JPEG", mode: str = "RGB", width: int = 24, height: int = 16, **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels(seed, width, height)).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def write_file(path: Path, data: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path
