"""The flags that say how a volume is shown, the same for `umit prepare` and `umit predict`."""

import argparse
import re

from data_pipelines.media.volume import PLANES, WINDOWS


def add_arguments(parser: argparse.ArgumentParser, note: str = "") -> None:
    """note: for which data sets they are. Their defaults are None: not given."""
    parser.add_argument(
        "--window",
        type=_window,
        help=f"CT window, or three joined by + as red, green and blue: {', '.join(sorted(WINDOWS))}; by default the "
        f"file's own, else soft_tissue{note and f' ({note}, m3d_seg)'}",
    )
    where = note and f" ({note})"
    parser.add_argument("--plane", choices=sorted(PLANES), help=f"of a volume's slices, by default axial{where}")
    parser.add_argument(
        "--foreground", action="store_true", default=None, help=f"cut off what is around the body of a volume{where}"
    )
    parser.add_argument(
        "--volume-size",
        type=_size,
        metavar="WxHxD",
        help=f"show volumes as D slices of W x H, by default at most 256x256x32 with the proportions kept{where}",
    )
    parser.add_argument(
        "--spacing",
        type=_spacing,
        metavar="XxYxZ",
        help=f"millimetres of a slice's pixels and between slices, to which volumes are resampled first{where}",
    )


def _window(text: str) -> str:
    names = text.split("+")
    if len(names) not in (1, 3) or set(names) - set(WINDOWS):
        raise argparse.ArgumentTypeError(f"expected one or three of {', '.join(sorted(WINDOWS))}, found {text!r}")
    return text


def _size(text: str) -> tuple[int, int, int]:
    match = re.fullmatch(r"(\d{1,4})x(\d{1,4})x(\d{1,4})", text)
    width, height, depth = (int(n) for n in match.groups()) if match else (0, 0, 0)
    if not width * height * depth:
        raise argparse.ArgumentTypeError(f"expected WIDTHxHEIGHTxSLICES as in 256x256x32, found {text!r}")
    return width, height, depth


def _spacing(text: str) -> tuple[float, float, float]:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)x(\d+(?:\.\d+)?)x(\d+(?:\.\d+)?)", text)
    x, y, z = (float(n) for n in match.groups()) if match else (0.0, 0.0, 0.0)
    if not x * y * z:
        raise argparse.ArgumentTypeError(f"expected millimetres XxYxZ as in 0.8x0.8x2.5, found {text!r}")
    return x, y, z
