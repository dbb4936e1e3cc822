"""`umit prepare nifti_folder`: your NIfTI volumes and a CSV of labels (see label_file) -> Record shards.

A NIfTI file knows neither patient nor modality: a file without a `patient` in the CSV is a patient of its own, and
`modality` (DICOM's code) holds for the folder; without it, a volume with values as low as air is taken for CT.
"""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_pipelines.media import MediaError
from data_pipelines.media.show import Layout, Shown, show
from data_pipelines.sources.folder import FolderConverter, Reader


def converter(
    source: Path,
    *,
    labels: Path,
    modality: str = "",
    window: str = "",
    plane: str = "axial",
    foreground: bool = False,
    volume_size: tuple[int, int, int] | None = None,
    spacing: tuple[float, float, float] | None = None,
    **options: Any,
) -> FolderConverter:
    """options: seed and license of FolderConverter. The key of the patients' hashes stays in `source`."""
    layout = {"plane": plane, "foreground": foreground, "size_xyz": volume_size, "spacing_mm": spacing}
    shown = {"window": window, "modality": modality, "layout": layout}
    reader = Reader("nifti_folder", _no_patient, functools.partial(_read, **shown), shown)
    return FolderConverter(reader, source, labels, **options)


def _no_patient(_: Path) -> str:
    return ""


def _read(path: Path, window: str, modality: str, layout: Mapping[str, Any]) -> Shown:
    if path.is_dir():
        raise MediaError("a folder, not a NIfTI file")
    return show(path, window=window, modality=modality, kinds=("nifti",), layout=Layout(**layout))
