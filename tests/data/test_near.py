import io

import numpy as np
import pytest
from PIL import Image, ImageFilter
from toy_records import png, record

from data_pipelines.near import MAX_SIGNS, SIGNS, WIDTH, fingerprint, near_pairs
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


@pytest.mark.parametrize("kind", list(variants(scene(0))))
def test_another_encoding_size_or_a_little_noise_is_near(kind):
    originals = np.stack([fingerprint(media(png(np.asarray(scene(i))))) for i in range(20)])
    changed = np.stack([fingerprint(media(variants(scene(i))[kind])) for i in range(20)])
    assert near_pairs(originals, changed) == [(i, i) for i in range(20)]


def test_another_image_is_not_near():
    first = np.stack([fingerprint(media(png(np.asarray(scene(i))))) for i in range(60)])
    second = np.stack([fingerprint(media(png(np.asarray(scene(1000 + i))))) for i in range(60)])
    assert near_pairs(first, second) == []


def test_same_layout_with_other_content_is_not_near():
    """A lesion added, or a left-right mirrored organ: the same signs nearly, another picture."""
    base = np.asarray(scene(3)).copy()
    lesion = base.copy()
    lesion[40:100, 40:100] = 255 - lesion[40:100, 40:100]
    pair = [np.stack([fingerprint(media(png(x)))]) for x in (base, lesion)]
    assert near_pairs(*pair) == []


def test_all_pairs_within_the_limit_are_found():
    """Against comparing everything with everything, on fingerprints a few random sign changes apart."""
    rng = np.random.default_rng(1)
    first = np.zeros((300, WIDTH), np.uint8)
    first[:, :SIGNS] = rng.integers(0, 256, (300, SIGNS))
    second = first[rng.permutation(300)]
    bits = np.unpackbits(second[:, :SIGNS], axis=1)
    for row in bits:
        row[rng.choice(64, int(rng.integers(0, 12)), replace=False)] ^= 1
    second[:, :SIGNS] = np.packbits(bits, axis=1)
    distance = np.bitwise_count(first[:, None, :SIGNS] ^ second[None, :, :SIGNS]).sum(2)
    wanted = np.argwhere(distance <= MAX_SIGNS)
    assert len(wanted) > 100
    assert near_pairs(first, second) == [tuple(pair) for pair in wanted.tolist()]


def test_manifest_names_near_duplicates_across_splits_and_can_drop_them(tmp_path):
    records = [
        record(0, media=(media(png(np.asarray(scene(0)))),)),
        record(1, media=(media(jpeg(scene(0), 80)),), split="test"),
        record(2, media=(media(png(np.asarray(scene(2)))),)),
        record(3, media=(media(jpeg(scene(2), 80)),)),  # within one split: no leak
    ]
    write_part(tmp_path / "part", records, near=True)
    reported = publish([tmp_path / "part"], tmp_path / "a", "toy", Rules(leaks="report"))
    assert reported["near_duplicates"] == [{"train": "toy/0", "test": "toy/1"}]
    dropped = publish([tmp_path / "part"], tmp_path / "b", "toy", Rules(leaks="report", duplicates="drop"))
    assert dropped["near_duplicates"] == []
    assert dropped["quarantined"] == [{"id": "toy/0", "reason": "image is nearly one of a later split"}]
