"""Every registered audit through the same cases; a new one joins with one line in AUDIT."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unlearnkit import auditing, models
from unlearnkit.auditing import (
    EntropySvm,
    Lira,
    MembershipInference,
    OptmlScores,
    PopulationAttack,
    QuantileAttack,
    RelearnTime,
    ThresholdAttack,
)
from unlearnkit.base import Audit, Audited, Variables
from unlearnkit.models import from_functions
from unlearnkit.training import DivergedError, Recipe, fit, fit_many

KEY = jax.random.key(2)
RECIPE = Recipe(epochs=80, batch_size=32, learning_rate=0.05)

AUDIT = {
    "membership_inference": MembershipInference(),
    "threshold": ThresholdAttack(),
    "population": PopulationAttack(),
    "quantile": QuantileAttack(levels=(0.1, 0.05), components=4, iterations=10),
    "entropy_svm": EntropySvm(),
    "optml": OptmlScores(),
    "lira": Lira(RECIPE, count=4),
    "relearn_time": RelearnTime(0.3, samples=128, batch_size=32, cap=30),
}
KNOWS = {
    "membership_inference": ("auc", 1),
    "threshold": ("member_share", 1),
    "population": ("auc", 1),
    "quantile": ("auc", 1),
    "entropy_svm": ("member_share_forget", 1),
    "optml": ("optml_mia_efficacy", -1),
    "lira": ("auc", 1),
    "relearn_time": ("relearn_time", -1),
}
"""By which metric the original network gives itself away, and in which direction."""
IGNORES_THE_KEY = {"threshold", "population", "quantile", "optml"}


@pytest.fixture(scope="module")
def mlp():
    return models.create("mlp", input_shape=(6,), n_classes=3, hidden=(64,))


@pytest.fixture(scope="module")
def original(mlp, task):
    """It has learned every label by heart."""
    return fit(jax.random.key(0), mlp, task.train, RECIPE).variables


@pytest.fixture(params=list(auditing.AUDITS))
def name(request):
    return request.param


@pytest.fixture(scope="module")
def results():
    """Each audit of the original runs once for the tests that only look."""
    return {}


@pytest.fixture
def audited(name, mlp, original, task, results):
    if name not in results:
        results[name] = AUDIT[name](KEY, mlp, original, task)
    return results[name]


def test_every_registered_audit_is_in_the_matrix():
    assert set(AUDIT) == set(auditing.AUDITS)
    for name, audit in AUDIT.items():
        assert type(audit) is auditing.AUDITS[name]
        assert isinstance(audit, Audit)


def test_measures_without_touching_the_network(name, mlp, original, task):
    before = jax.tree.map(np.array, original)
    audited = AUDIT[name](KEY, mlp, original, task)
    assert isinstance(audited, Audited)
    for one, other in zip(jax.tree.leaves(before), jax.tree.leaves(original), strict=True):
        np.testing.assert_array_equal(one, other)
    assert audited.metrics
    for metric, value in audited.metrics.items():
        assert type(value) is float, metric
        assert np.isfinite(value), metric
    for curve in audited.curves.values():
        assert np.all(np.isfinite(curve))


SEEDS = 10


@pytest.fixture(scope="module")
def networks(mlp, task):
    """[seeds] networks that were trained on the forget set, and [seeds] that were not."""
    rows = np.arange(task.train.size)
    return [
        fit_many(
            jax.random.split(jax.random.key(key), SEEDS), mlp, task.train, RECIPE,
            subsets=np.tile(rows[:size], (SEEDS, 1)),
        ).variables
        for key, size in ((10, len(rows)), (11, task.retain.size))
    ]  # fmt: skip


def tells_apart(audit, metric, direction, mlp, networks, task):
    """Returns whether originals are beyond retrained networks by two standard errors."""

    def measured(many, seed):
        one = jax.tree.map(lambda leaf: leaf[seed], many)
        metrics = audit(jax.random.key(20 + seed), mlp, one, task).metrics
        if metric == "member_share_forget":  # what it calls members moves from machine to machine
            return metrics[metric] - metrics["member_share_test"]
        return metrics[metric]

    originals, retrained = (
        np.array([measured(many, seed) for seed in range(SEEDS)]) for many in networks
    )
    differences = direction * (originals - retrained)
    return differences.mean() > 2 * differences.std(ddof=1) / np.sqrt(SEEDS)


def test_tells_them_apart_by_more_than_two_standard_errors(name, mlp, networks, task):
    assert tells_apart(AUDIT[name], *KNOWS[name], mlp, networks, task)


def test_an_audit_that_does_not_look_tells_nothing_apart(mlp, networks, task):
    def constant(key, model, variables, task):
        return Audited({"auc": 0.7}, {})

    def chance(key, model, variables, task):
        return Audited({"auc": float(jax.random.uniform(key))}, {})

    for audit in (constant, chance):
        assert not tells_apart(audit, "auc", 1, mlp, networks, task)


def test_rates_have_intervals_around_them(audited):
    metrics = audited.metrics
    for metric in metrics:
        if metric.endswith("_low"):
            base = metric.removesuffix("_low")
            assert metrics[metric] <= metrics[base] <= metrics[f"{base}_high"]
    if "auc" in metrics:
        assert metrics["auc_max"] == max(metrics["auc"], 1 - metrics["auc"])
        assert metrics["auc_se"] > 0
        for target in ("0.01", "0.001"):
            assert f"tpr_at_fpr_{target}" in metrics


def test_the_key_decides_everything(name, mlp, original, task, audited):
    one = audited.metrics
    same, other = (
        AUDIT[name](jax.random.key(seed), mlp, original, task).metrics for seed in (2, 3)
    )
    assert one == same
    if name not in IGNORES_THE_KEY | {"relearn_time", "entropy_svm"}:
        assert one != other


def test_no_key_is_used_twice(name, mlp, original, task):
    with jax.debug_key_reuse(True):
        AUDIT[name](jax.random.key(5), mlp, original, task)


def test_is_a_value_that_prints_and_hashes(name):
    audit = AUDIT[name]
    assert type(audit).__name__ in repr(audit)
    assert hash(audit) == hash(AUDIT[name])
    required = {"target_loss": 1.0} if name == "relearn_time" else {}
    assert auditing.create(name, **required) == type(audit)(**required)


def test_a_network_that_diverged_is_refused(name, task, original):
    model = from_functions(
        lambda key: {"w": jnp.ones((6, 3))},
        lambda params, x: x @ params["w"] * jnp.nan,
        input_shape=(6,),
    )
    with pytest.raises((ValueError, DivergedError), match="finite|diverged|NaN"):
        AUDIT[name](KEY, model, model.init(KEY), task)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda t: t._replace(forget=t.forget.take(np.arange(0))), "forget"),
        (lambda t: t._replace(test=t.test.take(np.arange(0))), "test"),
        (
            lambda t: t._replace(test=t.test._replace(x=t.test.x.at[1, 2].set(np.nan))),
            "x of test must be finite",
        ),
        (
            lambda t: t._replace(forget=t.forget._replace(y=t.forget.y.at[0].set(7))),
            "labels of forget must be < 3",
        ),
    ],
)
def test_bad_tasks_are_refused(name, mlp, original, task, damage, message, unchecked_types):
    with pytest.raises(ValueError, match=message):
        AUDIT[name](KEY, mlp, original, damage(task))


def test_weights_of_another_network_are_refused(name, mlp, task):
    with pytest.raises(ValueError, match="variables do not fit the model"):
        AUDIT[name](KEY, mlp, Variables({"other": jnp.zeros(3)}), task)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="unknown audit 'lyra'; known: membership_inference"):
        auditing.create("lyra")
