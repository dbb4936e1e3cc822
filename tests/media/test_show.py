"""A file is shown by what it holds, whatever its name, and as it is stored volumes turn to LPS."""

import nibabel as nib
import numpy as np
import pytest

from data_pipelines.media import MediaError
from data_pipelines.media.raster import decode, encode_png
from data_pipelines.media.show import Layout, show, shown_size
from data_pipelines.media.volume import WINDOWS
from tests.media.dicom_files import series, write

CT = np.random.default_rng(0).integers(-1000, 1000, (30, 20)).astype(np.int16)


def test_a_picture_a_dicom_file_and_a_volume_are_told_apart_by_content(tmp_path):
    files = {
        "image": encode_png(np.zeros((4, 6), np.uint8)),
        "dicom": write(CT),
        "volume": nib.Nifti1Image(np.full((5, 6, 7), -900, np.int16), np.eye(4)).to_bytes(),
    }
    media = {}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        media[name] = show(tmp_path / name).media
    assert [(m.kind, m.modality, m.size) for m in media.values()] == [
        ("image", "OT", (6, 4)),
        ("image", "CT", (20, 30)),
        ("volume", "CT", (5, 6, 7)),
    ]


def test_a_ct_slice_has_the_files_window_else_the_soft_tissue_one(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(write(CT))
    assert show(path).media.window == "soft_tissue"
    level, width = WINDOWS["soft_tissue"]
    expected = np.clip(np.rint((CT - (level - width / 2)) * (255 / width)), 0, 255)
    np.testing.assert_array_equal(decode(show(path).media.frames[0])[..., 0], expected)
    path.write_bytes(write(CT, WindowCenter=-600, WindowWidth=1500))
    assert show(path).media.window == ""
    assert show(path, window="bone").media.window == "bone"


def test_a_folder_with_one_series_is_a_volume(tmp_path):
    for i, data in enumerate(series(np.zeros((4, 6, 5), np.int16))):
        (tmp_path / f"{i}").write_bytes(data)
    media = show(tmp_path).media
    assert (media.kind, media.size, media.orientation) == ("volume", (5, 6, 4), "LPS")


def test_a_large_volume_is_shown_smaller():
    assert shown_size((512, 512, 300)) == (256, 256, 32)
    assert shown_size((512, 256, 20)) == (256, 128, 20)
    assert shown_size((64, 64, 8)) == (64, 64, 8)


def test_an_mr_volume_has_no_hounsfield_window(tmp_path):
    path = tmp_path / "a.nii"
    voxels = np.random.default_rng(0).integers(0, 4000, (5, 6, 7)).astype(np.int16)
    path.write_bytes(nib.Nifti1Image(voxels, np.eye(4)).to_bytes())
    assert show(path, modality="MR", window="lung").media.window == "auto"
    assert show(path).media.modality == "OT"
    assert show(path, modality="CT", window="lung").media.window == "lung"


@pytest.mark.parametrize(("refused", "raises"), [(("yes", "likely"), True), (("yes",), False), ((), False)])
def test_who_shows_says_what_burned_in_text_is_refused(tmp_path, refused, raises):
    path = tmp_path / "a"
    path.write_bytes(write(CT, Modality="US"))
    if raises:
        with pytest.raises(MediaError, match="burned-in"):
            show(path, refused=refused)
    else:
        assert show(path, refused=refused).media.modality == "US"


def test_only_the_kinds_asked_for_are_read(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(encode_png(np.zeros((4, 6), np.uint8)))
    with pytest.raises(MediaError, match="not a DICOM file"):
        show(path, kinds=("dicom",))
    with pytest.raises(MediaError, match="not a NIfTI file"):
        show(path, kinds=("nifti",))


def test_a_volume_is_laid_out_as_asked_and_its_spacing_and_orientation_follow(tmp_path):
    """A body of 8 x 10 x 6 voxels in air, off the centre."""
    voxels_xyz = np.full((20, 24, 16), -1000, np.int16)
    voxels_xyz[3:11, 12:22, 5:11] = 40
    path = tmp_path / "a"
    path.write_bytes(nib.Nifti1Image(voxels_xyz, np.diag([-1.0, -2.0, 3.0, 1.0])).to_bytes())  # LPS
    for plane, size, spacing, orientation in (
        ("axial", (8, 10, 6), (1.0, 2.0, 3.0), "LPS"),
        ("coronal", (8, 6, 10), (1.0, 3.0, 2.0), "LIP"),
        ("sagittal", (10, 6, 8), (2.0, 3.0, 1.0), "PIL"),
    ):
        shown = show(path, layout=Layout(plane, foreground=True))
        assert shown.plane == plane
        media = shown.media
        assert (media.size, media.spacing_mm, media.orientation) == (size, spacing, orientation)
        assert all((decode(frame) == 128).all() for frame in media.frames)
    media = show(path, layout=Layout(size_xyz=(40, 12, 8))).media
    assert (media.size, media.spacing_mm) == ((40, 12, 8), (0.5, 4.0, 6.0))
    for plane, size, spacing in (
        ("axial", (8, 20, 10), (1.0, 1.0, 2.0)),  # the body ends within a frame
        ("coronal", (8, 18, 10), (1.0, 1.0, 2.0)),
    ):
        shown = show(path, layout=Layout(plane, foreground=True, spacing_mm=(1.0, 1.0, 2.0)))
        assert (shown.media.size, shown.media.spacing_mm) == (size, spacing)
    with pytest.raises(ValueError, match="plane: expected one of axial, coronal, sagittal, found 'upright'"):
        Layout("upright")
    with pytest.raises(ValueError, match="spacing: expected three positive numbers of millimetres"):
        Layout(spacing_mm=(1.0, 0.0, 1.0))
    with pytest.raises(MediaError, match="volume too large at this spacing"):
        show(path, layout=Layout(spacing_mm=(0.001, 0.001, 1.0)))


def test_the_foreground_of_other_volumes_is_what_is_not_dark(tmp_path):
    voxels_xyz = np.random.default_rng(0).integers(0, 30, (12, 12, 12)).astype(np.int16)
    voxels_xyz[2:9, 3:5, 4:12] = 900
    path = tmp_path / "a"
    path.write_bytes(nib.Nifti1Image(voxels_xyz, np.eye(4)).to_bytes())
    assert show(path, modality="MR", layout=Layout(foreground=True)).media.size == (7, 2, 8)
    path.write_bytes(nib.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4)).to_bytes())
    with pytest.raises(MediaError, match="empty image"):
        show(path, modality="MR", layout=Layout(foreground=True))


@pytest.mark.parametrize(
    ("axes", "plane"),
    [([1, 0, 0, 0, 1, 0], "axial"), ([1, 0, 0, 0, 0, -1], "coronal"), ([0, 1, 0, 0, 0, -1], "sagittal"),
     ([0.7071, 0.7071, 0, 0, 0, -1], ""), (None, "")],
)  # fmt: skip
def test_a_slice_says_its_plane_where_its_header_does(tmp_path, axes, plane):
    path = tmp_path / "a"
    path.write_bytes(
        write(CT, **({"ImageOrientationPatient": axes, "ImagePositionPatient": [0, 0, 0]} if axes else {}))
    )
    assert show(path).plane == plane
