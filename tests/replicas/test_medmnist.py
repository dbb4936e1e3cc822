"""Every record of the MedMNIST replica, every rejected row, and the archives that are refused."""

import collections
import zipfile

import numpy as np
import pytest

from data_pipelines.sources import npz
from data_pipelines.sources.layout import LayoutError
from data_pipelines.sources.medmnist import converter, sets
from tests.replicas import medmnist
from tests.replicas.reading import frames, prepared

SPLIT = {"train": "train", "val": "validation", "test": "test"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("medmnist")
        patch.setenv("UMIT_CACHE", str(root / "umit_cache"))
        return prepared("medmnist", medmnist.replica, root)


def expected() -> dict[str, tuple[str, str, str, str]]:
    rows = {}
    for file, flag, labels in (("pathmnist", "pathmnist", medmnist.PATH),
                               ("retinamnist_64", "retinamnist", medmnist.RETINA),
                               ("organmnist3d_64", "organmnist3d", medmnist.ORGAN_3D)):  # fmt: skip
        for split, numbers in labels.items():
            for i, number in enumerate(numbers):
                if number < len(sets()[flag].labels):
                    answer = f"{number}:{sets()[flag].labels[number]}"
                    rows[f"medmnist/{file}/{SPLIT[split]}/{i}"] = (SPLIT[split], "classification", "en", answer)
    for split, numbers in medmnist.CHEST.items():
        for i, row in enumerate(numbers):
            for label, number in zip(sets()["chestmnist"].labels, row, strict=True):
                if 2 not in row:
                    id = f"medmnist/chestmnist/{SPLIT[split]}/{i}/{label}"
                    rows[id] = (SPLIT[split], "classification", "en", ["0:no", "1:yes"][number])
    return rows


def test_every_row_comes_out_with_its_label(whole):
    assert whole.said() == expected()
    assert whole.quarantined == {
        "medmnist/pathmnist/train/3": "label out of range",
        "medmnist/chestmnist/train/4": "label out of range",
    }


def test_labels_are_those_of_each_set_in_its_own_order(whole):
    organ = whole.records["medmnist/organmnist3d_64/train/0"]
    assert organ.target["options"][:3] == ["liver", "kidney-right", "kidney-left"]
    assert sets()["organamnist"].labels[:3] == ("bladder", "femur-left", "femur-right")
    grade = whole.records["medmnist/retinamnist_64/train/3"]
    assert grade.target == {"kind": "options", "options": ["0", "1", "2", "3", "4"], "index": 3, "first": 0}
    assert grade.turns[0].text.endswith("\n0:0\n1:1\n2:2\n3:3\n4:4")


def test_a_multi_label_image_is_asked_about_each_label(whole):
    about = whole.records["medmnist/chestmnist/train/2/atelectasis"]
    assert about.topic == "chestmnist/atelectasis"
    assert "atelectasis" in about.turns[0].text
    assert about.turns[0].text.endswith("\n0:no\n1:yes")
    assert about.target["index"] == 1


@pytest.mark.parametrize(("file", "flag", "shape"), [("pathmnist", "pathmnist", (28, 28, 3)),
                                                     ("chestmnist", "chestmnist", (28, 28)),
                                                     ("retinamnist_64", "retinamnist", (64, 64, 3))])  # fmt: skip
def test_pixels_are_those_of_the_array(whole, file, flag, shape):
    raw = medmnist.pixels(flag, "test", shape)
    for row in range(3):
        id = f"medmnist/{file}/test/{row}" + ("/hernia" if flag == "chestmnist" else "")
        wanted = raw[row] if len(shape) == 3 else np.repeat(raw[row][..., None], 3, 2)
        np.testing.assert_array_equal(frames(whole.records[id].media[0])[0], wanted)


def test_a_volume_is_shown_by_32_slices_without_a_place_in_the_patient(whole):
    media = whole.records["medmnist/organmnist3d_64/validation/0"].media[0]
    assert (media.size, media.spacing_mm, media.orientation, media.modality) == ((64, 64, 32), None, "", "CT")
    raw = medmnist.pixels("organmnist3d", "val", (64, 64, 64))[0].astype(float)
    wanted = (raw[20] + raw[21]) / 2
    assert abs(frames(media)[10, :, :, 0] - wanted).mean() < abs(frames(media)[11, :, :, 0] - wanted).mean()


def test_every_patient_is_one_image_and_licences_are_the_sets_own(whole):
    patients = collections.defaultdict(set)
    for record in whole.records.values():
        patients[record.patient_id].add(tuple(record.id.split("/")[:4]))
    assert all(len(images) == 1 for images in patients.values())
    assert {record.license for record in whole.records.values()} == {"CC-BY-4.0"}
    assert sets()["dermamnist"].license == "CC-BY-NC-4.0"


def test_counts_are_compared_with_those_of_the_sets_converted(tmp_path):
    found = prepared("medmnist", medmnist.replica, tmp_path, subset=("retinamnist",))
    assert {record.topic for record in found.records.values()} == {"retinamnist"}
    assert found.manifest["unexpected_counts"]["train/classification"] == {"expected": 1080, "found": 5}


def test_compressed_arrays_are_unpacked_once_and_stored_ones_are_read_in_place(tmp_path):
    options = medmnist.replica(tmp_path)
    packed = npz.rows(options["source"] / "pathmnist.npz", "train_images", tmp_path / "cache")
    plain = npz.rows(options["source"] / "chestmnist.npz", "train_images", tmp_path / "cache")
    assert [path.name for path in (tmp_path / "cache").rglob("*.npy")] == ["train_images.npy"]
    assert str(plain.path).endswith("chestmnist.npz")
    wanted = medmnist.pixels("pathmnist", "train", (28, 28, 3))
    np.testing.assert_array_equal(packed.read(0, 5), wanted)
    np.testing.assert_array_equal(packed.read(3, 4), wanted[3:4])
    np.testing.assert_array_equal(plain.read(1, 5), medmnist.pixels("chestmnist", "train", (28, 28))[1:])


def test_several_sizes_of_a_set_need_a_choice(tmp_path):
    source = medmnist.replica(tmp_path)["source"]
    (source / "pathmnist_64.npz").write_bytes((source / "pathmnist.npz").read_bytes())
    with pytest.raises(LayoutError, match=r"--size: .* pathmnist in several sizes: 28, 64"):
        converter(source)
    assert converter(source, subset=("pathmnist",), size=28).files == (("pathmnist", "pathmnist.npz"),)
    with pytest.raises(LayoutError, match="pathmnist of size 224; sizes found: 28, 64"):
        converter(source, subset=("pathmnist",), size=224)
    with pytest.raises(LayoutError, match=r"--subset: expected one of pathmnist, .* found 'pathmist'"):
        converter(source, subset=("pathmist",))


def _broken(source, flag, change):
    arrays = medmnist.arrays(flag, (28, 28, 3), medmnist.PATH)
    change(arrays)
    np.savez(source / f"{flag}.npz", **arrays)
    return converter(source, subset=(flag,))


@pytest.mark.parametrize(("change", "said"), [
    (lambda a: a.pop("val_images"), "no array val_images; found test_images"),
    (lambda a: a.update(val_labels=np.zeros((3, 1), np.uint8)), "validation labels: expected integers of .2, 1."),
    (lambda a: a.update(test_images=a["test_images"].astype(np.float32)), "test images: expected uint8"),
    (lambda a: a.update(train_labels=np.array([[None]] * 5)), "train_labels: pickled objects"),
])  # fmt: skip
def test_arrays_that_are_not_as_documented_are_named(tmp_path, change, said):
    source = medmnist.replica(tmp_path)["source"]
    with pytest.raises(LayoutError, match=said):
        _broken(source, "pathmnist", change).units()


def test_a_damaged_archive_is_named(tmp_path):
    source = medmnist.replica(tmp_path)["source"]
    data = (source / "pathmnist.npz").read_bytes()
    (source / "pathmnist.npz").write_bytes(data[: len(data) // 2])
    with pytest.raises(LayoutError, match=r"pathmnist\.npz: not a whole \.npz file"):
        converter(source, subset=("pathmnist",)).units()
    flipped = bytearray(data)
    with zipfile.ZipFile(source / "organmnist3d_64.npz") as archive:
        info = archive.getinfo("train_images.npy")
    flipped = bytearray((source / "organmnist3d_64.npz").read_bytes())
    flipped[info.header_offset + 5000 : info.header_offset + 5100] = bytes(100)
    (source / "organmnist3d_64.npz").write_bytes(flipped)
    with pytest.raises(LayoutError, match="train_images: damaged or truncated"):
        npz.rows(source / "organmnist3d_64.npz", "train_images", tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("*.np*[yt]"))
