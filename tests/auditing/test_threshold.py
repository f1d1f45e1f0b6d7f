import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from unlearnkit.auditing import PopulationAttack, QuantileAttack, ThresholdAttack, p_values
from unlearnkit.auditing.threshold import best_threshold, membership_scores
from unlearnkit.base import Dataset, Task
from unlearnkit.kernels import MEMBER_SIGNS
from unlearnkit.models import from_functions

KEY = jax.random.key(0)
IDENTITY = from_functions(lambda key: {}, lambda params, x: x, input_shape=(3,))
NOTHING = IDENTITY.init(KEY)


def normal_margins(seed, n, shift, spread=1.0, labels=3):
    """Examples whose margin z_y - logsumexp of the others is normal, as the network is identity."""
    x_key, y_key = jax.random.split(jax.random.key(seed))
    y = jax.random.randint(y_key, (n,), 0, labels).astype(jnp.int32)
    margin = shift + spread * jax.random.normal(x_key, (n,))
    return Dataset(jnp.log(2.0) * jax.nn.one_hot(y, 3) + margin[:, None] * jax.nn.one_hot(y, 3), y)


def normal_task(n=2000, gap=1.0):
    shifts = (gap, gap, 0.0, 0.0)
    return Task(*(normal_margins(seed, n, shift) for seed, shift in enumerate(shifts)))


@pytest.mark.parametrize("feature", list(MEMBER_SIGNS))
def test_sure_and_right_scores_higher_than_sure_and_wrong(feature):
    data = Dataset(jnp.array([[9.0, 0, 0], [0.1, 0, 0], [9.0, 0, 0]]), jnp.array([0, 0, 1]))
    right, unsure, wrong = membership_scores(feature, IDENTITY, NOTHING, data)
    assert right > unsure
    if feature != "entropy":  # it does not see the label
        assert unsure > wrong


@given(st.integers(0, 10_000))
def test_no_threshold_is_better(seed):
    generator = np.random.default_rng(seed)
    members, others = (generator.integers(0, 6, generator.integers(1, 9)) + 0.0 for _ in range(2))
    quality = lambda t: np.mean(members > t) + np.mean(others <= t)  # noqa: E731
    best = quality(best_threshold(members, others))
    assert best == pytest.approx(max(quality(t) for t in np.arange(-1, 7, 0.5)))


@pytest.mark.parametrize("per_class", [False, True])
@pytest.mark.parametrize("feature", ["loss", "confidence", "margin"])
def test_the_calibrated_threshold_does_what_theory_allows(feature, per_class):
    metrics = ThresholdAttack(feature, per_class)(KEY, IDENTITY, NOTHING, normal_task()).metrics
    # N(1, 1) against N(0, 1): the best threshold is 1/2, and Φ(1/2) are on its right side.
    half = stats.norm.cdf(0.5)
    assert metrics["accuracy"] == pytest.approx(half, abs=0.03)
    assert metrics["member_share"] == pytest.approx(half, abs=0.06)
    assert metrics["false_positive_rate"] == pytest.approx(1 - half, abs=0.06)
    assert metrics["member_share_low"] < metrics["member_share"] < metrics["member_share_high"]
    assert metrics["auc"] == pytest.approx(stats.norm.cdf(np.sqrt(0.5)), abs=0.04)


def test_the_threshold_does_not_see_what_is_reported():
    task = normal_task(200)
    attack = ThresholdAttack("margin")
    alone = attack(KEY, IDENTITY, NOTHING, task).metrics["member_share"]
    other = task._replace(test=normal_margins(9, 200, 5.0))
    assert attack(KEY, IDENTITY, NOTHING, other).metrics["member_share"] == alone


def test_a_threshold_a_class_sees_classes_apart():
    """Class 0 lies 10 higher than the others: one threshold for all misses it."""

    def shifted(data):
        lift = 10.0 * (data.y == 0)[:, None] * jax.nn.one_hot(data.y, 3)
        return data._replace(x=data.x + lift)

    task = Task(*map(shifted, normal_task(1500, gap=2.0)))
    one, each = (
        ThresholdAttack("margin", per)(KEY, IDENTITY, NOTHING, task).metrics["accuracy"]
        for per in (False, True)
    )
    assert each == pytest.approx(stats.norm.cdf(1.0), abs=0.03)
    assert one < each - 0.03


def without_class(data, label):
    return data.take(np.flatnonzero(np.asarray(data.y) != label))


def only_class(data, label):
    return data.take(np.flatnonzero(np.asarray(data.y) == label))


@pytest.mark.parametrize("in_test", [True, False])
def test_class_wise_forgetting(in_test):
    """Retain lacks the class; the held-out data keeps it or not, by the two conventions."""
    task = normal_task(300)
    task = task._replace(retain=without_class(task.retain, 1), forget=only_class(task.forget, 1))
    if not in_test:
        held_out = {name: without_class(getattr(task, name), 1) for name in ("validation", "test")}
        task = task._replace(**held_out)
    for attack in (ThresholdAttack(), PopulationAttack(), QuantileAttack()):
        metrics = attack(KEY, IDENTITY, NOTHING, task).metrics
        assert all(np.isfinite(value) for value in metrics.values())
    with pytest.raises(ValueError, match="class 1 of the forget set has no threshold: retain hol"):
        ThresholdAttack(per_class=True)(KEY, IDENTITY, NOTHING, task)
    population = PopulationAttack(per_class=True)
    if in_test:
        assert population(KEY, IDENTITY, NOTHING, task).metrics["auc"] > 0.5
    else:
        with pytest.raises(ValueError, match="class 1 of the forget set has no population"):
            population(KEY, IDENTITY, NOTHING, task)


