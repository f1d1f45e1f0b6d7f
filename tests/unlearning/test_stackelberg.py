"""The game's gradient against differences, its special cases, and its effect."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from unlearnkit import models
from unlearnkit.auditing import MembershipInference
from unlearnkit.base import Dataset, Model, Task, Variables
from unlearnkit.kernels import SvmStatus
from unlearnkit.training import DivergedError, Recipe, fit
from unlearnkit.unlearning import (
    AUDITORS,
    AuditorWarning,
    FineTune,
    MlpAuditor,
    StackelbergUnlearn,
)
from unlearnkit.unlearning._auditing_set import Pool, draw, make_pool
from unlearnkit.unlearning._stackelberg_game import (
    Game,
    answer_auditor,
    audit_fold,
    auditor_cost,
    play_epoch,
)

KEY = jax.random.key(7)


def init(key):
    first, second = jax.random.split(key)
    return {
        "hidden": {"kernel": 0.6 * jax.random.normal(first, (4, 5)), "bias": jnp.zeros(5)},
        "logits": {"kernel": 0.6 * jax.random.normal(second, (5, 3)), "bias": jnp.zeros(3)},
    }


def apply(params, x):
    hidden = jnp.tanh(x @ params["hidden"]["kernel"] + params["hidden"]["bias"])
    return hidden @ params["logits"]["kernel"] + params["logits"]["bias"]


answer = jax.jit(answer_auditor, static_argnames=("model", "game"))
cost_of = jax.jit(auditor_cost, static_argnames=("model", "game"))
MODEL = Model.from_functions(init, apply, input_shape=(4,))


def examples(seed, n):
    x_key, y_key = jax.random.split(jax.random.key(seed))
    return Dataset(jax.random.normal(x_key, (n, 4)), jax.random.randint(y_key, (n,), 0, 3))


def make_task(n_forget=13, n_validation=17, n_retain=40):
    return Task(
        examples(1, n_retain), examples(2, n_forget), examples(3, n_validation), examples(4, 20)
    )


def make_game(task, *, name="hinge", feature="logits", path="total", **options):
    chosen = {"folds": 3, "same_classes": False, "per_class": False}
    pool, size = make_pool(task, **(chosen | {k: options[k] for k in options if k in chosen}))
    chunk = options.get("chunk", 1000)
    game = Game(
        AUDITORS[name], feature, path, options.get("folds", 3), size, chunk,
        n_strata=pool.quotas.shape[0] // 2, moves=True,
    )  # fmt: skip
    return pool, game


def feature_for(name):
    return "margin" if name == "quantile" else "logits"


@pytest.fixture(scope="module", autouse=True)
def quick_compilation():
    """These tests compile much and compute little."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def wide(tree):
    def one(leaf):
        return leaf.astype(jnp.float64) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    return jax.tree.map(one, tree)


@pytest.mark.parametrize(
    ("name", "options"),
    [*((name, {}) for name in AUDITORS), ("logistic", {"per_class": True})],
    ids=lambda value: "per_class" if value == {"per_class": True} else str(value),
)
def test_the_total_gradient_is_that_of_central_differences(name, options, x64):
    task = make_task()
    pool, game = make_game(task, name=name, feature=feature_for(name), folds=2, **options)
    pool = pool._replace(dataset=wide(pool.dataset))
    flat, unravel = ravel_pytree(wide(init(jax.random.key(11))))
    weights = jnp.asarray(1.5), jnp.asarray(0.25)

    @jax.jit
    def value_and_slope(flat):
        def cost(flat):
            network = Variables(unravel(flat))
            return auditor_cost(KEY, MODEL, network, pool, weights, game=game)[0]

        return jax.value_and_grad(cost)(flat)

    _, gradient = value_and_slope(flat)
    for seed in range(3):
        way = jax.random.normal(jax.random.key(seed), flat.shape)
        ahead, behind = (value_and_slope(flat + step * way)[0] for step in (1e-6, -1e-6))
        np.testing.assert_allclose(gradient @ way, (ahead - behind) / 2e-6, rtol=2e-4, atol=1e-6)


