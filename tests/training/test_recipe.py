"""The learning rate of every step, against closed forms."""

import numpy as np
import pytest

from unlearnkit.training import Recipe, learning_rate_schedule

STEPS = 4  # per epoch


def rates(**options):
    recipe = Recipe(epochs=10, learning_rate=0.4, **options)
    schedule = learning_rate_schedule(recipe, STEPS)
    return np.array([float(schedule(step)) for step in range(10 * STEPS)])


@pytest.mark.parametrize("warmup", [0.0, 0.5, 2.0])
def test_warm_up_is_linear_from_zero_and_then_the_rate_is_the_peak(warmup):
    step = np.arange(10 * STEPS)
    ramp = step / (warmup * STEPS) if warmup else np.ones(len(step))
    np.testing.assert_allclose(rates(warmup_epochs=warmup), 0.4 * np.minimum(1, ramp), rtol=1e-6)


@pytest.mark.parametrize("warmup", [0.0, 2.0])
def test_a_cosine_falls_from_the_peak_after_the_warm_up_to_zero_at_the_end(warmup):
    found, start = rates(warmup_epochs=warmup, schedule="cosine"), int(warmup * STEPS)
    share = (np.arange(start, 10 * STEPS) - start) / (10 * STEPS - start)
    np.testing.assert_allclose(
        found[start:], 0.2 * (1 + np.cos(np.pi * share)), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(found[:start], 0.4 * np.arange(start) / max(start, 1), rtol=1e-6)


@pytest.mark.parametrize("warmup", [0.0, 1.0, 2.0])
def test_milestones_count_epochs_from_the_start_of_the_run_warm_up_or_not(warmup):
    found = rates(warmup_epochs=warmup, schedule="step", milestones=(2, 5), step_factor=0.5)
    step = np.arange(10 * STEPS)
    expected = np.where(step < 2 * STEPS, 0.4, np.where(step < 5 * STEPS, 0.2, 0.1))
    start = int(warmup * STEPS)
    np.testing.assert_allclose(found[start:], expected[start:], rtol=1e-6)
    np.testing.assert_allclose(found[:start], 0.4 * step[:start] / max(start, 1), rtol=1e-6)


def test_a_warm_up_longer_than_the_run_never_gets_past_its_peak():
    """It takes the whole run instead of the epochs asked for."""
    np.testing.assert_allclose(rates(warmup_epochs=99.0), 0.4 * np.arange(40) / 40, rtol=1e-6)
