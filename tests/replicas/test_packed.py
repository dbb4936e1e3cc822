"""A folder that is still an archive is named, whatever the set, instead of images that are missing one by one."""

import importlib
import shutil
from pathlib import Path
from typing import Any

import pytest

from data_pipelines.sources.layout import LayoutError, refuse_packed
from launch.cli import main
from tests.replicas.registry import REPLICAS

FOLDERS = {
    "vqa_rad/original": ["VQA_RAD Image Folder"],
    "slake": ["imgs"],
    "isbi2015": ["RawImage", "AnnotationsByMD", "TrainingData", "Test2Data"],
    "rsna": ["stage_2_train_images"],
    "path_vqa/original": ["split", "images", "val"],
    "iu_xray/r2gen": ["images"],
    "iu_xray/original": ["ecgen-radiology", "NLMCXR_png"],
    "m3d_seg/original": ["0000", "0020"],
    "peir_gross": ["peir_gross_images"],
    "m3d_cap/prepared": ["ct_case", "ct_quizze", "M3D_Cap_npy"],
    "m3d_cap/original": ["ct_case"],
    "m3d_vqa": ["ct_case"],
}


def units(key: str, options: dict[str, Any]) -> Any:
    return importlib.import_module(f"data_pipelines.sources.{key.split('/')[0]}").converter(**options).units()


def packed(raw: Path, name: str, suffix: str) -> Path:
    """The archive that now stands for the folder of that name; its bytes do not matter."""
    (folder,) = (path for path in raw.rglob(name) if path.is_dir() and path.parent.name != "qas")
    shutil.rmtree(folder)
    archive = folder.with_name(name + suffix)
    archive.write_bytes(b"PK")
    return archive


@pytest.mark.parametrize(
    ("key", "name", "suffix"),
    [(key, name, ".zip") for key, names in FOLDERS.items() for name in names]
    + [("slake", "imgs", suffix) for suffix in (".tar", ".tar.gz", ".tgz")],
)
def test_a_folder_that_was_not_unpacked_is_named(key, name, suffix, tmp_path):
    options = REPLICAS[key](tmp_path / "raw")
    archive = packed(tmp_path / "raw", name, suffix)
    with pytest.raises(LayoutError) as raised:
        units(key, options)
    assert str(raised.value) == f"{archive.parent}: unpack {name}{suffix} first: there is no folder {name}"


@pytest.mark.parametrize("key", FOLDERS)
def test_archives_beside_what_was_unpacked_from_them_do_no_harm(key, tmp_path):
    options = REPLICAS[key](tmp_path / "raw")
    before = len(units(key, options))
    for folder in [path for path in (tmp_path / "raw").rglob("*") if path.is_dir()]:
        folder.with_name(folder.name + ".zip").write_bytes(b"PK")
    assert len(units(key, options)) == before


def test_the_reports_of_openi_come_in_an_archive_of_another_name(tmp_path):
    options = REPLICAS["iu_xray/original"](tmp_path / "raw")
    shutil.rmtree(next((tmp_path / "raw").rglob("ecgen-radiology")))
    (options["source"] / "NLMCXR_reports.tgz").write_bytes(b"")
    with pytest.raises(LayoutError, match=r"unpack NLMCXR_reports\.tgz first: there is no folder ecgen-radiology"):
        units("iu_xray", options)


def test_a_collection_that_is_not_asked_for_may_stay_packed(tmp_path):
    options = REPLICAS["m3d_seg/original"](tmp_path / "raw")
    (options["source"] / "0007.zip").write_bytes(b"PK")
    assert units("m3d_seg", options | {"subset": ["0020"]})
    with pytest.raises(LayoutError, match=r"unpack 0007\.zip first"):
        units("m3d_seg", options | {"subset": ["0007"]})


@pytest.mark.parametrize("flags", [[], ["--subset", "boxes"]])
@pytest.mark.parametrize(("archive", "said"), [("imgs.zip", "unpack imgs.zip first"), ("", "expected a folder imgs")])
def test_slake_without_images_says_so_in_one_line(flags, archive, said, tmp_path, capsys):
    source = REPLICAS["slake"](tmp_path / "raw")["source"] / "Slake1.0"
    shutil.rmtree(source / "imgs")
    if archive:
        (source / archive).write_bytes(b"PK")
    assert main(["prepare", "slake", "--source", str(source), "--out", str(tmp_path / "out"), *flags]) != 0
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert "Slake1.0" in line


def test_one_of_several_places_is_enough(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"")
    (tmp_path / "b").mkdir()
    refuse_packed(tmp_path / "a", tmp_path / "b")
    with pytest.raises(LayoutError, match=r"unpack a\.zip first"):
        refuse_packed(tmp_path / "a", tmp_path / "c")
    (tmp_path / "a.zip").unlink()
    refuse_packed(tmp_path / "a", tmp_path / "c")
