"""A volume lands the same way whatever order and direction its file stored the axes in."""

import gzip
import itertools

import nibabel as nib
import numpy as np
import pytest

from data_pipelines.media import MediaError
from data_pipelines.media.nifti import is_nifti, read_nifti
from data_pipelines.media.volume import (
    WINDOWS,
    Volume,
    at_spacing,
    canonical,
    crop,
    oriented,
    render,
    resample_to,
    to_mm,
    to_voxels,
)

SPACING_RAS = np.array([0.8, 1.5, 3.0])


def nifti_bytes(voxels_xyz: np.ndarray, affine_ras: np.ndarray, codes: str = "RAS") -> bytes:
    """The same patient stored with other axes."""
    image = nib.Nifti1Image(voxels_xyz, affine_ras)
    target = nib.orientations.axcodes2ornt(tuple(codes))
    return image.as_reoriented(nib.orientations.ornt_transform(nib.io_orientation(image.affine), target)).to_bytes()


@pytest.fixture
def patient():
    rng = np.random.default_rng(0)
    voxels = rng.integers(-1000, 1000, (6, 5, 4)).astype(np.int16)
    affine = np.diag([*SPACING_RAS, 1.0])
    affine[:3, 3] = (-11.0, 7.0, 100.0)
    return voxels, affine


ALL_CODES = ["".join(c) for order in itertools.permutations(["RL", "AP", "SI"]) for c in itertools.product(*order)]


@pytest.mark.parametrize("codes", ALL_CODES)
def test_every_nifti_orientation_lands_as_the_same_lps_volume(patient, codes):
    voxels, affine = patient
    volume = canonical(read_nifti(nifti_bytes(voxels, affine, codes)))
    assert volume.orientation == "LPS"
    # stored to the right and anterior: turned round to grow to the left and posterior
    np.testing.assert_array_equal(volume.voxels_ZYX, voxels[::-1, ::-1].transpose(2, 1, 0))
    np.testing.assert_allclose(volume.spacing_mm, SPACING_RAS)
    last_voxel_ras = affine @ [5, 4, 0, 1]
    np.testing.assert_allclose(to_mm(volume, np.array([[0.5, 0.5, 0.5]]))[0], last_voxel_ras[:3] * [-1, -1, 1])


@pytest.mark.parametrize("codes", ["LPS", "LIP", "PIL", "RAS", "SAR"])
def test_a_point_keeps_its_voxel_through_reorientation(patient, codes):
    voxels, affine = patient
    volume = canonical(read_nifti(nifti_bytes(voxels, affine)))
    turned = oriented(volume, codes)
    assert turned.orientation == codes
    point_mm = to_mm(volume, np.array([[2.5, 3.5, 1.5]]))
    x, y, z = np.floor(to_voxels(turned, point_mm)[0]).astype(int)
    assert turned.voxels_ZYX[z, y, x] == volume.voxels_ZYX[1, 3, 2]


def test_oblique_axes_are_named_by_their_nearest_direction():
    angle = np.deg2rad(40)
    rotation = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = rotation * [1, 2, 3]
    volume = Volume(np.zeros((3, 3, 3), np.int16), affine)
    assert volume.orientation == "LPS"
    np.testing.assert_allclose(volume.spacing_mm, (1, 2, 3))


def test_resampling_keeps_extent_place_and_mean():
    voxels = np.random.default_rng(0).normal(size=(8, 12, 16)).astype(np.float32)
    volume = Volume(voxels, np.diag([1.0, 2.0, 3.0, 1.0]))
    smaller = resample_to(volume, (8, 6, 4))
    assert smaller.size == (8, 6, 4)
    np.testing.assert_allclose(smaller.spacing_mm, (2, 4, 6))
    corner = np.array([[0.0, 0.0, 0.0]])
    np.testing.assert_allclose(to_mm(smaller, corner), to_mm(volume, corner))
    np.testing.assert_allclose(to_mm(smaller, np.array([[8, 6, 4]])), to_mm(volume, np.array([[16, 12, 8]])))
    assert abs(smaller.voxels_ZYX.mean() - voxels.mean()) < 0.02


