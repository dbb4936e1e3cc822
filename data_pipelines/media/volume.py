"""Volume: voxels with the affine that places them in the patient; reorientation, resampling, windows, frames.

Millimetres are DICOM's (LPS): x grows to the patient's left, y to posterior, z to superior. `affine_lps` maps a voxel
index (x, y, z), counted at voxel centres, to them. Frame coordinates (boxes, points) count from the edge of the first
voxel instead, so that a voxel i covers [i, i + 1): coordinate = index + 0.5.

| plane    | axes of the frames (x, y, frame) grow to | shown                                     |
| axial    | L, P, S                                  | from the feet, patient's left on the right |
| coronal  | L, I, P                                  | from the front                             |
| sagittal | P, I, L                                  | from the left side, face to the left       |
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from PIL import Image

from data_pipelines.media import MediaError

PLANES = {"axial": "LPS", "coronal": "LIP", "sagittal": "PIL"}
AUTO = "auto"  # 0.5 to 99.5 percentile: what modalities without a fixed unit get
MINMAX = "minmax"  # darkest to brightest voxel: what was scaled by its maker
WINDOWS = {  # (level, width) in Hounsfield units
    "lung": (-600.0, 1500.0),
    "soft_tissue": (40.0, 400.0),
    "mediastinum": (50.0, 350.0),
    "liver": (60.0, 160.0),
    "bone": (400.0, 1800.0),
    "brain": (40.0, 80.0),
    "angio": (300.0, 600.0),
    "full": (0.0, 2000.0),
}
MAX_VOXELS = 1 << 30
_OPPOSITE = {"L": "R", "R": "L", "P": "A", "A": "P", "S": "I", "I": "S"}
_AXIS = {"L": 0, "R": 0, "P": 1, "A": 1, "S": 2, "I": 2}


@dataclasses.dataclass(frozen=True)
class Volume:
    """voxels_ZYX: int16 or float32, for CT in Hounsfield units (a mask: any integers). affine_lps: (4, 4), voxel
    (x, y, z) -> millimetres. modality: DICOM's code, or "" if unknown. inverted: low values are to be shown bright."""

    voxels_ZYX: np.ndarray
    affine_lps: np.ndarray
    modality: str = ""
    inverted: bool = False

    @property
    def size(self) -> tuple[int, int, int]:
        """(w, h, d) in voxels."""
        depth, height, width = self.voxels_ZYX.shape
        return width, height, depth

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Millimetres between voxels along x, y, z."""
        x, y, z = np.linalg.norm(self.affine_lps[:3, :3], axis=0)
        return float(x), float(y), float(z)

    @property
    def orientation(self) -> str:
        """Three letters: the direction in which each axis grows, nearest to a main one ("LPS" when canonical)."""
        return axis_codes(self.affine_lps)


def axis_codes(affine_lps: np.ndarray) -> str:
    """Nearest main direction of each voxel axis; the three differ even where the axes are oblique."""
    directions = affine_lps[:3, :3] / np.linalg.norm(affine_lps[:3, :3], axis=0)
    codes = ["", "", ""]
    left = np.abs(directions)
    for _ in range(3):  # the clearest axis first, so that two axes never claim the same direction
        world, axis = np.unravel_index(np.argmax(left), (3, 3))
        codes[axis] = "LPS"[world] if directions[world, axis] > 0 else "RAI"[world]
        left[world, :] = left[:, axis] = -1
    return "".join(codes)


def check_affine(affine_lps: np.ndarray) -> np.ndarray:
    """Returns the affine, or raises MediaError where it places no volume in space."""
    if not np.isfinite(affine_lps).all() or abs(np.linalg.det(affine_lps[:3, :3])) < 1e-9:
        raise MediaError("singular or non-finite affine")
    return affine_lps


def oriented(volume: Volume, codes: str) -> Volume:
    """The same volume with its axes swapped and flipped until they grow nearest to `codes` (such as "LPS")."""
    current = volume.orientation
    if current == codes:
        return volume
    order = [next(i for i, c in enumerate(current) if _AXIS[c] == _AXIS[code]) for code in codes]  # new -> old axis
    flips = [current[old] != code for old, code in zip(order, codes, strict=True)]
    voxels_xyz = volume.voxels_ZYX.transpose(2, 1, 0)
    mapping = np.zeros((4, 4))  # new voxel index -> old voxel index
    mapping[3, 3] = 1
    for new, (old, flip) in enumerate(zip(order, flips, strict=True)):
        mapping[old, new] = -1 if flip else 1
        mapping[old, 3] = voxels_xyz.shape[old] - 1 if flip else 0
    voxels_xyz = voxels_xyz.transpose(order)
    voxels_xyz = voxels_xyz[tuple(slice(None, None, -1 if flip else 1) for flip in flips)]
    return dataclasses.replace(volume, voxels_ZYX=voxels_xyz.transpose(2, 1, 0), affine_lps=volume.affine_lps @ mapping)


def canonical(volume: Volume) -> Volume:
    """x grows to the patient's Left, y to Posterior, z to Superior, whatever order the file had."""
    return oriented(volume, "LPS")


