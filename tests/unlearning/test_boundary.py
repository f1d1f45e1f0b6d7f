import flax.linen as nn
import jax
import jax.numpy as jnp
import normed
import numpy as np
import pytest
import softmax_regression as sr

from unlearnkit import models
from unlearnkit.base import Dataset, Normalisation, Variables
from unlearnkit.models import from_functions, from_linen
from unlearnkit.unlearning import BoundaryExpand, BoundaryShrink
from unlearnkit.unlearning.boundary_expand import expand, linear_output
from unlearnkit.unlearning.boundary_shrink import fgsm, nearest_wrong_classes

KEY = jax.random.key(0)
PIXELS = Normalisation("pixels", (0.4,), (0.25,))
ONE_STEP = {"epochs": 1, "batch_size": 10, "learning_rate": 0.3, "momentum": 0.0}


def as_pixels(dataset):
    return dataset._replace(x=PIXELS.apply(jax.nn.sigmoid(dataset.x)), normalisation=PIXELS)


FORGET = as_pixels(sr.TASK.forget)
TASK = sr.TASK._make(as_pixels(part) for part in sr.TASK)


def test_each_pixel_moves_by_the_step_along_the_sign_and_stays_in_its_box():
    start = sr.weights()
    moved = fgsm(
        sr.MODEL, start, FORGET.x, FORGET.y, normalisation=PIXELS, step=0.3, box=(0.0, 1.0)
    )
    w = sr.as_float64(start)
    residual = sr.softmax(sr.logits(w, FORGET.x)) - np.eye(3)[np.asarray(FORGET.y)]
    pixels = np.asarray(FORGET.x, np.float64) * 0.25 + 0.4
    wanted = pixels + 0.3 * np.sign(residual @ w["kernel"].T)
    assert wanted.min() < -0.01
    assert wanted.max() > 1.01
    np.testing.assert_allclose(moved * 0.25 + 0.4, np.clip(wanted, 0, 1), atol=1e-6)
    free = fgsm(sr.MODEL, start, FORGET.x, FORGET.y, normalisation=PIXELS, step=0.3, box=None)
    np.testing.assert_allclose(free * 0.25 + 0.4, wanted, atol=1e-6)


def test_the_direction_survives_a_network_that_is_sure_of_itself():
    start = sr.weights()
    sure = jax.tree.map(lambda w: 60 * w, start)
    w = sr.as_float64(sure)
    own = np.argmax(sr.logits(w, FORGET.x), axis=1)
    moved = fgsm(
        sr.MODEL, sure, FORGET.x, jnp.asarray(own), normalisation=PIXELS, step=0.1, box=None
    )
    others = np.where(np.eye(3)[own] > 0, -np.inf, sr.logits(w, FORGET.x))
    uphill = np.sign((sr.softmax(others) - np.eye(3)[own]) @ w["kernel"].T)
    np.testing.assert_allclose((moved - FORGET.x) * 0.25, 0.1 * uphill, atol=1e-6)


def line_init(key):
    return {"line": {"kernel": jnp.array([[1.0, 0.0, -1.0]]), "bias": jnp.array([0.0, 0.5, 0.0])}}


def line_apply(params, x):
    return x @ params["line"]["kernel"] + params["line"]["bias"]


def test_the_label_is_the_nearest_class_but_the_own_even_out_of_reach():
    # Class 2 below -0.5, class 1 between, class 0 above 0.5.
    model = from_functions(line_init, line_apply, input_shape=(1,))
    x = jnp.array([[0.52], [-0.52], [0.1], [-0.1], [4.0]])
    data = Dataset(x, jnp.array([0, 2, 1, 1, 0], jnp.int32))
    labels = nearest_wrong_classes(
        model, Variables(line_init(KEY)), data, step=0.1, box=None, chunk=2
    )
    assert labels.tolist() == [1, 1, 0, 2, 1]


def test_shrinking_steps_toward_the_labels_that_the_original_chose():
    start = sr.weights()
    method = BoundaryShrink(**ONE_STEP, weight_decay=0.0)
    unlearned = method(KEY, sr.MODEL, start, TASK)
    labels = nearest_wrong_classes(
        sr.MODEL, start, FORGET, step=0.1, box=(0.0, 1.0), chunk=FORGET.size
    )
    assert not np.any(labels == FORGET.y)
    w = sr.as_float64(start)
    sr.assert_close(unlearned.variables, sr.combine((1, w), (-0.3, sr.gradient(w, FORGET, labels))))


def test_expanding_trains_the_shadow_class_and_drops_it():
    start = sr.weights()
    unlearned = BoundaryExpand(**ONE_STEP, weight_decay=0.1)(KEY, sr.MODEL, start, TASK)
    w = sr.as_float64(start)
    shadow = sr.as_float64(sr.MODEL.init(jax.random.split(KEY)[0]))
    wide = np.concatenate([sr.logits(w, FORGET.x), sr.logits(shadow, FORGET.x)[:, :1]], axis=1)
    gradient = sr.pull_back(FORGET.x, sr.softmax(wide)[:, :3])
    expected = sr.combine((1 - 0.3 * 0.1, w), (-0.3, gradient))
    sr.assert_close(unlearned.variables, expected)
    assert jax.tree.map(jnp.shape, unlearned.variables) == jax.tree.map(jnp.shape, start)