def test_a_spacing_is_met_by_averaging_where_it_is_coarser_and_linearly_where_it_is_finer():
    stripes = np.tile(np.array([0, 100], np.int16), 12)
    volume = Volume(np.broadcast_to(stripes, (4, 6, 24)), np.diag([0.5, 1.0, 2.0, 1.0]))
    coarse = at_spacing(volume, (3.0, 1.0, 2.0))
    assert (coarse.size, coarse.spacing_mm) == ((4, 6, 4), (3.0, 1.0, 2.0))
    np.testing.assert_allclose(coarse.voxels_ZYX, 50, atol=5)  # and no stripe at all by picking every sixth
    ramp = Volume(np.broadcast_to(np.arange(8.0), (4, 6, 8)), np.diag([2.0, 1.0, 2.0, 1.0]))
    fine = at_spacing(ramp, (1.0, 1.0, 2.0))
    np.testing.assert_allclose(fine.voxels_ZYX[0, 0, 1:-1], np.arange(0.25, 7, 0.5), rtol=1e-5)
    labels = at_spacing(Volume(np.arange(24, dtype=np.int32).reshape(2, 3, 4) * 7, np.eye(4)), (0.6, 0.7, 1.5), order=0)
    assert labels.size == (7, 4, 1)
    assert set(np.unique(labels.voxels_ZYX)) <= set(range(0, 168, 7))


def test_resampling_a_mask_invents_no_label():
    mask = np.random.default_rng(0).integers(0, 50, (9, 10, 11)).astype(np.int32)
    smaller = resample_to(Volume(mask, np.eye(4)), (5, 4, 3), order=0)
    assert smaller.voxels_ZYX.shape == (3, 4, 5)
    assert set(np.unique(smaller.voxels_ZYX)) <= set(np.unique(mask))


def test_a_crop_stays_at_its_place():
    volume = Volume(np.arange(4 * 5 * 6).reshape(4, 5, 6), np.diag([2.0, 2.0, 5.0, 1.0]))
    part = crop(volume, (1, 2, 3), (4, 5, 4))
    assert part.size == (3, 3, 1)
    np.testing.assert_allclose(to_mm(part, np.zeros((1, 3))), to_mm(volume, np.array([[1, 2, 3]])))


def test_ct_windows_map_hounsfield_units_to_grey():
    level, width = WINDOWS["soft_tissue"]
    values = np.array([[[level - width, level - width / 2, level, level + width / 2]]], np.int16)
    frames, _ = render(Volume(values, np.eye(4), "CT"), "soft_tissue")
    assert frames.ravel().tolist() == [0, 0, 128, 255]


def test_three_windows_are_red_green_and_blue():
    values = np.array([[[-1350, -600, 40, 400, 150]]], np.int16)
    frames, _ = render(Volume(values, np.eye(4), "CT"), "lung+soft_tissue+bone")
    assert frames.shape == (1, 1, 5, 3)
    names = ("lung", "soft_tissue", "bone")
    alone = [render(Volume(values, np.eye(4), "CT"), name)[0] for name in names]
    np.testing.assert_array_equal(frames, np.stack(alone, axis=-1))
    assert frames[0, 0].tolist()[:3] == [[0, 0, 0], [128, 0, 0], [236, 128, 76]]
    with pytest.raises(ValueError, match="expected one preset or three joined by"):
        render(Volume(values, np.eye(4), "CT"), "lung+bone")


