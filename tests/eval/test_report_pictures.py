"""Pictures out of the shards: their size, their slices, what is left out and why."""

import dataclasses
import io
import pathlib
import types

import numpy as np
from PIL import Image

from data_pipelines.media.raster import encode_png
from data_pipelines.record import Media
from launch import report
from launch.workdir import Checkpoint
from tests.browser import pages
from umit_jax.eval.report_html.judge import evenly, judge
from umit_jax.eval.report_html.pictures import FOLDER, read_pictures
from umit_jax.eval.score import score
from umit_jax.targets import options_target

HERE = Checkpoint(pathlib.Path("runs/mine/checkpoints/9"), pathlib.Path("runs/mine/model"), 9)
BROKEN = Media((b"no picture",), "image", "CT", (4, 4))


def limits(**more):
    return types.SimpleNamespace(**{"examples": 0, "pictures": 0, "side": 1024, **more})


def evaluated(out, media, **more):
    """Pictures of one question about each media."""
    truth = options_target(["yes", "no"], 0, 1)
    lines = [pages.line(i, "vqa", "yes", truth, images=[f"h{i}"]) for i in range(len(media))]
    records = [types.SimpleNamespace(media=(one,)) for one in media]
    places = [(records, i) for i in range(len(records))]
    summary = report.of_evaluation(out / "report.html", out / FOLDER, lines, score(lines), places, HERE, limits(**more))
    return summary, read_pictures(out / FOLDER), (out / "report.html").read_text("utf-8")


def test_every_slice_is_a_cell_of_the_sheet_with_a_margin_of_its_own_edge(tmp_path):
    picture, smaller = report.picture_of(pages.volume(), 1024, tmp_path)
    assert not smaller
    sheet = np.asarray(Image.open(tmp_path / picture.file))
    width, height = (side + 2 * picture.gap for side in picture.cell)
    for k in range(pages.DEPTH):
        row, column = divmod(k, picture.columns)
        cell = sheet[row * height : (row + 1) * height, column * width : (column + 1) * width]
        assert cell[0, 0] == cell[picture.gap, picture.gap] == 10 * k
        assert (cell[picture.gap + 8, picture.gap + 10] == 255) == (3 <= k < 7)


def test_a_large_picture_is_shrunk_and_keeps_the_size_that_coordinates_are_ratios_of(tmp_path):
    media = Media((encode_png(np.zeros((300, 600), np.uint8)),), "image", "DX", (600, 300), (0.5, 1.0))
    picture, smaller = report.picture_of(media, 100, tmp_path)
    assert smaller
    assert Image.open(tmp_path / picture.file).size == (100, 50)
    assert (picture.size, picture.aspect) == ((600, 300), (1.0, 2.0))
    assert picture.display.size == (600, 600)


def test_a_jpegs_header_does_not_travel(tmp_path):
    buffer, exif = io.BytesIO(), Image.Exif()
    exif[0x010E] = "DOE JOHN"
    Image.new("RGB", (8, 8), "red").save(buffer, "JPEG", exif=exif)
    assert b"DOE JOHN" in buffer.getvalue()
    picture, _ = report.picture_of(Media((buffer.getvalue(),), "image", "XC", (8, 8)), 1024, tmp_path)
    written = (tmp_path / picture.file).read_bytes()
    assert written.startswith(b"\x89PNG")
    assert b"DOE" not in written


def test_pictures_beyond_the_limit_are_left_out_and_counted(tmp_path):
    media = [
        dataclasses.replace(pages.image(), frames=(encode_png(np.full((80, 120), i, np.uint8)),)) for i in range(6)
    ]
    summary, pictures, text = evaluated(tmp_path, media, pictures=2)
    assert (summary["report_examples"], summary["report_pictures"], len(pictures.shown)) == (6, 2, 2)
    assert pictures.left_out["limit"] == 4
    assert "examples shown without their picture (limit)" in text
    assert "(4)" in text
    assert "mine, " in text


def test_a_media_that_cannot_be_decoded_is_counted_and_its_question_stays(tmp_path):
    summary, pictures, text = evaluated(tmp_path, [pages.image(), BROKEN])
    assert (summary["report_examples"], summary["report_pictures"]) == (2, 1)
    assert (pictures.left_out["undecodable"], pictures.left_out["limit"]) == (1, 0)
    assert "it cannot be decoded" in text


def test_no_pictures_at_all_can_be_asked_for(tmp_path):
    summary, pictures, text = evaluated(tmp_path, [pages.image()], pictures=-1)
    assert (summary["report_pictures"], dict(pictures.shown)) == (0, {})
    assert "examples shown without their picture (limit)" in text
    assert [path.name for path in (tmp_path / FOLDER).iterdir()] == ["pictures.json"]


def test_right_and_wrong_share_the_pictures_evenly():
    judged = judge(pages.many(60))  # twice as many right as wrong
    chosen = [judged[i].verdict for i in evenly([example.about for example in judged], 40)]
    assert (chosen.count("right"), chosen.count("wrong")) == (20, 20)
