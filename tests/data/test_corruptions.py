"""Corruption families: every one of every modality, at every severity."""

import itertools

import numpy as np
import pytest
from scipy import ndimage

from data_pipelines import corruptions
from data_pipelines.corruptions import SEVERITIES, CorruptionError, corrupt, covering, families

TABLES = {**corruptions._table()["modalities"], "": corruptions._table()["others"]}
EVERY = sorted({family for table in TABLES.values() for family in table})


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def texture(frames: int = 1, side: int = 64, channels: int = 3, seed: int = 0) -> np.ndarray:
    noise = ndimage.gaussian_filter(rng(seed).random((frames, side, side + 8, channels)), (0, 1.5, 1.5, 0))
    noise = (noise - noise.min()) / np.ptp(noise)
    return np.broadcast_to((noise * 230 + 10).astype(np.uint8), (frames, side, side + 8, 3)).copy()


def change(frames, family, severity, modality, seeds=3):
    """Root mean square of what is changed, over several seeds."""
    return np.sqrt(
        np.mean(
            [
                np.square(corrupt(frames, family, severity, rng(s), modality=modality).astype(float) - frames).mean()
                for s in range(seeds)
            ]
        )
    )


@pytest.mark.parametrize("modality", [m for m in TABLES if m not in ("CR", "RG")])  # theirs is the table of DX
def test_every_family_of_a_modality_grows_with_its_severity(modality):
    frames = texture(side=160)
    assert families(modality) == tuple(TABLES[modality])
    for family, strengths in TABLES[modality].items():
        assert len(strengths) == len(SEVERITIES)
        changes = [change(frames, family, severity, modality) for severity in SEVERITIES]
        assert changes[0] > 0, family
        assert changes[-1] > changes[0], family
        assert all(b > 0.97 * a for a, b in itertools.pairwise(changes)), (family, changes)


@pytest.mark.parametrize("family", EVERY)
def test_a_grey_image_stays_grey_and_the_same_generator_gives_the_same_pixels(family):
    grey, modality = texture(channels=1), next(m for m, table in TABLES.items() if family in table)
    out = corrupt(grey, family, 3, rng(5), modality=modality)
    assert out.dtype == np.uint8
    assert out.shape == grey.shape
    assert (out == out[..., :1]).all()
    np.testing.assert_array_equal(out, corrupt(grey, family, 3, rng(5), modality=modality))


@pytest.mark.parametrize("family", EVERY)
def test_frames_of_a_volume_differ_in_noise_only(family):
    same = np.repeat(texture(), 3, axis=0)
    out = corrupt(same, family, 4, rng(1))
    noise = family.endswith("_noise")
    assert noise == bool((out[0] != out[1]).any())
    assert noise == bool((out[1] != out[2]).any())


@pytest.mark.parametrize("family", [f for f in EVERY if f.endswith("_blur") or f == "pixelate"])
def test_no_blur_moves_what_is_in_the_image(family):
    """The centre of mass of a bright disk, to a quarter of a pixel."""
    y, x = np.mgrid[:96, :96] + 0.5
    disk = (np.hypot(x - 48, y - 48) < 20) * np.uint8(200)
    frames = np.repeat(disk[None, ..., None], 3, axis=-1)
    for severity in SEVERITIES:
        for seed in range(3):
            out = corrupt(frames, family, severity, rng(seed), modality="XC")[0, ..., 0].astype(float)
            centre = [(out * axis).sum() / out.sum() for axis in (x, y)]
            assert np.abs(np.subtract(centre, 48)).max() < 0.25


def test_a_covering_family_is_one_that_hides_whole_pixels_or_mixes_in_what_is_not_there():
    assert covering() < set(EVERY)
    black = np.zeros((1, 64, 64, 3), np.uint8)
    white = np.full((1, 64, 64, 3), 255, np.uint8)
    for family in EVERY:
        # What is laid over shows on an even image; blur, factors and compression leave one even.
        uneven = any(len(np.unique(corrupt(i, family, 5, rng(2), modality="XC"))) > 1 for i in (black, white))
        assert uneven == (family in covering() or family in ("gaussian_noise", "impulse_noise", "shot_noise",
                                                             "speckle_noise")), family  # fmt: skip


def test_lengths_follow_the_size_of_the_image():
    """The same picture at twice the size is blurred to the same picture."""
    small, radius = texture(side=64), 4
    large = small.repeat(2, axis=1).repeat(2, axis=2)
    for family in ("defocus_blur", "gaussian_blur"):
        ours = corrupt(large, family, radius, rng(), modality="XC")[:, ::2, ::2].astype(float)
        assert np.abs(ours - corrupt(small, family, radius, rng(), modality="XC")).mean() < 4


def test_an_unknown_family_or_severity_is_an_error_that_names_it():
    with pytest.raises(CorruptionError, match="'fog'"):
        corrupt(texture(), "fog", 1, rng())
    with pytest.raises(CorruptionError, match="severity: expected 1 to 5, found 6"):
        corrupt(texture(), "pixelate", 6, rng())
