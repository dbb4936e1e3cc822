"""TotalSegmentator's reference files -> four studies: two abdominal CTs, a chest CT with dissection, an abdominal MR.

| study   | file                                | truth                                                    | split |
| abdomen | example_ct.nii.gz                   | organ masks, spine_report.json (vertebral heights)       | train |
| aorta   | aorta_report/example_ct.nii.gz      | vessel and heart masks on cropped grids, points and       | train |
|         |                                     | diameters of aorta_report.json, pulmonary_report.json    |       |
| mr      | example_mr_sm.nii.gz                | organ masks                                              | train |
| liver   | example_ct_dicom (20 slices)        | organ masks                                              | test  |

All masks, points and measurements are outputs of the package's own models, not a radiologist's. World coordinates in
the JSON files are NIfTI's (RAS) millimetres; a null is a landmark that was not found. The other NIfTI files there show
the same patients again.
"""

import ast
import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from data_pipelines.media import MediaError
from data_pipelines.media.deidentify import refuse_burned_in
from data_pipelines.media.nifti import read_nifti
from data_pipelines.media.series import read_series
from data_pipelines.media.volume import Volume, canonical, to_voxels
from data_pipelines.sources.labelled import Labelled, block, block_view, onto, organ_crops, plane_views, split_labels
from data_pipelines.sources.sampler_context import Context, Sampled
from data_pipelines.sources.study import Coordinates, Facts, Study, View

ROOT = "tests/reference_files/"
_CLASSES = "totalsegmentator/map_to_binary.py"
_JSON_LANDMARKS = {
    "aorta_report/example_ct_report/aorta_report.json": {
        "annulus": "aortic_annulus",
        "sinuses of valsalva": "sinuses_of_valsalva",
        "sinotub. junc.": "sinotubular_junction",
        "mid asc. aorta": "mid_ascending_aorta",
        "distal asc. aorta": "distal_ascending_aorta",
        "mid aortic arch": "mid_aortic_arch",
        "proximal desc. aorta": "proximal_descending_aorta",
        "mid desc. aorta": "mid_descending_aorta",
        "desc. aorta (T12)": "descending_aorta_T12",
        "abd. aorta (celiac artery)": "abdominal_aorta_celiac",
        "abd. aorta (bifurcation)": "aortic_bifurcation",
    },
    "pulmonary_report/pulmonary_report.json": {
        "proximal MPA": "proximal_main_pulmonary_artery",
        "sinotub. junc.": "pulmonary_sinotubular_junction",
        "bifurcation": "pulmonary_bifurcation",
        "left PA": "left_pulmonary_artery",
        "right PA": "right_pulmonary_artery",
    },
}
_SPINE = "spine_report/example_ct_report/spine_report.json"
_AORTA_MASKS = {
    "aorta_report/test_result/models/": (
        *("aorta", "aorta_true_lumen", "aorta_false_lumen", "brachiocephalic_trunk", "common_carotid_artery_left"),
        *("subclavian_artery_left", "vertebrae_T12"),
    ),
    "pulmonary_report/models/": ("heart", "pulmonary_artery"),
}
_LEVELS = ("T11", "T12", "L1", "L2", "L3", "L4", "L5")
_POINTED = (
    *("liver", "spleen", "stomach", "gallbladder", "kidney_left", "kidney_right", "adrenal_gland_left", "aorta"),
    *("adrenal_gland_right", "urinary_bladder", "prostate", "sacrum", "heart", "vertebrae"),
    *(f"vertebrae_{level}" for level in _LEVELS),
)
_ORGANS = (
    *_POINTED,
    *("pancreas", "duodenum", "colon", "small_bowel", "inferior_vena_cava", "portal_vein_and_splenic_vein"),
    *("hip_left", "hip_right", "femur_left", "femur_right", "iliopsoas_left", "iliopsoas_right"),
)
_CROPPED = {
    **{name: name for name in ("liver", "spleen", "stomach", "aorta", "vertebrae", "heart", "urinary_bladder")},
    **{f"kidney_{side}": "kidney" for side in ("left", "right")},
    **{f"vertebrae_{level}": "vertebrae" for level in _LEVELS},
}
_PELVIC, _ABDOMINAL = {"hip_left", "hip_right", "urinary_bladder"}, {"liver", "spleen", "kidney_left", "kidney_right"}


def wanted(name: str) -> bool:
    return name.startswith(ROOT) or name == _CLASSES


def studies(files: Mapping[str, bytes], context: Context) -> Iterator[Sampled]:
    """The studies whose files are there and readable; the others are quarantined."""
    names = class_names(files[_CLASSES].decode())
    for build in (_abdomen, _aorta, _mr, _liver):
        name = build.__name__.lstrip("_")
        try:
            yield build(files, names, context)
        except MediaError as error:
            context.quarantine(f"totalsegmentator/{name}", error.reason)
        except KeyError as error:
            context.quarantine(f"totalsegmentator/{name}", f"no file {error.args[0]}")


