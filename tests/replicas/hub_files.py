"""Parquet files as the Hub stores image question sets."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet


def write_parquet(path: Path, rows: Sequence[tuple[bytes | None, str | None, str | None]], group: int = 2) -> None:
    """rows: image file, question, answer."""
    images = [None if data is None else {"bytes": data, "path": None} for data, _, _ in rows]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table(
        {
            "image": pa.array(images, kind),
            "question": pa.array([question for _, question, _ in rows], pa.string()),
            "answer": pa.array([answer for _, _, answer in rows], pa.string()),
        }
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(table, path, row_group_size=group)
