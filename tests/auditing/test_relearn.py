import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax

from unlearnkit.auditing import RelearnTime, forget_loss
from unlearnkit.base import Dataset, Task, Variables
from unlearnkit.training import DivergedError

KEY = jax.random.key(3)


def same_example(n):
    x = jnp.tile(jnp.array([1.0, -0.5, 2.0, 0.0, 0.3]), (n, 1))
    return Dataset(x, jnp.zeros(n, jnp.int32))


def descend(w, steps, *, rate=0.01, momentum=0.0):
    """Plain gradient descent in float64 on the one example of `same_example`."""
    x, velocity = np.array([1.0, -0.5, 2.0, 0.0, 0.3]), 0.0
    for _ in range(steps):
        p = softmax(x @ w)
        velocity = momentum * velocity + np.outer(x, p - np.eye(3)[0])
        w = w - rate * velocity
    return -np.log(softmax(x @ w)[0])


@pytest.mark.parametrize(("samples", "momentum"), [(500, 0.0), (256, 0.0), (130, 0.5)])
def test_a_round_is_its_samples_in_steps_of_a_batch(linear, samples, momentum):
    task = Task(same_example(9), same_example(4), same_example(2), same_example(2))
    variables = linear.init(jax.random.key(1))
    w = np.asarray(variables.params["w"], np.float64)
    steps = -(-samples // 128)
    expected = [descend(w, steps * n, momentum=momentum if n == 1 else 0.0) for n in (0, 1)]
    audit = RelearnTime(expected[1] + 1e-4, samples=samples, momentum=momentum)
    audited = audit(KEY, linear, variables, task)
    assert audited.metrics["relearn_time"] == 1
    assert audited.metrics["relearned"] == 1
    np.testing.assert_allclose(audited.curves["forget_loss"], expected, rtol=1e-5)


def test_stops_at_the_first_round_at_the_target(linear):
    task = Task(same_example(9), same_example(4), same_example(2), same_example(2))
    variables = linear.init(jax.random.key(1))
    w = np.asarray(variables.params["w"], np.float64)
    losses = [descend(w, 4 * n) for n in range(9)]
    target = (losses[6] + losses[5]) / 2
    audited = RelearnTime(target)(KEY, linear, variables, task)
    assert audited.metrics["relearn_time"] == 6
    np.testing.assert_allclose(audited.curves["forget_loss"], losses[:7], rtol=1e-4)
    # A loss of the target exactly counts, the tolerance being 1e-5.
    just_above = dataclasses.replace(RelearnTime(losses[6] - 5e-6))
    assert just_above(KEY, linear, variables, task).metrics["relearn_time"] == 6


def test_what_is_known_before_a_round_counts_none_where_it_is_checked(linear):
    task = Task(same_example(9), same_example(4), same_example(2), same_example(2))
    variables = linear.init(jax.random.key(1))
    w = np.asarray(variables.params["w"], np.float64)
    known = descend(w, 0) + 1e-3
    counts = []
    for check_first in (False, True):
        audited = RelearnTime(known, check_first=check_first)(KEY, linear, variables, task)
        counts.append(audited.metrics["relearn_time"])
        assert audited.metrics["relearned"] == 1
        assert len(audited.curves["forget_loss"]) == 1 + counts[-1]
    assert counts == [1, 0]
    # What is not known yet takes as many rounds either way.
    target = (descend(w, 8) + descend(w, 12)) / 2
    later = RelearnTime(target, check_first=True)(KEY, linear, variables, task).metrics
    assert later["relearn_time"] == 3


@pytest.mark.parametrize("centre", ["zero", "start"])
def test_relearning_is_pulled_to_the_centre_of_the_decay(linear, centre):
    task = Task(same_example(9), same_example(4), same_example(2), same_example(2))
    variables = linear.init(jax.random.key(1))
    begin = np.asarray(variables.params["w"], np.float64)
    w, x = begin, np.array([1.0, -0.5, 2.0, 0.0, 0.3])
    for _ in range(4):
        p = softmax(x @ w)
        pull = w - (begin if centre == "start" else 0.0)
        w = w - 0.1 * (np.outer(x, p - np.eye(3)[0]) + 0.5 * pull)
    audit = RelearnTime(0.0, learning_rate=0.1, weight_decay=0.5, decay_toward=centre, cap=1)
    found = audit(KEY, linear, variables, task).curves["forget_loss"]
    np.testing.assert_allclose(found[1], -np.log(softmax(x @ w)[0]), rtol=1e-5)


def test_a_round_draws_from_retain_and_forget(linear):
    """Their inputs are orthogonal: only draws of the forget set move its loss, half of all."""
    forget = same_example(64)
    retain = Dataset(jnp.tile(jnp.eye(5)[3], (64, 1)), jnp.ones(64, jnp.int32))
    task = Task(retain, forget, forget, forget)
    variables = linear.init(jax.random.key(1))
    w = np.asarray(variables.params["w"], np.float64)
    audit = RelearnTime(0.0, samples=4096, batch_size=4096, learning_rate=0.1, cap=1)
    found = audit(KEY, linear, variables, task).curves["forget_loss"]
    assert found[0] == pytest.approx(descend(w, 0), rel=1e-5)
    low, high = (descend(w, 1, rate=0.1 * share) for share in (0.54, 0.46))
    assert low < found[1] < high


def test_an_unreachable_target_ends_at_the_cap(mlp, original, task):
    metrics = RelearnTime(0.0, cap=3)(KEY, mlp, original, task).metrics
    assert metrics["relearn_time"] == 3
    assert metrics["relearned"] == 0


def test_what_knows_the_forget_set_relearns_sooner(mlp, original, task):
    target = forget_loss(mlp, original, task)
    times = [
        RelearnTime(target, learning_rate=0.05)(KEY, mlp, variables, task).metrics["relearn_time"]
        for variables in (original, mlp.init(jax.random.key(8)))
    ]
    assert times[0] < times[1]


def test_the_weights_that_are_judged_stay(mlp, original, task):
    before = jax.tree.map(np.array, original)
    RelearnTime(0.1, cap=2)(KEY, mlp, original, task)
    for one, other in zip(jax.tree.leaves(before), jax.tree.leaves(original), strict=True):
        np.testing.assert_array_equal(one, other)


def test_divergence_is_told(linear):
    task = Task(same_example(9), same_example(4), same_example(2), same_example(2))
    variables = Variables({"w": jnp.full((5, 3), 1.0)})
    with pytest.raises(DivergedError, match="relearning diverged in round 1"):
        RelearnTime(0.0, learning_rate=3e38)(KEY, linear, variables, task)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"target_loss": float("nan")}, "target_loss must be finite"),
        ({"target_loss": -1.0}, "target_loss must be finite and >= 0"),
        ({"target_loss": 1.0, "tolerance": -1e-5}, "tolerance must be >= 0"),
        ({"target_loss": 1.0, "cap": 0}, "cap must be >= 1"),
        ({"target_loss": 1.0, "samples": 100}, "batch_size=128 is larger than the data"),
    ],
)
def test_nonsense_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        RelearnTime(**wrong)
