"""Downloads that lie one folder deeper, or lack a file: the same records, or one line that names the file."""

import importlib
import json
import shutil

import pytest

from data_pipelines.sources import isbi2015, m3d_cap, m3d_seg, m3d_vqa, medmnist, path_vqa, vqa_rad
from data_pipelines.sources.layout import LayoutError
from data_pipelines.sources.m3d_volume import plain_name
from tests.replicas import m3d_cap as cap
from tests.replicas.hub_files import write_parquet
from tests.replicas.pictures import encoded
from tests.replicas.reading import prepared
from tests.replicas.registry import REPLICAS

DEEPER = ("slake", "isbi2015", "m3d_vqa", "iu_xray/r2gen", "peir_gross")  # these lie one folder deeper anyway
YOUR_OWN = ("dicom_folder", "nifti_folder", "jsonl", "tfds/array_record", "tfds/tfrecord")  # no layout of a download


@pytest.mark.parametrize("key", [key for key in REPLICAS if key not in (*DEEPER, *YOUR_OWN)])
def test_a_download_is_found_one_folder_deeper(key, tmp_path, monkeypatch):
    monkeypatch.setenv("UMIT_CACHE", str(tmp_path / "umit_cache"))

    def deeper(root):
        options = REPLICAS[key](root)
        source = options["source"]
        source.rename(source.with_name("moved"))
        source.mkdir()
        source.with_name("moved").rename(source / "inner")
        return options

    name = key.split("/")[0]
    as_it_is = prepared(name, REPLICAS[key], tmp_path / "one")
    found = prepared(name, deeper, tmp_path / "two")
    assert found.said() == as_it_is.said()
    assert found.quarantined == as_it_is.quarantined


def test_volumes_of_questions_are_found_one_folder_deeper(tmp_path):
    def deeper(root):
        options = REPLICAS["m3d_vqa"](root)
        return options | {"images": options["images"].parent}

    assert prepared("m3d_vqa", deeper, tmp_path / "one", subset=("val",)).said() == {
        "m3d_vqa/val/1": ("validation", "vqa", "en", "3:sagittal")
    }


def test_a_set_that_is_there_twice_is_refused(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / "m3d" / folder / "0003").mkdir(parents=True)
        (tmp_path / "mnist" / folder).mkdir(parents=True)
        (tmp_path / "mnist" / folder / "pathmnist.npz").touch()
    with pytest.raises(LayoutError, match="collections in several folders: a, b"):
        m3d_seg.converter(tmp_path / "m3d")
    with pytest.raises(LayoutError, match=r"pathmnist\.npz is there twice, the first as a/pathmnist\.npz"):
        medmnist.converter(tmp_path / "mnist")


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_pickles_without_those_of_a_split_are_refused(split, tmp_path):
    source = REPLICAS["path_vqa/original"](tmp_path)["source"]
    (source / "split" / "qas" / split / f"{split}_qa.pkl").unlink()
    with pytest.raises(LayoutError, match=rf"expected split/qas/{split}/{split}_qa\.pkl, found split/qas/"):
        path_vqa.converter(source)


@pytest.mark.parametrize("name", ["path_vqa", "vqa_rad"])
@pytest.mark.parametrize("gone", ["train-00000", "train-00001", "validation", "test"])
def test_a_copy_on_the_hub_without_one_of_its_files_is_refused(name, gone, tmp_path):
    source = REPLICAS["path_vqa/hub"](tmp_path)["source"]
    next(source.glob(f"data/{gone}-*")).unlink()
    if (name, gone) == ("vqa_rad", "validation"):  # which has no such split
        vqa_rad.converter(source)
        return
    expected = rf"one {gone}-of-00002\*\.parquet" if "-" in gone else rf"{gone}-\*\.parquet"
    with pytest.raises(LayoutError, match=rf"expected {expected}, found data/"):
        importlib.import_module(f"data_pipelines.sources.{name}").converter(source)


@pytest.mark.parametrize("other", ["test-00000-of-00001-cd", "test-00000-of-00002-cd"])
def test_a_copy_on_the_hub_of_two_uploads_is_refused(other, tmp_path):
    source = REPLICAS["path_vqa/hub"](tmp_path)["source"]
    write_parquet(source / "data" / f"{other}.parquet", [(encoded(9), "what?", "this")])
    with pytest.raises(LayoutError, match=rf"expected one test-0000\d-of-0000\d\*.parquet, found .*{other}"):
        path_vqa.converter(source)


@pytest.mark.parametrize("folder", ["TrainingData", "Test1Data", "Test2Data"])
def test_cephalograms_without_those_of_a_part_are_refused(folder, tmp_path):
    source = REPLICAS["isbi2015"](tmp_path)["source"]
    shutil.rmtree(source / "cephalometric" / "RawImage" / folder)
    with pytest.raises(LayoutError, match=rf"expected RawImage/{folder}/\*\.bmp, found none"):
        isbi2015.converter(source).units()


def test_questions_about_volumes_without_those_of_a_split_need_a_subset(tmp_path):
    options = REPLICAS["m3d_vqa"](tmp_path)
    (options["source"] / "M3D_VQA" / "M3D_VQA_val.csv").unlink()
    with pytest.raises(LayoutError, match=r"expected M3D_VQA_val\.csv, or --subset, found"):
        m3d_vqa.converter(**options)
    assert m3d_vqa.converter(**options, subset=("train",)).parts == ("train",)


def listed(root, folder, name, list_of):
    """A case of slices in `folder`, which the list calls by `name`."""
    cap.slices(folder / "ct_case" / "000010" / name[0], range(3))
    (folder / "ct_case" / "000010" / "text.txt").write_text("study_findings: Dense petrous bone.")
    case = "M3D_Cap_npy/ct_case/000010"
    lists = {"train": [{"image": f"{case}/{name[1]}.npy", "text": f"{case}/text.txt"}], "validation": [], "test": []}
    list_of.write_text(json.dumps(lists))
    return {"source": root}


@pytest.mark.parametrize("folder", ["", "M3D_Cap", "inner", "inner/M3D_Cap"])
@pytest.mark.parametrize("beside", [False, True])
def test_the_list_of_volumes_may_lie_beside_the_folders_of_slices(folder, beside, tmp_path):
    def replica(root):
        (root / folder).mkdir(parents=True)
        where = root / folder if beside and folder.count("/") == 0 else root
        return listed(root, root / folder, ("Axial", "Axial"), where / "M3D_Cap.json")

    found = prepared("m3d_cap", replica, tmp_path)
    assert found.said() == {"m3d_cap/ct_case/000010/Axial": ("train", "report", "en", "Dense petrous bone.")}
    assert m3d_cap.converter(tmp_path / "raw").listed is not None


@pytest.mark.parametrize(
    ("stored", "prepared_name"),
    [
        ("Axial_Weiß", "Axial_Weiss"),
        ("Sørensen_æon_œdema_Łódź_Đorđe", "Sorensen_aeon_oedema_Lodz_Dorde"),
        ("T1–T2 Legg’s", "T1-T2 Legg's"),
        ("Ünal_façade_İ", "Unal_facade_I"),
    ],
)
def test_names_of_volumes_are_compared_in_ascii(stored, prepared_name, tmp_path):
    assert plain_name(stored) == plain_name(prepared_name) == prepared_name

    def replica(root):
        root.mkdir()
        return listed(root, root, (stored, prepared_name), root / "M3D_Cap.json")

    found = prepared("m3d_cap", replica, tmp_path)
    assert (list(found.records), found.quarantined) == ([f"m3d_cap/ct_case/000010/{prepared_name}"], {})
