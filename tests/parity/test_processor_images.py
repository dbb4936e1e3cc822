"""A question about pictures, from files on disk: transformers' processors and ours give the same ids, grids, patches
and positions, whatever the pictures' mode, size and Exif orientation."""

import io
import warnings

import numpy as np
import PIL
import pytest
import tifffile
from PIL import Image

from data_pipelines.example import Example, build_prompt
from data_pipelines.image import ImageError, Processing, smart_resize
from data_pipelines.media.raster import read_image
from data_pipelines.media.show import show
from data_pipelines.record import MEDIA_TOKEN, Record, Turn
from data_pipelines.tokenizer import load_tokenizer
from tests.data.toy_records import record
from tests.parity.family_processing import FAMILIES, levels, row_by_row
from tests.parity.pictures import KINDS, picture

pytest.importorskip("torch")
image_utils = pytest.importorskip("transformers.image_utils")

QUESTION = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n"
QUESTION += "<|im_start|>assistant\n"
PLACE = "<|vision_start|><|image_pad|><|vision_end|>"
# width and height: everyday, one pixel high or wide, as long as is allowed
SIZES = [(640, 480), (97, 211), (28, 28), (13, 14), (1, 1), (90, 1), (1, 57), (1, 200), (400, 2), (3, 599), (1000, 31)]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def tokenizer(qwen_directory):
    return load_tokenizer(qwen_directory)


@pytest.fixture(scope="module")
def processing(family):
    return lambda **pixels: Processing(**pixels, total_pixels=10**9, **FAMILIES[family])


@pytest.fixture(scope="module")
def make_oracle(family, qwen_directory):
    from tests.parity.processor_oracle import auto_tokenizer, oracle

    return lambda **pixels: oracle(family, auto_tokenizer(qwen_directory), pixels)


def question(parts: list, text: str) -> Record:
    """A record that asks `text` after the given picture files."""
    made = record(media=tuple(show(path).media for path in parts))
    turns = (Turn("user", MEDIA_TOKEN * len(parts) + text), Turn("assistant", "?"))
    return type(made)(**{**vars(made), "turns": turns})


def load(path) -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Not the path: Pillow garbles an uncompressed TIFF that it maps into memory and then turns.
        data = path.read_bytes()
        if path.name == "YCbCr.tif" and int(PIL.__version__.partition(".")[0]) < 13:
            data = as_png(data)
        return image_utils.load_image(Image.open(io.BytesIO(data)))


def as_png(data: bytes) -> bytes:
    """A TIFF in YCbCr as a PNG: what Pillow 13 reads, and Pillow 12 refuses."""
    values, buffer = tifffile.imread(io.BytesIO(data)), io.BytesIO()
    rgb = Image.frombytes("YCbCr", values.shape[1::-1], values.tobytes()).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = Image.open(io.BytesIO(data)).getexif().get(0x0112, 1)
    rgb.save(buffer, "PNG", exif=exif)
    return buffer.getvalue()


def assert_equal(ours: Example, theirs: dict[str, np.ndarray]) -> None:
    assert ours.tokens_S.tolist() == theirs["input_ids"][0].tolist()
    np.testing.assert_array_equal(ours.positions_S3, theirs["positions"])
    expected = levels(theirs["pixel_values"])
    # The reference computes in float32; a level is told apart from the next by far more than its rounding.
    np.testing.assert_allclose(expected, np.rint(expected), atol=1e-3)
    np.testing.assert_array_equal(row_by_row(ours), np.rint(expected))
    frames = [grid for grid in theirs["image_grid_thw"].tolist() for _ in range(grid[0])]
    assert np.bincount(ours.patch_segments_P)[1:].tolist() == [h * w for _, h, w in frames]


