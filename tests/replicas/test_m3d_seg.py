"""Every box of the M3D-Seg replicas, in the volume as shown, and every case and class that is refused."""

import numpy as np
import pytest

from data_pipelines.media.array import read_csr
from data_pipelines.sources.layout import LayoutError
from data_pipelines.sources.m3d_seg import converter
from tests.replicas import m3d_seg
from tests.replicas.reading import frames, prepared

# LIVER, less the start of the foreground (2, 5, 4), in 256 x 256 x 32 of its 16 x 20 x 32 voxels
BOX = "[(32,26,4),(128,128,16)]"
SPECK = "[(48,13,5),(64,26,6)]"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("m3d_seg")
        patch.setenv("UMIT_CACHE", str(root / "umit_cache"))
        return prepared("m3d_seg", m3d_seg.original, root)


def test_every_class_has_its_box(whole):
    assert whole.said() == {
        "m3d_seg/0000/1/0": ("train", "detection", "en", BOX),
        "m3d_seg/0000/1/1": ("train", "detection", "en", SPECK),
        "m3d_seg/0000/2/2": ("train", "detection", "en", BOX),
        "m3d_seg/0000/10/0": ("train", "detection", "en", BOX),
        "m3d_seg/0000/11/0": ("test", "detection", "en", BOX),
        "m3d_seg/0000/11/1": ("test", "detection", "en", BOX),
        "m3d_seg/0000/11/2": ("test", "detection", "en", BOX),
        "m3d_seg/0020/ct/case_00000/2": ("train", "detection", "en", BOX),
    }
    record = whole.records["m3d_seg/0000/1/1"]
    assert record.topic == "box3d/liver tumor"
    assert "liver tumor" in record.turns[0].text
    assert "256x256x32" in record.turns[0].text
    assert record.target["frame"] == {"name": "voxel", "size": [256, 256, 32], "mm_per_unit": None}


def test_what_cannot_be_used_is_counted_by_reason(whole):
    empty, broken = "class is empty in this volume", "damaged array, or pickled objects"
    assert whole.quarantined == {
        "m3d_seg/0000/1/2": empty,
        "m3d_seg/0000/2/0": empty,
        "m3d_seg/0000/2/1": empty,
        "m3d_seg/0000/3": "mask of another shape than the image",
        "m3d_seg/0000/4": "image file is missing",
        "m3d_seg/0000/5": broken,
        "m3d_seg/0000/6": "damaged sparse mask, or pickled objects",
        "m3d_seg/0000/7": "mask file is missing",
        "m3d_seg/0000/8": "empty image",
        "m3d_seg/0000/9": broken,
        "m3d_seg/0000/10/1": empty,
        "m3d_seg/0000/10/2": empty,
        "m3d_seg/0000/10/3": "class without a name",
        "m3d_seg/0020/ct/case_00000/0": "two classes of one name",
        "m3d_seg/0020/ct/case_00000/1": "two classes of one name",
    }


def check_voxels(media, grey_xyz, channel=0):
    """Some voxels of the foreground, met at their centres in the volume as shown."""
    shown = frames(media)[..., channel]
    foreground = grey_xyz[tuple(slice(a, b) for a, b in m3d_seg.FOREGROUND)]
    for x, y, z in ((3, 4, 5), (15, 19, 31), (0, 0, 0), (7, 2, 30)):
        assert abs(shown[z, int((y + 0.5) * 256 / 20), int((x + 0.5) * 256 / 16)] - foreground[x, y, z]) < 12


def test_the_volume_is_the_foreground_from_darkest_to_brightest(whole):
    media = whole.records["m3d_seg/0000/1/0"].media[0]
    assert (media.size, media.window, media.modality, media.spacing_mm) == ((256, 256, 32), "minmax", "CT", None)
    raw = m3d_seg.image()[0]
    check_voxels(media, (raw - raw.min()) / (raw.max() - raw.min()) * 255)


def test_prepared_volumes_and_masks_are_taken_as_they_are(tmp_path):
    found = prepared("m3d_seg", m3d_seg.prepared, tmp_path)
    assert found.said() == {"m3d_seg/0003/1/0": ("train", "detection", "en", "[(100,40,3),(200,50,9)]")}
    assert found.quarantined == {
        "m3d_seg/0003/1/2": "class is empty in this volume",
        "m3d_seg/0003/2": "image file is missing",
    }
    record = found.records["m3d_seg/0003/1/0"]
    assert record.target["items"][0]["label"] == "kidney"
    raw = np.load(tmp_path / "raw" / "M3D_Seg_npy" / "0003" / "1" / "image.npy")[0]
    assert abs(frames(record.media[0])[..., 0] - raw * 255).max() < 1


def test_values_in_hounsfield_units_can_be_windowed(tmp_path):
    found = prepared("m3d_seg", m3d_seg.original, tmp_path, window="lung", subset=("0020",))
    media = next(iter(found.records.values())).media[0]
    assert media.window == "lung"
    check_voxels(media, np.clip((m3d_seg.image(20)[0] + 1350) / 1500 * 255, 0, 255))
    assert found.manifest["unexpected_counts"] == {}


def test_three_windows_are_the_channels_of_the_frames(tmp_path):
    found = prepared("m3d_seg", m3d_seg.original, tmp_path, window="lung+soft_tissue+bone", subset=("0020",))
    media = next(iter(found.records.values())).media[0]
    assert media.window == "lung+soft_tissue+bone"
    hounsfield = m3d_seg.image(20)[0]
    for channel, (low, width) in enumerate(((-1350, 1500), (-160, 400), (-500, 1800))):
        check_voxels(media, np.clip((hounsfield - low) / width * 255, 0, 255), channel)


def test_counts_are_compared_with_those_of_all_collections(whole):
    assert whole.manifest["unexpected_counts"] == {"all/detection": {"expected": 149196, "found": 8}}


def test_wrong_folders_and_lists_are_named(tmp_path):
    with pytest.raises(LayoutError, match="no collection"):
        converter(tmp_path)
    source = m3d_seg.original(tmp_path)["source"]
    with pytest.raises(LayoutError, match="--subset: expected one of 0000, 0020, found '0001'"):
        converter(source, subset=("0001",))
    (source / "0020" / "0020.json").write_text('{"labels": {"1": "x"}, "test": []}')
    with pytest.raises(LayoutError, match=r"0020\.json: expected labels, train and test .* misses 'train'"):
        converter(source).units()
    (source / "0020" / "0020.json").unlink()
    with pytest.raises(LayoutError, match=r"0020\.json: not there"):
        converter(source).units()


def test_a_sparse_mask_is_read_as_scipy_writes_it(tmp_path):
    _, path = m3d_seg.save(tmp_path, [m3d_seg.LIVER, None])
    rows = read_csr(tmp_path / path)
    np.testing.assert_array_equal(rows.dense(0, m3d_seg.SIZE), m3d_seg.block(m3d_seg.LIVER))
    assert not rows.dense(1, m3d_seg.SIZE).any()


def test_zeros_that_a_sparse_mask_stores_are_no_mask(tmp_path):
    _, path = m3d_seg.save(tmp_path, [m3d_seg.LIVER])
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    arrays["data"] = np.zeros_like(arrays["data"])
    np.savez(path, **arrays)
    assert not read_csr(tmp_path / path).dense(0, m3d_seg.SIZE).any()
