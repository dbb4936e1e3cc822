import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.positions import mrope_positions

IMAGE, VIDEO = 1, 2
images = st.tuples(st.just(IMAGE), st.tuples(st.just(1), st.integers(1, 6), st.integers(1, 6)))
videos = st.tuples(st.just(VIDEO), st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(1, 4)))
samples = st.lists(st.tuples(st.integers(1, 9), st.one_of(images, videos)), max_size=4)


@pytest.fixture(scope="module")
def reference():
    torch = pytest.importorskip("torch")
    modeling = pytest.importorskip("transformers.models.qwen2_vl.modeling_qwen2_vl")

    class Model:
        config = modeling.Qwen2VLConfig()
        get_vision_position_ids = modeling.Qwen2VLModel.get_vision_position_ids

    def positions(kinds, grids):
        def grid_tensor(kind):
            chosen = [grid for k, grid in grids if k == kind]
            return torch.tensor(chosen) if chosen else None

        types = torch.tensor([kinds])
        out, _ = modeling.Qwen2VLModel.get_rope_index(
            Model(), torch.zeros_like(types), types, grid_tensor(IMAGE), grid_tensor(VIDEO)
        )
        return out[:, 0].T.numpy()

    return positions


@settings(max_examples=150, deadline=None)
@given(samples, st.integers(1, 9))
def test_positions_are_those_of_the_reference(reference, sample, tail):
    kinds, spans, grids = [], [], []
    for text, (kind, (t, rows, columns)) in sample:
        kinds += [0] * text
        grids.append((kind, (t, 2 * rows, 2 * columns)))
        spans.append((len(kinds), grids[-1][1]))
        kinds += [kind] * (t * rows * columns)
    kinds += [0] * tail
    np.testing.assert_array_equal(mrope_positions(len(kinds), spans), reference(kinds, grids))


def test_text_counts_up_on_all_axes():
    np.testing.assert_array_equal(mrope_positions(3, []), [[0, 0, 0], [1, 1, 1], [2, 2, 2]])


def test_text_after_an_image_goes_on_at_its_longer_side():
    positions = mrope_positions(9, [(1, (1, 4, 6))])
    assert positions[1].tolist() == [1, 1, 1]
    assert positions[6].tolist() == [1, 2, 3]
    assert positions[7].tolist() == [4, 4, 4]
