"""An answer drawn over its image: boxes and points with their labels, as a PNG."""

import io
import pathlib
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from data_pipelines.record import Media
from umit_jax.targets import Frame, convert_target

COLOURS = ("#ffb000", "#648fff", "#dc267f", "#fe6100", "#785ef0")  # told apart with any colour vision
_SMALLEST = 512  # a small image is enlarged to this many pixels along its longer side


def draw(media: Media, parsed: dict[str, Any] | None, path: pathlib.Path) -> None:
    """Writes `path`. Of a volume, the slice through the middle of the first box or point, or the middle one."""
    raw = Frame("raw" if media.kind == "image" else "voxel", tuple(float(s) for s in media.size))
    items = []
    if parsed and parsed["kind"] in ("boxes", "points"):
        items = convert_target(parsed, raw)["items"]
    spans = [item.get("box") or item["point"] * 2 for item in items]
    number = 0
    if media.kind == "volume":
        middle = (spans[0][2] + spans[0][5]) / 2 if spans else media.size[2] / 2
        number = min(max(int(middle), 0), media.size[2] - 1)
        shown = [(i, s) for i, s in zip(items, spans, strict=True) if s[2] <= number + 0.5 <= max(s[5], s[2] + 1)]
        items, spans = [i for i, _ in shown], [[*s[:2], *s[3:5]] for _, s in shown]
    image = Image.open(io.BytesIO(media.frames[number])).convert("RGB")
    scale = max(1.0, _SMALLEST / max(image.size))
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(image)
    font = ImageFont.load_default(14)
    for i, (item, span) in enumerate(zip(items, spans, strict=True)):
        colour = COLOURS[i % len(COLOURS)]
        x1, y1, x2, y2 = (c * scale for c in span)
        if "box" in item:
            pen.rectangle((min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)), outline=colour, width=2)
        else:
            pen.line((x1 - 8, y1, x1 + 8, y1), fill=colour, width=2)
            pen.line((x1, y1 - 8, x1, y1 + 8), fill=colour, width=2)
        # The built-in font has no Chinese glyphs: such a label is left out rather than drawn as boxes.
        if item["label"].isascii():
            pen.text((x1 + 4, y1 + 4), item["label"], fill=colour, font=font)
    aside = path.with_name(f".{path.name}.part")
    image.save(aside, "PNG")
    aside.replace(path)
