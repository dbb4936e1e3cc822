import numpy as np
import pytest
from scipy.stats import norm

from umit_jax.eval.bootstrap import interval, mean


def test_interval_of_a_mean_over_independent_patients_is_the_normal_one():
    values = np.random.default_rng(0).normal(size=400)
    low, high = interval(mean(values), range(400), resamples=4000)
    half = norm.ppf(0.975) * values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.01)


def test_samples_of_one_patient_are_drawn_together():
    values = np.repeat([0.0, 1.0] * 10, 20)  # 20 patients of 20 equal samples: 20 observations, not 400
    by_patient = interval(mean(values), np.repeat(np.arange(20), 20).tolist())
    by_sample = interval(mean(values), range(400))
    assert by_patient[1] - by_patient[0] > 3 * (by_sample[1] - by_sample[0])


def test_interval_is_the_same_every_time_and_holds_the_value():
    values = np.random.default_rng(1).random(50)
    first = interval(mean(values), range(50))
    assert first == interval(mean(values), range(50))
    assert first[0] < values.mean() < first[1]


def test_one_patient_has_no_interval():
    assert interval(mean([0.0, 1.0]), ["p", "p"]) is None


def test_unused_samples_weigh_nothing():
    statistic = mean([1.0, 5.0, 3.0], [True, False, True])
    assert statistic.point == 2
    assert statistic.count == 2


def test_clusters_of_another_length_are_refused():
    with pytest.raises(ValueError, match="clusters: expected one per sample"):
        interval(mean([0.0, 1.0]), ["p"])
