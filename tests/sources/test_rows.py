"""Rows of jsonl files and of JSON lists are found by their bytes."""

import json

import pytest

from data_pipelines.sources import rows
from data_pipelines.sources.layout import LayoutError
from data_pipelines.sources.make import RowError
from data_pipelines.sources.rows import Rows, read_row, spans

DATA = [{"a": i, "text": 'é漢\n"[{,]}' * (i % 7)} for i in range(50)]


@pytest.mark.parametrize("block", [1, 3, 17, 1 << 22])
@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("start", ["", "\ufeff", " \n"])
def test_items_of_a_list_are_found_whatever_the_buffer(block, indent, start, tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "_BLOCK", block)
    file = tmp_path / "x.json"
    file.write_text(start + json.dumps(DATA, ensure_ascii=False, indent=indent) + "\n", encoding="utf-8")
    assert [read_row(file, *span) for span in spans(file)] == DATA


def test_lines_of_several_files_are_numbered_in_each(tmp_path):
    files = [tmp_path / "a.jsonl", tmp_path / "b.json"]
    files[0].write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\r\n{"a": 2}')
    files[1].write_text('[{"a": 3}, 12, {"a": 4}]')
    found = Rows(files)
    assert [(file, number) for file, _, _, number in found] == [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]
    assert [read_row(files[f], start, length)["a"] for f, start, length, n in found if (f, n) != (1, 1)] == [1, 2, 3, 4]
    assert found[1:3] == [found[1], found[2]]
    with pytest.raises(RowError, match="row is no JSON object"):
        read_row(files[1], *found[3][1:3])


def test_an_empty_list_and_an_empty_file_have_no_rows(tmp_path):
    (tmp_path / "x").write_text(" [ ] ")
    (tmp_path / "y").write_text("")
    assert len(Rows([tmp_path / "x", tmp_path / "y"])) == 0


@pytest.mark.parametrize("text", ['[{"a": 1}, {"a": ', '[{"a": 1} {"a": 2', '[{"a": 1}, nonsense]', "[1, 2"])
def test_a_list_that_breaks_off_is_named(text, tmp_path):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(LayoutError, match=r"x.json: no JSON from byte \d+ on"):
        list(spans(tmp_path / "x.json"))


def test_other_encodings_are_named(tmp_path):
    (tmp_path / "x.json").write_bytes('[{"a": "é"}]'.encode("latin-1"))
    with pytest.raises(LayoutError, match=r"x.json: not in UTF-8"):
        list(spans(tmp_path / "x.json"))
