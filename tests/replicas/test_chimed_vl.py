"""Every record of the ChiMed-VL replicas, in both forms, and every row that gives none."""

import json
import zipfile

import pytest

from data_pipelines.media.raster import decode, read_image
from data_pipelines.preparation import prepare
from data_pipelines.prompts.render import wordings
from data_pipelines.sources import chimed_vl
from data_pipelines.sources.folder import split_of
from data_pipelines.sources.layout import LayoutError
from tests.replicas import chimed_vl as replica
from tests.replicas.pictures import encoded, write_file
from tests.replicas.reading import prepared

FIRST, SECOND = split_of("PMC1_Fig1_1.jpg", 0), split_of("PMC2_Fig1_1.jpg", 0)


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    return prepared("chimed_vl", replica.texts, tmp_path_factory.mktemp("texts"))


@pytest.fixture(scope="module")
def conversations(tmp_path_factory):
    return prepared("chimed_vl", replica.conversations, tmp_path_factory.mktemp("conversations"))


def test_each_text_of_an_image_is_a_caption_and_each_question_a_question(texts):
    assert texts.said() == {
        "chimed_vl/alignment/0/description": (FIRST, "caption", "zh", "胸部CT。"),
        "chimed_vl/alignment/0/context": (FIRST, "caption", "zh", "患者的CT检查。 随访。"),
        "chimed_vl/alignment/1/description": (SECOND, "caption", "zh", "腹部超声。"),
        "chimed_vl/instruction/0": (FIRST, "vqa", "zh", "1：有"),
        "chimed_vl/instruction/1": (FIRST, "vqa", "zh", "胸部CT"),
    }
    question = {id: r.turns[0].text.removeprefix("<media>") for id, r in texts.records.items()}
    assert question["chimed_vl/alignment/0/context"] in wordings("caption", "caption", "zh")
    assert question["chimed_vl/instruction/0"] == "图中有病变吗？\n1：有\n2：没有"
    assert question["chimed_vl/instruction/1"] == "这是哪种检查？"
    assert {r.label_kind for r in texts.records.values()} == {"model"}


def test_images_are_joined_by_name_and_missing_ones_are_counted(texts):
    (frame,) = texts.records["chimed_vl/alignment/1/description"].media[0].frames
    assert (decode(frame) == read_image(encoded(2, mode="CMYK"))).all()
    assert texts.quarantined == {
        "alignment, row 2, PMC3_Fig1_1.jpg": "image file is missing",
        "alignment, row 3, PMC1_Fig1_1.jpg": "no text",
        "alignment, row 4": "no image named",
        "alignment, row 5": "row is no JSON object",
        "instruction, row 2, PMC2_Fig1_1.jpg": "no answer",
        "instruction, row 3, PMC4_Fig1_1.jpg": "truncated or damaged image",
        "instruction, row 4": "row is no JSON object",
    }
    assert texts.manifest["quarantined_reasons"]["image file is missing"] == 1
    assert texts.manifest["unexpected_counts"] == {
        "all/caption": {"expected": 580014, "found": 3},
        "all/vqa": {"expected": 469441, "found": 2},
    }


def test_conversations_keep_their_own_words(conversations):
    assert {id: tuple(turn.text for turn in r.turns) for id, r in conversations.records.items()} == {
        "chimed_vl/alignment/0": ("<media>描述图像。", "胸部CT。"),
        "chimed_vl/instruction/0": ("什么器官？<media>", "肝脏", "正常吗？", "正常"),
    }
    assert conversations.records["chimed_vl/instruction/0"].task == "vqa"
    assert conversations.records["chimed_vl/alignment/0"].task == "caption"
    assert conversations.records["chimed_vl/alignment/0"].media[0].frames == (encoded(1),)
    assert conversations.quarantined == {
        "alignment, row 1, PMC9_Fig1_1.jpg": "image file is missing",
        "alignment, row 2, PMC1_Fig1_1.jpg": "turns are not question and answer in turn",
    }


def test_images_of_two_downloads_are_found_in_nested_folders_and_archives(tmp_path):
    def replica(root):
        names = [f"PMC{i}_Fig1_1.jpg" for i in range(1, 9)]
        rows = [{"image": name, "description": "图。"} for name in names]
        write_file(root / "source" / "ChiMed-VL-Alignment.jsonl", "\n".join(json.dumps(row) for row in rows))
        figures = root / "images" / "pmc_oa" / "caption_T060_filtered_top4_sep_v0_subfigures"
        write_file(figures / names[0], encoded(1))
        write_file(figures / names[3], encoded(4))
        write_file(root / "images" / "more" / names[3], encoded(5))  # another image of that name
        write_file(figures / names[4], encoded(6))
        write_file(root / "images" / names[4], encoded(6))  # the same again
        (root / "images" / "loop").symlink_to(root / "images")
        for archive, numbers in {"images.zip": (1, 5, 6), "images_2.zip": (2, 5, 6)}.items():
            path = root / "images" / "pmc_vqa" / archive
            path.parent.mkdir(exist_ok=True)
            with zipfile.ZipFile(path, "w") as opened:
                for i in numbers:
                    opened.writestr(f"figures/{names[i]}", encoded(20 + i if i < 6 else len(archive)))
        return {"source": root / "source", "images": root / "images"}

    found = prepared("chimed_vl", replica, tmp_path)
    shown = {id.rpartition("/")[2]: record.media[0].frames for id, record in found.records.items()}
    expected = {0: 1, 1: 21, 2: 22, 4: 6, 5: 25}
    assert shown == {str(row): (encoded(seed),) for row, seed in expected.items()}
    assert found.quarantined == {
        "alignment, row 3, PMC4_Fig1_1.jpg": "several images of that name, which differ",
        "alignment, row 6, PMC7_Fig1_1.jpg": "several images of that name, which differ",
        "alignment, row 7, PMC8_Fig1_1.jpg": "image file is missing",
    }


def test_an_image_that_comes_later_makes_another_job_and_a_damaged_archive_is_named(tmp_path):
    options = replica.texts(tmp_path)
    before = chimed_vl.converter(**options).options
    assert chimed_vl.converter(**options).options == before
    write_file(tmp_path / "images" / "more" / "deep" / "PMC3_Fig1_1.jpg", encoded(3))
    assert chimed_vl.converter(**options).options != before
    write_file(tmp_path / "images" / "more" / "images.zip", "cut")
    with pytest.raises(LayoutError, match=r"more/images\.zip: expected a zip archive"):
        chimed_vl.converter(**options)


def test_a_part_alone_is_compared_with_its_own_count(tmp_path):
    made = chimed_vl.converter(**replica.texts(tmp_path / "raw"), subset=["instruction"])
    manifest = prepare(made, tmp_path / "out")
    assert manifest["unexpected_counts"] == {"all/vqa": {"expected": 469441, "found": 2}}


def test_keys_of_another_form_are_named(tmp_path):
    row = {"pmcid": "PMC1", "zh_caption": "胸部CT。"}
    write_file(tmp_path / "ChiMed-VL-Alignment.jsonl", json.dumps(row, ensure_ascii=False))
    (tmp_path / "images").mkdir()
    with pytest.raises(LayoutError, match=r"jsonl: expected an image .* found only the keys pmcid, zh_caption"):
        chimed_vl.converter(tmp_path, images=tmp_path / "images").units()
    with pytest.raises(LayoutError, match=r"expected ChiMed-VL-Instruction.json\*, found ChiMed-VL-Alignment.jsonl"):
        chimed_vl.converter(tmp_path, images=tmp_path / "images", subset=["instruction"])
