"""Decoding in a process apart: gdcm, the one decoder of lossless JPEG, ends its process over some damaged frames.

One worker is kept for all frames and started again when it dies. What it gets is the pixel elements alone, as a DICOM
file; what it gives back is the photometric interpretation, a line feed and the array in numpy's format, or nothing.
Run as a module, this is the worker.
"""

import io
import os
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

import numpy as np
import pydicom
from pydicom.pixels import get_decoder

_LENGTH = struct.Struct(">Q")
_PIXEL_ELEMENTS = (
    *("SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames", "Rows", "Columns"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelData"),
)
_lock = threading.Lock()
_worker: subprocess.Popen | None = None


def decode_apart(dataset: pydicom.Dataset) -> tuple[np.ndarray, str]:
    """(pixels, photometric interpretation) as pydicom's decoder gives them. Raises ValueError where it cannot."""
    bare = pydicom.Dataset()
    bare.file_meta = pydicom.dataset.FileMetaDataset()
    bare.file_meta.TransferSyntaxUID = dataset.file_meta.TransferSyntaxUID
    for keyword in _PIXEL_ELEMENTS:
        if keyword in dataset:
            bare[keyword] = dataset[keyword]
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, bare, enforce_file_format=False)
    answer = _ask(b"\0" * 128 + b"DICM" + buffer.getvalue())
    photometric, _, array = answer.partition(b"\n")
    if not array:
        raise ValueError("the frame cannot be decoded")
    return np.load(io.BytesIO(array), allow_pickle=False), photometric.decode()


def _ask(question: bytes) -> bytes:
    global _worker
    with _lock:
        if _worker is None or _worker.poll() is not None:
            root = str(Path(__file__).parents[2])
            path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
            _worker = subprocess.Popen(
                [sys.executable, "-m", "data_pipelines.media.apart"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=os.environ | {"PYTHONPATH": path},
            )
        assert _worker.stdin is not None
        assert _worker.stdout is not None
        try:
            _worker.stdin.write(_LENGTH.pack(len(question)) + question)
            _worker.stdin.flush()
            return _read(_worker.stdout)
        except (OSError, EOFError):
            _worker.kill()
            _worker.wait()
            _worker = None
            return b""


def _read(stream: IO[bytes]) -> bytes:
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError
    (length,) = _LENGTH.unpack(head)
    data = stream.read(length)
    if len(data) < length:
        raise EOFError
    return data


def _answer(question: bytes) -> bytes:
    dataset = pydicom.dcmread(io.BytesIO(question))
    pixels, meta = get_decoder(dataset.file_meta.TransferSyntaxUID).as_array(dataset, decoding_plugin="gdcm")
    buffer = io.BytesIO()
    np.save(buffer, pixels, allow_pickle=False)
    return str(meta["photometric_interpretation"]).encode() + b"\n" + buffer.getvalue()


def main() -> None:
    """Answers until the parent closes the pipe. What libraries print goes nowhere."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    while True:
        try:
            question = _read(sys.stdin.buffer)
        except EOFError:
            return
        try:
            answer = _answer(question)
        except Exception:
            answer = b""
        replies.write(_LENGTH.pack(len(answer)) + answer)
        replies.flush()


if __name__ == "__main__":
    main()
