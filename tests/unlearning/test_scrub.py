import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import softmax_regression as sr

from unlearnkit.base import Cost, Unlearned, UnlearnInfo, Variables
from unlearnkit.unlearning import SCRUB_REFERENCES, Scrub
from unlearnkit.unlearning._rewind import Rewind
from unlearnkit.unlearning.scrub import distillation_loss

KEY = jax.random.key(0)
FULL = Scrub(
    epochs=3,
    batch_size=24,
    learning_rate=0.3,
    momentum=0.9,
    weight_decay=0.0,
    max_epochs=2,
    alpha=0.5,
    gamma=0.8,
    temperature=2.0,
    milestones=(2,),
    step_factor=0.25,
)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_the_divergence_and_its_gradient_have_their_closed_form(temperature):
    teacher, student = jax.random.normal(KEY, (2, 6, 5))
    value, gradient = jax.value_and_grad(distillation_loss, argnums=1)(
        teacher, student, temperature
    )
    p, q = (sr.softmax(np.asarray(z, np.float64) / temperature) for z in (teacher, student))
    expected = temperature**2 * np.mean(np.sum(p * np.log(p / q), axis=1))
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(gradient, temperature * (q - p) / 6, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("max_epochs", [0, 1, 2, 3])
def test_three_epochs_match_the_steps_taken_by_hand(max_epochs):
    method = dataclasses.replace(FULL, max_epochs=max_epochs)
    start = sr.weights()
    unlearned = method(KEY, sr.MODEL, start, sr.TASK)
    teacher, w = sr.as_float64(start), sr.as_float64(start)
    velocity = sr.combine((0, w))

    def divergence_gradient(w, x):
        p, q = (sr.softmax(sr.logits(v, x) / 2.0) for v in (teacher, w))
        return sr.pull_back(x, 2.0 * (q - p))

    for epoch in range(3):
        rate = 0.3 * (0.25 if epoch >= 2 else 1.0)
        retain, forget = sr.TASK.retain, sr.TASK.forget
        if epoch < max_epochs:
            away = sr.combine((-1, divergence_gradient(w, forget.x)))
            velocity = sr.combine((0.9, velocity), (1, away))
            w = sr.combine((1, w), (-rate, velocity))
        obey = sr.combine((0.8, sr.gradient(w, retain)), (0.5, divergence_gradient(w, retain.x)))
        velocity = sr.combine((0.9, velocity), (1, obey))
        w = sr.combine((1, w), (-rate, velocity))
    sr.assert_close(unlearned.variables, w, rtol=1e-4, atol=1e-5)


def test_milestones_count_epochs_though_these_have_unequal_steps():
    recipe = dataclasses.replace(FULL, max_epochs=2, milestones=(1, 2, 4))._recipe_in_steps(7, 3)
    assert recipe.milestones == (10, 20, 34)


def test_a_student_that_only_obeys_its_teacher_stays_and_one_that_defies_it_leaves():
    start = sr.weights()
    obeying = dataclasses.replace(FULL, gamma=0.0, max_epochs=0)
    kept = obeying(KEY, sr.MODEL, start, sr.TASK)
    sr.assert_close(kept.variables, sr.as_float64(start))
    assert np.all(np.asarray(kept.info.history["divergence"]) < 1e-6)
    defying = FULL(KEY, sr.MODEL, start, sr.TASK)
    assert np.all(np.asarray(defying.info.history["divergence"])[1:] > 1e-6)


def test_adam_takes_other_steps():
    start = sr.weights()
    by_adam = dataclasses.replace(FULL, optimizer="adam", learning_rate=0.01, epochs=1)
    w = sr.as_float64(by_adam(KEY, sr.MODEL, start, sr.TASK).variables)
    moved = np.abs(w["kernel"] - sr.as_float64(start)["kernel"])
    assert np.all(moved < 0.021)
    assert moved.max() > 0.009


def predicting(label):
    bias = 10 * jax.nn.one_hot(label, 3)
    return Variables({"classifier": {"kernel": jnp.zeros((4, 3)), "bias": bias}})


def labelled(labels):
    return sr.draw(9, len(labels))._replace(y=jnp.array(labels, jnp.int32))


def rewound(networks, forget, validation):
    rewind = Rewind(sr.MODEL, sr.TASK._replace(forget=forget, validation=validation))
    errors = [rewind(network) for network in networks]
    history = {name: jnp.array([e[name] for e in errors]) for name in errors[0]}
    last = Unlearned(networks[-1], UnlearnInfo(history, Cost(0.0, 0.0)))
    return rewind.choose(last)


def test_rewinding_takes_the_epoch_whose_forget_error_is_the_last_ones_on_held_out_data():
    # On the forget set: 0 errs on 1/4, 1 on 3/4, 2 on all. The last network, 2, errs on 2/3 of the
    # held-out examples of classes 0 and 1... of class 2 there are none among the forgotten.
    forget = labelled([0, 0, 0, 1])
    validation = labelled([0, 1, 1, 2, 2, 2])
    networks = [predicting(0), predicting(1), predicting(1), predicting(0), predicting(0)]
    unlearned = rewound(networks, forget, validation)
    np.testing.assert_allclose(
        unlearned.info.history["validation_error"], [2 / 3, 1 / 3, 1 / 3, 2 / 3, 2 / 3], rtol=1e-6
    )
    np.testing.assert_allclose(
        unlearned.info.history["forget_error"], [0.25, 0.75, 0.75, 0.25, 0.25]
    )
    assert np.asarray(unlearned.info.history["kept"]).tolist() == [False, False, True, False, False]
    np.testing.assert_array_equal(
        unlearned.variables.params["classifier"]["bias"], networks[2].params["classifier"]["bias"]
    )
    assert Rewind.size(sr.TASK._replace(forget=forget, validation=validation)) == 4 + 3


def test_rewinding_returns_the_bits_of_a_run_that_ended_there():
    method = dataclasses.replace(FULL, epochs=6, max_epochs=3, batch_size=8, learning_rate=0.8)
    method = dataclasses.replace(method, milestones=(3,), forget_batch_size=5, rewind=True)
    unlearned = method(KEY, sr.MODEL, sr.weights(), sr.TASK)
    history = {name: np.asarray(values) for name, values in unlearned.info.history.items()}
    distance = np.abs(history["forget_error"] - history["validation_error"][-1])
    kept = int(np.flatnonzero(history["kept"])[0])
    assert history["kept"].sum() == 1
    assert distance[kept] == distance.min()
    shorter = dataclasses.replace(method, epochs=kept + 1, rewind=False)
    again = shorter(KEY, sr.MODEL, sr.weights(), sr.TASK)
    jax.tree.map(np.testing.assert_array_equal, unlearned.variables, again.variables)


def test_rewinding_without_held_out_examples_of_the_class_is_refused():
    task = sr.TASK._replace(forget=labelled([1] * 10), validation=labelled([0, 2, 0]))
    with pytest.raises(ValueError, match=r"classes \[1\], got none; set rewind=False"):
        dataclasses.replace(FULL, rewind=True)(KEY, sr.MODEL, sr.weights(), task)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"alpha": -0.1}, "alpha must be >= 0, got -0.1"),
        ({"gamma": -1.0}, "gamma must be >= 0"),
        ({"alpha": float("nan")}, "alpha must be >= 0"),
        ({"temperature": 0.0}, "temperature must be > 0"),
        ({"step_factor": 0.0}, "step_factor must be > 0"),
        ({"max_epochs": -1}, "max_epochs must be >= 0"),
        ({"milestones": (5, 3)}, "milestones must increase"),
        ({"optimizer": "lion"}, "unknown optimizer 'lion'"),
        ({"epochs": 0, "rewind": True, "milestones": ()}, "rewind needs epochs >= 1"),
    ],
)
def test_bad_hyperparameters_are_refused(wrong, message, unchecked_types):
    with pytest.raises(ValueError, match=message):
        Scrub(**wrong)


def test_the_references_have_their_own_forget_batches():
    """Their ascent steps on 2,048 forget examples, by the settings of the public notebooks."""
    steps = {
        name: (method.max_epochs * 2048 // method.forget_batch_size, method.epochs)
        for name, method in SCRUB_REFERENCES.items()
    }
    assert steps == {
        "small_scale": (96, 10),
        "large_scale": (8, 3),
        "large_scale_named": (128, 3),
        "membership": (384, 5),
    }
    small, large = SCRUB_REFERENCES["small_scale"], SCRUB_REFERENCES["large_scale"]
    assert (small.optimizer, small.weight_decay, small.gamma) == ("adam", 0.1, 1.0)
    assert (small.alpha, small.temperature, small.milestones) == (0.5, 2.0, (5, 8, 9))
    assert (large.optimizer, large.weight_decay, large.gamma) == ("sgd", 5e-4, 0.99)
    assert (large.alpha, large.temperature, large.batch_size) == (0.001, 4.0, 256)
    assert {method.learning_rate for method in SCRUB_REFERENCES.values()} == {5e-4}
    assert Scrub().forget_batch_size is None