def fold_evidence(d):
    rng = np.random.default_rng(0)
    labels = jnp.asarray(np.where(np.arange(20) % 2 == 0, 1.0, -1.0))
    features = jnp.asarray(rng.normal(size=(20, d)) + 0.4 * labels[:, None])
    return features, labels, jnp.asarray((np.arange(20) < 12).astype(float))


@pytest.mark.parametrize("name", list(AUDITORS))
def test_the_two_paths_sum_to_the_total(name, x64):
    features, labels, train = fold_evidence(1 if name == "quantile" else 2)
    gradients = {}
    for path in ("total", "implicit", "direct"):

        def utility(features, labels, train, held_out, path=path):
            return audit_fold(AUDITORS[name], path, KEY, features, labels, train, held_out).utility

        gradients[path] = jax.jit(jax.grad(utility))(features, labels, train, 1 - train)
        assert np.linalg.norm(gradients[path]) > 1e-3
    both = gradients["implicit"] + gradients["direct"]
    np.testing.assert_allclose(both, gradients["total"], rtol=1e-7, atol=1e-9)


def test_the_direct_path_is_that_of_an_auditor_who_does_not_respond(x64):
    features, labels, train = fold_evidence(2)

    def utility(features, path):
        auditor = AUDITORS["logistic"]
        return audit_fold(auditor, path, KEY, features, labels, train, 1 - train).utility

    direct = jax.grad(utility)(features, "direct")
    implicit = jax.grad(utility)(features, "implicit")
    assert np.all(direct[:12] == 0)
    assert np.all(direct[12:] != 0)
    assert np.all(implicit[12:] == 0)
    assert np.all(implicit[:12] != 0)


def test_the_step_descends_the_cost():
    pool, game = make_game(make_task(), name="logistic")
    variables = Variables(init(jax.random.key(11)))
    weights = jnp.float32(2.0), jnp.float32(0.0)
    moved, before = answer(KEY, MODEL, variables, pool, weights, 0.05, game=game)
    after = cost_of(KEY, MODEL, moved, pool, weights, game=game)[1]
    assert after["auditor_utility"] < before["auditor_utility"] - 1e-4


def test_utility_is_the_held_out_loss_of_classifiers_trained_apart(x64):
    """One fold after another with the public kernel, written apart from the game."""
    from sklearn.linear_model import LogisticRegression

    task = make_task()
    pool, game = make_game(task, name="logistic")
    variables = Variables(init(jax.random.key(11)))
    weights = jnp.float32(1.0), jnp.float32(0.0)
    _, metrics = cost_of(KEY, MODEL, variables, pool, weights, game=game)
    draw_key, _ = jax.random.split(KEY)
    rows, folds = (np.asarray(a) for a in draw(draw_key, pool, game.size, 3))
    x = np.asarray(apply(variables.params, pool.dataset.x[rows]), np.float64)
    y = np.where(rows < task.forget.size, 1, -1)
    losses, right = np.empty(len(y)), np.empty(len(y))
    for fold in range(3):
        out = folds == fold
        centre, scale = x[~out].mean(0), x[~out].std(0)
        model = LogisticRegression(C=1.0, tol=1e-10, max_iter=5000)
        model.fit((x[~out] - centre) / scale, y[~out])
        margins = y[out] * model.decision_function((x[out] - centre) / scale)
        losses[out], right[out] = np.logaddexp(0, -margins), margins > 0
    np.testing.assert_allclose(metrics["auditor_utility"], -losses.mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["auditor_accuracy"], right.mean(), rtol=1e-6)


