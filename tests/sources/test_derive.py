"""A study with known masks, points and facts -> records of every task, in both languages."""

import dataclasses
import re
from collections import Counter

import numpy as np
import pytest

from data_pipelines.media.raster import decode
from data_pipelines.media.volume import Volume
from data_pipelines.prompts import TermError, term, using_templates
from data_pipelines.record import MEDIA_TOKEN
from data_pipelines.seeded import generator
from data_pipelines.sources.asks import asks
from data_pipelines.sources.derive import choose, derive
from data_pipelines.sources.measure import axial_diameter_mm, boxes_of, centre, centres, volumes_ml, whole
from data_pipelines.sources.study import Facts, Study
from data_pipelines.sources.views import image_view, slice_view, square_size, volume_view
from umit_jax.targets import Frame, convert

SPACING = (2.0, 2.0, 4.0)


def ball(center_xyz, radii_xyz, shape_zyx=(20, 40, 40)) -> np.ndarray:
    z, y, x = np.ogrid[: shape_zyx[0], : shape_zyx[1], : shape_zyx[2]]
    terms = [((axis + 0.5 - c) / r) ** 2 for axis, c, r in zip((x, y, z), center_xyz, radii_xyz, strict=True)]
    return sum(terms) <= 1


def ct() -> tuple[Volume, dict[str, np.ndarray]]:
    masks = {
        "liver": ball((12, 20, 10), (8, 9, 5)),
        "spleen": ball((32, 26, 12), (5, 5, 3)),
        "kidney_left": ball((28, 30, 6), (3, 3, 3)),
        "kidney_right": ball((14, 32, 4), (4, 4, 3)),
        "heart": np.zeros((20, 40, 40), bool),
    }
    voxels = np.full((20, 40, 40), -1000, np.int16)
    for i, mask in enumerate(masks.values()):
        voxels[mask] = 20 * (i + 1)
    return Volume(voxels, np.diag([*SPACING, 1.0]), "CT"), masks


def study(**changes) -> Study:
    volume, masks = ct()
    facts = Facts(
        findings={"pleural_effusion": "left", "lung_mass": "no"},
        sides={"liver": "right"},
        enlarged={"heart": True},
        counts={"liver_cyst": 2},
        places={"focal_uptake": "chest_left"},
        volumes_ml=volumes_ml(masks, SPACING),
        diameters_mm={"liver": axial_diameter_mm(masks["liver"], SPACING)},
    )
    views = (
        volume_view(volume, masks, key="ct", size_xyz=(20, 20, 5), points=centres(masks), facts=facts),
        slice_view(volume, masks, key="axial_10", plane="axial", index=10, points=centres(masks)),
        slice_view(volume, masks, key="coronal_20", plane="coronal", index=20, size_wh=(60, 60)),
        image_view(
            np.arange(48 * 60, dtype=np.uint32).reshape(48, 60).astype(np.uint8),
            "DX",
            key="frontal",
            spacing_mm=(3.0, 3.0),
            boxes={"heart": [(10, 10, 30, 40)]},
            points={"carina": (30.0, 12.0)},
            facts=Facts(view="frontal", findings={"pleural_effusion": "no", "scoliosis": "yes"}),
        ),
    )
    base = Study(
        "case7", "example", "train", "ab12", views, "model", "CC0-1.0", "made for a test",
        choices={"modality": ("CT", "DX"), "plane": ("axial", "coronal", "sagittal"), "view": ("frontal", "lateral"),
                 "focal_uptake": ("chest_left", "chest_right")},
        reports=(("ct",), ("frontal", "axial_10")), comparisons=(("axial_10", "coronal_20"),),
    )  # fmt: skip
    return dataclasses.replace(base, **changes)


def test_every_task_in_both_languages_and_every_record_is_well_formed():
    records = list(derive(study()))
    tasks = {"caption", "comparison", "classification", "vqa", "detection", "landmark", "report"}
    for language in ("en", "zh"):
        assert {r.task for r in records if r.language == language} == tasks
    assert len({r.id for r in records}) == len(records)
    assert all(r.turns[0].text.startswith(MEDIA_TOKEN * len(r.media)) for r in records)


