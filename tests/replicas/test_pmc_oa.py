"""Every caption and every pair of the PMC-OA replicas, and every row that gives none."""

import struct
import tracemalloc
import zipfile

import pytest

from data_pipelines.media import MediaError
from data_pipelines.preparation import prepare
from data_pipelines.prompts.render import wordings
from data_pipelines.sources import pmc_oa
from data_pipelines.sources.compare import common_phrases, compared
from data_pipelines.sources.folder import split_of
from data_pipelines.sources.layout import LayoutError
from data_pipelines.sources.zip_files import ZipFiles
from tests.replicas import pmc_oa as replica
from tests.replicas.pictures import encoded
from tests.replicas.reading import prepared


@pytest.fixture(scope="module")
def beta(tmp_path_factory):
    return prepared("pmc_oa", replica.beta, tmp_path_factory.mktemp("beta"))


@pytest.fixture(scope="module")
def aligned(tmp_path_factory):
    return prepared("pmc_oa", replica.aligned, tmp_path_factory.mktemp("aligned"))


def answers(done, task: str) -> dict[str, str]:
    return {id.removeprefix("pmc_oa/"): r.turns[1].text for id, r in done.records.items() if r.task == task}


def test_every_row_with_an_image_is_captioned(beta):
    captions = {name.removesuffix(".jpg"): text for name, text in replica.BETA}
    for gone in ("PMC111_Fig3_1", "PMC444_Fig1_1", "PMC333_Fig1_1"):
        del captions[gone]
    captions |= {
        "PMC333_Fig1_1/2": "Listed again, with a caption.",
        "PMC333_Fig1_1/3": "And once more.",
    }
    assert answers(beta, "caption") == captions
    assert {r.turns[0].text.removeprefix("<media>") for r in beta.records.values() if r.task == "caption"} <= set(
        wordings("caption", "caption", "en")
    )
    assert beta.records["pmc_oa/PMC222_Fig1_1"].media[0].frames == (encoded(1),)
    assert beta.manifest["unexpected_counts"] == {"all/caption": {"expected": 1646592, "found": 11}}


def test_sub_figures_and_figures_of_an_article_are_compared(beta):
    assert answers(beta, "comparison") == {
        "pair/PMC111_Fig1_1+PMC111_Fig1_2": f"Both are parts of one figure: {replica.FIRST}",
        "pair/PMC111_Fig1_1+PMC111_Fig2_1": (
            f"In both: Axial CT of the chest. First: {replica.FIRST} Second: {replica.SECOND}"
        ),
        "pair/PMC222_Fig2_1+PMC222_Fig2_2": f"Both are parts of one figure: {replica.THIRD}",
    }
    pair = beta.records["pmc_oa/pair/PMC111_Fig1_1+PMC111_Fig2_1"]
    assert [media.frames[0] for media in pair.media] == [encoded(0), encoded(3)]
    assert pair.turns[0].text.removeprefix("<media><media>") in wordings("comparison", "comparison", "en")
    assert pair.label_kind == "templated"


def test_parts_of_a_caption_tell_sub_figures_apart(aligned):
    assert answers(aligned, "comparison") == {
        "pair/PMC555_Fig1_1+PMC555_Fig1_2": (
            "Both are parts of one figure. In both: Patient A. T2-weighted image shows the lesion. "
            "First: Axial T2-weighted image shows the lesion. Second: Coronal T2-weighted image shows the lesion."
        )
    }
    assert len(answers(aligned, "caption")) == 4
    assert {r.label_kind for r in aligned.records.values()} == {"model", "templated"}
    assert aligned.quarantined == {"row 4, PMC666_Fig1_2.jpg": "image file is missing"}


def test_an_article_is_in_one_split(beta):
    for id, record in beta.records.items():
        name = id.removeprefix("pmc_oa/").removeprefix("pair/")
        article = name.split("_")[0] if name.startswith("PMC") else name
        assert record.split == split_of(article, 0)
    assert not [leak for leak in beta.manifest["leaks"] if leak["kind"] == "patient"]


def test_rows_that_give_nothing_are_listed(beta):
    assert beta.quarantined == {
        "row 3": "row is no JSON object",
        "row 5, PMC111_Fig3_1.jpg": "image file is missing",
        "row 10, PMC333_Fig1_1.jpg": "no caption",
        "row 14, PMC444_Fig1_1.jpg": "truncated or damaged image",
        "row 15": "text is no Unicode",
        "row 16, PMC9_\0_1.jpg": "image file is missing",
        f"row 17, {'x' * 999}.jpg": "image file is missing",
        "row 18": "row is no JSON object",
    }


def test_comparing_needs_something_in_common_and_something_apart():
    assert compared("Liver.", "Liver.", "en", one_figure=False) is None
    assert compared("Liver.", "Hand of a child.", "en", one_figure=False) is None
    chinese = compared("肝脏。CT。", "肝脏。磁共振。", "zh", one_figure=False)
    assert chinese == "两幅图像均为：肝脏。第一幅：CT。第二幅：磁共振。"
    assert common_phrases("a of the left lung", "in the Left Lung of a") == ["the left lung"]
    assert common_phrases("with that of the", "with that of the") == []


