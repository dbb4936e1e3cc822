"""`umit prepare nifti_folder`: your NIfTI volumes and a CSV of labels (see label_file) -> Record shards.

A NIfTI file knows neither patient nor modality: a file without a `patient` in the CSV is a patient of its own, and
`modality` (DICOM's code) holds for the folder; without it, a volume with values as low as air is taken for CT.
"""

from pathlib import Path
from typing import Any

from data_pipelines.media import MediaError
from data_pipelines.media.show import Shown, show
from data_pipelines.sources.folder import Reader, prepare_folder


def prepare(
    source: Path,
    out: Path,
    *,
    labels: Path,
    seed: int = 0,
    modality: str = "",
    window: str = "",
    license: str = "unspecified",
    allow_burned_in: bool = False,
) -> dict[str, Any]:
    """Writes the shards and returns the manifest; the key of the patients' hashes stays in `source`."""
    del allow_burned_in  # no screen draws text into a NIfTI file

    def read(path: Path) -> Shown:
        if path.is_dir():
            raise MediaError("a folder, not a NIfTI file")
        return show(path, window=window, modality=modality, kinds=("nifti",))

    return prepare_folder(Reader("nifti_folder", lambda _: "", read), source, labels, out, seed, license)
