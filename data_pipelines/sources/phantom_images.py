"""Images of a phantom patient as a scanner would give them, before any file is written.

| image            | how                                                                                         |
| CT               | Hounsfield units by organ, slightly blurred in plane, noise of 12 HU                        |
| radiograph       | attenuation of the same anatomy summed along the beam (Beer-Lambert), noise by dose         |
| PET              | uptake by organ and one focus, blurred by a point spread, counting noise                    |
| ultrasound       | a parasagittal section through the liver under a curved array: echo times Rayleigh speckle  |

Every acquisition has its own field of view, shifted and scaled as positioning does. Attenuation and uptake are round
textbook numbers.
"""

import dataclasses

import numpy as np
from scipy import ndimage

from data_pipelines.sources.phantom_anatomy import LABELS, VERTEBRAE, Grid, Patient, paint

CT_SIZE = (64, 64, 28)
RADIOGRAPH_SIZE = 100
_HU = {
    "body": 40, "fat": -95, "ribs": 350, "lung_left": -830, "lung_right": -830, "mediastinum": 35, "trachea": -980,
    "heart": 120, "aorta": 220, "liver": 105, "spleen": 125, "stomach": 25, "gas": -900, "kidney_left": 195,
    "kidney_right": 195, "discs": 90, "lung_mass": 50, "pleural_effusion": 12, "liver_cyst_1": 0, "liver_cyst_2": 0,
    "liver_cyst_3": 0, "focal_uptake": 60,
} | dict.fromkeys(VERTEBRAE, 380)  # fmt: skip
_SUV = {
    "body": 0.7, "fat": 0.3, "ribs": 0.9, "lung_left": 0.4, "lung_right": 0.4, "mediastinum": 1.2, "heart": 3.2,
    "aorta": 1.5, "liver": 2.3, "spleen": 2.0, "stomach": 1.5, "kidney_left": 3.5, "kidney_right": 3.5, "discs": 0.8,
    "lung_mass": 1.0, "pleural_effusion": 0.8, "focal_uptake": 11.0,
} | dict.fromkeys(VERTEBRAE, 1.4)  # fmt: skip
_ECHO = {
    "body": 0.34, "fat": 0.24, "ribs": 0.9, "lung_left": 0.06, "lung_right": 0.06, "mediastinum": 0.3, "heart": 0.05,
    "aorta": 0.02, "liver": 0.42, "spleen": 0.45, "stomach": 0.5, "gas": 0.9, "kidney_left": 0.2, "kidney_right": 0.2,
    "discs": 0.5, "pleural_effusion": 0.01, "liver_cyst_1": 0.004, "liver_cyst_2": 0.004, "liver_cyst_3": 0.004,
} | dict.fromkeys(VERTEBRAE, 0.9)  # fmt: skip


def _table(values: dict, air: float) -> np.ndarray:
    table = np.full(256, air, np.float32)
    for name, value in values.items():
        table[LABELS[name]] = value
    return table


_HU_TABLE, _SUV_TABLE, _ECHO_TABLE = _table(_HU, -1000.0), _table(_SUV, 0.0), _table(_ECHO, 0.0)


@dataclasses.dataclass(frozen=True)
class Acquired:
    """values on a grid, and the labels they were made from. Of a radiograph and a PET stack see their functions."""

    values: np.ndarray
    labels: np.ndarray
    grid: Grid


def ct(rng: np.random.Generator, patient: Patient) -> Acquired:
    """int16 Hounsfield units (Z, Y, X), axial."""
    side = float(rng.uniform(345, 450))
    centre = (rng.uniform(-36, 36), rng.uniform(-24, 24), 18 + rng.uniform(-52, 52))
    step = (side / CT_SIZE[0], side / CT_SIZE[1], float(rng.uniform(12.5, 16)))
    grid = Grid.around(tuple(map(float, centre)), step, CT_SIZE)  # type: ignore[arg-type]
    labels = paint(patient, grid)
    hu = ndimage.gaussian_filter(_HU_TABLE[labels], (0, 0.4, 0.4))
    hu += rng.standard_normal(hu.shape, np.float32) * 12
    return Acquired(np.clip(np.rint(hu), -1024, 3071).astype(np.int16), labels, grid)


