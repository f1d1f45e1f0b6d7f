import jax
import jax.numpy as jnp
import numpy as np
import pytest
from forging_oracles import ALLOWED, RATE, VARIABLES, error_of, step_of
from softmax_regression import MODEL, draw

from unlearnkit.base import Dataset, Normalisation, SoftDataset
from unlearnkit.forging import NoiseForger, OptimiseForger, Step, spoof_trajectory
from unlearnkit.forging import descent as descent_module

KEY = jax.random.key(3)
NORMALISATION = Normalisation("test", (0.5,), (0.25,))


def pictures(n=30):
    """Examples of the model's shape, [4] pixels on the grid, normalised."""
    levels = jax.random.randint(jax.random.key(9), (n, 4), 0, 256)
    x = NORMALISATION.apply(levels / 255)
    return Dataset(x, jnp.arange(n, dtype=jnp.int32) % 3, NORMALISATION)


def algorithm_1(step, x, y, iterations, rate):
    """Algorithm 1 of the paper, in float64, its gradient by central differences."""
    point = np.concatenate([np.ravel(x), np.ravel(y)]).astype(np.float64)
    m, v, errors = np.zeros_like(point), np.zeros_like(point), []

    def error(p):
        return error_of(step, p[: x.size].reshape(x.shape), p[x.size :].reshape(y.shape))

    for t in range(1, iterations + 1):
        errors.append(error(point))
        g, h = np.zeros_like(point), 1e-6
        for i in range(point.size):
            e = h * np.eye(point.size)[i]
            g[i] = (error(point + e) - error(point - e)) / (2 * h)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        point -= rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return errors


def test_it_is_algorithm_1():
    step = step_of(3)
    forger = OptimiseForger(iterations=6, learning_rate=0.05, start="allowed")
    chosen = ALLOWED.take(jax.random.permutation(KEY, 40)[:3])
    expected = algorithm_1(step, np.asarray(chosen.x), np.eye(3)[np.asarray(chosen.y)], 6, 0.05)
    found = forger(KEY, MODEL, step, ALLOWED)
    np.testing.assert_allclose(found.info.errors, expected, rtol=2e-3)
    np.testing.assert_allclose(found.error, min(expected), rtol=2e-3)


@pytest.mark.parametrize("domain", ["free", "range", "grid"])
@pytest.mark.parametrize("start", ["noise", "allowed"])
def test_the_best_point_met_is_returned_and_within_its_domain(domain, start):
    step, allowed = step_of(6), pictures()
    forger = OptimiseForger(60, learning_rate=0.05, domain=domain, start=start)
    forged = forger(KEY, MODEL, step, allowed)
    assert float(forged.error) < float(forged.info.errors[0]) / 2
    np.testing.assert_allclose(forged.error, forged.info.errors.min(), rtol=1e-2, atol=1e-7)
    batch = forged.batch
    assert batch.normalisation == NORMALISATION
    assert batch.x.shape == (6, 4)
    if domain == "free":
        assert isinstance(batch, SoftDataset)
        expected = error_of(step, batch.x, batch.y)
    else:
        assert batch.y.dtype == jnp.int32
        expected = error_of(step, batch.x, np.eye(3)[np.asarray(batch.y)])
        levels = np.asarray(NORMALISATION.invert(batch.x), np.float64) * 255
        assert levels.min() > -1e-3
        assert levels.max() < 255 + 1e-3
        on_grid = np.abs(levels - np.round(levels)).max() < 1e-3
        assert on_grid == (domain == "grid")
    np.testing.assert_allclose(forged.error, expected, rtol=1e-3, atol=1e-7)


def test_steps_below_the_grid_add_up():
    step, allowed = step_of(6), pictures()
    forged = OptimiseForger(200, 1e-3, domain="grid", start="allowed")(KEY, MODEL, step, allowed)
    assert float(forged.error) < 0.99 * float(forged.info.errors[0])


