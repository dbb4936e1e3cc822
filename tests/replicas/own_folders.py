"""Somebody's own folders in small: DICOM or NIfTI files and the CSV that labels them, with rows that cannot be used."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from tests.media.dicom_files import series, write
from tests.replicas.pictures import write_file

HEADER = "file,label,split,patient,question,answer,boxes,points\r\n"


def voxels(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-500, 500, shape).astype(np.int16)


def dicom(folder: Path) -> dict[str, Any]:
    files = folder / "my scans"
    for i, name in enumerate(("a.dcm", "b ü", "C.DCM")):
        write_file(files / name, write(voxels(i, 20, 30), PatientID=f"P{i}", Modality="CT"))
    for i, data in enumerate(series(voxels(9, 4, 20, 30), PatientID="P9")):
        write_file(files / "series" / f"{9 - i}.dcm", data)
    write_file(files / "cut.dcm", write(voxels(5, 20, 30))[:-300])
    rows = [
        "a.dcm,cyst,train,,,,,",
        "b ü,mass,test,,,,,",
        'C.DCM,,train,,"Is it bright, or dark?",yes,,',
        'series,,train,,,,"[[""liver"", 2, 3, 1, 12, 13, 3]]",',
        'a.dcm,,train,,,,,"[[""tip"", 4, 5]]"',
        "cut.dcm,cyst,train,,,,,",
        "nowhere.dcm,cyst,train,,,,,",
        "../labels.csv,cyst,train,,,,,",
        'a.dcm,,train,,,,"[[""liver"", 2, 3, 99, 13]]",',
        "a.dcm,,train,,Was Wanda here?,no,,",
    ]
    labels = write_file(folder / "labels.csv", "\ufeff" + HEADER + "\r\n".join(rows) + "\r\n")
    return {"source": files, "labels": labels}


def nifti(folder: Path) -> dict[str, Any]:
    files = folder / "volumes"
    files.mkdir(parents=True)
    for i, name in enumerate(("a.nii.gz", "b c.nii")):
        nib.save(nib.Nifti1Image(voxels(i, 20, 24, 6), np.diag([1, 1, 2, 1])), files / name)
    write_file(files / "cut.nii.gz", (files / "a.nii.gz").read_bytes()[:900])
    rows = [
        "a.nii.gz,cyst,train,P1,,,,",
        "b c.nii,mass,train,P2,,,,",
        'a.nii.gz,,train,P1,,,"[[""liver"", 2, 3, 1, 12, 13, 3]]",',
        "a.nii.gz,cyst,train,P1,,,,,one more",
        "cut.nii.gz,cyst,train,P3,,,,",
        "b c.nii,,train,P2,,,not JSON,",
    ]
    labels = write_file(folder / "labels.csv", HEADER + "\n".join(rows))
    return {"source": files, "labels": labels}
