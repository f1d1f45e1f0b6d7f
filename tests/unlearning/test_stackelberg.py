"""The game's special cases, its auditing sets, its refusals and its effect."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_game import KEY, MODEL, QUICK, answer, apply, init, make_game, make_task, play

from unlearnkit import models
from unlearnkit.auditing import MembershipInference
from unlearnkit.base import Dataset, Task, Variables
from unlearnkit.kernels import SvmStatus
from unlearnkit.training import DivergedError, Recipe, fit
from unlearnkit.unlearning import AuditorWarning, FineTune, MlpAuditor, StackelbergUnlearn
from unlearnkit.unlearning.stackelberg.auditing_set import draw, make_pool
from unlearnkit.unlearning.stackelberg.game import play_answer


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_without_the_auditor_it_is_fine_tuning(alpha):
    variables = Variables(init(jax.random.key(11)))
    tune = FineTune(epochs=3, batch_size=8, learning_rate=0.05)
    tuned = tune(KEY, MODEL, variables, make_task()).variables
    played = play(alpha=alpha).variables
    gaps = jax.tree.map(lambda a, b: float(jnp.max(jnp.abs(a - b))), tuned, played)
    largest = max(jax.tree.leaves(gaps))
    assert largest < 1e-6 if alpha == 0 else largest > 1e-3


def test_nothing_depends_on_the_chunk_but_the_cost():
    variables = Variables(init(jax.random.key(11)))
    weights = jnp.float32(1.0), jnp.float32(0.5)
    moved, costs = [], []
    for chunk in (1000, 7):
        pool, game = make_game(make_task(), name="logistic", chunk=chunk)
        moved.append(answer(KEY, MODEL, variables, pool, weights, 1.0, game=game)[0])
        costs.append(game.example_gradients)
    for one, other in zip(*(jax.tree.leaves(tree) for tree in moved), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
    assert costs == [26, 26 * 4 / 3]


def test_a_watched_game_costs_a_forward_pass():
    watched, played = (play(alpha=alpha).info.cost.example_gradients for alpha in (0.0, 1.0))
    np.testing.assert_allclose(watched, 3 * (40 + 26 / 3))
    np.testing.assert_allclose(played, 3 * (40 + 26))


@pytest.mark.parametrize(("members", "strangers", "folds"), [(3, 20, 3), (20, 7, 2), (8, 8, 3)])
@pytest.mark.parametrize("seed", range(4))
def test_auditing_sets_are_balanced_and_their_folds_too(members, strangers, folds, seed):
    pool, size, _ = make_pool(
        make_task(members, strangers), folds=folds, same_classes=False, per_class=False
    )
    rows, fold = (np.asarray(a) for a in draw(jax.random.key(seed), pool, size, folds))
    quota = min(members, strangers)
    assert size == len(rows) == 2 * quota
    assert len(set(rows)) == size
    is_member = rows < members
    assert is_member.sum() == quota
    for group in (is_member, ~is_member):
        counts = np.bincount(fold[group], minlength=folds)
        assert counts.max() - counts.min() <= 1


def test_every_class_is_balanced_of_its_own():
    task = make_task(30, 45)
    pool, size, _ = make_pool(task, folds=2, same_classes=False, per_class=True)
    rows, fold = (np.asarray(a) for a in draw(KEY, pool, size, 2))
    y, is_member = np.asarray(pool.dataset.y)[rows], rows < 30
    for label in range(3):
        counts = [np.bincount(fold[(y == label) & group]) for group in (is_member, ~is_member)]
        np.testing.assert_array_equal(*counts)
        quota = min(int((part.y == label).sum()) for part in (task.forget, task.validation))
        assert counts[0].sum() == quota


def test_auditing_sets_are_drawn_anew():
    pool, size, _ = make_pool(make_task(13, 40), folds=3, same_classes=False, per_class=False)
    sets = [draw(jax.random.key(seed), pool, size, 3) for seed in range(2)]
    assert set(np.asarray(sets[0][0])) != set(np.asarray(sets[1][0]))
    again = draw(jax.random.key(0), pool, size, 3)
    np.testing.assert_array_equal(again[0], sets[0][0])
    np.testing.assert_array_equal(again[1], sets[0][1])


def class_task(*, in_validation=True):
    task = make_task(30, 60)
    forget = task.forget.take(np.flatnonzero(np.asarray(task.forget.y) == 1))
    other = np.asarray(task.validation.y) != 1
    kept = np.arange(60) if in_validation else np.flatnonzero(other)
    return task._replace(forget=forget, validation=task.validation.take(kept))


def test_non_members_are_of_the_forgotten_class_or_of_all():
    task = class_task()
    same, *_ = make_pool(task, folds=3, same_classes=True, per_class=False)
    everyone, *_ = make_pool(task, folds=3, same_classes=False, per_class=False)
    assert set(np.asarray(same.dataset.y)) == {1}
    assert set(np.asarray(everyone.dataset.y)) == {0, 1, 2}


@pytest.mark.parametrize("options", [{"same_classes": True}, {"per_class": True}])
def test_a_forgotten_class_without_held_out_examples_is_refused(options):
    method = StackelbergUnlearn(epochs=1, batch_size=8, **options)
    with pytest.raises(ValueError, match=r"got \d+ and 0.*choose .*same_classes=False"):
        method(KEY, MODEL, Variables(init(KEY)), class_task(in_validation=False))


@pytest.mark.parametrize(("sizes", "found"), [((2, 20), "got 2 and 20"), ((20, 2), "got 20 and 2")])
def test_sets_smaller_than_the_folds_are_refused(sizes, found):
    method = StackelbergUnlearn(epochs=1, batch_size=8, folds=3)
    with pytest.raises(ValueError, match=f"3 folds need at least 3 members.*{found}"):
        method(KEY, MODEL, Variables(init(KEY)), make_task(*sizes))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": -0.1}, "alpha must be finite and >= 0, got -0.1"),
        ({"alpha": float("inf")}, "alpha must be finite and >= 0, got inf"),
        ({"l1": -1.0}, "l1 must be finite and >= 0"),
        ({"forget_weight": float("nan")}, "forget_weight must be finite and >= 0, got nan"),
        ({"clip_norm": 0.0}, "clip_norm must be > 0, got 0"),
        ({"auditor": "svm"}, "unknown auditor 'svm'; known: hinge, squared_hinge, logistic, mlp"),
        ({"feature": "los"}, "unknown feature 'los'; known: loss"),
        ({"gradient": "both"}, "unknown gradient 'both'; known: total, implicit, direct"),
        ({"answer": "adam"}, "unknown answer 'adam'; known: step, optimizer"),
        ({"base": "forget"}, "unknown base 'forget'; known: retain, random_label"),
        ({"auditor": "quantile", "feature": "logits"}, "needs a score, got the vectors 'logits'"),
        ({"folds": 1}, "folds must be >= 2, got 1"),
        ({"chunk": 0}, "chunk must be >= 1, got 0"),
        ({"learning_rate": 0.0}, "learning_rate must be > 0"),
    ],
)
def test_bad_settings_are_refused(options, message, unchecked_types):
    with pytest.raises(ValueError, match=message):
        StackelbergUnlearn(**options)


def test_constant_outputs_are_recorded_and_warned_about():
    # Zero kernels give one output for all, and their gradients are zero but for the last bias.
    dead = Variables(jax.tree.map(jnp.zeros_like, init(KEY)))
    with pytest.warns(AuditorWarning, match="degenerate in 3 of 3 epochs .*constant_features"):
        info = play(variables=dead, auditor="logistic", feature="logits").info
    assert np.all(info.history["auditor_status"] == SvmStatus.CONSTANT_FEATURES)


def test_an_auditor_that_ran_away_is_warned_about():
    with pytest.warns(AuditorWarning, match="degenerate in 3 of 3 epochs .*not_converged"):
        info = play(auditor=MlpAuditor(steps=3, learning_rate=1e4), alpha=1e-9).info
    assert np.all(info.history["auditor_converged"] < 1)


def test_steps_that_are_not_finite_are_refused():
    told = "diverged in epoch [12].*alpha=1e\\+38.*units of earlier versions.*both by 0.5"
    with pytest.raises(DivergedError, match=told):
        play(alpha=1e38, learning_rate=10.0)


def test_watching_the_game_changes_nothing():
    variables = Variables(init(jax.random.key(11)))
    *_, last = (
        jax.tree.map(np.array, played.variables)
        for played in QUICK.play(KEY, MODEL, variables, make_task())
    )
    called = play()
    jax.tree.map(np.testing.assert_array_equal, last, called.variables)
    assert called.info.history["auditor_utility"].shape == (3,)


def test_another_alpha_or_rate_compiles_nothing():
    play()
    before = play_answer._cache_size()
    play(alpha=2.0, learning_rate=0.01, momentum=0.5)
    assert play_answer._cache_size() == before


def norm1(variables):
    return sum(float(jnp.sum(jnp.abs(leaf))) for leaf in jax.tree.leaves(variables))


def test_the_l1_term_shrinks_the_weights():
    assert norm1(play(l1=0.1).variables) < 0.9 * norm1(play().variables)


def test_the_forget_term_lowers_the_utility_on_the_forget_set():
    task, losses = make_task(), []
    for weight in (0.0, 1.0):
        logits = apply(play(alpha=0.0, forget_weight=weight).variables.params, task.forget.x)
        log_p = jax.nn.log_softmax(logits)
        losses.append(-float(jnp.mean(log_p[jnp.arange(task.forget.size), task.forget.y])))
    assert losses[1] > losses[0] + 0.05


@pytest.fixture(scope="module")
def overfit():
    """A network that has learned noisy labels by heart."""

    def noisy(seed, n):
        x_key, flip_key, label_key = jax.random.split(jax.random.key(seed), 3)
        x = jax.random.normal(x_key, (n, 6, 6, 1))
        clean = jnp.argmax(x[:, :3, :3].reshape(n, 3, 3).mean(-1), axis=-1)
        noise = jax.random.randint(label_key, (n,), 0, 3)
        y = jnp.where(jax.random.bernoulli(flip_key, 0.3, (n,)), noise, clean)
        return Dataset(x, y.astype(jnp.int32))

    task = Task(noisy(1, 240), noisy(2, 100), noisy(3, 100), noisy(4, 400))
    model = models.create("mlp", input_shape=(6, 6, 1), n_classes=3, hidden=(64,))
    recipe = Recipe(epochs=60, batch_size=20, learning_rate=0.05)
    return model, fit(jax.random.key(0), model, task.train, recipe).variables, task


@pytest.mark.parametrize("name", ["hinge", "mlp"])
def test_the_attack_fares_worse_than_after_fine_tuning(overfit, name):
    model, variables, task = overfit
    shared = {"epochs": 10, "batch_size": 20, "learning_rate": 0.01}
    attack = MembershipInference("loss", "logistic", folds=5)

    def accuracy(method):
        unlearned = method(KEY, model, variables, task).variables
        return attack(jax.random.key(1), model, unlearned, task).metrics["accuracy"]

    tuned = accuracy(FineTune(**shared))
    played = accuracy(StackelbergUnlearn(**shared, alpha=24.0, auditor=name))
    assert tuned > 0.65
    assert played < tuned - 0.1
