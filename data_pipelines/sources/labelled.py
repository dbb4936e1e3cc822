"""A real volume with its masks -> the views a study shows: slices, blocks of slices, and crops around one structure.

Masks of models carry specks; a part smaller than a tenth of a structure's largest part is dropped before anything is
measured. Everything here is a function of the voxels, so that the same files give the same views.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from scipy import ndimage

from data_pipelines.media.raster import decode, resize
from data_pipelines.media.volume import PLANES, Volume, crop, oriented, to_mm, to_voxels
from data_pipelines.sources.measure import centre, centres, volumes_ml, whole
from data_pipelines.sources.study import Coordinates, Facts, View
from data_pipelines.sources.views import between, image_view, slice_view, square_size, volume_view

SPECK = 0.1
_SIDED = ("liver", "spleen", "stomach", "gallbladder")


@dataclasses.dataclass(frozen=True)
class Labelled:
    """A canonical volume and its truth. masks: bool, on its grid. points: in its voxel frame. pointed: masks
    compact enough for their centre to be asked for. facts: what is known of the patient as a whole (measurements made
    elsewhere, findings). how: where masks and points come from."""

    volume: Volume
    masks: Mapping[str, np.ndarray]
    points: Mapping[str, Coordinates] = dataclasses.field(default_factory=dict)
    pointed: tuple[str, ...] = ()
    facts: Facts = dataclasses.field(default_factory=Facts)
    how: str = ""


def without_specks(mask: np.ndarray) -> np.ndarray:
    """The mask less its parts that are smaller than SPECK of the largest."""
    bounds = ndimage.find_objects(mask.astype(np.uint8))
    if not bounds:
        return mask
    parts = np.zeros(mask[bounds[0]].shape, np.int32)
    if ndimage.label(mask[bounds[0]], output=parts) == 1:
        return mask
    sizes = np.bincount(parts.ravel())
    kept = sizes >= SPECK * sizes[1:].max()
    kept[0] = False
    clean = np.zeros_like(mask)
    clean[bounds[0]] = kept[parts]
    return clean


def split_labels(labels_ZYX: np.ndarray, names: Mapping[int, str], wanted: Iterable[str]) -> dict[str, np.ndarray]:
    """{name: bool mask without specks} of the wanted labels that occur."""
    wanted, present = set(wanted), set(np.unique(labels_ZYX).tolist())
    return {
        name: without_specks(labels_ZYX == number)
        for number, name in names.items()
        if name in wanted and number in present
    }


def onto(mask: Volume, volume: Volume) -> np.ndarray:
    """A mask on another grid with parallel axes, as bool on the volume's grid: the mask's voxel at each voxel centre,
    and nothing outside the mask's extent. Both canonical."""
    centres_mm = [to_mm(volume, np.stack([np.arange(n) + 0.5 if a == b else np.full(n, 0.5) for b in range(3)], 1))
                  for a, n in enumerate(volume.size)]  # fmt: skip
    picks = [np.floor(to_voxels(mask, mm)[:, a] + 1e-4).astype(int) for a, mm in enumerate(centres_mm)]
    inside = [(p >= 0) & (p < n) for p, n in zip(picks, mask.size, strict=True)]
    found = np.zeros(volume.voxels_ZYX.shape, bool)
    part = mask.voxels_ZYX[np.ix_(*(p[i] for p, i in zip(picks[::-1], inside[::-1], strict=True)))] > 0
    found[np.ix_(*(np.flatnonzero(i) for i in inside[::-1]))] = part
    return found


def block(labelled: Labelled, start: int, stop: int) -> Labelled:
    """The slices [start, stop) of the volume with their masks and points."""
    volume = crop(labelled.volume, (0, 0, start), (*labelled.volume.size[:2], stop))
    points = {n: (x, y, z - start) for n, (x, y, z) in labelled.points.items() if start <= z < stop}
    masks = {name: mask[start:stop] for name, mask in labelled.masks.items()}
    return dataclasses.replace(labelled, volume=volume, masks=masks, points=points)