@given(st.integers(0, 1000), st.integers(1, 20))
def test_p_values_count_the_population(seed, k):
    generator = np.random.default_rng(seed)
    scores, population = generator.integers(0, 5, 7) + 0.0, generator.integers(0, 5, k) + 0.0
    expected = [(1 + np.sum(population >= score)) / (1 + k) for score in scores]
    np.testing.assert_allclose(p_values(scores, population), expected)


@pytest.mark.parametrize("per_class", [False, True])
def test_p_values_of_what_was_not_trained_on_are_uniform(per_class):
    task = normal_task(3000)
    audited = PopulationAttack("margin", per_class)(KEY, IDENTITY, NOTHING, task)
    # Both samples vary: the statistic is that of two samples of this size.
    uniform = np.linspace(0, 1, 3000)
    assert stats.ks_2samp(audited.curves["p_test"], uniform).pvalue > 0.01
    assert stats.ks_2samp(audited.curves["p_forget"], uniform).pvalue < 1e-6
    for level in (0.1, 0.01):
        metrics = audited.metrics
        assert metrics[f"fpr_at_level_{level:g}"] == pytest.approx(level, abs=0.02)
        power = stats.norm.sf(stats.norm.isf(level) - 1)
        assert metrics[f"tpr_at_level_{level:g}"] == pytest.approx(power, abs=0.05)


def test_levels_below_what_the_population_can_tell_call_nobody():
    task = normal_task(100)
    metrics = PopulationAttack(levels=(0.009,))(KEY, IDENTITY, NOTHING, task).metrics
    assert metrics["tpr_at_level_0.009"] == 0.0


def spread_by_class(params, x):
    """A margin of x_1 plus noise of spread ⅕ or 2, by x_2; the noise is a hash of x_0.

    The attacker sees x, as he does, but no regression finds the hash.
    """
    noise = jax.scipy.special.ndtri(jnp.clip(1000 * x[:, 0] % 1.0, 1e-4, 1 - 1e-4))
    margin = x[:, 1] + jnp.where(x[:, 2] > 0.5, 2.0, 0.2) * noise
    return (jnp.log(2.0) + margin)[:, None] * jax.nn.one_hot(x[:, 2].astype(int), 3)


def test_quantiles_follow_the_example():
    """The spread of the margin depends on the class: one threshold cannot hold both levels."""
    model = from_functions(lambda key: {}, spread_by_class, input_shape=(3,))

    def part(seed, gap):
        loud = jnp.arange(3000) % 2
        columns = (jax.random.uniform(jax.random.key(seed), (3000,)), jnp.full(3000, gap), loud)
        return Dataset(jnp.stack(columns, axis=1), loud.astype(jnp.int32))

    task = Task(part(0, 0.6), part(1, 0.6), part(2, 0.0), part(3, 0.0))
    attack = QuantileAttack(components=2)
    quantile = attack(KEY, model, model.init(KEY), task).metrics
    for_all = PopulationAttack("margin")(KEY, model, model.init(KEY), task).metrics
    for level in (0.1, 0.01):
        assert quantile[f"fpr_at_level_{level:g}"] == pytest.approx(level, abs=0.03)
    # 0.6 is three standard deviations of the quiet half: half of its power is ½ Φ(3 - 2.33).
    assert quantile["tpr_at_level_0.01"] > 0.3
    assert for_all["tpr_at_level_0.01"] < 0.1


@pytest.mark.parametrize("attack", [ThresholdAttack(), PopulationAttack(), QuantileAttack()])
def test_outputs_that_are_not_finite_are_refused(attack):
    model = from_functions(lambda key: {}, lambda params, x: x + jnp.nan, input_shape=(3,))
    with pytest.raises(ValueError, match="must be finite, got nan at index 0"):
        attack(KEY, model, model.init(KEY), normal_task(200))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ThresholdAttack("los"), "unknown feature 'los'; known: loss"),
        (lambda: PopulationAttack("los"), "unknown feature 'los'; known: loss"),
        (lambda: PopulationAttack(levels=()), "levels must be in"),
        (lambda: QuantileAttack("los"), "unknown feature 'los'; known: loss"),
        (lambda: QuantileAttack(levels=(1.0,)), "levels must be in"),
        (lambda: QuantileAttack(components=0), "components and iterations must be >= 1"),
    ],
)
def test_nonsense_is_refused(build, message, unchecked_types):
    with pytest.raises(ValueError, match=message):
        build()


def test_too_few_validation_examples_for_a_level_are_refused():
    with pytest.raises(ValueError, match="level 0.01 needs at least 100 validation examples"):
        QuantileAttack()(KEY, IDENTITY, NOTHING, normal_task(99))


def test_of_equally_good_thresholds_the_one_with_the_fewest_members_is_taken():
    assert best_threshold(np.array([1.0, 3.0]), np.array([0.0, 2.0])) == 2.5