def cases(count: int) -> list[tuple[str, tuple[int, int], int, tuple[int, int], int]]:
    """(kind, size, Exif orientation, bounds on the pixels, seed): every kind and size comes up several times."""
    out = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        kind = KINDS[seed % len(KINDS)]
        size = (
            SIZES[seed // 2 % len(SIZES)] if seed % 2 else tuple(map(int, np.exp(rng.uniform(0, 6.2, 2)).astype(int)))
        )
        size = (max(size[0], -(-size[1] // 200)), max(size[1], -(-size[0] // 200)))
        low = int(rng.integers(1, 40)) * 28 * 28 + int(rng.integers(0, 784))
        orientation = int(rng.integers(1, 9))
        out.append((kind, size, orientation, (low, low + int(rng.integers(0, 200)) * 28 * 28), seed))
    return out


def name(case: tuple) -> str:
    kind, (width, height), orientation, _, _ = case
    return f"{kind}-{width}x{height}-turned{orientation}"


@pytest.mark.parametrize("case", cases(104), ids=name)
def test_one_picture_of_any_mode_and_size(case, processing, make_oracle, tokenizer, tmp_path):
    kind, size, orientation, (low, high), seed = case
    path = tmp_path / kind
    path.write_bytes(picture(kind, size, seed, orientation))
    ours = build_prompt(question([path], "What is it?"), tokenizer, processing(min_pixels=low, max_pixels=high))
    oracle = make_oracle(size={"shortest_edge": low, "longest_edge": high})
    assert_equal(ours, oracle.prepare(QUESTION.format(PLACE + "What is it?"), [load(path)]))


@pytest.mark.parametrize("kind", ["RGB.jpg", "RGB.png", "L.tif", "I;16.png"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientations(kind, orientation, processing, make_oracle, tokenizer, tmp_path):
    path = tmp_path / kind
    path.write_bytes(picture(kind, (60, 90), 3, orientation))
    ours = build_prompt(question([path], "?"), tokenizer, processing(min_pixels=784, max_pixels=784 * 64))
    assert len(ours.patches_PC) == 4 * 2 * 3
    # Two patch rows high where the picture lies on its side, and four where it stands.
    assert ours.patch_hw_P2.max(axis=0).tolist() == ([3, 5] if orientation >= 5 else [5, 3])
    assert_equal(
        ours, make_oracle(min_pixels=784, max_pixels=784 * 64).prepare(QUESTION.format(PLACE + "?"), [load(path)])
    )


@pytest.mark.parametrize("count", [2, 3, 7])
def test_several_pictures_in_one_question(count, processing, make_oracle, tokenizer, tmp_path):
    paths = []
    for i in range(count):
        paths.append(tmp_path / f"{i}.{KINDS[5 * i % len(KINDS)]}")
        paths[-1].write_bytes(picture(KINDS[5 * i % len(KINDS)], SIZES[i], i))
    bounds = {"min_pixels": 3136, "max_pixels": 784 * 30}
    ours = build_prompt(question(paths, "哪一张?"), tokenizer, processing(**bounds))
    text = QUESTION.format(PLACE * count + "哪一张?")
    assert_equal(ours, make_oracle(**bounds).prepare(text, [load(path) for path in paths]))


@pytest.mark.parametrize(
    ("size", "refused"),
    [((200, 1), False), ((201, 1), True), ((1, 200), False), ((1, 201), True), ((3, 600), False), ((3, 601), True)],
)
def test_both_sides_refuse_the_same_proportions(size, refused, processing, make_oracle, tokenizer, tmp_path):
    path = tmp_path / "long.png"
    path.write_bytes(picture("L.png", size, 0))
    theirs = make_oracle(min_pixels=784, max_pixels=784 * 64)
    if refused:
        with pytest.raises(ValueError, match="aspect ratio"):
            theirs.prepare(QUESTION.format(PLACE), [load(path)])
        with pytest.raises(ImageError, match=f"image of {size[0]} x {size[1]} pixels: one side is more than 200 times"):
            smart_resize(size[1], size[0], 784, 784 * 64)
    else:
        ours = build_prompt(question([path], "?"), tokenizer, processing(min_pixels=784, max_pixels=784 * 64))
        assert_equal(ours, theirs.prepare(QUESTION.format(PLACE + "?"), [load(path)]))


def test_sixteen_bit_greys_are_clipped_as_transformers_clips_them(tmp_path):
    """A picture says nothing of its window; whoever knows it stores DICOM or NIfTI, which are windowed."""
    Image.fromarray(np.array([[0, 7, 255, 256, 4000, 65535]], np.uint16)).save(tmp_path / "x.png")
    assert read_image(tmp_path / "x.png")[0, :, 0].tolist() == [0, 7, 255, 255, 255, 255]
    np.testing.assert_array_equal(read_image(tmp_path / "x.png"), np.asarray(load(tmp_path / "x.png")))


def test_normalised_on_the_device_is_the_processors_float_to_its_rounding(family, make_oracle, tokenizer):
    from configs.sizes import model_config
    from umit_jax.model.vision import normalise

    every_level = np.arange(256, dtype=np.uint8).reshape(16, 16).repeat(28, axis=0).repeat(28, axis=1)
    image = Image.fromarray(every_level)
    theirs = make_oracle(min_pixels=784, max_pixels=784 * 256).prepare(PLACE, [image])["pixel_values"]
    patches = np.rint(levels(theirs)).astype(np.uint8)
    assert len(np.unique(patches)) == 256
    config = model_config({"qwen2_vl": "tiny", "qwen2_5_vl": "qwen2.5-tiny"}[family], tokenizer)
    found = np.asarray(normalise(patches[None], config))[0]
    assert found.dtype == theirs.dtype == np.float32
    # Between -1.8 and 2.2 a float32 is at most 1.2e-7 off, and each side rounds about three times.
    np.testing.assert_allclose(found, theirs, rtol=0, atol=5e-7)
