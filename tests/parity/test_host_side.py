"""What the host prepares equals what transformers prepares: positions, patches, their order, their places."""

import io
import itertools

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch")
pytest.importorskip("transformers")

import oracle

from data_pipelines.example import build_example
from data_pipelines.image import Processing
from data_pipelines.record import MEDIA_TOKEN, Media, Record, Turn
from data_pipelines.tokenizer import train_sentencepiece
from umit_jax.model import families
from umit_jax.model.config import ModelConfig
from umit_jax.targets import text_target

# what is shown, in order: (h, w) an image, (t, h, w) a volume
CASES = {"images": [(84, 140), (56, 28)], "image and volume": [(112, 84), (5, 84, 56)], "volume": [(8, 56, 112)]}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return train_sentencepiece(["Yes. and ?"] * 20, tmp_path_factory.mktemp("tokenizer"), 330)


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def make_record(shown: list[np.ndarray]) -> Record:
    media = tuple(
        Media(tuple(map(png, frames)), kind, "CT", (frames.shape[2], frames.shape[1], *depth))
        for frames in shown
        for kind, depth in [("image", ()) if len(frames) == 1 else ("volume", (len(frames),))]
    )
    turns = (Turn("user", f"{MEDIA_TOKEN} and ".join([""] * len(media)) + f"{MEDIA_TOKEN}?"), Turn("assistant", "Yes."))
    fields = {"patient_id": "p", "task": "vqa", "language": "en", "topic": "t", "license": "l", "source": "s"}
    return Record(
        "r", "d", "train", media=media, turns=turns, target=text_target("Yes."), label_kind="synthetic", **fields
    )


def parts_of(vision_S: np.ndarray, sizes: list) -> list:
    """The parts of a sample with vision tokens at these places: lengths of text between the images, whose sizes are
    given."""
    sizes, parts = iter(sizes), []
    for vision, run in itertools.groupby(vision_S.tolist()):
        parts.append(next(sizes) if vision else len(list(run)))
    # the oracle puts <|vision_start|> and <|vision_end|> around an image by itself
    text = [i for i, part in enumerate(parts) if isinstance(part, int)]
    for i in text:
        parts[i] -= (i > 0) + (i < len(parts) - 1)
    return parts


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("shape", oracle.SHAPES)
def test_examples_hold_what_transformers_gives_its_model(tokenizer, shape, case):
    model = oracle.torch_model(shape)
    config = ModelConfig.from_hf(model.config.to_dict())
    processing = Processing(28 * 28, 10**6, **families.host_numbers(config))
    rng = np.random.default_rng(0)
    shown = [rng.integers(0, 256, (size[0] if len(size) == 3 else 1, *size[-2:], 3), np.uint8) for size in CASES[case]]
    # an odd number of slices repeats the last one; the oracle is given it
    pairs = [np.concatenate([f, f[-1:]]) if len(f) > 1 and len(f) % 2 else f for f in shown]
    sizes = [f.shape[1:3] if len(f) == 1 else f.shape[:3] for f in pairs]
    example = build_example(make_record(shown), tokenizer, processing)
    vision_S = np.isin(example.tokens_S, [tokenizer.token_id(f"<|{kind}_pad|>") for kind in ("image", "video")])
    sample = oracle.make_sample(model, parts_of(vision_S, sizes), pictures=pairs)
    assert len(example.tokens_S) == len(sample.tokens)
    np.testing.assert_array_equal(example.positions_S3, sample.positions_S3)
    np.testing.assert_array_equal(example.patches_PC, sample.patches_PC)
    np.testing.assert_array_equal(example.patch_hw_P2, sample.hw_P2)
    np.testing.assert_array_equal(example.patch_segments_P, sample.frame_P)
    np.testing.assert_array_equal(vision_S, np.isin(sample.tokens, (oracle.IMAGE, oracle.VIDEO)))
    np.testing.assert_array_equal(example.vision_index_S[vision_S], sample.merged_V)