def resample_to(volume: Volume, size_xyz: Sequence[int], order: int = 1) -> Volume:
    """The same extent with another number of voxels. order 1: linear, averaging where it shrinks (intensities);
    order 0: the voxel nearest to the new centre (masks)."""
    if tuple(size_xyz) == volume.size:
        return volume
    voxels = volume.voxels_ZYX
    if order == 0:
        picks = [
            np.minimum(((np.arange(new) + 0.5) * old / new).astype(int), old - 1)
            for old, new in zip(volume.size, size_xyz, strict=True)
        ]
        voxels = voxels[np.ix_(picks[2], picks[1], picks[0])]
    else:
        voxels = _resize_linear(voxels, size_xyz)
    scale = np.array(volume.size) / np.array(size_xyz)
    mapping = np.diag([*scale, 1.0])
    mapping[:3, 3] = 0.5 * scale - 0.5
    return dataclasses.replace(volume, voxels_ZYX=voxels, affine_lps=volume.affine_lps @ mapping)


def at_spacing(volume: Volume, spacing_mm: Sequence[float], order: int = 1) -> Volume:
    """The same extent with the number of voxels along x, y, z whose spacing is nearest to spacing_mm. order: see
    resample_to. Raises MediaError for more than MAX_VOXELS."""
    extents_mm = np.array(volume.size) * volume.spacing_mm
    counts = np.maximum(np.rint(extents_mm / spacing_mm), 1)
    # The second bound is of the copy that has the new width and height, and the old number of slices.
    if max(counts.prod(), counts[:2].prod() * volume.size[2]) > MAX_VOXELS:
        raise MediaError("volume too large at this spacing")
    return resample_to(volume, tuple(int(n) for n in counts), order)


def _resize_linear(voxels_ZYX: np.ndarray, size_xyz: Sequence[int]) -> np.ndarray:
    width, height, depth = size_xyz
    bilinear = Image.Resampling.BILINEAR
    slices = np.empty((voxels_ZYX.shape[0], height, width), np.float32)
    for z, plane in enumerate(voxels_ZYX):
        slices[z] = Image.fromarray(np.ascontiguousarray(plane, np.float32)).resize((width, height), bilinear)
    if depth == len(slices):
        return slices
    flat = Image.fromarray(slices.reshape(len(slices), -1))
    return np.asarray(flat.resize((height * width, depth), bilinear)).reshape(depth, height, width)


def crop(volume: Volume, start_xyz: Sequence[int], stop_xyz: Sequence[int]) -> Volume:
    """Voxels [start, stop) of each axis, still at their place in the patient."""
    (x0, y0, z0), (x1, y1, z1) = start_xyz, stop_xyz
    mapping = np.eye(4)
    mapping[:3, 3] = start_xyz
    return dataclasses.replace(
        volume, voxels_ZYX=volume.voxels_ZYX[z0:z1, y0:y1, x0:x1], affine_lps=volume.affine_lps @ mapping
    )


