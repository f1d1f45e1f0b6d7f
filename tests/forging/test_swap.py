import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from forging_oracles import ALLOWED, RATE, error_of_choice, step_of
from softmax_regression import MODEL

from unlearnkit.forging import GreedyForger, SwapForger
from unlearnkit.forging.steps import difference_products
from unlearnkit.forging.swap import exchange, relax, scores

KEY = jax.random.key(3)


def products_of(step, n=40):
    return difference_products(MODEL, step, ALLOWED.take(np.arange(n)))


def test_exchanges_end_where_none_helps():
    step = step_of(6)
    starts = jnp.stack([jnp.arange(6), jnp.arange(20, 26)])
    ends, after, swaps = exchange(products_of(step), starts)
    assert np.all(after < scores(products_of(step), starts))
    assert np.all(swaps > 0)
    for end, score in zip(np.asarray(ends), after, strict=True):
        here = error_of_choice(step, ALLOWED, end)
        np.testing.assert_allclose(RATE / 6 * np.sqrt(score), here, rtol=1e-3)
        assert len(set(end.tolist())) == 6
        for place, enters in itertools.product(range(6), set(range(40)) - set(end.tolist())):
            other = end.copy()
            other[place] = enters
            assert error_of_choice(step, ALLOWED, other) > here * (1 - 1e-3)


def test_the_best_of_all_exchanges_is_made():
    step = step_of(6)
    start = jnp.arange(6)
    errors = {
        (place, enters): error_of_choice(step, ALLOWED, start.at[place].set(enters))
        for place, enters in itertools.product(range(6), range(6, 12))
    }
    ends, _, swaps = exchange(products_of(step, 12), start[None])
    best = min(errors, key=lambda swap: errors[swap])
    assert int(swaps[0]) >= 1
    assert best[1] in ends[0].tolist() or int(swaps[0]) > 1
    assert error_of_choice(step, ALLOWED, ends[0]) <= errors[best] * (1 + 1e-4)


def test_exchanges_end_where_the_score_is_all_rounding():
    for seed in range(6):
        summing_to_zero = jax.random.normal(jax.random.key(seed), (8, 43))
        summing_to_zero -= summing_to_zero.mean(0)
        others = jax.random.normal(jax.random.key(seed + 50), (10, 43))
        points = jnp.concatenate([summing_to_zero] * 3 + [others])
        products = points @ points.T
        starts = jnp.stack([jnp.arange(8), jnp.arange(4, 12), jnp.arange(26, 34)])
        before = scores(products, starts)
        ends, after, swaps = exchange(products, starts)
        assert int(swaps[:2].max()) <= 20
        assert int(swaps.max()) <= 100
        assert np.all(after <= before + 1e-4)
        assert np.all([len(set(end)) == 8 for end in ends.tolist()])


def test_the_relaxation_bounds_every_choice():
    step = step_of(4)
    products = products_of(step, 14)
    weights, bound = relax(products, 4, steps=3000)
    dense = np.asarray(products, np.float64)
    w = np.asarray(weights, np.float64)
    assert w.min() > -1e-6
    assert w.max() < 1 + 1e-6
    np.testing.assert_allclose(w.sum(), 4, rtol=1e-5)
    choices = [list(c) for c in itertools.combinations(range(14), 4)]
    least = min(dense[np.ix_(c, c)].sum() for c in choices)
    value = w @ dense @ w
    assert 0 <= float(bound) <= value * (1 + 1e-5)
    assert value < least
    assert value - float(bound) < 0.02 * dense.diagonal().mean()


def test_it_errs_less_than_greedy_search_and_not_less_than_its_bound():
    step = step_of(8)
    greedy = GreedyForger(40, 200)(KEY, MODEL, step, ALLOWED)
    forged = SwapForger(40, 200, restarts=3)(KEY, MODEL, step, ALLOWED)
    info = forged.info
    assert info.starts.shape == info.ends.shape == info.swaps.shape == (4,)
    assert np.all(info.ends <= info.starts * (1 + 1e-5))
    assert float(forged.error) < float(greedy.error) / 2
    assert float(info.bound) <= float(info.ends.min())
    np.testing.assert_allclose(forged.error, info.ends.min(), rtol=1e-2)
    expected = error_of_choice(step, ALLOWED, info.indices)
    np.testing.assert_allclose(forged.error, expected, rtol=1e-3)
    assert np.array_equal(forged.batch.x, ALLOWED.take(info.indices).x)
    assert info.cost.example_gradients == 40 + 8


def test_without_the_relaxation_there_is_no_bound():
    info = SwapForger(40, 50, restarts=2, relaxed=False)(KEY, MODEL, step_of(8), ALLOWED).info
    assert info.ends.shape == (2,)
    assert float(info.bound) == 0


def test_the_same_key_gives_the_same_bits_and_compiles_nothing():
    forger = SwapForger(30, 50, restarts=1, relaxation_steps=20)
    one = forger(KEY, MODEL, step_of(8), ALLOWED)
    sizes = exchange._cache_size(), relax._cache_size()
    other = forger(KEY, MODEL, step_of(8), ALLOWED)
    assert (exchange._cache_size(), relax._cache_size()) == sizes
    assert np.array_equal(one.info.indices, other.info.indices)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="restarts must be >= 1, or 0 with relaxed=True, got 0"):
        SwapForger(restarts=0, relaxed=False)
    with pytest.raises(ValueError, match="points must be >= 1"):
        SwapForger(points=0)
