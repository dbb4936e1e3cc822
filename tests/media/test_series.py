"""Slices become one volume by their position in the patient, or are refused for a stated reason."""

import numpy as np
import pytest

from data_pipelines.media import MediaError
from data_pipelines.media.series import read_series
from data_pipelines.media.volume import canonical
from tests.media.dicom_files import SERIES, series, write

VOXELS = np.random.default_rng(0).integers(-1000, 1000, (6, 5, 4)).astype(np.int16)
SAGITTAL = (0, 1, 0, 0, 0, -1)


def test_slices_are_ordered_by_position_whatever_their_names_and_numbers(tmp_path):
    paths = []
    for i, data in enumerate(series(VOXELS)):
        path = tmp_path / f"{(i * 7) % 10}.dcm"
        path.write_bytes(data)
        paths.append(path)
    (tmp_path / "LICENSE").write_text("not an image")
    volume, image = read_series(sorted(tmp_path.iterdir()))
    np.testing.assert_array_equal(volume.voxels_ZYX, VOXELS)
    assert volume.voxels_ZYX.dtype == np.int16
    np.testing.assert_allclose(volume.spacing_mm, (0.7, 0.5, 2.0))
    assert (volume.orientation, image.modality) == ("LPS", "CT")


def test_feet_first_order_gives_the_same_volume():
    volume, _ = read_series(series(VOXELS)[::-1])
    np.testing.assert_array_equal(volume.voxels_ZYX, VOXELS)


def test_a_sagittal_series_turns_canonical():
    volume, _ = read_series(series(VOXELS, axes=SAGITTAL))
    assert volume.orientation == "PIR"
    turned = canonical(volume)
    assert turned.size == (6, 4, 5)
    assert turned.voxels_ZYX[4, 0, 5] == VOXELS[0, 0, 0]  # top, front, left: the series starts there


def test_an_exact_copy_of_a_slice_is_taken_once():
    files = series(VOXELS)
    volume, _ = read_series([*files, files[2]])
    np.testing.assert_array_equal(volume.voxels_ZYX, VOXELS)


def test_each_slice_has_its_own_rescale():
    files = series(VOXELS[:3], RescaleSlope=1, RescaleIntercept=0)
    files += series(VOXELS * 0 + 5, RescaleSlope=2, RescaleIntercept=-3)[3:]
    volume, _ = read_series(files)
    np.testing.assert_array_equal(volume.voxels_ZYX[:3], VOXELS[:3])
    assert (volume.voxels_ZYX[3:] == 7).all()


def _replaced(files: list[bytes], index: int, data: bytes) -> list[bytes]:
    return [*files[:index], data, *files[index + 1 :]]


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        (series(VOXELS)[:2] + series(VOXELS)[3:], "missing slice"),
        (series(VOXELS) + series(VOXELS)[2:3], "two slices in one place"),
        (_replaced(series(VOXELS), 5, series(VOXELS, step=2.1)[5]), "unevenly spaced slices"),
        (_replaced(series(VOXELS), 1, series(VOXELS[:, :3])[1]), "slices of different sizes"),
        (_replaced(series(VOXELS), 1, series(VOXELS, PixelSpacing=[1, 1])[1]), "slices of different pixel spacing"),
        (
            series(VOXELS)[:3] + series(VOXELS, axes=SAGITTAL)[3:],
            "slices are not parallel (localizer or rotating series)",
        ),
        (series(VOXELS)[:3] + series(VOXELS, SeriesInstanceUID=SERIES + ".9")[3:], "several series in one folder"),
        (series(VOXELS)[:3] + series(VOXELS, PatientID="another")[3:], "several patients in one series"),
        ([write(VOXELS[0])], "no slice position or orientation"),
        (_replaced(series(VOXELS), 1, series(VOXELS)[1][:-9]), "truncated pixel data"),
        (series(VOXELS[:1]), "a single slice without a thickness"),
        ([b"nothing here"], "no DICOM file in the series"),
        ([], "no DICOM file in the series"),
    ],
)
def test_a_stack_with_a_fault_is_refused_with_its_reason(files, reason):
    with pytest.raises(MediaError) as caught:
        read_series(files)
    assert caught.value.reason == reason


def test_a_single_slice_takes_its_thickness_from_the_header():
    volume, _ = read_series(series(VOXELS[:1], SliceThickness=5))
    assert volume.spacing_mm[2] == 5