def box_of(mask_ZYX: np.ndarray) -> list[float] | None:
    """Smallest half-open box (x1, y1, z1, x2, y2, z2) around what is set, None where nothing is."""
    near, far = [], []
    for axis in (2, 1, 0):
        set_there = np.flatnonzero(mask_ZYX.any(axis=tuple(i for i in range(3) if i != axis)))
        if not len(set_there):
            return None
        near.append(float(set_there[0]))
        far.append(float(set_there[-1] + 1))
    return near + far


def to_voxels(volume: Volume, points_lps_mm: np.ndarray) -> np.ndarray:
    """(n, 3) millimetres -> (n, 3) coordinates of the volume's voxel frame (from the edge of the first voxel)."""
    inverse = np.linalg.inv(volume.affine_lps)
    return np.asarray(points_lps_mm, float) @ inverse[:3, :3].T + inverse[:3, 3] + 0.5


def to_mm(volume: Volume, points_xyz: np.ndarray) -> np.ndarray:
    """(n, 3) coordinates of the volume's voxel frame -> (n, 3) millimetres; undoes to_voxels."""
    return (np.asarray(points_xyz, float) - 0.5) @ volume.affine_lps[:3, :3].T + volume.affine_lps[:3, 3]


def window_range(values: np.ndarray, window: str) -> tuple[float, float]:
    """(low, high) that a named preset maps to black and white."""
    if window == MINMAX:
        return float(values.min()), float(values.max())
    if window == AUTO:
        sample = values.reshape(-1)[:: max(values.size // 1_000_000, 1)]
        low, high = (float(q) for q in np.percentile(sample, (0.5, 99.5)))
        return (low, high) if high > low else (float(values.min()), float(values.max()))
    if window not in WINDOWS:
        raise ValueError(f"window: expected one of {', '.join((*WINDOWS, AUTO, MINMAX))}, found {window!r}")
    level, width = WINDOWS[window]
    return level - width / 2, level + width / 2


def apply_window(values: np.ndarray, low: float, high: float, inverted: bool = False) -> np.ndarray:
    """Values -> uint8 of the same shape: low and below is 0, high and above 255 (the reverse if inverted)."""
    scaled = (values.astype(np.float32) - low) * (255.0 / max(high - low, 1e-6))
    grey = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
    return 255 - grey if inverted else grey


def windowed(values: np.ndarray, window: str, inverted: bool = False, whole: np.ndarray | None = None) -> np.ndarray:
    """Values -> uint8 of the same shape by a named preset; by three, such as "lung+soft_tissue+bone", with red, green
    and blue as last axis. whole: the values that AUTO and MINMAX look at, where these are a resampled part of them."""
    names = window.split("+")
    if len(names) not in (1, 3):
        raise ValueError(f"window: expected one preset or three joined by +, found {window!r}")
    whole = values if whole is None else whole
    shown = [apply_window(values, *window_range(whole, name), inverted) for name in names]
    return shown[0] if len(shown) == 1 else np.stack(shown, axis=-1)


def default_window(modality: str) -> str:
    return "soft_tissue" if modality == "CT" else AUTO


def render(
    volume: Volume, window: str = "", size_xyz: Sequence[int] | None = None, plane: str = "axial"
) -> tuple[np.ndarray, Volume]:
    """(frames uint8 (d, h, w), or (d, h, w, 3) of three windows; the volume they show). The volume is turned to the
    plane (see the table above), resampled to size_xyz = (w, h, frames) and windowed (see windowed), by default by the
    modality's preset."""
    if plane not in PLANES:
        raise ValueError(f"plane: expected one of {', '.join(PLANES)}, found {plane!r}")
    turned = oriented(volume, PLANES[plane])
    shown = turned if size_xyz is None else resample_to(turned, size_xyz)
    window = window or default_window(volume.modality)
    return windowed(shown.voxels_ZYX, window, volume.inverted, turned.voxels_ZYX), shown
