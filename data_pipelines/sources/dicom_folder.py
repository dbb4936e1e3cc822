"""`umit prepare dicom_folder`: your DICOM files and a CSV of labels (see label_file) -> Record shards.

A row names a file, or a folder that holds one series (see media/show for how each is shown). The patient is the
header's, or the CSV's. Images that state burned-in text are refused, those likely to have some unless allow_burned_in.
"""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_pipelines.media import MediaError
from data_pipelines.media.dicom import is_dicom, read_patient
from data_pipelines.media.show import Layout, Shown, series_files, show
from data_pipelines.sources.folder import LONGEST, FolderConverter, Reader


def converter(
    source: Path,
    *,
    labels: Path,
    window: str = "",
    plane: str = "axial",
    foreground: bool = False,
    volume_size: tuple[int, int, int] | None = None,
    spacing: tuple[float, float, float] | None = None,
    allow_burned_in: bool = False,
    **options: Any,
) -> FolderConverter:
    """options: seed and license of FolderConverter. The key of the patients' hashes stays in `source`."""
    layout = {"plane": plane, "foreground": foreground, "size_xyz": volume_size, "spacing_mm": spacing}
    shown = {"window": window, "refused": ("yes",) if allow_burned_in else ("yes", "likely"), "layout": layout}
    reader = Reader("dicom_folder", _patient, functools.partial(_read, **shown), shown)
    return FolderConverter(reader, source, labels, **options)


def _read(path: Path, window: str, refused: tuple[str, ...], layout: Mapping[str, Any]) -> Shown:
    return show(path, window=window, longest=LONGEST, refused=refused, kinds=("dicom",), layout=Layout(**layout))


def _patient(path: Path) -> str:
    if not path.is_dir():
        return read_patient(path)
    for file in series_files(path):
        with open(file, "rb") as opened:
            if is_dicom(opened.read(132)):
                return read_patient(file)
    raise MediaError("no DICOM file in the series")
