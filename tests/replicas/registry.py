"""Every data set's replica: a function that writes a tiny tree in the raw layout below a folder and returns the options
of that data set's converter. A set with several layouts has one each, as "NAME/LAYOUT"."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.replicas import (
    chimed_vl,
    isbi2015,
    iu_xray,
    jsonl,
    m3d_cap,
    m3d_seg,
    m3d_vqa,
    medmnist,
    own_folders,
    path_vqa,
    peir_gross,
    pmc_oa,
    rsna,
    slake,
    tfds,
    vqa_rad,
)

REPLICAS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "dicom_folder": own_folders.dicom,
    "nifti_folder": own_folders.nifti,
    "medmnist": medmnist.replica,
    "vqa_rad/original": vqa_rad.original,
    "vqa_rad/hub": vqa_rad.hub,
    "slake": slake.replica,
    "isbi2015": isbi2015.replica,
    "rsna": rsna.replica,
    "path_vqa/original": path_vqa.original,
    "path_vqa/hub": path_vqa.hub,
    "iu_xray/r2gen": iu_xray.r2gen,
    "iu_xray/original": iu_xray.original,
    "m3d_seg/original": m3d_seg.original,
    "m3d_seg/prepared": m3d_seg.prepared,
    "peir_gross": peir_gross.replica,
    "m3d_cap/prepared": m3d_cap.prepared,
    "m3d_cap/original": m3d_cap.original,
    "m3d_vqa": m3d_vqa.replica,
    "pmc_oa/beta": pmc_oa.beta,
    "pmc_oa/aligned": pmc_oa.aligned,
    "tfds/array_record": tfds.array_record,
    "tfds/tfrecord": tfds.tfrecord,
    "jsonl": jsonl.replica,
    "chimed_vl/texts": chimed_vl.texts,
    "chimed_vl/conversations": chimed_vl.conversations,
}
