"""Qwen2.5-VL's vision tower: whom a patch sees, and what that costs."""

import jax
import numpy as np
import pytest

from configs.sizes import SIZES
from umit_jax.model.config import ConfigError, ModelConfig
from umit_jax.model.families import host_numbers
from umit_jax.model.param import abstract_params, bind
from umit_jax.model.vision_2_5 import window_segments

TINY = ModelConfig.from_dict(SIZES["qwen2.5-tiny"])


@pytest.mark.parametrize("window", [2, 4, 8])
def test_patches_share_a_segment_where_they_share_a_window_of_a_frame(window):
    grids = [(1, 10, 6), (2, 4, 22), (1, 2, 2)]
    patches = [
        (frame, h, w)
        for frame, (height, width) in enumerate(((h, w) for t, h, w in grids for _ in range(t)), start=1)
        for h in range(height)
        for w in range(width)
    ]
    segments = np.array([[frame for frame, *_ in patches] + [0, 0]], np.int32)
    hw = np.array([[place for _, *place in patches] + [[0, 0], [3, 1]]], np.int32)
    found = np.asarray(window_segments(segments, hw, window))[0]
    wanted = [(frame, h // window, w // window) for frame, h, w in patches]
    same = np.array([[a == b for b in wanted] for a in wanted])
    np.testing.assert_array_equal(found[:-2, None] == found[None, :-2], same)
    assert (found[:-2] > 0).all()
    assert (found[-2:] == 0).all()


def test_segments_stay_apart_at_their_limits():
    hw = np.array([[[511 * 8, 511 * 8], [511 * 8, 510 * 8], [0, 0]]], np.int32)
    found = np.asarray(window_segments(np.array([[8190, 8190, 8191]], np.int32), hw, 8))[0]
    assert (np.diff(found) != 0).all()
    assert (found > 0).all()


def test_the_program_does_not_grow_with_the_layers():
    def size(layers: int) -> int:
        config = ModelConfig.from_dict(SIZES["qwen2.5-tiny"], {"vision.layers": layers, "vision.full_layers": (1, 7)})
        pixels = jax.ShapeDtypeStruct((1, 64, config.vision.patch_values), np.float32)
        where, segments = jax.ShapeDtypeStruct((1, 64, 2), np.int32), jax.ShapeDtypeStruct((1, 64), np.int32)

        def tower(params, pixels, where, segments):
            vision = bind(config, params).vision
            return vision(pixels, where, segments, remat="full", implementation="blockwise").sum()

        program = jax.make_jaxpr(jax.grad(tower))(abstract_params(config), pixels, where, segments)
        return str(program).count("=")

    assert size(32) == size(3)


def test_the_host_learns_the_windows_and_the_speed_of_time():
    shared = {"boxes": "resized", "patch_size": 14, "temporal": 2, "merge": 2}
    assert host_numbers(TINY) == {**shared, "window": 4, "tokens_per_second": 2}
    published = ModelConfig.from_dict(SIZES["qwen2.5-7b"], {"vision.tokens_per_second": 4, "vision.patch_size": 16})
    wanted = {"window": 6, "tokens_per_second": 4, "patch_size": 16}  # three merged patches of 32 pixels in 112
    assert host_numbers(published) == {**shared, **wanted}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"out_hidden_size": 32}, "vision_config.out_hidden_size: expected 64, found 32"),
        ({"hidden_act": "gelu"}, "vision_config.hidden_act: expected silu, found 'gelu'"),
        ({"window_size": None}, "vision_config.window_size: expected a value, found None"),
        ({"window_size": 20}, "vision.window_size: expected at least 28 pixels, found 20"),
        ({"rope_parameters": {"rope_theta": 5.0}}, "vision_config.rope_parameters.rope_theta: expected 10000.0"),
    ],
)
def test_a_tower_that_is_not_built_is_refused(change, message):
    hf = TINY.to_hf()
    with pytest.raises(ConfigError, match=message):
        ModelConfig.from_hf(hf | {"vision_config": hf["vision_config"] | change})