def class_names(source: str) -> dict[str, dict[int, str]]:
    """{task: {label: structure}} from the package's table, which is read and not run."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "class_map":
            return ast.literal_eval(node.value)
    raise MediaError("no table of classes")


def landmarks(report: Mapping[str, Any], names: Mapping[str, str]) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """({landmark: point in LPS mm}, {landmark: largest diameter in mm}) of a report: the point is the middle of the
    diameter that was measured. A landmark with nulls was not found and is left out."""
    points, diameters = {}, {}
    for landmark in report["landmarks"].values():
        if landmark["start"] is None or landmark["end"] is None or landmark["diameter"] is None:
            continue
        name = names[landmark["name"]]
        middle_ras = (np.array(landmark["start"]) + np.array(landmark["end"])) / 2
        points[name] = middle_ras * (-1, -1, 1)
        diameters[name] = landmark["diameter"] * 10.0
    return points, diameters


def heights(report: Mapping[str, Any]) -> dict[str, float]:
    """{vertebra: height of its middle in mm}."""
    ending = "_height_middle_mm"
    return {k.removesuffix(ending): float(v) for k, v in report["results"].items() if k.endswith(ending)}


def _region(visible: Sequence[str]) -> str:
    if _PELVIC & set(visible):
        return "pelvis"
    return "abdomen" if _ABDOMINAL & set(visible) else ""


def _abdomen(files: Mapping[str, bytes], names: Mapping[str, dict[int, str]], context: Context) -> Sampled:
    volume = canonical(read_nifti(files[ROOT + "example_ct.nii.gz"], "CT"))
    labels = canonical(read_nifti(files[ROOT + "example_seg_fast_force_split.nii.gz"], mask=True))
    known = Facts(heights_mm=heights(json.loads(files[ROOT + _SPINE])))
    how = "masks: example_seg_fast_force_split.nii.gz"
    labelled = Labelled(
        volume, split_labels(labels.voxels_ZYX, names["total"], _ORGANS), pointed=_POINTED, facts=known, how=how
    )
    depth = volume.size[2]
    axial = plane_views(labelled, "axial", range(3, depth, 6), "soft_tissue", region=_region)
    views = [
        *axial,
        *plane_views(labelled, "coronal", range(24, 84, 8), "soft_tissue"),
        *plane_views(labelled, "sagittal", range(36, 92, 8), "bone"),
        *(crop for view in axial for crop in organ_crops(view, _CROPPED)),
        block_view(labelled, "whole", (64, 52, 16), "soft_tissue"),
        *(
            block_view(block(labelled, a, a + 56), f"block_{a}", (64, 52, 12), "soft_tissue", Facts())
            for a in (0, 28, 56)
        ),
    ]
    reports = ("whole", "block_0", "block_28", "block_56", "coronal_48", "coronal_56", "sagittal_60")
    pairs = (("axial_3", "axial_99"), ("axial_27", "axial_81"), ("axial_57", "coronal_56"), ("axial_87", "axial_105"),
             ("coronal_40", "coronal_56"), ("coronal_48", "sagittal_60"), ("block_0", "block_56"))  # fmt: skip
    return _sampled(context, "abdomen", "example_ct.nii.gz", "train", views, reports, pairs)


def _aorta(files: Mapping[str, bytes], _: Mapping[str, dict[int, str]], context: Context) -> Sampled:
    volume = canonical(read_nifti(files[ROOT + "aorta_report/example_ct.nii.gz"], "CT"))
    masks = {
        name: onto(canonical(read_nifti(files[f"{ROOT}{folder}{name}.nii.gz"], mask=True)), volume)
        for folder, found in _AORTA_MASKS.items()
        for name in found
    }
    points: dict[str, Coordinates] = {}
    diameters: dict[str, float] = {}
    for file, names in _JSON_LANDMARKS.items():
        points_mm, found = landmarks(json.loads(files[ROOT + file]), names)
        for name, point_mm in points_mm.items():
            point = to_voxels(volume, point_mm[None])[0]
            if (point < 0).any() or (point > volume.size).any():
                context.quarantine(f"TotalSegmentator/{file}/{name}", "landmark outside the image")
            else:
                points[name] = tuple(float(c) for c in point)
        diameters |= found
    dissected = bool(masks["aorta_false_lumen"].any())
    known = Facts(region="chest", diameters_mm=diameters, findings={"aortic_dissection": _yes_no(dissected)})
    how = "masks, points and diameters: aorta_report, pulmonary_report"
    labelled = Labelled(volume, masks, points, ("heart", "aorta", "vertebrae_T12"), known, how)
    indices = sorted({*range(6, volume.size[2], 14), *(int(z) for _, _, z in points.values())})
    axial = [
        _dissection(view)
        for view in plane_views(labelled, "axial", indices, "mediastinum", facts=Facts(region="chest"))
    ]
    views = [
        *axial,
        *plane_views(labelled, "coronal", range(50, 140, 15), "mediastinum", facts=Facts(region="chest")),
        *plane_views(labelled, "sagittal", range(85, 150, 10), "mediastinum", facts=Facts(region="chest")),
        *(crop for view in axial[::3] for crop in organ_crops(view, _CROPPED)),
        block_view(labelled, "whole", (64, 48, 16), "mediastinum"),
        *(
            block_view(block(labelled, a, a + 96), f"block_{a}", (64, 48, 12), "mediastinum", Facts(region="chest"))
            for a in (0, 48, 95)
        ),
    ]
    reports = ("whole", "block_0", "block_48", "block_95", "coronal_80", "sagittal_115")
    pairs = (
        ("axial_6", "axial_90"),
        ("axial_48", "axial_118"),
        ("axial_90", "coronal_80"),
        ("coronal_65", "sagittal_115"),
    )
    return _sampled(context, "aorta", "aorta_report/example_ct.nii.gz", "train", views, reports, pairs)


def _yes_no(value: bool) -> str:
    return "yes" if value else "no"


def _dissection(view: View) -> View:
    """The finding in one slice that shows the aorta: whether its false lumen is in it."""
    if "aorta" not in view.facts.visible:
        return view
    findings = {"aortic_dissection": _yes_no("aorta_false_lumen" in view.facts.visible)}
    return dataclasses.replace(view, facts=dataclasses.replace(view.facts, findings=findings))


def _mr(files: Mapping[str, bytes], names: Mapping[str, dict[int, str]], context: Context) -> Sampled:
    volume = canonical(read_nifti(files[ROOT + "example_mr_sm.nii.gz"], "MR"))
    labels = canonical(read_nifti(files[ROOT + "example_seg_mr.nii.gz"], mask=True))
    masks = split_labels(labels.voxels_ZYX, names["total_mr"], _ORGANS)
    labelled = Labelled(volume, masks, pointed=_POINTED, how="masks: example_seg_mr.nii.gz")
    return _slab(context, "mr", "example_mr_sm.nii.gz", "train", labelled, "auto", (64, 52))


def _liver(files: Mapping[str, bytes], names: Mapping[str, dict[int, str]], context: Context) -> Sampled:
    series = [data for name, data in sorted(files.items()) if name.startswith(ROOT + "example_ct_dicom/")]
    volume, image = read_series(series)
    refuse_burned_in(image.burned_in)
    volume = canonical(volume)
    labels = canonical(read_nifti(files[ROOT + "example_seg_dicom.nii.gz"], mask=True))
    masks = split_labels(_same_grid(labels, volume), names["total"], _ORGANS)
    labelled = Labelled(volume, masks, pointed=_POINTED, how="masks: example_seg_dicom.nii.gz")
    return _slab(context, "liver", "example_ct_dicom", "test", labelled, "soft_tissue", (64, 64), image.patient)


def _same_grid(labels: Volume, volume: Volume) -> np.ndarray:
    if labels.size != volume.size or not np.allclose(labels.affine_lps, volume.affine_lps, atol=0.05):
        raise MediaError("mask on another grid than its volume")
    return labels.voxels_ZYX


def _slab(
    context: Context,
    name: str,
    file: str,
    split: str,
    labelled: Labelled,
    window: str,
    size: tuple[int, int],
    patient: str = "",
) -> Sampled:
    """A study of twenty axial slices."""
    axial = plane_views(labelled, "axial", range(0, 20, 2), window, facts=Facts(region="abdomen"))
    views = [
        *axial,
        *(crop for view in axial[::2] for crop in organ_crops(view, _CROPPED)),
        block_view(labelled, "whole", (*size, 10), window, Facts(region="abdomen")),
        *(
            block_view(block(labelled, a, a + 12), f"block_{a}", (*size, 6), window, Facts(region="abdomen"))
            for a in (0, 4, 8)
        ),
    ]
    reports = ("whole", "block_0", "block_4", "block_8", "axial_2", "axial_10", "axial_18")
    pairs = (("axial_0", "axial_18"), ("axial_4", "axial_12"), ("axial_2", "axial_10"), ("block_0", "block_8"))
    return _sampled(context, name, file, split, views, reports, pairs, patient)


def _sampled(
    context: Context,
    name: str,
    file: str,
    split: str,
    views: Sequence[View],
    reports: Sequence[str],
    pairs: Sequence[tuple[str, str]],
    patient: str = "",
) -> Sampled:
    study = Study(
        id=f"totalsegmentator/{name}",
        dataset="sampler",
        split=split,
        patient_id=context.patient("totalsegmentator", patient or file),
        views=tuple(views),
        label_kind="model",
        license=context.license("totalsegmentator"),
        source=f"totalsegmentator {ROOT}{file}",
        choices=context.choices,
        reports=tuple((key,) for key in reports),
        comparisons=tuple(pairs),
    )
    return Sampled(study, context.limits("organs" if split == "train" else "heldout_organs"))