def test_a_last_layer_without_a_bias_is_expanded_too():
    def init(key):
        return {"line": {"kernel": jax.random.normal(key, (*sr.MODEL.input_shape, 3))}}

    model = from_functions(
        init, lambda params, x: x @ params["line"]["kernel"], input_shape=sr.MODEL.input_shape
    )
    start = Variables(init(jax.random.key(7)))
    unlearned = BoundaryExpand(**ONE_STEP, weight_decay=0.0)(KEY, model, start, TASK)
    w, x = np.asarray(start.params["line"]["kernel"], np.float64), np.asarray(FORGET.x, np.float64)
    shadow = np.asarray(init(jax.random.split(KEY)[0])["line"]["kernel"], np.float64)[:, :1]
    wide = sr.softmax(np.concatenate([x @ w, x @ shadow], axis=1))[:, :3]
    expected = w - 0.3 * x.T @ wide / len(x)
    np.testing.assert_allclose(
        unlearned.variables.params["line"]["kernel"], expected, rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("model", [normed.LINEN, normed.NNX], ids=["linen", "nnx"])
def test_the_expanded_network_has_the_logits_of_the_first_and_one_more(model):
    start, x = normed.trained(model), normed.TASK.forget.x
    last = linear_output(model, start)
    assert last == ("classifier",)
    column = jax.random.normal(KEY, (5, 1))
    shadow = {"kernel": column, "bias": jnp.array([0.7])}
    wide = expand(model, last)
    both = Variables({"network": start.params, "shadow": shadow}, start.state)
    logits = wide.apply(both, x)
    np.testing.assert_allclose(logits[:, :3], model.apply(start, x), rtol=1e-5, atol=1e-6)
    head = start.params["classifier"]
    only = {"kernel": jnp.tile(column, (1, 3)), "bias": jnp.full(3, 0.7)}
    shadowed = start._replace(params={**start.params, "classifier": only})
    np.testing.assert_allclose(logits[:, 3], model.apply(shadowed, x)[:, 0], rtol=1e-5, atol=1e-6)
    assert wide.n_classes == 4
    assert head["kernel"].shape == (5, 3)

    train_logits, state = wide.apply_train(both, x, KEY)
    expected_logits, expected_state = model.apply_train(start, x, KEY)
    np.testing.assert_allclose(train_logits[:, :3], expected_logits, rtol=1e-5, atol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), state, expected_state)


def test_what_lies_below_the_last_layer_is_computed_once():
    start, x = normed.trained(), normed.TASK.forget.x
    wide = expand(normed.LINEN, ("classifier",))
    shadow = {"kernel": jnp.ones((5, 1)), "bias": jnp.ones(1)}
    both = Variables({"network": start.params, "shadow": shadow}, start.state)

    def products(function, variables):
        gradient = jax.grad(lambda v: jnp.sum(function(v, x) ** 2))
        return str(jax.make_jaxpr(gradient)(variables)).count("dot_general")

    assert products(wide.apply, both) == products(normed.LINEN.apply, start)


class NormedLast(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.LayerNorm(name="norm")(nn.Dense(3, name="head")(x))


def test_a_last_layer_that_is_not_linear_is_refused():
    model = from_linen(NormedLast(), input_shape=(4,))
    wanted = r"needs a last layer of kernel \[d, 3\] and, at most, bias \[3\]"
    with pytest.raises(ValueError, match=wanted):
        BoundaryExpand(batch_size=5)(KEY, model, model.init(KEY), TASK)


def weird_init(key):
    return {"head": {"w": jnp.ones((4, 3)), "b": jnp.zeros(3)}}


def weird_apply(params, x):
    return x @ params["head"]["w"] + params["head"]["b"]


def test_a_last_layer_of_other_names_is_refused_with_a_remedy():
    model = from_functions(weird_init, weird_apply, input_shape=(4,))
    with pytest.raises(ValueError, match="name its parameters so, or choose Boundary Shrink"):
        BoundaryExpand(batch_size=5)(KEY, model, model.init(KEY), TASK)


@pytest.mark.parametrize("name", ["mlp", "lenet", "allcnn_small"])
def test_the_networks_of_the_library_can_be_expanded(name):
    model = models.create(name, input_shape=(28, 28, 1), n_classes=7)
    shapes = jax.eval_shape(model.init, KEY)
    assert linear_output(model, shapes) == model.layers[-1][0]


def test_inputs_outside_the_box_are_refused():
    with pytest.raises(ValueError, match=r"pixels of forget must be in \(0.0, 1.0\)"):
        BoundaryShrink(batch_size=5)(KEY, sr.MODEL, sr.weights(), sr.TASK)
    unlearned = BoundaryShrink(batch_size=5, box=None)(KEY, sr.MODEL, sr.weights(), sr.TASK)
    assert np.all(np.isfinite(sr.as_float64(unlearned.variables)["kernel"]))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"step": 0.0}, "step must be > 0, got 0.0"),
        ({"step": -0.1}, "step must be > 0"),
        ({"box": (1.0, 1.0)}, "least < most"),
        ({"box": (1.0, 0.0)}, "least < most"),
    ],
)
def test_bad_hyperparameters_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        BoundaryShrink(**wrong)