def test_members_of_an_archive_are_found_by_name(tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(300):
            archive.writestr(f"deep/folder/{i}.jpg", bytes([i % 256]) * i)
        with archive.open("streamed.jpg", "w", force_zip64=True) as member:
            member.write(b"abc" * 1000)
    files = ZipFiles(path)
    assert len(files) == 301
    assert all(files.read(f"{i}.jpg") == bytes([i % 256]) * i for i in range(300))
    assert files.read("streamed.jpg") == b"abc" * 1000
    with pytest.raises(MediaError, match="image file is missing"):
        files.read("300.jpg")


class Pipe:
    """A file that cannot be sought in, so that the sizes of a member come after it."""

    def __init__(self, file):
        self.write, self.flush = file.write, file.flush


def streamed(path, members: dict[str, tuple[bytes, int]]) -> None:
    with path.open("wb") as file, zipfile.ZipFile(Pipe(file), "w") as archive:  # type: ignore[arg-type]
        for name, (data, kind) in members.items():
            archive.writestr(name, data, kind)


def test_members_of_an_archive_written_to_a_pipe_are_read_by_the_directory(tmp_path):
    path, padding = tmp_path / "x.zip", bytes(64 << 20)
    streamed(path, {"deflated.jpg": (b"ab" * 999, 8), "stored.jpg": (b"cd" * 999, 0), "padding": (padding, 0)})
    files = ZipFiles(path)
    assert files.read("stored.jpg") == b"cd" * 999
    tracemalloc.start()
    assert files.read("deflated.jpg") == b"ab" * 999
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("at", "size"), [(20, 0), (20, 9), (20, 1 << 31), (24, 0), (24, 9), (24, 1 << 31), (42, 1 << 31)]
)
@pytest.mark.parametrize("kind", [0, 8])
def test_a_directory_that_lies_about_sizes_costs_no_memory(tmp_path, at, size, kind):
    path = tmp_path / "x.zip"
    streamed(path, {"a.jpg": (bytes(100_000), kind)})
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.index(b"PK\1\2") + at, size)
    path.write_bytes(data)
    files = ZipFiles(path)
    tracemalloc.start()
    with pytest.raises(MediaError, match="damaged in the archive"):
        files.read("a.jpg")
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_a_zip_bomb_is_unpacked_no_further_than_it_states(tmp_path):
    path = tmp_path / "x.zip"
    streamed(path, {"a.jpg": (bytes(50 << 20), 8)})
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.index(b"PK\1\2") + 24, 1000)
    path.write_bytes(data)
    tracemalloc.start()
    with pytest.raises(MediaError, match="damaged in the archive"):
        ZipFiles(path).read("a.jpg")
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_a_name_of_two_members_is_read_where_they_are_the_same(tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in (("1/a.jpg", b"a"), ("2/a.jpg", b"a"), ("1/b.jpg", b"b"), ("2/b.jpg", b"c")):
            archive.writestr(name, data)
    files = ZipFiles(path)
    assert files.read("a.jpg") == b"a"
    with pytest.raises(MediaError, match="several images of that name, which differ"):
        files.read("b.jpg")


def test_a_damaged_archive_or_member_is_named(tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.jpg", b"0123456789")
    data = path.read_bytes()
    path.write_bytes(data.replace(b"0123456789", b"0123456788"))
    with pytest.raises(MediaError, match="damaged in the archive"):
        ZipFiles(path).read("a.jpg")
    path.write_bytes(data[:-30])
    with pytest.raises(LayoutError, match=r"x.zip: expected a zip archive, whole and in one file"):
        ZipFiles(path)


def test_an_archive_in_parts_or_behind_something_else_is_not_an_empty_one(tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.jpg", b"0123456789")
    data = path.read_bytes()
    end = data.rindex(b"PK\5\6")
    last_part = data[: end + 4] + b"\1\0" + data[end + 6 :]
    for changed in (b"in front" + data, last_part):
        path.write_bytes(changed)
        with pytest.raises(LayoutError, match=r"x.zip: expected a zip archive, whole and in one file"):
            ZipFiles(path)


def test_a_damaged_archive_ends_the_run_before_it_begins(tmp_path):
    (tmp_path / "raw").mkdir()
    replica.beta(tmp_path / "raw")
    (tmp_path / "raw" / "images.zip").write_bytes(b"cut")
    with pytest.raises(LayoutError, match=r"images\.zip: expected a zip archive, whole and in one file"):
        prepare(pmc_oa.converter(tmp_path / "raw"), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


def test_both_files_need_a_choice_and_other_keys_are_named(tmp_path):
    replica.beta(tmp_path)
    replica.aligned(tmp_path)
    with pytest.raises(LayoutError, match="--subset: expected one of beta, aligned, because"):
        pmc_oa.converter(tmp_path)
    assert pmc_oa.converter(tmp_path, subset=["aligned"]).file.name == "pmc_oa.jsonl"
    (tmp_path / "pmc_oa.jsonl").write_text('{"img": "a", "text": "b"}\n')
    with pytest.raises(LayoutError, match=r"pmc_oa.jsonl: expected rows with image, caption, found img, text"):
        pmc_oa.converter(tmp_path, subset=["aligned"]).units()