def block_view(
    labelled: Labelled, key: str, size_xyz: Sequence[int], window: str, facts: Facts | None = None, min_voxels: int = 50
) -> View:
    """The whole volume as size_xyz = (w, h, slices): boxes and centres of every structure, volumes of those that no
    edge cuts."""
    masks = {name: mask for name, mask in labelled.masks.items() if np.count_nonzero(mask) >= min_voxels}
    volumes = volumes_ml(masks, labelled.volume.spacing_mm)
    facts = dataclasses.replace(
        facts or labelled.facts,
        visible=tuple(sorted(masks, key=lambda name: -np.count_nonzero(masks[name]))),
        absent=tuple(name for name, mask in labelled.masks.items() if not mask.any()),
        volumes_ml={**volumes, **(facts or labelled.facts).volumes_ml},
    )
    facts = dataclasses.replace(facts, sides=_sides(labelled, facts.visible))
    points = {**centres({n: m for n, m in masks.items() if n in labelled.pointed}), **labelled.points}
    return volume_view(
        labelled.volume, masks, key=key, size_xyz=size_xyz, window=window, points=points, facts=facts, how=labelled.how
    )


def plane_views(
    labelled: Labelled,
    plane: str,
    indices: Iterable[int],
    window: str,
    *,
    longest: int = 256,
    facts: Facts | None = None,
    region: Callable[[Sequence[str]], str] | None = None,
) -> list[View]:
    """Slices of one plane, each with the centres of the structures that it shows whole. facts: of every slice, region:
    part of the body by the structures in the slice."""
    turned = oriented(labelled.volume, PLANES[plane])
    views = []
    for index in indices:
        points = _section_centres(labelled, turned, plane, index)
        view = slice_view(
            labelled.volume, labelled.masks, key=f"{plane}_{index}", plane=plane, index=index,
            size_wh=square_size(turned, longest), window=window, points=points, facts=facts, how=labelled.how,
        )  # fmt: skip
        known = view.facts
        if region:
            known = dataclasses.replace(known, region=region(known.visible))
        if plane != "sagittal":
            known = dataclasses.replace(known, sides=_sides(labelled, known.visible))
        views.append(dataclasses.replace(view, facts=known))
    return views


def _section_centres(labelled: Labelled, turned: Volume, plane: str, index: int) -> dict[str, Coordinates]:
    """Centres of the sections through structures, where the section is whole and holds its own centre."""
    found = dict(labelled.points)
    for name in labelled.pointed:
        mask = labelled.masks.get(name)
        if mask is None or name in found:
            continue
        section = oriented(dataclasses.replace(labelled.volume, voxels_ZYX=mask), PLANES[plane]).voxels_ZYX[index]
        if whole(section):
            x, y = centre(section)
            if section[int(y), int(x)]:
                found[name] = between((x, y, index + 0.5), turned, labelled.volume)
    return found


def _sides(labelled: Labelled, visible: Sequence[str]) -> dict[str, str]:
    """The patient's side on which single organs lie, by their centre against the spine's."""
    spine = [m for name, m in labelled.masks.items() if name.startswith(("vertebra", "spinal_cord")) and m.any()]
    if not spine:
        return {}
    middle = np.mean([centre(mask)[0] for mask in spine])
    found = {}
    for name in visible:
        if name in _SIDED:
            offset_mm = (centre(labelled.masks[name])[0] - middle) * labelled.volume.spacing_mm[0]
            if abs(offset_mm) > 20:  # nearer to the spine than this, neither side is right
                found[name] = "left" if offset_mm > 0 else "right"
    return found


def organ_crops(view: View, names: Mapping[str, str], size: int = 112, margin: float = 1.6) -> list[View]:
    """Squares of a slice around single structures, each with Facts.organ. names: structure -> what it is called among
    the options. The square is `margin` times the structure's longer side, moved to lie in the slice."""
    pixels, found = decode(view.media.frames[0]), []
    height, width = pixels.shape[:2]
    for name, organ in names.items():
        boxes = view.boxes.get(name, ())
        if len(boxes) != 1:
            continue
        x1, y1, x2, y2 = boxes[0]
        side = round(min(max(x2 - x1, y2 - y1) * margin, width, height))
        if side < 16:
            continue
        left = round(min(max((x1 + x2 - side) / 2, 0), width - side))
        top = round(min(max((y1 + y2 - side) / 2, 0), height - side))
        part = resize(pixels[top : top + side, left : left + side], (size, size))
        media = view.media
        spacing = None if media.spacing_mm is None else tuple(round(mm * side / size, 4) for mm in media.spacing_mm)
        found.append(
            image_view(
                part[..., 0],
                media.modality,
                key=f"{view.key}_{name}",
                spacing_mm=spacing,
                window=media.window,
                facts=Facts(plane=view.facts.plane, organ=organ),
                how=f"{view.how}; square around the mask of {name}",
            )
        )
    return found