def test_planes_show_the_head_up_and_the_patients_left_on_the_right():
    voxels = np.zeros((4, 5, 6), np.int16)
    voxels[3, 0, 5] = 100  # superior, anterior, left
    volume = Volume(voxels, np.eye(4), "MR")
    axial, _ = render(volume, plane="axial")
    coronal, shown = render(volume, plane="coronal")
    sagittal, _ = render(volume, plane="sagittal")
    assert np.argwhere(axial).tolist() == [[3, 0, 5]]  # last frame, top row (anterior), right edge (left)
    assert np.argwhere(coronal).tolist() == [[0, 0, 5]]  # first frame (anterior), top row (superior), right edge
    assert np.argwhere(sagittal).tolist() == [[5, 0, 0]]  # last frame (left), top row, left edge (anterior)
    assert shown.orientation == "LIP"


def test_slope_and_intercept_are_applied_and_masks_stay_whole():
    image = nib.Nifti1Image(np.arange(8, dtype=np.int16).reshape(2, 2, 2), np.eye(4))
    image.header.set_slope_inter(2.0, -1024.0)
    data = image.to_bytes()
    header_offset = 112  # scl_slope, scl_inter: nibabel writes them as nan from memory
    data = data[:header_offset] + np.array([2.0, -1024.0], "<f4").tobytes() + data[header_offset + 8 :]
    assert read_nifti(data).voxels_ZYX.ravel().min() == -1024
    assert read_nifti(data).voxels_ZYX.max() == 7 * 2 - 1024
    mask = read_nifti(nib.Nifti1Image(np.full((2, 2, 2), 61, np.uint8), np.eye(4)).to_bytes(), mask=True)
    assert mask.voxels_ZYX.dtype == np.int32
    assert mask.voxels_ZYX.max() == 61


def test_non_finite_voxels_become_the_smallest_finite_one():
    values = np.array([np.nan, np.inf, -3.5, 2.0], np.float32).reshape(4, 1, 1)
    assert read_nifti(nib.Nifti1Image(values, np.diag([-1, -1, 1, 1])).to_bytes()).voxels_ZYX.ravel().tolist() == [
        -3.5,
        -3.5,
        -3.5,
        2.0,
    ]


def _nifti(shape=(2, 2, 2), dtype=np.int16, patch: tuple[int, bytes] = (0, b"")) -> bytes:
    """A file of zeros; patch replaces header bytes at an offset."""
    data = nib.Nifti1Image(np.zeros(shape, dtype), np.eye(4)).to_bytes()
    offset, new = patch
    return data[:offset] + new + data[offset + len(new) :]


NO_CODES = (252, bytes(4))  # qform_code, sform_code
NO_Z_AXIS = (312, np.array([0, 0, 0, 1], "<f4").tobytes())  # srow_z


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"not a volume", "not a NIfTI file"),
        (b"", "not a NIfTI file"),
        (_nifti()[:360], "truncated or damaged NIfTI file"),
        (_nifti((2, 2, 2, 5)), "not a 3D volume (4 axes)"),
        (_nifti((2, 2)), "not a 3D volume (2 axes)"),
        (_nifti(patch=NO_Z_AXIS), "singular or non-finite affine"),
        (_nifti(dtype=np.complex64), "unsupported NIfTI data type"),
        (_nifti(patch=NO_CODES), "no orientation (qform and sform codes are 0)"),
    ],
)
def test_an_unusable_nifti_file_is_refused_with_its_reason(data, reason):
    with pytest.raises(MediaError) as caught:
        read_nifti(data)
    assert caught.value.reason == reason


def test_gzip_is_recognised_by_content(tmp_path, patient):
    voxels, affine = patient
    data = nifti_bytes(voxels, affine)
    path = tmp_path / "no_suffix"
    path.write_bytes(gzip.compress(data))
    assert is_nifti(path.read_bytes()[:4096])
    np.testing.assert_array_equal(read_nifti(path).voxels_ZYX, read_nifti(data).voxels_ZYX)
    path.write_bytes(gzip.compress(data)[:-20])
    with pytest.raises(MediaError, match="truncated"):
        read_nifti(path)
