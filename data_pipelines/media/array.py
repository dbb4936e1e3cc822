"""Arrays of published data sets (.npy, and sparse masks in .npz): read without unpickling anything, or MediaError.

| file      | content                                                                                              |
| .npy      | one array of numbers; mapped, not read, so that what is not looked at costs nothing                  |
| .npz, CSR | indices, indptr, data, shape, format: a sparse matrix as scipy.sparse.save_npz writes it, one row a  |
|           | class, one column a voxel                                                                            |
"""

import dataclasses
import itertools
import zipfile
import zlib
from pathlib import Path

import numpy as np

from data_pipelines.media import MediaError

_DAMAGED = (OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)  # RuntimeError: an encrypted archive
_PARTS = ("data", "indices", "indptr", "shape")


def read_array(path: Path) -> np.ndarray:
    """The array of a .npy file, mapped. MediaError for anything else, FileNotFoundError if absent."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise
    except (ValueError, EOFError, OSError, SyntaxError):
        raise MediaError("damaged array, or pickled objects") from None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
        raise MediaError("damaged array, or pickled objects")
    return array


@dataclasses.dataclass(frozen=True)
class SparseRows:
    """A CSR matrix. columns: of each row, the positions that are not zero."""

    columns: tuple[np.ndarray, ...]
    width: int

    def dense(self, row: int, shape: tuple[int, ...]) -> np.ndarray:
        """One row as bool of `shape`, in C order. Raises MediaError where they do not fit."""
        if np.prod(shape, dtype=np.int64) != self.width:
            raise MediaError("mask of another shape than the image")
        mask = np.zeros(self.width, bool)
        mask[self.columns[row]] = True
        return mask.reshape(shape)


def read_csr(path: Path) -> SparseRows:
    """The matrix of an .npz file. MediaError where it is no CSR matrix, FileNotFoundError if absent."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            if bytes(archive["format"].item()) != b"csr":
                raise MediaError("sparse mask is not CSR")
            data, indices, indptr, shape = (archive[name] for name in _PARTS)
    except FileNotFoundError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, *_DAMAGED):
        raise MediaError("damaged sparse mask, or pickled objects") from None
    rows, width = (int(n) for n in shape) if shape.shape == (2,) else (-1, 0)
    sound = (
        indptr.shape == (rows + 1,)
        and len(data) == len(indices) == indptr[-1]
        and indptr[0] == 0
        and (np.diff(indptr) >= 0).all()
        and (not len(indices) or (indices.min() >= 0 and indices.max() < width))
    )
    if not sound:
        raise MediaError("damaged sparse mask, or pickled objects")
    spans = (slice(int(a), int(b)) for a, b in itertools.pairwise(indptr))
    return SparseRows(tuple(indices[span][data[span] != 0] for span in spans), width)