def test_records_are_a_function_of_study_and_seed():
    assert list(derive(study(), seed=3)) == list(derive(study(), seed=3))
    assert list(derive(study(), seed=3)) != list(derive(study(), seed=4))


def test_boxes_of_a_volume_are_tight_in_the_shown_voxels():
    _, masks = ct()
    (liver,) = [r for r in derive(study(), languages=["en"]) if r.topic == "box3d/liver"]
    frame = Frame.from_json(liver.target["frame"])
    assert frame.size == (20, 20, 5)
    assert frame.mm_per_unit == (4.0, 4.0, 16.0)
    (expected,) = boxes_of(masks["liver"])
    original = Frame("voxel", (40, 40, 20))
    assert convert(liver.target["items"][0]["box"], frame, original) == pytest.approx(expected)


def test_boxes_of_a_coronal_slice_are_those_of_its_pixels():
    volume, masks = ct()
    view = slice_view(volume, masks, key="c", plane="coronal", index=20, size_wh=(40, 20))
    section = masks["liver"][::-1, 20, :]  # first row is the top of the patient
    assert view.boxes["liver"] == (boxes_of(section)[0],)
    assert decode(view.media.frames[0]).shape == (20, 40, 3)
    assert view.media.spacing_mm == (2.0, 4.0)


def test_numbered_masks_give_a_box_each():
    volume, _ = ct()
    cysts = ball((8, 8, 10), (3, 3, 3)).astype(np.uint8) + 2 * ball((30, 30, 10), (4, 4, 3)).astype(np.uint8)
    view = slice_view(volume, {"liver_cyst": cysts}, key="a", plane="axial", index=10, size_wh=(40, 40))
    assert len(view.boxes["liver_cyst"]) == 2


def test_points_lie_where_the_masks_are_whatever_the_plane():
    volume, masks = ct()
    point = centre(masks["liver"])
    for plane in ("axial", "coronal", "sagittal"):
        view = volume_view(volume, masks, key="v", size_xyz=(30, 24, 10), plane=plane, points={"liver": point})
        low, high = view.boxes["liver"][0][:3], view.boxes["liver"][0][3:]
        assert view.points["liver"] == pytest.approx([(a + b) / 2 for a, b in zip(low, high, strict=True)], abs=0.3)


def test_a_point_shows_only_in_its_own_slice():
    volume, masks = ct()
    points = {"liver": centre(masks["liver"])}
    shown = [slice_view(volume, masks, key="a", plane="axial", index=i, points=points).points for i in (9, 10, 11)]
    assert [bool(p) for p in shown] == [False, True, False]


def test_structures_are_visible_absent_or_not_spoken_of():
    volume, masks = ct()
    masks = {"liver": masks["liver"], "heart": masks["heart"], "aorta": ball((20.5, 20.5, 10.5), (1, 1, 1))}
    facts = slice_view(volume, masks, key="a", plane="axial", index=10).facts
    assert facts.visible == ("liver",)
    assert facts.absent == ("heart",)


def test_a_cut_structure_is_not_measured():
    masks = {"liver": ball((2, 20, 10), (8, 9, 5)), "spleen": ball((32, 26, 12), (5, 5, 3))}
    assert not whole(masks["liver"])
    assert list(volumes_ml(masks, SPACING)) == ["spleen"]
    assert list(centres(masks)) == ["spleen"]


def test_volumes_and_diameters_are_those_of_the_shape():
    mask = ball((20, 20, 10), (9, 6, 5))
    assert volumes_ml({"liver": mask}, SPACING)["liver"] == pytest.approx(
        4 / 3 * np.pi * 9 * 6 * 5 * 16 / 1000, rel=0.05
    )
    assert axial_diameter_mm(mask, SPACING) == pytest.approx(2 * 9 * 2.0, rel=0.08)


