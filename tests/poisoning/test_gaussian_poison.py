"""Gaussian poisons: what was drawn, what was kept, and where it went."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from unlearnkit.poisoning import Bounds, Budget, GaussianPoison, perturbation

KEY = jax.random.key(0)


def test_the_noise_is_what_was_added_and_is_normal(problems):
    problem = problems["any"]
    poisoned = GaussianPoison(Budget(1.0), noise_std=0.5)(KEY, *problem)
    extras = poisoned.info.extras
    np.testing.assert_array_equal(extras["base_x"], problem.clean.x)
    np.testing.assert_array_equal(extras["base_x"] + extras["noise"], poisoned.dataset.x)
    np.testing.assert_allclose(perturbation(poisoned, problem.clean), extras["noise"], atol=1e-6)
    draws = np.asarray(extras["noise"], np.float64).ravel()
    assert stats.kstest(draws / 0.5, "norm").pvalue > 1e-3
    assert extras["noise_std"] == 0.5
    # Of one example as of another, of one entry as of another.
    flat = np.asarray(extras["noise"]).reshape(60, -1)
    assert abs(np.corrcoef(flat)[np.triu_indices(60, 1)]).max() < 0.9


def test_the_rows_and_the_noise_are_drawn_apart(problems):
    problem = problems["any"]
    one, other = (GaussianPoison(Budget(0.2))(jax.random.key(k), *problem).info for k in (1, 2))
    assert not np.array_equal(one.base, other.base)
    assert not np.array_equal(one.extras["noise"], other.extras["noise"])


def test_in_place_or_beside_the_clean_example(problems):
    problem = problems["any"]
    attack = GaussianPoison(Budget(0.2))
    inside = attack(KEY, *problem)
    beside = dataclasses.replace(attack, placement="add")(KEY, *problem)
    assert inside.dataset.size == 60
    assert beside.dataset.size == 72
    poisons = inside.dataset.x[inside.info.base]
    np.testing.assert_array_equal(beside.dataset.x[60:], poisons)
    np.testing.assert_array_equal(beside.dataset.y[60:], problem.clean.y[beside.info.base])


def test_bounds_clip_the_poison_and_not_the_noise(problems):
    problem = problems["any"]
    attack = GaussianPoison(Budget(0.2), noise_std=2.0)
    free = attack(KEY, *problem)
    boxed = dataclasses.replace(attack, bounds=Bounds())(KEY, *problem)
    np.testing.assert_array_equal(free.info.extras["noise"], boxed.info.extras["noise"])
    want = jnp.clip(free.dataset.x[free.is_poison], 0, 1)
    np.testing.assert_array_equal(boxed.dataset.x[boxed.is_poison], want)


@pytest.mark.parametrize("noise_std", [0.0, -1.0, float("inf"), float("nan")])
def test_refuses_a_spread_that_is_none(noise_std):
    with pytest.raises(ValueError, match="noise_std must be finite and > 0"):
        GaussianPoison(noise_std=noise_std)
