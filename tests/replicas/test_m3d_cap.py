"""Every report of the M3D-Cap replicas, its volume, and every case that is refused."""

import numpy as np
import pytest

from data_pipelines.sources.folder import split_of
from data_pipelines.sources.layout import LayoutError
from data_pipelines.sources.m3d_cap import converter, findings
from tests.replicas import m3d_cap
from tests.replicas.reading import frames, prepared


def test_prepared_volumes_follow_the_official_list(tmp_path):
    found = prepared("m3d_cap", m3d_cap.prepared, tmp_path)
    assert found.said() == {
        "m3d_cap/ct_case/000001/Axial_non_contrast": ("train", "report", "en", "Normal liver. No mass."),
        "m3d_cap/ct_case/000001/Coronal_C__portal": ("train", "report", "en", "Normal liver. No mass."),
        "m3d_cap/ct_case/000002/Axial": ("validation", "report", "en", "Fracture of rib 3."),
        "m3d_cap/ct_quizze/000009/Axial": ("test", "report", "en", "Normal liver."),
    }
    assert found.quarantined == {
        "m3d_cap/ct_case/000003/Axial": "no text",
        "m3d_cap/ct_case/000004/Axial": "text file is missing",
        "m3d_cap/ct_case/000005/Axial": "array is not (1, 32, 256, 256)",
        "m3d_cap/ct_case/000006/Axial": "text file is missing",
    }
    assert found.manifest["unexpected_counts"] == {"all/report": {"expected": 120092, "found": 4}}
    leaks = [leak["records"] for leak in found.manifest["leaks"]]
    assert leaks == [{"train": "m3d_cap/ct_case/000001/Axial_non_contrast", "test": "m3d_cap/ct_quizze/000009/Axial"}]
    a, b = (found.records[f"m3d_cap/ct_case/000001/{name}"] for name in ("Axial_non_contrast", "Coronal_C__portal"))
    assert a.patient_id == b.patient_id
    raw = m3d_cap.array(1)[0]
    wanted = (raw - raw.min()) / (raw.max() - raw.min()) * 255
    assert abs(frames(a.media[0])[..., 0] - wanted).max() < 1


def test_folders_of_slices_become_volumes_in_order_of_their_numbers(tmp_path):
    found = prepared("m3d_cap", m3d_cap.original, tmp_path)
    assert found.said() == {
        "m3d_cap/ct_case/000010/Axial_Poschl": (
            split_of("ct_case/000010", 0), "report", "en", "Dense petrous bone. No lesion."
        ),
        "m3d_cap/ct_case/000011/Axial": (split_of("ct_case/000011", 0), "report", "en", "A typical cyst."),
    }  # fmt: skip
    assert found.quarantined == {
        "m3d_cap/ct_case/000012/Cut": "truncated or damaged image",
        "m3d_cap/ct_case/000012/Empty": "no slices",
        "m3d_cap/ct_case/000012/Named": "name of a slice is not a number",
        "m3d_cap/ct_quizze/000010/Axial": "text file is missing",
    }
    media = found.records["m3d_cap/ct_case/000010/Axial_Poschl"].media[0]
    assert (media.size, media.modality, media.orientation) == ((256, 256, 32), "CT", "")
    shown = frames(media)[:, 128, 128, 0].astype(int)  # 12 slices, the foreground alone, spread over 32 frames
    wanted = np.interp(
        (np.arange(32) + 0.5) * 12 / 32 - 0.5, range(12), [(100 + z * 10) / 210 * 255 for z in range(12)]
    )
    assert abs(shown - wanted).max() <= 2
    assert abs(frames(media)[0, 0, 0, 0].astype(int) - wanted[0]) <= 2  # the dark border is cropped


@pytest.mark.parametrize(("text", "said"), [
    ("study_findings: one two", "one two"),
    ("study_findings: one two discussion: three", "one two"),
    ("discussion: three four study_findings: x", "three four"),
    ("study_findings: x\ndiscussion: y", "study_findings: x discussion: y"),
    ("no marks here", "no marks here"),
    ("abc", ""),
])  # fmt: skip
def test_the_findings_of_a_text_are_found(text, said):
    assert findings(text) == said


def test_wrong_folders_and_lists_are_named(tmp_path):
    with pytest.raises(LayoutError, match=r"no M3D_Cap\.json, and no ct_case"):
        converter(tmp_path).units()
    (tmp_path / "M3D_Cap.json").write_text('{"train": []}')
    with pytest.raises(LayoutError, match="expected the lists train, validation, test"):
        converter(tmp_path).units()
    (tmp_path / "M3D_Cap.json").write_text('{"train": [{"image": "a"}], "validation": [], "test": []}')
    with pytest.raises(LayoutError, match="train 0: expected image and text"):
        converter(tmp_path).units()
