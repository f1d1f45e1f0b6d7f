"""How long the answer is, its two forms against a float64 oracle, and its bases."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from sklearn.svm import SVC
from tiny_game import KEY, MODEL, QUICK, init, make_task, play

from unlearnkit import models
from unlearnkit.base import Dataset, Task, Variables
from unlearnkit.host.random import host_key
from unlearnkit.training import Recipe, fit, predict
from unlearnkit.unlearning import (
    FineTune,
    RandomLabel,
    StackelbergUnlearn,
    WeakAnswerWarning,
)
from unlearnkit.unlearning.stackelberg.auditing_set import draw, make_pool

RATE, MOMENTUM, DECAY, ALPHA = 0.05, 0.9, 5e-4, 2.0
TASK = make_task(n_forget=45, n_validation=60)


class Oracle:
    """The network and its auditors in NumPy and scikit-learn, in float64.

    The auditing set is the library's own draw; all else is written from the definitions: logits and
    loss of each example, standardised by the training folds; for each class and fold a soft-margin
    SVM; its mean hinge loss on the held-out fold; gradients by central differences.
    """

    def __init__(self):
        pool, size, folds = make_pool(TASK, folds=3, same_classes=False, per_class=True)
        audits = host_key(KEY).split(3)[2].fold_in(0).typed()
        rows, fold = draw(jax.random.split(audits)[0], pool, size, folds)
        drawn = pool.dataset.take(rows)
        self.x, self.y = np.asarray(drawn.x, np.float64), np.asarray(drawn.y)
        self.fold, self.folds = np.asarray(fold), folds
        self.member = np.where(np.asarray(rows) < TASK.forget.size, 1, -1)

    def utility(self, w):
        z = forward(w, self.x)
        loss = cross_entropies(z, self.y)
        seen = np.column_stack([z, loss])
        total = 0.0
        for label in range(3):
            own = self.y == label
            for fold in range(self.folds):
                out, learned = own & (self.fold == fold), own & (self.fold != fold)
                centre, scale = seen[learned].mean(0), seen[learned].std(0)
                weights, bias = support_vectors(
                    (seen[learned] - centre) / scale, self.member[learned]
                )
                margins = self.member[out] * ((seen[out] - centre) / scale @ weights + bias)
                total -= np.maximum(1 - margins, 0).sum()
        return total / len(self.y)


def support_vectors(x, y):
    """scikit-learn says which examples are on the margin and which beyond; then KKT, exactly."""
    svm = SVC(kernel="linear", C=1.0, tol=1e-6).fit(x, y)
    alpha = np.zeros(len(y))
    alpha[svm.support_] = np.abs(svm.dual_coef_[0])
    free, full = (alpha > 1e-4) & (alpha < 1 - 1e-4), alpha >= 1 - 1e-4
    signed = y[:, None] * x
    right = np.append(1 - signed[free] @ signed[full].sum(0), -y[full].sum())
    rows = np.block([[signed[free] @ signed[free].T, y[free, None]], [y[free], np.zeros(1)]])
    *inner, bias = np.linalg.lstsq(rows, right, rcond=None)[0]
    return signed[free].T @ np.array(inner) + signed[full].sum(0), bias


def cross_entropies(z, y):
    top = z.max(1, keepdims=True)
    return np.log(np.exp(z - top).sum(1)) + top[:, 0] - z[np.arange(len(y)), y]


FLAT, UNRAVEL = ravel_pytree(init(jax.random.key(11)))


def forward(w, x):
    parts = {name: {k: np.asarray(v) for k, v in layer.items()} for name, layer in PLACES.items()}
    hidden = np.tanh(x @ w[parts["hidden"]["kernel"]] + w[parts["hidden"]["bias"]])
    return hidden @ w[parts["logits"]["kernel"]] + w[parts["logits"]["bias"]]


PLACES = jax.tree.map(
    lambda leaf: leaf.astype(int), UNRAVEL(jnp.arange(len(FLAT), dtype=FLAT.dtype))
)


def central_differences(function, w, step=1e-6):
    unit = np.eye(len(w))
    return np.array([(function(w + step * e) - function(w - step * e)) / (2 * step) for e in unit])


@pytest.fixture(scope="module")
def expected():
    """The weights after the pass, what the momentum holds then, and the gradient of the utility."""
    w = np.asarray(FLAT, np.float64)
    x, y = np.asarray(TASK.retain.x, np.float64), np.asarray(TASK.retain.y)
    carried = central_differences(lambda v: cross_entropies(forward(v, x), y).mean(), w) + DECAY * w
    w = w - RATE * carried
    return w, carried, central_differences(Oracle().utility, w)


@pytest.mark.parametrize("answer", ["step", "optimizer"])
def test_one_step_is_that_of_an_independent_implementation(expected, answer):
    """A pass of one step, then the answer: as the paper defines it, or as its public code."""
    w, carried, slope = expected
    method = StackelbergUnlearn(
        epochs=1, batch_size=TASK.retain.size, learning_rate=RATE, momentum=MOMENTUM,
        weight_decay=DECAY, alpha=ALPHA, auditor="hinge", feature="logits_loss", per_class=True,
        answer=answer,
    )  # fmt: skip
    found = method(KEY, MODEL, Variables(init(jax.random.key(11))), TASK).variables.params
    if answer == "step":
        moved = -RATE / (1 - MOMENTUM) * ALPHA * slope
    else:
        moved = -RATE * (MOMENTUM * carried + ALPHA * slope + DECAY * w)
    actual = np.asarray(ravel_pytree(found)[0], np.float64) - w
    np.testing.assert_allclose(actual, moved, atol=1e-3 * np.abs(moved).max())
    assert np.abs(moved).max() > 1e-2


def test_through_the_optimiser_the_next_pass_feels_the_answer():
    """With the same answers at the end of the first epoch, the second one starts in another way."""
    paths = {
        answer: [np.asarray(ravel_pytree(p.variables.params)[0])
                 for p in dataclasses.replace(QUICK, answer=answer, epochs=2).play(
                     KEY, MODEL, Variables(init(jax.random.key(11))), TASK)]
        for answer in ("step", "optimizer")
    }  # fmt: skip
    for path in paths.values():
        assert np.isfinite(path[1]).all()
    assert np.abs(paths["step"][1] - paths["optimizer"][1]).max() > 1e-3


def noisy(seed, n):
    x_key, flip_key, label_key = jax.random.split(jax.random.key(seed), 3)
    x = jax.random.normal(x_key, (n, 6, 6, 1))
    clean = jnp.argmax(x[:, :3, :3].reshape(n, 3, 3).mean(-1), axis=-1)
    noise = jax.random.randint(label_key, (n,), 0, 3)
    y = jnp.where(jax.random.bernoulli(flip_key, 0.3, (n,)), noise, clean)
    return Dataset(x, y.astype(jnp.int32))


@pytest.fixture(scope="module")
def learned():
    """A network that knows 180 examples and 60 others by heart; the 60 are to be forgotten."""
    task = Task(noisy(1, 180), noisy(2, 60), noisy(3, 60), noisy(4, 60))
    model = models.create("mlp", input_shape=(6, 6, 1), n_classes=3, hidden=(32,))
    recipe = Recipe(epochs=60, batch_size=20, learning_rate=0.05)
    return model, fit(jax.random.key(0), model, task.train, recipe).variables, task


def test_the_effect_of_alpha_does_not_depend_on_the_steps_of_a_pass(learned):
    """45 and 351 steps a pass, of the same examples; the effect is what sets SG apart from FT."""
    model, variables, task = learned
    effects = []
    for steps in (45, 351):
        rows = np.resize(np.arange(task.retain.size), 4 * steps)
        larger = task._replace(retain=task.retain.take(rows))
        shared = {"epochs": 3, "batch_size": 4, "learning_rate": 1e-3}
        gaps = []
        for method in (FineTune(**shared), StackelbergUnlearn(**shared, alpha=60.0)):
            forgot = method(KEY, model, variables, larger).variables
            losses = [
                float(jnp.mean(-jax.nn.log_softmax(predict(model, forgot, part.x))[
                    jnp.arange(part.size), part.y])) for part in (task.forget, task.validation)
            ]  # fmt: skip
            gaps.append(losses[1] - losses[0])
        effects.append(gaps[0] - gaps[1])
    assert effects[0] > 0.05
    assert abs(effects[1] / effects[0] - 1) < 0.2


def test_an_answer_that_hardly_moves_is_warned_about_and_says_the_new_alpha():
    told = r"at most \S+ of their passes.*alpha=1e-05.*multiply both by 0.5"
    with pytest.warns(WeakAnswerWarning, match=told):
        info = play(alpha=1e-5).info
    assert np.all(info.history["answer_share"] < 1e-3)
    assert np.all(play(alpha=1.0).info.history["answer_share"] > 1e-2)


def test_on_random_labels_without_the_auditor_it_is_random_labelling():
    variables, task = Variables(init(jax.random.key(11))), make_task()
    shared = {"epochs": 3, "batch_size": 8, "learning_rate": 0.05}
    labelled = RandomLabel(**shared)(KEY, MODEL, variables, task)
    played = play(task, alpha=0.0, base="random_label")
    jax.tree.map(np.testing.assert_array_equal, labelled.variables, played.variables)
    assert played.info.history.keys() >= {"random_label_loss", "auditor_utility"}
    watched = 3 * 26 / 3
    assert played.info.cost.example_gradients == pytest.approx(
        labelled.info.cost.example_gradients + watched
    )
    moved = play(task, alpha=1.0, base="random_label").variables
    assert not np.array_equal(*(ravel_pytree(v.params)[0] for v in (moved, played.variables)))


def test_no_key_is_used_twice_with_either_base():
    with jax.debug_key_reuse(True):
        for base in ("retain", "random_label"):
            play(base=base, epochs=1)


def test_the_auditing_sets_are_not_drawn_with_a_key_of_the_random_labels():
    audits = host_key(KEY).fold_in(2**32 - 1)
    epochs = [host_key(KEY).fold_in(epoch) for epoch in range(4)]
    assert all(not np.array_equal(audits.bits, one.bits) for one in epochs)