def radiograph(rng: np.random.Generator, patient: Patient, view: str) -> Acquired:
    """Attenuation summed along the beam, float32 (rows from the top, columns), as a frontal (patient's left on the
    right) or lateral (anterior on the left) view. labels are (rows, columns, depth): projected by any()."""
    side = float(rng.uniform(320, 470))
    across, up = (float(v) for v in rng.uniform(-0.15, 0.15, 2) * side)
    pixel, count, depth = side / RADIOGRAPH_SIZE, RADIOGRAPH_SIZE, 34
    if view == "frontal":
        grid = Grid.around((across, 0.0, 62.0 + up), (pixel, 7.0, pixel), (count, depth, count))
        labels, beam_mm = paint(patient, grid)[::-1].transpose(0, 2, 1), 7.0
    else:
        grid = Grid.around((0.0, across, 62.0 + up), (10.5, pixel, pixel), (depth, count, count))
        labels, beam_mm = paint(patient, grid)[::-1], 10.5
    attenuation = (_HU_TABLE[labels].sum(axis=2) + 1000.0 * depth) * (beam_mm * 2e-5)
    attenuation = ndimage.gaussian_filter(attenuation, 0.5)
    noise = rng.standard_normal(attenuation.shape, np.float32) * (0.012 * np.exp(attenuation / 4))
    return Acquired(np.maximum(attenuation + noise, 0), labels, grid)


def pet(rng: np.random.Generator, patient: Patient) -> Acquired:
    """Uptake as standardised values, float32 (frames from anterior, rows from the top, columns): coronal slices. The
    grid is (x, y, z) with z upwards, as always."""
    side = float(rng.uniform(370, 500))
    across, up = (float(v) for v in rng.uniform(-0.1, 0.1, 2) * side)
    step = side / 56
    grid = Grid.around((across, 0.0, 8.0 + up), (step, 12.0, step), (56, 20, 56))
    labels = paint(patient, grid)
    *centre, radius = patient.focus
    uptake = _SUV_TABLE[labels]
    z, y, x = (grid.axis(i) - c for i, c in ((2, centre[2]), (1, centre[1]), (0, centre[0])))
    uptake[(z**2)[:, None, None] + (y**2)[None, :, None] + (x**2)[None, None, :] < radius**2] = _SUV["focal_uptake"]
    uptake = ndimage.gaussian_filter(uptake, (0.7, 0.4, 0.7))
    counted = rng.poisson(uptake * 25).astype(np.float32) / 25
    return Acquired(counted.transpose(1, 0, 2)[:, ::-1], labels, grid)


def ultrasound(rng: np.random.Generator, patient: Patient) -> Acquired:
    """Echo image uint8 (rows by depth, columns from the head's side to the feet's), 100 x 100, and the labels of the
    same pixels, 0 outside the sector. grid.step_mm: (pixel, pixel, pixel)."""
    count = RADIOGRAPH_SIZE
    depth_mm = float(rng.uniform(150, 200))
    pixel = depth_mm / count
    probe = (patient.section_x_mm, -110.0 * patient.scale, -46 * patient.scale + float(rng.uniform(-20, 20)))
    grid = Grid((probe[0], probe[1], probe[2] - pixel * (count - 1) / 2), (pixel, pixel, pixel), (1, count, count))
    labels = paint(patient, grid)[::-1, :, 0].T  # rows: depth; columns: from superior to inferior
    rows, columns = np.mgrid[:count, :count].astype(np.float32)
    radius_mm = 45.0
    y, x = rows * pixel + radius_mm, (columns - (count - 1) / 2) * pixel
    distance = np.hypot(x, y)
    sector = (np.abs(np.arctan2(x, y)) < 0.66) & (distance > radius_mm + 2) & (distance < radius_mm + depth_mm - 2)
    labels = np.where(sector, labels, 0)
    echo = _ECHO_TABLE[labels]
    border = ndimage.gaussian_gradient_magnitude(echo, 0.8)
    speckle = ndimage.gaussian_filter(rng.rayleigh(0.8, echo.shape).astype(np.float32), (0.45, 0.8))
    fade = np.exp(-(distance - radius_mm) / (3.0 * depth_mm))
    signal = (echo + 0.5 * border) * speckle * fade
    grey = 255 * np.log1p(30 * signal) / np.log1p(30 * 0.9)
    return Acquired(np.where(sector, np.clip(grey, 0, 255), 0).astype(np.uint8), labels, grid)