def test_square_pixels_keep_the_shape_of_the_patient():
    volume, _ = ct()
    assert square_size(volume) == (40, 40)
    thick = dataclasses.replace(volume, affine_lps=np.diag([1.0, 4.0, 4.0, 1.0]))
    assert square_size(thick) == (40, 160)
    assert square_size(thick, longest=80) == (20, 80)


def test_yes_no_questions_are_kept_in_balance():
    records = [r for r in derive(study(), languages=["en"]) if r.topic.startswith("visible/")]
    answers = Counter(r.target["index"] for r in records)
    assert answers[0] == answers[1] > 0


def test_per_topic_limits_every_topic():
    all_asks = list(asks(study()))
    kept = choose(generator(0, "x"), all_asks, 1)
    assert max(Counter((a.task, a.topic) for a in kept).values()) == 1
    assert {a.task for a in kept} == {a.task for a in all_asks}


def test_options_are_shuffled_only_when_asked():
    def orders(**options):
        found = [r for seed in range(8) for r in derive(study(), seed=seed, languages=["en"], **options)]
        return {tuple(r.target["options"]) for r in found if r.topic == "plane" and r.task == "classification"}

    assert orders() == {("axial", "coronal", "sagittal")}
    assert len(orders(shuffle_options=True)) > 2


def test_the_answer_of_shuffled_options_stays_right():
    for seed in range(8):
        for record in derive(study(), seed=seed, shuffle_options=True):
            if record.task == "classification" and record.topic == "plane":
                right = "axial" if "axial" in record.id else "coronal"
                assert record.target["options"][record.target["index"]] == term(right, record.language)


def test_labels_say_where_they_come_from():
    kinds = {(r.task, r.topic): r.label_kind for r in derive(study(), languages=["en"])}
    assert kinds["detection", "box/liver"] == "model"
    assert kinds["classification", "plane"] == "tag"
    assert kinds["report", "report"] == "templated"
    synthetic = list(derive(study(synthetic=True)))
    assert {r.label_kind for r in synthetic} == {"synthetic"}
    assert all(r.synthetic for r in synthetic)


def test_reports_hold_findings_and_measurements_in_both_languages():
    reports = {r.language: r.target["text"] for r in derive(study()) if r.task == "report" and len(r.media) == 1}
    volume = volumes_ml(ct()[1], SPACING)["liver"]
    assert "Fluid fills the left base." in reports["en"]
    assert f"liver {volume:.0f} mL" in reports["en"]
    assert "左侧胸腔见积液。" in reports["zh"]
    assert not re.search("[a-z]{3,}", reports["zh"])


def test_a_comparison_tells_what_is_shared_from_what_differs():
    (text,) = [r.target["text"] for r in derive(study(), languages=["en"]) if r.task == "comparison"]
    assert text.startswith("In both:")
    assert "liver" in text.split("First:")[0]
    assert "axial" in text.split("First:")[1].split("Second:")[0]
    assert "coronal" in text.split("Second:")[1]


def test_a_name_without_a_term_is_an_error_that_names_it():
    volume, masks = ct()
    view = slice_view(volume, {"liverr": masks["liver"]}, key="a", plane="axial", index=10)
    with pytest.raises(TermError, match="liverr"):
        list(derive(study(views=(view,), reports=(), comparisons=())))


def test_questions_know_the_plane_and_number_of_a_slice_and_the_plane_of_a_volume(tmp_path):
    path = tmp_path / "own.yaml"
    texts = "en: ['{plane} {slice}', '{plane}', 'neither']"
    path.write_text(f"version: 2\ncaption: {{caption: {{{texts}}}}}\n", encoding="utf-8")
    with using_templates(path):
        made = [r for seed in range(12) for r in derive(study(), seed=seed, languages=["en"]) if r.topic == "caption"]
    asked = {}
    for found in made:
        asked.setdefault(found.id.split("/")[1], set()).add(found.turns[0].text.removeprefix("<media>"))
    assert asked == {
        "ct": {"axial", "neither"},
        "axial_10": {"axial 11/20", "axial", "neither"},
        "coronal_20": {"coronal 21/40", "coronal", "neither"},
        "frontal": {"neither"},
    }
