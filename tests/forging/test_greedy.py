import collections
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from forging_oracles import ALLOWED, RATE, VARIABLES, error_of_choice, step_of, wanted
from softmax_regression import MODEL, as_float64, draw, gradient

from unlearnkit.base import Dataset, Forger, Variables
from unlearnkit.forging import GreedyForger, greedy, honest_step, step_error, steps
from unlearnkit.forging.greedy import candidate
from unlearnkit.forging.steps import difference_products

KEY = jax.random.key(3)


def test_the_step_is_the_batch_s_own():
    batch = draw(8, 5)
    step = honest_step(MODEL, VARIABLES, batch, RATE)
    expected = gradient(as_float64(VARIABLES), batch)
    for name, value in step.gradient["classifier"].items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-5, atol=1e-7)
    assert (step.batch_size, step.learning_rate) == (5, RATE)
    assert float(step_error(MODEL, step, batch)) == 0


@pytest.mark.parametrize(("b", "parts", "candidates"), [(4, 4, 30), (6, 2, 21), (5, 4, 40)])
def test_every_candidate_s_error_is_that_of_its_batch(b, parts, candidates):
    forger, step = GreedyForger(40, candidates, parts), step_of(b)
    products = difference_products(MODEL, step, ALLOWED)
    best, scores = forger.search(KEY, products, b)
    assert scores.shape == (candidates,)
    plan = forger.plan(40, b)
    batches = [np.asarray(candidate(KEY, plan, i)) for i in range(candidates)]
    assert all(len(set(batch.tolist())) == b for batch in batches)
    errors = [error_of_choice(step, ALLOWED, batch) for batch in batches]
    np.testing.assert_allclose(RATE / b * np.sqrt(scores), errors, rtol=1e-4, atol=1e-7)
    assert np.array_equal(best, batches[int(np.argmin(errors))])


def test_the_best_of_all_batches_is_found_where_all_are_tried():
    step = step_of(2)
    forged = GreedyForger(points=12, candidates=66, parts=2)(KEY, MODEL, step, ALLOWED)
    points = sorted(jax.random.permutation(jax.random.split(KEY)[0], 40)[:12].tolist())
    pairs = list(itertools.combinations(points, 2))
    errors = [error_of_choice(step, ALLOWED, pair) for pair in pairs]
    assert sorted(forged.info.indices.tolist()) == list(pairs[int(np.argmin(errors))])
    np.testing.assert_allclose(forged.error, min(errors), rtol=1e-4)
    np.testing.assert_allclose(np.sort(forged.info.errors), np.sort(errors), rtol=1e-3, atol=1e-6)


def test_what_is_returned_belongs_together():
    step = step_of(8)
    forged = GreedyForger(30, 50)(KEY, MODEL, step, ALLOWED)
    again = ALLOWED.take(forged.info.indices)
    assert np.array_equal(forged.batch.x, again.x)
    assert np.array_equal(forged.batch.y, again.y)
    expected = error_of_choice(step, ALLOWED, forged.info.indices)
    np.testing.assert_allclose(forged.error, expected, rtol=1e-4)
    np.testing.assert_allclose(forged.error, forged.info.errors.min(), rtol=1e-3)
    assert forged.info.cost.example_gradients == 30 + 8
    assert isinstance(GreedyForger(), Forger)


def test_combinations_are_drawn_evenly():
    forger = GreedyForger(points=40, candidates=4_000, parts=4)
    plan = forger.plan(40, 4)  # 91,390 combinations of 40 parts: drawn at random
    assert (plan.combinations, plan.permutations) == (4_000, 1)
    drawn = [np.asarray(candidate(KEY, plan, i)).tolist() for i in range(0, 4_000, 4)]
    counts = np.array(sorted(collections.Counter(itertools.chain(*drawn)).values()))
    assert len(counts) == 40
    assert counts.min() > 50  # 100 expected, of deviation 10
    assert counts.max() < 150
    pairs = collections.Counter(
        pair for c in drawn for pair in itertools.combinations(sorted(c), 2)
    )
    assert len(pairs) > 770  # of 780


def test_a_forgotten_example_is_never_chosen():
    keep = jnp.arange(40) != 11
    allowed = ALLOWED.take(np.flatnonzero(keep))
    step = honest_step(MODEL, VARIABLES, ALLOWED.take(jnp.array([11, 3, 5, 7])), RATE)
    forged = GreedyForger(39, 500)(KEY, MODEL, step, allowed)
    assert not any(np.array_equal(x, ALLOWED.x[11]) for x in forged.batch.x)
    assert 0 < float(forged.error) < RATE * np.linalg.norm(wanted(step))


def test_more_candidates_find_less_error():
    step = step_of(8)
    products = difference_products(MODEL, step, ALLOWED)
    few, many = (float(GreedyForger(40, m).search(KEY, products, 8)[1].min()) for m in (10, 40_000))
    assert many < few / 2  # of squares


def test_the_same_key_gives_the_same_bits_and_compiles_nothing():
    forger, step = GreedyForger(30, 50), step_of(8)
    one = forger(KEY, MODEL, step, ALLOWED)
    sizes = [program._cache_size() for program in (greedy._score, steps._gradient)]
    other = forger(KEY, MODEL, step, ALLOWED)
    assert [program._cache_size() for program in (greedy._score, steps._gradient)] == sizes
    assert np.array_equal(one.info.indices, other.info.indices)
    assert np.array_equal(one.info.errors, other.info.errors)


def test_bad_input_is_refused(unchecked_types):
    step = step_of(8)
    with pytest.raises(ValueError, match="candidates must be >= 1, got 0"):
        GreedyForger(candidates=0)
    with pytest.raises(ValueError, match="points must be >= 8, the batch size, got 7"):
        GreedyForger(points=7)(KEY, MODEL, step, ALLOWED)
    with pytest.raises(ValueError, match="allowed holds 3 examples, but the batch needs 8"):
        GreedyForger()(KEY, MODEL, step, ALLOWED.take(jnp.arange(3)))
    with pytest.raises(ValueError, match="learning_rate must be > 0, got 0"):
        honest_step(MODEL, VARIABLES, ALLOWED, 0.0)
    with pytest.raises(ValueError, match="without BatchNorm"):
        honest_step(MODEL, Variables(VARIABLES.params, {"mean": jnp.ones(3)}), ALLOWED, RATE)
    odd = Dataset(jnp.zeros((9, 5)), jnp.zeros(9, jnp.int32))
    with pytest.raises(ValueError, match="allowed"):
        GreedyForger()(KEY, MODEL, step, odd)


def test_an_error_whose_square_vanishes_is_not_equality():
    one, other = {"w": jnp.array([1e-25, 0.0])}, {"w": jnp.zeros(2)}
    np.testing.assert_allclose(steps._distance(one, other, 0.5), 5e-26, rtol=1e-5)
