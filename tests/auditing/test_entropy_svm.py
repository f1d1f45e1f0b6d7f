import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unlearnkit.auditing import EntropySvm
from unlearnkit.base import Dataset, Task
from unlearnkit.models import from_functions

KEY = jax.random.key(0)
IDENTITY = from_functions(lambda key: {}, lambda params, x: x, input_shape=(3,))


def sure(n, seed=0):
    x = jnp.array([8.0, 0.0, 0.0]) + 0.1 * jax.random.normal(jax.random.key(seed), (n, 3))
    return Dataset(x, jnp.zeros(n, jnp.int32))


def unsure(n, seed=1):
    x = 0.1 * jax.random.normal(jax.random.key(seed), (n, 3))
    return Dataset(x, jnp.zeros(n, jnp.int32))


def shares(task, **options):
    return EntropySvm(**options)(KEY, IDENTITY, IDENTITY.init(KEY), task).metrics


def test_members_are_reported_as_members():
    task = Task(retain=sure(60), forget=sure(20, 5), validation=unsure(5), test=unsure(50))
    metrics = shares(task)
    assert metrics["member_share_forget"] == 1.0
    assert metrics["member_share_test"] == 0.0
    assert metrics["fit_accuracy"] == 1.0
    forgotten = shares(task._replace(forget=unsure(20, 5)))
    assert forgotten["member_share_forget"] == 0.0
    assert forgotten["member_share_forget_high"] == pytest.approx(1 - 0.025 ** (1 / 20))


def test_a_large_retain_set_does_not_decide_alone():
    x = jax.random.normal(jax.random.key(3), (1300, 3))
    whole = Dataset(x, jnp.zeros(1300, jnp.int32))
    task = Task(
        *(whole.take(np.arange(a, b)) for a, b in ((0, 1100), (1100, 1150), (0, 1), (1150, 1300)))
    )
    assert 0.2 < shares(task)["member_share_forget"] < 0.8
    assert shares(task, balanced=False)["member_share_forget"] > 0.95


def test_the_spread_over_subsamples_is_told():
    """Sets that are used whole have none; the mean over the subsamples is what is reported."""
    x = jax.random.normal(jax.random.key(3), (400, 3))
    whole = Dataset(x, jnp.zeros(400, jnp.int32))
    task = Task(
        *(whole.take(np.arange(a, b)) for a, b in ((0, 250), (250, 340), (0, 1), (340, 400)))
    )
    metrics = shares(task)
    assert metrics["member_share_forget_split_std"] > 0
    counts = metrics["member_share_forget"] * 90 * 5
    assert counts == pytest.approx(round(counts), abs=1e-6)
    assert metrics["member_share_forget_low"] < metrics["member_share_forget"]
    assert metrics["member_share_forget"] < metrics["member_share_forget_high"]
    assert shares(task, balanced=False)["member_share_forget_split_std"] == 0.0


def test_the_limit_bounds_what_it_trains_on():
    task = Task(sure(60), sure(20, 5), unsure(5), unsure(50))
    assert shares(task, limit=4)["member_share_forget"] == 1.0


def test_outputs_that_are_not_finite_are_refused():
    model = from_functions(lambda key: {}, lambda params, x: x / 0.0, input_shape=(3,))
    task = Task(sure(6), sure(2), unsure(5), unsure(5))
    with pytest.raises(ValueError, match="outputs on retain must be finite"):
        EntropySvm()(KEY, model, model.init(KEY), task)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"C": 0.0}, "C must be > 0"),
        ({"limit": 0}, "limit must be >= 1"),
        ({"repeats": 1}, "repeats must be >= 2"),
    ],
)
def test_nonsense_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        EntropySvm(**wrong)
