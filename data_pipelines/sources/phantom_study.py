"""One phantom patient: acquired, written as files, read back with the readers of real data, and described as a Study.

Everything is a function of (seed, index). The label map goes through NIfTI as well, so what a record calls truth has
been through the same files as the pixels; of a projection or a section the truth comes from the labels it was made of.
"""

import dataclasses
import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from data_pipelines.media.deidentify import patient_hash
from data_pipelines.media.dicom import read_dicom
from data_pipelines.media.nifti import read_nifti
from data_pipelines.media.raster import resize
from data_pipelines.media.series import read_series, volume_of
from data_pipelines.media.volume import Volume, apply_window, canonical, oriented, to_voxels, window_range
from data_pipelines.seeded import generator
from data_pipelines.sources import phantom_files as files
from data_pipelines.sources import phantom_images as images
from data_pipelines.sources.measure import boxes_of, centre, volumes_ml, whole
from data_pipelines.sources.phantom_anatomy import LABELS, PLACES, Patient, draw_patient
from data_pipelines.sources.phantom_images import Acquired
from data_pipelines.sources.study import Facts, Study, View
from data_pipelines.sources.views import image_view, slice_view, volume_view

IMAGE_SIZE = 100  # a pixel is ten of the thousand units that boxes are spoken in: no digit is below the resolution
VOLUME_SIZE = (56, 56, 8)
ORGANS = ("heart", "liver", "spleen", "kidney_left", "kidney_right", "lung_left", "lung_right")
CROPPED = {"heart": ["heart"], "liver": ["liver"], "spleen": ["spleen"], "kidney": ["kidney_left", "kidney_right"],
           "lung": ["lung_left", "lung_right"]}  # fmt: skip
LANDMARK_VERTEBRAE = ("vertebrae_T10", "vertebrae_L1")
CHOICES = {
    "modality": ("CT", "DX", "PT", "US"),
    "plane": ("axial", "coronal", "sagittal"),
    "view": ("frontal", "lateral"),
    "organ": tuple(CROPPED),
    "focal_uptake": PLACES,
}
_PARTS = {
    "liver": ("liver", "liver_cyst_1", "liver_cyst_2", "liver_cyst_3"),
    "lung_left": ("lung_left",),
    "lung_right": ("lung_right",),
}
_WINDOW = "soft_tissue"
_CODES = ("LPS", "RAS", "LAS", "RPI")  # orientations the NIfTI files take in turn
MIN_CYST_PIXELS = 12


@dataclasses.dataclass(frozen=True)
class Examination:
    """One patient with every acquisition and the folder its files lie in."""

    identity: files.Identity
    patient: Patient
    ct: Acquired
    frontal: Acquired
    lateral: Acquired
    prior: Acquired
    prior_patient: Patient
    pet: Acquired
    ultrasound: Acquired
    folder: Path


def split_of(index: int, test_fraction: float, validation_fraction: float) -> str:
    """The split of patient `index`, whatever the number of patients: the golden ratio spreads any fraction evenly, so
    that every prefix has the right share."""
    place = (index * 0.6180339887498949 + 0.5) % 1.0
    if place < test_fraction:
        return "test"
    return "validation" if place < test_fraction + validation_fraction else "train"


def examine(seed: int, index: int, folder: Path, ct_format: str = "alternate") -> Examination:
    """Draws a patient, acquires every image and writes the files. ct_format: "dicom", "nifti", or "alternate"
    (DICOM for patients of even number)."""
    rng = generator(seed, "phantom", str(index))
    patient = draw_patient(rng)
    other = str(rng.choice([e for e in ("no", "left", "right") if e != patient.effusion]))
    before = dataclasses.replace(patient, effusion=other)
    identity = files.Identity(seed, index)
    examination = Examination(
        identity=identity,
        patient=patient,
        ct=images.ct(rng, patient),
        frontal=images.radiograph(rng, patient, "frontal"),
        lateral=images.radiograph(rng, patient, "lateral"),
        prior=images.radiograph(rng, before, "frontal"),
        prior_patient=before,
        pet=images.pet(rng, patient),
        ultrasound=images.ultrasound(rng, patient),
        folder=folder,
    )
    _write(examination, ct_format)
    return examination