def test_what_is_met_exactly_stays_finite():
    """At an error of 0 the norm has no derivative."""
    step = step_of(6)
    own = draw(8, 6)
    forged = OptimiseForger(3, 1e-3, start="allowed")(KEY, MODEL, step, own)
    assert np.all(np.isfinite(forged.info.errors))


def test_the_noise_is_what_lies_between_the_batch_and_allowed_examples():
    step = step_of(6)
    forged = NoiseForger(200, penalty=0.0)(KEY, MODEL, step, ALLOWED)
    base = ALLOWED.take(jax.random.permutation(KEY, 40)[:6])
    assert np.array_equal(forged.batch.y, base.y)
    noise = np.linalg.norm(np.asarray(forged.batch.x - base.x))
    np.testing.assert_allclose(forged.info.noise, noise, rtol=1e-4)
    labels = np.eye(3)[np.asarray(base.y)]
    np.testing.assert_allclose(
        forged.info.errors[0], error_of(step, base.x, labels), rtol=1e-4, atol=1e-7
    )
    np.testing.assert_allclose(
        forged.error, error_of(step, forged.batch.x, labels), rtol=1e-3, atol=1e-7
    )
    assert float(forged.error) < float(forged.info.errors[0]) / 2


def test_a_penalty_keeps_the_noise_small():
    step = step_of(6)
    sizes = [
        float(NoiseForger(100, penalty=p)(KEY, MODEL, step, ALLOWED).info.noise)
        for p in (0.0, 0.02, 1e3)
    ]
    assert sizes[0] > sizes[1] > sizes[2] == 0


def test_the_penalised_error_is_descended():
    step = step_of(6)
    info = NoiseForger(40, penalty=0.01)(KEY, MODEL, step, ALLOWED).info
    forged = NoiseForger(40, penalty=0.01)(KEY, MODEL, step, ALLOWED)
    best = float(forged.error) + 0.01 * float(forged.info.noise)
    np.testing.assert_allclose(info.errors.min(), best, rtol=1e-3)


def test_a_spoofed_log_leads_from_start_to_end():
    end = VARIABLES._replace(params=jax.tree.map(lambda w: w + 0.3, VARIABLES.params))
    seen: list[Step] = []

    def forger(key, model, step, allowed):
        seen.append(step)
        return OptimiseForger(2)(key, model, step, allowed)

    options = {"steps": 4, "batch_size": 5, "learning_rate": RATE}
    forged = spoof_trajectory(KEY, MODEL, VARIABLES, end, ALLOWED, forger=forger, **options)
    assert len(forged) == 4
    places = [step.variables.params["classifier"]["bias"] for step in seen]
    last = seen[-1]
    arrives = places[-1] - RATE * last.gradient["classifier"]["bias"]
    places.append(arrives)
    for t, place in enumerate(places):
        expected = VARIABLES.params["classifier"]["bias"] + 0.3 * t / 4
        np.testing.assert_allclose(place, expected, rtol=1e-5)
    assert {step.batch_size for step in seen} == {5}


def test_a_second_call_compiles_nothing():
    forger = OptimiseForger(3)
    forger(KEY, MODEL, step_of(6), ALLOWED)
    size = descent_module.adam._cache_size()
    forger(KEY, MODEL, step_of(6, seed=9), ALLOWED)
    assert descent_module.adam._cache_size() == size


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OptimiseForger(iterations=0), "iterations must be >= 1, got 0"),
        (lambda: OptimiseForger(learning_rate=0.0), "learning_rate must be > 0, got 0"),
        (lambda: OptimiseForger(domain="all"), "domain must be one of free, range, grid"),
        (lambda: OptimiseForger(start="here"), "start must be one of noise, allowed"),
        (lambda: NoiseForger(penalty=-1.0), "penalty must be >= 0"),
        (lambda: NoiseForger(learning_rate=float("nan")), "learning_rate must be > 0"),
    ],
)
def test_bad_arguments_are_refused(unchecked_types, make, message):
    with pytest.raises(ValueError, match=message):
        make()
