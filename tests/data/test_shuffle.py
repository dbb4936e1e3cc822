import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines.shuffle import permute


@given(st.integers(1, 3000), st.lists(st.integers(-5, 2**40), min_size=1, max_size=3))
def test_every_number_comes_exactly_once(n, key):
    assert sorted(permute(np.arange(n), n, *key).tolist()) == list(range(n))


@given(st.integers(1, 10**12), st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=5))
def test_any_position_can_be_asked_for_alone(n, places):
    positions = np.array([int(place * n) for place in places])
    together = permute(positions, n, 7)
    assert together.tolist() == [permute(np.array([p]), n, 7)[0] for p in positions]
    assert together.min() >= 0
    assert together.max() < n


def test_order_is_the_same_on_every_machine_and_version():
    assert permute(np.arange(10), 10, 0).tolist() == [1, 5, 0, 2, 9, 3, 7, 6, 8, 4]


@pytest.mark.parametrize("n", [7, 64, 1000])
def test_each_element_lands_everywhere_about_equally_often(n):
    first = np.array([permute(np.array([0, n // 2]), n, seed) for seed in range(4000)])
    for column in first.T:
        counts, _ = np.histogram(column, bins=7, range=(0, n))
        widths = np.histogram(np.arange(n), bins=7, range=(0, n))[0] / n
        assert np.abs(counts / 4000 - widths).max() < 0.03


def test_keys_that_differ_in_any_part_give_other_orders():
    orders = [permute(np.arange(100), 100, *key).tolist() for key in [(0,), (1,), (0, 0), (0, 1), (1, 0)]]
    assert len({tuple(order) for order in orders}) == 5
