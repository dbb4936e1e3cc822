"""Predictions of every kind of truth and frame, with pictures of painted squares, as report pages."""

import numpy as np

from data_pipelines.media.raster import encode_png
from data_pipelines.record import Media
from launch.report import picture_of
from umit_jax.eval.report_html import write_report
from umit_jax.eval.report_html.pictures import FOLDER, Pictures, write_pictures
from umit_jax.eval.score import score
from umit_jax.targets import Frame, boxes_target, convert_target, options_target, points_target, text_target

SIZE = (120, 80)  # of the image, in pixels
BOX = [30.0, 20.0, 60.0, 60.0]  # the white square in it, raw pixels
DEPTH = 12
BOX3 = [10.0, 8.0, 3.0, 30.0, 24.0, 7.0]  # the bright block of the volume, voxels; it cuts slices 3 to 6
NASTY = "</script><script>window.hurt = 1</script><img src=x onerror='window.hurt = 2'> "
NASTY += "\" ' & <!-- \u2028 \u2029 ${1} {{1}} \ud800"
RAW = Frame("raw", SIZE, (1.0, 1.0))
FRAMES = {
    "raw": RAW,
    "norm1000": RAW.norm1000(),
    "resized": RAW.rescaled("resized", (84, 56)),
    "mm": Frame("mm", (60.0, 40.0), (1.0, 1.0)),
}
VOXEL = Frame("voxel", (48, 32, DEPTH), (1.0, 1.0, 2.0))
YES_NO = ["yes", "no"]


def image() -> Media:
    pixels = np.full((SIZE[1], SIZE[0]), 40, np.uint8)
    pixels[20:60, 30:60] = 255
    return Media((encode_png(pixels),), "image", "DX", SIZE)


def volume() -> Media:
    frames = []
    for k in range(DEPTH):
        pixels = np.full((32, 48), 10 * k, np.uint8)
        if 3 <= k < 7:
            pixels[8:24, 10:30] = 255
        frames.append(encode_png(pixels))
    return Media(tuple(frames), "volume", "CT", (48, 32, DEPTH), (1.0, 1.0, 2.0), "LPS", "soft_tissue")


def line(number: int, task: str, text: str, truth: dict, **more) -> dict:
    about = {"id": f"set/secret-{number}", "task": task, "dataset": "set", "language": "en", "patient_id": f"p{number}"}
    return {**about, "prompt": "<media>What?", "text": text, "truth": truth, "images": ["a"], **more}


def every_kind() -> list[dict]:
    """One example of each kind and frame; those of boxes say the whole square, shifted by nothing."""
    lines = []
    for name, frame in FRAMES.items():
        truth = convert_target(boxes_target(RAW, [("square", BOX)]), frame)
        spoken = [round(c) for c in convert_target(truth, frame.spoken())["items"][0]["box"]]
        said = f"({spoken[0]},{spoken[1]}),({spoken[2]},{spoken[3]})"
        lines.append(line(len(lines), "detection", said, truth, topic=f"box/{name}"))
    deep = boxes_target(VOXEL, [("block", BOX3)])
    lines.append(line(4, "detection", "[(12,8,5),(30,24,9)]", deep, topic="box/3d", images=["b"], language="zh"))
    point = points_target(VOXEL, [("tip", [20.0, 16.0, 9.0])])
    lines.append(line(5, "landmark", "[20,16,2]", point, topic="tip", images=["b"]))
    for k in range(12):
        truth = options_target(YES_NO, k % 2, 1)
        score_yes = round(0.9 - 0.07 * k, 2)
        lines.append(
            line(6 + k, "vqa", "1:yes" if k < 8 else "2:no", truth, topic="nodule", scores=[score_yes, 1 - score_yes])
        )
    lines.append(line(18, "vqa", "maybe", options_target(YES_NO, 0, 1), topic="mass"))
    lines.append(line(19, "vqa", NASTY, text_target("a needle in a haystack"), prompt=NASTY, topic="open"))
    lines.append(line(20, "report", "The lungs are clear.", text_target("Clear lungs."), images=["unknown"]))
    lines.append(line(21, "report", "肺野清晰。", text_target("双肺清晰。"), language="zh", images=[]))
    return lines


def write(folder, lines, **more):
    """report.html of the lines, with an image named "a" and a volume named "b"."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FOLDER).mkdir(exist_ok=True)
    shown = {name: picture_of(m(), 1024, folder / FOLDER)[0] for name, m in (("a", image), ("b", volume))}
    pictures = Pictures(shown, {"limit": 0}, {"name": "toy", "step": 7})
    write_pictures(folder / FOLDER, pictures)
    return write_report(folder / "report.html", lines, score(lines), pictures, **more)


def many(count: int) -> list[dict]:
    """Closed questions, one in three wrong, the 778th with a word of its own."""
    lines = []
    for k in range(count):
        text = "2:no" if k % 3 == 0 else "1:yes"
        prompt = f"Is there an effusion in picture {k}?" + (" zebra" if k == 777 else "")
        truth = options_target(YES_NO, 0, 1)
        lines.append(line(k, "vqa", text, truth, prompt=prompt, topic="effusion", dataset=f"set{k % 4}"))
    return lines
