"""Budgets, bounds and placement: what all attacks share."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unlearnkit.base import UNIT, Cost, Dataset, Normalisation, Poisoned
from unlearnkit.data import SYMMETRIC
from unlearnkit.poisoning import Bounds, Budget, PoisonInfo, perturbation
from unlearnkit.poisoning.placing import place

COLOUR = Normalisation("colour", (0.49, 0.48, 0.45), (0.25, 0.24, 0.26))
KEY = jax.random.key(1)


class TestBudget:
    @pytest.mark.parametrize(
        ("epsilon", "n", "m"), [(0.03, 60000, 1800), (1.0, 7, 7), (0.29, 100, 29), (0.1, 19, 1)]
    )
    def test_is_the_floor_of_the_fraction(self, epsilon, n, m):
        assert Budget(epsilon).of(n) == m

    def test_a_count_takes_the_place_of_the_fraction(self):
        assert Budget(count=5).of(60) == 5

    @pytest.mark.parametrize("epsilon", [0.0, -0.1, 1.01, float("nan")])
    def test_refuses_fractions_outside_of_their_range(self, epsilon):
        with pytest.raises(ValueError, match=r"epsilon must be in \(0, 1\]"):
            Budget(epsilon)

    def test_refuses_counts_that_cannot_be(self):
        with pytest.raises(ValueError, match="count must be >= 1"):
            Budget(count=0)
        with pytest.raises(ValueError, match="count must be <= 4"):
            Budget(count=5).of(4)


def images(seed, normalisation, n=5):
    pixels = jax.random.uniform(jax.random.key(seed), (n, 3, 3, 3))
    pixels = pixels.at[0].set(0.0).at[1].set(1.0)
    return normalisation.apply(pixels)


bounds = st.builds(
    Bounds,
    box=st.sampled_from([None, (0.0, 1.0)]),
    radius=st.sampled_from([None, 1e-3, 8 / 255, 0.3, 5.0]),
    norm=st.sampled_from(["linf", "l2"]),
    units=st.just("pixels"),
)


class TestBounds:
    @settings(max_examples=30)
    @given(
        bounds, st.sampled_from([UNIT, SYMMETRIC, COLOUR]), st.integers(0, 99), st.floats(0.01, 9)
    )
    def test_projections_are_within_bounds_to_the_last_bit(self, bound, normalisation, seed, size):
        base = images(seed, normalisation)
        x = base + size * jax.random.normal(jax.random.fold_in(KEY, seed), base.shape)
        region = bound.region(base, normalisation)
        projected = region.project(x)
        assert bool(region.contains(projected).all())
        np.testing.assert_array_equal(region.project(projected), projected)
        assert bool(region.contains(base).all())
        np.testing.assert_array_equal(region.project(base), base)
        # The rules themselves, away from how Region writes them, in double precision.
        network, std = np.asarray(projected, np.float64), np.array(normalisation.std)
        pixels = network * std + np.array(normalisation.mean)
        if bound.box is not None:
            assert pixels.min() > -1e-7
            assert pixels.max() < 1 + 1e-7
        if bound.radius is not None:
            change = ((network - np.asarray(base, np.float64)) * std).reshape(len(base), -1)
            order = np.inf if bound.norm == "linf" else 2
            assert np.linalg.norm(change, order, axis=1).max() <= bound.radius * (1 + 2e-7)

    def test_the_rounded_distance_is_never_more_than_the_radius(self):
        base = images(3, UNIT, n=200)
        region = Bounds(radius=8 / 255).region(base, UNIT)
        for x in (jnp.zeros_like(base), jnp.ones_like(base)):
            assert float(jnp.abs(region.project(x) - base).max()) <= np.float32(8 / 255)

    def test_points_inside_stay_and_points_outside_reach_the_edge(self):
        base = jnp.full((1, 2, 2, 1), 0.5)
        region = Bounds(radius=0.1).region(base, UNIT)
        x = base.at[0, 0, 0, 0].add(0.05).at[0, 1, 1, 0].add(9.0)
        projected = region.project(x)
        assert projected[0, 0, 0, 0] == x[0, 0, 0, 0]
        np.testing.assert_allclose(projected[0, 1, 1, 0], 0.6, rtol=1e-6)
        ball = Bounds(box=None, radius=0.1, norm="l2").region(base, UNIT)
        np.testing.assert_allclose(jnp.linalg.norm(ball.project(x) - base), 0.1, rtol=2e-4)

    @pytest.mark.parametrize("normalisation", [UNIT, SYMMETRIC, COLOUR])
    def test_the_ball_in_pixels_is_reached_under_any_normalisation(self, normalisation):
        """What is far away ends on the ball, in pixels: not inside it, as in network units."""
        base = images(3, normalisation)
        region = Bounds(box=None, radius=0.3, norm="l2").region(base, normalisation)
        x = base + 9 * jax.random.normal(KEY, base.shape)
        moved = np.asarray(region.project(x) - base, np.float64) * np.array(normalisation.std)
        lengths = np.linalg.norm(moved.reshape(len(base), -1), axis=1)
        np.testing.assert_allclose(lengths, 0.3, rtol=2e-4)

    def test_units_of_the_network_are_taken_as_they_are(self):
        base = images(0, SYMMETRIC)
        region = Bounds((-1.0, 1.0), 0.1, units="network").region(base, SYMMETRIC)
        low, high = region.limits()
        np.testing.assert_allclose(low, (base - 0.1).clip(-1), atol=1e-6)
        np.testing.assert_allclose(high, (base + 0.1).clip(max=1), atol=1e-6)
        in_pixels = Bounds((0.0, 1.0), 0.05).region(base, SYMMETRIC)
        np.testing.assert_allclose(in_pixels.limits(), (low, high), atol=1e-6)

    def test_the_derivative_at_the_base_is_finite(self):
        base = images(0, UNIT)
        region = Bounds(radius=0.1, norm="l2").region(base, UNIT)
        gradient = jax.grad(lambda x: region.project(x).sum())(base)
        assert np.all(np.isfinite(gradient))

    def test_a_white_that_another_program_rounded_up_is_in_the_box(self):
        white = SYMMETRIC.apply(jnp.ones((2, 3, 3, 1)))
        brighter = jnp.nextafter(white, jnp.inf)
        region = Bounds().region(brighter, SYMMETRIC)
        np.testing.assert_array_equal(region.project(brighter), brighter)
        np.testing.assert_array_equal(region.project(2 * brighter), brighter)
        with pytest.raises(ValueError, match="bounds exclude the base image in row 0"):
            Bounds().region(white + 1e-5, SYMMETRIC)

    def test_refuses_bases_outside_of_the_box(self):
        with pytest.raises(ValueError, match="bounds exclude the base image in row 1"):
            Bounds((0.0, 0.9)).region(images(0, UNIT), UNIT)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"box": (1.0, 0.0)}, "low < high"),
            ({"radius": 0.0}, "radius must be finite and > 0"),
            ({"radius": float("nan")}, "radius must be finite and > 0"),
            ({"norm": "l1"}, "norm must be one of linf, l2"),
            ({"units": "bytes"}, "units must be one of pixels, network"),
        ],
    )
    def test_refuses_what_bounds_nothing(self, arguments, message, unchecked_types):
        with pytest.raises(ValueError, match=message):
            Bounds(**arguments)


def told(base):
    return PoisonInfo(base, Bounds(), {}, Cost(0.0, 0.0))


class TestPlacement:
    clean = Dataset(images(0, UNIT), jnp.arange(5) % 3)

    def test_perturb_wants_a_row_for_each_poison(self):
        x, y = self.clean.x[:2], self.clean.y[:2]
        for base in ([3, 1], [2, 2], [-1, 4]):
            with pytest.raises(ValueError, match="ascending base rows"):
                place(self.clean, x, y, jnp.array(base), "perturb")

    def test_perturbations_are_those_that_were_added(self):
        base = jnp.array([1, 3])
        x = self.clean.x[base] * 0.5
        for placement in ("add", "perturb"):
            dataset, is_poison = place(self.clean, x, self.clean.y[base], base, placement)
            delta = perturbation(Poisoned(dataset, is_poison, told(base)), self.clean)
            np.testing.assert_array_equal(delta, x - self.clean.x[base])

    def test_what_was_made_of_nothing_has_no_perturbation(self):
        dataset, is_poison = place(
            self.clean, self.clean.x[:1], self.clean.y[:1], jnp.array([-1]), "add"
        )
        with pytest.raises(ValueError, match="made of no clean example"):
            perturbation(Poisoned(dataset, is_poison, told(jnp.array([-1]))), self.clean)
