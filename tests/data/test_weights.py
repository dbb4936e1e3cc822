import pytest

from data_pipelines.weights import WeightError, mixture_weights


def test_temperature_one_leaves_weights_alone():
    assert mixture_weights([100, 7], [0.5, 3.0]) == [0.5, 3.0]


def test_temperature_two_takes_square_roots_of_the_shares():
    """10,000 and 100 samples: shares 100 and 10 of 110, of 10,100 samples in all."""
    weights = mixture_weights([10_000, 100], [1, 1], temperature=2)
    assert weights == pytest.approx([10_100 * 100 / 110 / 10_000, 10_100 * 10 / 110 / 100])


def test_high_temperature_gives_equal_shares():
    weights = mixture_weights([1000, 10], [1, 1], temperature=1e9)
    assert [w * n for w, n in zip(weights, [1000, 10], strict=True)] == pytest.approx([505, 505])


def test_a_cap_bounds_the_samples_of_an_epoch_and_nothing_else():
    assert mixture_weights([1000, 10], [1, 2], caps=[300, 0]) == pytest.approx([0.3, 2])
    assert mixture_weights([1000, 10], [0.1, 2], caps=[300, 0]) == pytest.approx([0.1, 2])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"weights": [0, 1]}, "weight: expected a positive number, found 0"),
        ({"weights": [float("nan"), 1]}, "weight: expected a positive number, found nan"),
        ({"weights": [1, 1], "temperature": 0}, "temperature: expected a positive number, found 0"),
        ({"weights": [1, 1], "caps": [-1, 0]}, "cap: expected a number of samples"),
    ],
)
def test_nonsense_names_the_setting(arguments, said):
    with pytest.raises(WeightError, match=said):
        mixture_weights([5, 5], **arguments)