def _write(e: Examination, ct_format: str) -> None:
    e.folder.mkdir(parents=True, exist_ok=True)
    number = e.identity.index
    affine, codes = e.ct.grid.affine_lps(), _CODES[number // 2 % len(_CODES)]
    if ct_format == "dicom" or (ct_format == "alternate" and number % 2 == 0):
        files.write_ct(e.identity, e.ct, e.folder / "ct")
    else:
        files.write_nifti(e.ct.values, affine, codes, e.folder / "ct.nii")
    files.write_nifti(e.ct.labels, affine, codes, e.folder / "labels.nii")
    for name, view in (("frontal", "frontal"), ("lateral", "lateral"), ("prior", "frontal")):
        files.write_radiograph(e.identity, getattr(e, name), view, number % 3 == 0, e.folder / f"{name}.dcm")
    files.write_pet(e.identity, e.pet, e.folder / "pet.dcm")
    files.write_ultrasound(e.identity, e.ultrasound, e.folder / "us.dcm")


def study_of(e: Examination, split: str) -> Study:
    """Reads every file of the examination back and puts together what can be shown and asked."""
    seed, index = e.identity.seed, e.identity.index
    rng = generator(seed, "phantom views", str(index))
    key = hashlib.sha256(
        f"phantom {seed}".encode()
    ).digest()  # nobody to protect, so the hash may be the same each time
    return Study(
        id=f"phantom-{seed}-{index:07d}",
        dataset="phantom",
        split=split,
        patient_id=patient_hash(key, e.identity.number),
        views=(*_radiographs(e), *_ct_views(e, rng), _pet_view(e), _ultrasound_view(e)),
        label_kind="synthetic",
        license="Apache-2.0",
        source=f"procedural anatomy, seed {seed}, patient {index}; no such patient exists",
        choices=CHOICES,
        reports=(("frontal",),),
        comparisons=(("prior", "frontal"), ("frontal", "lateral"), ("axial", "axial_2")),
        synthetic=True,
    )


def _radiographs(e: Examination) -> Iterator[View]:
    for key, acquired, patient in (("frontal", e.frontal, e.patient), ("prior", e.prior, e.prior_patient)):
        masks = {name: (acquired.labels == LABELS[name]).any(axis=2) for name in ("heart", "lung_mass")}
        points = {"heart_apex": patient.heart_apex(), "carina": patient.carina()}
        pixels = {name: _on_film(acquired, point) for name, point in points.items()}
        facts = Facts(
            view="frontal",
            enlarged={"heart": patient.enlarged},
            sides={"heart_apex": "right" if patient.mirrored else "left"},
            findings={
                "pleural_effusion": patient.effusion,
                "lung_mass": _side_seen(patient.mass, masks["lung_mass"]),
                "scoliosis": patient.scoliosis,
            },
        )
        yield _film(e, key, facts, {name: boxes_of(mask) for name, mask in masks.items()}, pixels)
    yield _film(e, "lateral", Facts(view="lateral"), {}, {})


def _film(e: Examination, key: str, facts: Facts, boxes: dict, points: dict) -> View:
    image = read_dicom(e.folder / f"{key}.dcm")
    inside = {name: p for name, p in points.items() if all(0 <= c <= IMAGE_SIZE for c in p)}
    return image_view(
        image.render(),
        image.modality,
        key=key,
        spacing_mm=image.spacing_mm,
        boxes=boxes,
        points=inside,
        facts=facts,
        how="projection of the anatomy; truth from the projected labels",
    )


def _on_film(acquired: Acquired, point_mm: tuple[float, float, float]) -> tuple[float, float]:
    """Pixel coordinates of a point on a frontal film, whose rows run downwards."""
    x, _, z = acquired.grid.to_voxel(point_mm)
    return x, acquired.grid.size[2] - z


def _side_seen(side: str, projected: np.ndarray) -> str:
    """A mass outside the field of view is no finding of this film."""
    return side if projected.any() else "no"


def _ct_views(e: Examination, rng: np.random.Generator) -> Iterator[View]:
    volume, masks = read_ct(e)
    organs = {name: masks[name] for name in ORGANS}
    sides = {"liver": "left" if e.patient.mirrored else "right"}
    facts = Facts(sides=sides, volumes_ml=volumes_ml(organs, volume.spacing_mm))
    points = {name: centre(masks[name]) for name in LANDMARK_VERTEBRAE if whole(masks[name])}
    how = "painted labels"
    yield volume_view(
        volume, organs, key="ct", size_xyz=VOLUME_SIZE, window=_WINDOW, points=points, facts=facts, how=how
    )
    width, height, depth = volume.size
    rows = np.flatnonzero(masks["liver"].any(axis=(0, 2)))
    liver_row = int(rng.choice(rows[len(rows) // 4 : -len(rows) // 4])) if len(rows) > 3 else height // 2
    levels = rng.choice(np.arange(2, depth - 2), 2, replace=False)
    for key, plane, index in (
        ("axial", "axial", int(levels[0])),
        ("axial_2", "axial", int(levels[1])),
        ("coronal", "coronal", liver_row),
        ("sagittal", "sagittal", width // 2 + int(rng.integers(-8, 9))),
    ):
        yield slice_view(
            volume, organs, key=key, plane=plane, index=index, size_wh=(IMAGE_SIZE, IMAGE_SIZE), window=_WINDOW, how=how
        )
    crop = _crop_view(volume, masks, rng)
    if crop is not None:
        yield crop


def read_ct(e: Examination) -> tuple[Volume, dict[str, np.ndarray]]:
    """The CT and its masks from their files, both in canonical orientation."""
    if (e.folder / "ct").is_dir():
        volume, _ = read_series(sorted((e.folder / "ct").iterdir()))
    else:
        volume = read_nifti(e.folder / "ct.nii", modality="CT")
    volume = canonical(volume)
    labels = canonical(read_nifti(e.folder / "labels.nii", mask=True)).voxels_ZYX.astype(np.uint8)
    names = (*ORGANS, *LANDMARK_VERTEBRAE)
    return volume, {name: np.isin(labels, [LABELS[part] for part in _PARTS.get(name, (name,))]) for name in names}


def _crop_view(volume: Volume, masks: dict[str, np.ndarray], rng: np.random.Generator) -> View | None:
    """A square around one organ where its axial section is largest, a third wider than the organ."""
    organ = str(rng.choice(list(CROPPED)))
    mask = masks[str(rng.choice(CROPPED[organ]))]
    areas = mask.reshape(len(mask), -1).sum(axis=1)
    level = int(areas.argmax())
    if areas[level] < 12:
        return None
    x1, y1, x2, y2 = boxes_of(mask[level])[0]
    half = max(x2 - x1, y2 - y1, 9) * 0.68
    cx, cy = ((a + b) / 2 + rng.uniform(-0.15, 0.15) * half for a, b in ((x1, x2), (y1, y2)))
    columns, rows = (np.rint(np.arange(c - half, c + half)).astype(int) for c in (cx, cy))
    padded = np.pad(volume.voxels_ZYX[level], 64, constant_values=-1000)[np.ix_(rows + 64, columns + 64)]
    pixels = resize(apply_window(padded, *window_range(padded, _WINDOW)), (IMAGE_SIZE, IMAGE_SIZE))
    mm = round(float(volume.spacing_mm[0] * len(columns) / IMAGE_SIZE), 4)
    facts, how = Facts(organ=organ), "axial crop around the painted label"
    return image_view(pixels, "CT", key="crop", spacing_mm=(mm, mm), window=_WINDOW, facts=facts, how=how)


def _pet_view(e: Examination) -> View:
    volume = oriented(volume_of(read_dicom(e.folder / "pet.dcm")), "LIP")
    grey = apply_window(volume.voxels_ZYX.max(axis=0), 0.0, 9.0)
    scale = IMAGE_SIZE / np.array(volume.size[:2])
    *middle, radius = e.patient.focus
    corners = np.array([middle, np.subtract(middle, radius), np.add(middle, radius)])
    point, one, other = (to_voxels(volume, corners)[:, :2] * scale).clip(0, IMAGE_SIZE)
    box = (*np.minimum(one, other).tolist(), *np.maximum(one, other).tolist())
    mm = tuple(round(float(m / s), 4) for m, s in zip(volume.spacing_mm, scale, strict=False))
    return image_view(
        resize(grey, (IMAGE_SIZE, IMAGE_SIZE)),
        volume.modality,
        key="pet",
        spacing_mm=mm,
        boxes={"focal_uptake": [box]},
        points={"focal_uptake": tuple(point.tolist())},
        facts=Facts(places={"focal_uptake": e.patient.place}),
        how="maximum intensity projection to the front; truth from the drawn focus",
    )


def _ultrasound_view(e: Examination) -> View:
    image = read_dicom(e.folder / "us.dcm")
    labels = e.ultrasound.labels
    cysts = [labels == LABELS[f"liver_cyst_{n}"] for n in (1, 2, 3)]
    boxes = [boxes_of(mask)[0] for mask in cysts if np.count_nonzero(mask) >= MIN_CYST_PIXELS]
    return image_view(
        image.render(),
        image.modality,
        key="us",
        spacing_mm=image.spacing_mm,
        boxes={"liver_cyst": boxes},
        facts=Facts(counts={"liver_cyst": len(boxes)}),
        how="parasagittal section; truth from its labels",
    )
