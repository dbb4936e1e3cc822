"""A label file is read strictly: what cannot be used is named, by file and column, or by line and reason."""

import pytest

from data_pipelines.sources.label_file import LabelFileError, read_labels


@pytest.fixture
def labels(tmp_path):
    def write(text: str):
        path = tmp_path / "labels.csv"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_the_task_follows_from_what_is_filled_in(labels):
    text = """file,label,question,answer,boxes,points
a,normal,,,,
b,,Is it big?,yes,,
c,,,,"[[""mass"", 1, 2, 3, 4]]",
d,,,,,"[[""apex"", 1, 2.5]]"
"""
    rows, bad = read_labels(labels(text))
    assert [row.task for row in rows] == ["classification", "vqa", "detection", "landmark"]
    assert rows[2].boxes == (("mass", (1.0, 2.0, 3.0, 4.0)),)
    assert [row.line for row in rows] == [2, 3, 4, 5]
    assert bad == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,lable\na,b\n", "unknown column 'lable' (did you mean label?)"),
        ("file\na\n", "no column 'label'"),
        ("file,label,label\na,b,c\n", "stands twice"),
        ("", "no column 'file'"),
        ("file,label\n", "no row below the header"),
        ('file,label\n"a,b\n', "not a CSV file"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line(labels, text, message):
    with pytest.raises(LabelFileError) as caught:
        read_labels(labels(text))
    assert message in str(caught.value)
    assert "labels.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_text_that_is_not_utf8_is_named(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_bytes("file,label\na,肺\n".encode("gb18030"))
    with pytest.raises(LabelFileError, match="UTF-8"):
        read_labels(path)


def test_a_byte_order_mark_of_a_spreadsheet_is_no_part_of_the_header(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_bytes(b"\xef\xbb\xbffile,label\r\na,b\r\n")
    assert read_labels(path)[0][0].file == "a"


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        ({"file": ""}, "no file named"),
        ({"label": ""}, "classification without label"),
        ({"split": "dev"}, "split is not one of train, validation, test"),
        ({"language": "fr"}, "language is not one of en, zh"),
        ({"task": "segmentation"}, "task is not one of"),
        ({"question": "Why?"}, "vqa without question and answer"),
        ({"task": "detection"}, "detection without boxes"),
        ({"boxes": "[1"}, "boxes is not JSON"),
        ({"boxes": "3"}, "boxes is not a list"),
        ({"boxes": '[["a",1,2,3]]'}, "boxes is not a list of a label and 4 or 6 numbers"),
        ({"boxes": '[["a",1,2,3,NaN]]'}, "boxes is not a list of a label and 4 or 6 numbers"),
        ({"boxes": '[["",1,2,3,4]]'}, "boxes is not a list of a label and 4 or 6 numbers"),
        ({"points": '[["a",1,true]]'}, "points is not a list of a label and 2 or 3 numbers"),
        ({"points": '[["a",1,2],["b",1,2]]'}, "landmark without exactly one point"),
    ],
)
def test_a_bad_row_is_set_aside_with_its_reason(labels, cells, reason):
    columns = ("file", "label", "split", "task", "language", "question", "answer", "boxes", "points")
    row = {"file": "a", "label": "b"} | cells
    line = ",".join('"' + row.get(c, "").replace('"', '""') + '"' for c in columns)
    rows, bad = read_labels(labels(",".join(columns) + f"\n{line}\ngood,label,,,,,,,\n"))
    assert [row.file for row in rows] == ["good"]
    assert bad[0][0] == 2
    assert bad[0][1].startswith(reason)


def test_a_row_with_too_many_or_too_few_cells_is_set_aside(labels):
    _, bad = read_labels(labels("file,label\na,b,c\na\n"))
    assert bad == [(n, "row with more or fewer cells than the header") for n in (2, 3)]
