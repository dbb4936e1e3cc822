import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter
from toy_records import png, record

from data_pipelines.near import MAX_LEVELS, MAX_SIGNS, SIGNS, WIDTH, Fingerprints, fingerprint, near_partners
from data_pipelines.parts import write_part
from data_pipelines.publish import Rules, publish
from data_pipelines.record import Media


def scene(seed: int, side: int = 160) -> Image.Image:
    """Smooth shapes on a gradient, as different from seed to seed as two photographs."""
    rng = np.random.default_rng(seed)
    low = rng.integers(0, 256, (7, 7), dtype=np.uint8)
    return Image.fromarray(low).resize((side, side), Image.Resampling.BICUBIC).convert("RGB")


def media(data: bytes, size: tuple[int, int] = (160, 160)) -> Media:
    return Media((data,), "image", "XC", size)


def jpeg(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def variants(image: Image.Image) -> dict[str, bytes]:
    noisy = np.asarray(image).astype(int) + np.random.default_rng(0).integers(-6, 7, (160, 160, 3))
    return {
        "jpeg": jpeg(image, 60),
        "smaller": png(np.asarray(image.resize((97, 97), Image.Resampling.BICUBIC))),
        "noise": png(noisy.clip(0, 255).astype(np.uint8)),
        "blurred": png(np.asarray(image.filter(ImageFilter.GaussianBlur(1)))),
    }


def partners(folder: Path, first: np.ndarray, second: np.ndarray) -> list[int]:
    """Which of `second` is near each of `first`, -1 for none; fingerprints, uint8 (n, WIDTH)."""
    for i, rows in enumerate((first, second)):
        np.save(folder / f"{i}.npy", rows)
    both = Fingerprints([folder / "0.npy", folder / "1.npy"])
    numbers = np.arange(len(first) + len(second))
    return near_partners(both, numbers[: len(first)], numbers[len(first) :]).tolist()


@pytest.mark.parametrize("kind", list(variants(scene(0))))
def test_another_encoding_size_or_a_little_noise_is_near(kind, tmp_path):
    originals = np.stack([fingerprint(media(png(np.asarray(scene(i))))) for i in range(20)])
    changed = np.stack([fingerprint(media(variants(scene(i))[kind])) for i in range(20)])
    assert partners(tmp_path, originals, changed) == list(range(20))


def test_another_image_is_not_near(tmp_path):
    first = np.stack([fingerprint(media(png(np.asarray(scene(i))))) for i in range(60)])
    second = np.stack([fingerprint(media(png(np.asarray(scene(1000 + i))))) for i in range(60)])
    assert partners(tmp_path, first, second) == [-1] * 60


def test_same_layout_with_other_content_is_not_near(tmp_path):
    """A lesion added, or a left-right mirrored organ: the same signs nearly, another picture."""
    base = np.asarray(scene(3)).copy()
    lesion = base.copy()
    lesion[40:100, 40:100] = 255 - lesion[40:100, 40:100]
    pair = [np.stack([fingerprint(media(png(x)))]) for x in (base, lesion)]
    assert partners(tmp_path, *pair) == [-1]


def test_every_image_with_a_partner_within_the_limits_has_one(tmp_path):
    """Against comparing everything with everything, on fingerprints a few random changes apart."""
    rng = np.random.default_rng(1)
    first = rng.integers(0, 256, (400, WIDTH), np.uint8)
    second = first[rng.permutation(400)[:300]]
    bits = np.unpackbits(second[:, :SIGNS], axis=1)
    for row in bits:
        row[rng.choice(64, int(rng.integers(0, 12)), replace=False)] ^= 1
    second[:, :SIGNS] = np.packbits(bits, axis=1)
    shifted = second[:, SIGNS:].astype(int) + rng.integers(3, 10, (300, 1))
    second[:, SIGNS:] = np.where(shifted > 255, second[:, SIGNS:], shifted)
    distance = np.bitwise_count(first[:, None, :SIGNS] ^ second[None, :, :SIGNS]).sum(2)
    levels = np.abs(first[:, None, SIGNS:].astype(int) - second[None, :, SIGNS:]).mean(2)
    near = (distance <= MAX_SIGNS) & (levels <= MAX_LEVELS)
    assert 50 < near.any(1).sum() < ((distance <= MAX_SIGNS).any(1)).sum() < 300
    found = partners(tmp_path, first, second)
    assert [j >= 0 for j in found] == near.any(1).tolist()
    assert all(near[i, j] for i, j in enumerate(found) if j >= 0)


def test_many_times_the_same_image_is_found_without_comparing_all_pairs(tmp_path, monkeypatch):
    """As among the black frames of a large set: every image has a partner, from a few thumbnails."""
    compared = []
    thumbnails = Fingerprints.thumbnails
    monkeypatch.setattr(Fingerprints, "thumbnails", lambda *x: (compared.append(len(x[1])), thumbnails(*x))[1])
    first, second = (np.zeros((n, WIDTH), np.uint8) for n in (20_000, 5_000))
    assert partners(tmp_path, first, second) == [0] * 20_000
    assert sum(compared) <= 4 * 20_000


def test_manifest_names_near_duplicates_across_splits_and_can_drop_them(tmp_path):
    records = [
        record(0, media=(media(png(np.asarray(scene(0)))),)),
        record(1, media=(media(jpeg(scene(0), 80)),), split="test"),
        record(2, media=(media(png(np.asarray(scene(2)))),)),
        record(3, media=(media(jpeg(scene(2), 80)),)),  # within one split: no leak
        record(4, media=(media(png(np.asarray(scene(0)))),), question="Another?"),
    ]
    write_part(tmp_path / "part", records, near=True)
    reported = publish([tmp_path / "part"], tmp_path / "a", "toy", Rules(leaks="report"))
    assert reported["near_duplicates"] == [{"train": "toy/0", "test": "toy/1"}]
    dropped = publish([tmp_path / "part"], tmp_path / "b", "toy", Rules(leaks="report", duplicates="drop"))
    assert dropped["near_duplicates"] == []
    assert dropped["quarantined"] == [
        {"id": id, "reason": "image is nearly one of a later split"} for id in ("toy/0", "toy/4")
    ]