@pytest.mark.parametrize("alpha_is_zero", [True, False])
def test_without_the_auditor_it_is_fine_tuning(alpha_is_zero):
    shared = {"epochs": 3, "batch_size": 8, "learning_rate": 0.05}
    variables = Variables(init(jax.random.key(11)))
    tuned = FineTune(**shared)(KEY, MODEL, variables, make_task()).variables
    method = StackelbergUnlearn(**shared, alpha=0.0 if alpha_is_zero else 1.0, auditor="logistic")
    played = method(KEY, MODEL, variables, make_task()).variables
    gaps = jax.tree.map(lambda a, b: float(jnp.max(jnp.abs(a - b))), tuned, played)
    largest = max(jax.tree.leaves(gaps))
    assert largest < 1e-6 if alpha_is_zero else largest > 1e-4


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
    method = StackelbergUnlearn(epochs=2, batch_size=8, alpha=0.0, auditor="logistic")
    info = method(KEY, MODEL, Variables(init(KEY)), make_task()).info
    np.testing.assert_allclose(info.cost.example_gradients, 2 * (40 + 26 / 3))


@pytest.mark.parametrize(("members", "strangers", "folds"), [(3, 20, 3), (20, 7, 2), (8, 8, 3)])
@pytest.mark.parametrize("seed", range(4))
def test_auditing_sets_are_balanced_and_their_folds_too(members, strangers, folds, seed):
    pool, size = make_pool(
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
    pool, size = make_pool(task, folds=2, same_classes=False, per_class=True)
    rows, fold = (np.asarray(a) for a in draw(KEY, pool, size, 2))
    y, is_member = np.asarray(pool.dataset.y)[rows], rows < 30
    for label in range(3):
        counts = [np.bincount(fold[(y == label) & group]) for group in (is_member, ~is_member)]
        np.testing.assert_array_equal(*counts)
        quota = min(int((part.y == label).sum()) for part in (task.forget, task.validation))
        assert counts[0].sum() == quota


def test_auditing_sets_are_drawn_anew():
    pool, size = make_pool(make_task(13, 40), folds=3, same_classes=False, per_class=False)
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
    same, _ = make_pool(task, folds=3, same_classes=True, per_class=False)
    everyone, _ = make_pool(task, folds=3, same_classes=False, per_class=False)
    assert set(np.asarray(same.dataset.y)) == {1}
    assert set(np.asarray(everyone.dataset.y)) == {0, 1, 2}


@pytest.mark.parametrize("options", [{"same_classes": True}, {"per_class": True}])
def test_a_forgotten_class_without_held_out_examples_is_refused(options):
    method = StackelbergUnlearn(epochs=1, batch_size=8, **options)
    with pytest.raises(ValueError, match=r"got \d+ and 0.*choose .*same_classes=False"):
        method(KEY, MODEL, Variables(init(KEY)), class_task(in_validation=False))


@pytest.mark.parametrize(("sizes", "found"), [((2, 20), "got 2 and 20"), ((20, 2), "got 20 and 2")])
def test_sets_smaller_than_the_folds_are_refused(sizes, found):
    method = StackelbergUnlearn(epochs=1, batch_size=8)
    with pytest.raises(ValueError, match=f"3 folds need at least 3 members.*{found}"):
        method(KEY, MODEL, Variables(init(KEY)), make_task(*sizes))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": -0.1}, "alpha must be finite and >= 0, got -0.1"),
        ({"alpha": float("inf")}, "alpha must be finite and >= 0, got inf"),
        ({"l1": -1.0}, "l1 must be finite and >= 0"),
        ({"forget_weight": float("nan")}, "forget_weight must be finite and >= 0, got nan"),
        ({"auditor": "svm"}, "unknown auditor 'svm'; known: hinge, squared_hinge, logistic, mlp"),
        ({"feature": "los"}, "unknown feature 'los'; known: loss"),
        ({"gradient": "both"}, "unknown gradient 'both'; known: total, implicit, direct"),
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
    dead = jax.tree.map(jnp.zeros_like, init(KEY))
    method = StackelbergUnlearn(epochs=2, batch_size=8, feature="logits")
    with pytest.warns(AuditorWarning, match="degenerate in 2 of 2 epochs .*constant_features"):
        info = method(KEY, MODEL, Variables(dead), make_task()).info
    assert np.all(info.history["auditor_status"] == SvmStatus.CONSTANT_FEATURES)


def test_outputs_that_are_not_finite_are_refused():
    variables = Variables(init(jax.random.key(11)))
    method = StackelbergUnlearn(epochs=1, batch_size=8, alpha=1e30, feature="logits")
    with pytest.raises(DivergedError, match="diverged in epoch 1.*alpha=1e\\+30"):
        dataclasses.replace(method, epochs=3, learning_rate=1e10)(
            KEY, MODEL, variables, make_task()
        )


def test_watching_the_game_changes_nothing():
    method = StackelbergUnlearn(epochs=3, batch_size=8, auditor=MlpAuditor(steps=5))
    variables = Variables(init(jax.random.key(11)))
    *_, last = (
        jax.tree.map(np.array, played.variables)
        for played in method.play(KEY, MODEL, variables, make_task())
    )
    called = method(KEY, MODEL, variables, make_task())
    jax.tree.map(np.testing.assert_array_equal, last, called.variables)
    assert called.info.history["auditor_utility"].shape == (3,)


def test_another_alpha_compiles_nothing():
    variables = Variables(init(jax.random.key(11)))
    StackelbergUnlearn(epochs=2, batch_size=8)(KEY, MODEL, variables, make_task())
    before = play_epoch._cache_size()
    StackelbergUnlearn(epochs=3, batch_size=8, alpha=0.5)(KEY, MODEL, variables, make_task())
    assert play_epoch._cache_size() <= before + 1  # the number of epochs is in the recipe
    before = play_epoch._cache_size()
    StackelbergUnlearn(epochs=3, batch_size=8, alpha=2.0)(KEY, MODEL, variables, make_task())
    assert play_epoch._cache_size() == before


def norm1(variables):
    return sum(float(jnp.sum(jnp.abs(leaf))) for leaf in jax.tree.leaves(variables))


def test_the_l1_term_shrinks_the_weights():
    variables = Variables(init(jax.random.key(11)))
    norms = [
        norm1(
            StackelbergUnlearn(epochs=3, batch_size=8, l1=l1)(
                KEY, MODEL, variables, make_task()
            ).variables
        )
        for l1 in (0.0, 0.1)
    ]
    assert norms[1] < 0.9 * norms[0]


def test_the_forget_term_lowers_the_utility_on_the_forget_set():
    variables, task = Variables(init(jax.random.key(11))), make_task()
    losses = []
    for weight in (0.0, 5.0):
        method = StackelbergUnlearn(epochs=3, batch_size=8, alpha=0.0, forget_weight=weight)
        logits = apply(method(KEY, MODEL, variables, task).variables.params, task.forget.x)
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


@pytest.mark.parametrize("name", list(AUDITORS))
def test_the_attack_fares_worse_than_after_fine_tuning(overfit, name):
    model, variables, task = overfit
    shared = {"epochs": 10, "batch_size": 20, "learning_rate": 0.01}
    attack = MembershipInference("loss", "logistic", folds=5)

    def accuracy(method):
        unlearned = method(KEY, model, variables, task).variables
        return attack(jax.random.key(1), model, unlearned, task).metrics["accuracy"]

    tuned = accuracy(FineTune(**shared))
    played = accuracy(StackelbergUnlearn(**shared, auditor=name))
    assert tuned > 0.65
    assert played < tuned - 0.08


def test_a_pool_is_a_pytree():
    pool, _ = make_pool(make_task(), folds=3, same_classes=False, per_class=False)
    assert isinstance(jax.tree.map(lambda leaf: leaf, pool), Pool)
