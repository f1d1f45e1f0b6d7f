import jax
import jax.numpy as jnp
import normed
import numpy as np
import pytest
import softmax_regression as sr

from unlearnkit.base import Dataset, Variables
from unlearnkit.models import from_functions
from unlearnkit.training import CrossEntropy
from unlearnkit.unlearning import CatastrophicLastLayers, ExactLastLayers, FineTune
from unlearnkit.unlearning._last_layers import _LastLayers, select_last_layers
from unlearnkit.validation import named_leaves

KEY = jax.random.key(0)
LAYERS = [("classifier",), ("second", "second_norm"), ("first", "first_norm")]
MODELS = {"linen": normed.LINEN, "nnx": normed.NNX}


def owner(name):
    return next(part for part in name.split("/") if part != "batch_stats")


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("k", [1, 2, 3])
def test_exact_resets_the_last_layers_and_their_statistics_and_nothing_else(kind, k):
    model = MODELS[kind]
    start = normed.trained(model)
    reset = ExactLastLayers(epochs=0, batch_size=8, k=k)(KEY, model, start, normed.TASK).variables
    fresh = model.init(jax.random.split(KEY)[0])
    last = {name for layer in LAYERS[:k] for name in layer}
    for part in ("params", "state"):
        old, new = named_leaves(getattr(start, part)), named_leaves(getattr(fresh, part))
        for name, leaf in named_leaves(getattr(reset, part)).items():
            if owner(name) in last:  # drawn in one compiled call there, and here in several
                np.testing.assert_allclose(leaf, new[name], rtol=1e-6, atol=1e-7, err_msg=name)
            else:
                np.testing.assert_array_equal(leaf, old[name], err_msg=name)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("method", [CatastrophicLastLayers, ExactLastLayers])
def test_the_other_layers_keep_their_bits_under_momentum_and_weight_decay(kind, method):
    model = MODELS[kind]
    start = normed.trained(model)
    unlearn = method(epochs=3, batch_size=8, learning_rate=0.1, weight_decay=0.5, k=2)
    unlearned = unlearn(KEY, model, start, normed.TASK).variables
    assert jax.tree.structure(unlearned) == jax.tree.structure(start)
    for part in ("params", "state"):
        old = named_leaves(getattr(start, part))
        for name, leaf in named_leaves(getattr(unlearned, part)).items():
            stays = owner(name) in ("first", "first_norm")
            assert np.array_equal(leaf, old[name]) == stays, name


def test_all_layers_together_are_fine_tuning():
    start = normed.trained()
    settings = {"epochs": 2, "batch_size": 8, "learning_rate": 0.05}
    part = CatastrophicLastLayers(k=3, **settings)(KEY, normed.LINEN, start, normed.TASK)
    whole = FineTune(**settings)(KEY, normed.LINEN, start, normed.TASK)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        part.variables,
        whole.variables,
    )


def test_no_gradient_is_taken_of_the_lower_layers():
    start, batch = normed.trained(), normed.TASK.retain

    def products(k):
        selection = select_last_layers(normed.LINEN, start, k)
        objective = _LastLayers(CrossEntropy(normed.LINEN, FineTune().recipe()), selection)
        leaves = jax.tree.leaves(start.params)
        moving = [leaf for leaf, moves in zip(leaves, selection.params, strict=True) if moves]
        gradient = jax.grad(objective, has_aux=True)
        program = jax.make_jaxpr(gradient)(moving, start.state, batch, KEY, start.params)
        return str(program).count("dot_general")

    # Forward 3; backward one for each kernel, and one for the input of each but the lowest.
    assert [products(k) for k in (1, 2, 3)] == [4, 6, 8]


def function_init(key):
    return [jax.random.normal(key, (4, 3)), jnp.zeros(3)]


def function_apply(params, x):
    return x @ params[0] + params[1]


def test_a_model_of_one_layer_without_names_has_one_last_layer():
    model = from_functions(function_init, function_apply, input_shape=(4,))
    start = Variables(function_init(jax.random.key(3)))
    method = CatastrophicLastLayers(epochs=1, batch_size=8, k=1)
    unlearned = method(KEY, model, start, sr.TASK).variables
    for new, old in zip(unlearned.params, start.params, strict=True):
        assert not np.array_equal(new, old)


def nested_apply(params, x):
    return x @ params["body"]["kernel"] @ params["body"]["head"]["kernel"]


def nested_init(key):
    return {"body": {"kernel": jnp.eye(4), "head": {"kernel": 0.1 * jnp.ones((4, 3))}}}


def test_a_layer_inside_another_ones_dict_is_told_apart():
    model = from_functions(nested_init, nested_apply, input_shape=(4,))
    start = Variables(nested_init(KEY))
    method = CatastrophicLastLayers(epochs=1, batch_size=8, learning_rate=0.1, k=1)
    body = method(KEY, model, start, sr.TASK).variables.params["body"]
    np.testing.assert_array_equal(body["kernel"], jnp.eye(4))
    assert not np.array_equal(body["head"]["kernel"], 0.1 * jnp.ones((4, 3)))


@pytest.mark.parametrize("method", [CatastrophicLastLayers, ExactLastLayers])
def test_more_layers_than_there_are_and_fewer_than_one_are_refused(method):
    with pytest.raises(ValueError, match="k must be >= 1, got 0"):
        method(k=0)
    with pytest.raises(ValueError, match=r"k must be in 1 … 3, .*, got 4"):
        method(batch_size=8, k=4)(KEY, normed.LINEN, normed.trained(), normed.TASK)


@pytest.mark.parametrize("method", [CatastrophicLastLayers, ExactLastLayers])
def test_the_forget_set_is_not_looked_at(method):
    task = normed.TASK
    other = Dataset(task.forget.x[::-1] * 0.5, task.forget.y)
    start, unlearn = normed.trained(), method(epochs=1, batch_size=8, k=1)
    one = unlearn(KEY, normed.LINEN, start, task).variables
    two = unlearn(KEY, normed.LINEN, start, task._replace(forget=other)).variables
    jax.tree.map(np.testing.assert_array_equal, one, two)
