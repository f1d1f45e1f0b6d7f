import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unlearnkit.base import Dataset, Normalisation, Task, Variables
from unlearnkit.models import from_functions
from unlearnkit.validation import (
    check_compatible,
    check_dataset,
    check_labels,
    check_task,
    check_variables,
)

MODEL = from_functions(
    lambda key: {"w": jax.random.normal(key, (6, 3))},
    lambda params, x: x.reshape(len(x), -1) @ params["w"],
    input_shape=(2, 3),
)


def make(n=4, module=jnp, **replaced):
    arrays = {"x": np.ones((n, 2, 3), np.float32), "y": np.arange(n, dtype=np.int32) % 3}
    arrays |= replaced
    return Dataset(*(module.asarray(arrays[name]) for name in ("x", "y")))


@pytest.mark.parametrize("module", [np, jnp])
def test_sound_data_passes(module):
    data = make(module=module)
    check_dataset(data)
    check_compatible(data, MODEL)
    check_task(Task(data, data, data, data), MODEL)


@pytest.mark.parametrize("module", [np, jnp])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_the_first_value_that_is_not_finite_is_named(module, bad):
    x = np.ones((4, 2, 3), np.float32)
    x[2, 1, 0] = x[3, 0, 0] = bad
    with pytest.raises(ValueError, match=rf"x of forget .*{bad} at index \(2, 1, 0\) \(2 such"):
        check_dataset(make(x=x, module=module), name="forget")


@pytest.mark.parametrize("module", [np, jnp])
@pytest.mark.parametrize("dtype", [np.float32, np.bool_])
def test_labels_that_are_not_integers_are_refused_even_where_integral(module, dtype):
    with pytest.raises(TypeError, match=r"must be integers, got .*astype"):
        check_dataset(make(y=np.ones(4, dtype), module=module))


def test_one_hot_labels_are_refused_with_the_remedy():
    with pytest.raises(ValueError, match=r"got \[4, 3\].*argmax"):
        check_dataset(make(y=np.eye(4, 3, dtype=np.int32)))


def test_a_negative_label_is_named():
    with pytest.raises(ValueError, match="must be >= 0, got -1 at index 2"):
        check_dataset(make(y=np.array([0, 1, -1, 2])))


def test_labels_are_compared_with_the_number_of_classes():
    check_labels(np.array([2]), n_classes=3)
    with pytest.raises(ValueError, match=r"must be < 3, .* got 3 at index 1"):
        check_labels(np.array([2, 3]), n_classes=3)


def test_unsigned_labels_keep_their_values():
    check_labels(np.array([255], np.uint8), n_classes=256)


def test_lengths_must_agree():
    with pytest.raises(ValueError, match=r"x \[4, 2, 3\] and y \[3\]"):
        check_dataset(make(y=np.zeros(3, np.int32)))


@pytest.mark.parametrize("module", [np, jnp])
def test_no_examples_is_refused(module):
    with pytest.raises(ValueError, match="forget must hold at least one example"):
        check_dataset(make(0, module=module), name="forget")


def test_pixels_left_as_integers_are_refused():
    with pytest.raises(TypeError, match="must be floating point, got uint8; divide"):
        check_dataset(make(x=np.ones((4, 2, 3), np.uint8)))


def test_the_model_and_the_data_must_agree_on_the_shape():
    with pytest.raises(ValueError, match=r"\(3, 2\), but the model takes \(2, 3\)"):
        check_compatible(make(x=np.ones((4, 3, 2), np.float32)), MODEL)


def test_a_label_without_a_logit_is_refused():
    with pytest.raises(ValueError, match=r"must be < 3.* got 3 at index 3"):
        check_compatible(make(y=np.arange(4)), MODEL)


@pytest.mark.parametrize("part", Task._fields)
def test_a_task_names_its_bad_part(part):
    good = Task(make(), make(), make(), make())
    with pytest.raises(ValueError, match=f"{part} must hold at least one"):
        check_task(good._replace(**{part: make(0)}), MODEL)
    with pytest.raises(ValueError, match=f"labels of {part} must be < 3"):
        check_task(good._replace(**{part: make(y=np.arange(4))}), MODEL)


def test_parts_normalised_differently_are_refused():
    part = make()
    other = part._replace(normalisation=Normalisation("symmetric", (0.5,), (0.5,)))
    with pytest.raises(ValueError, match=r"test is normalised as .*symmetric"):
        check_task(Task(part, part, part, other), MODEL)


def test_weights_must_be_the_models():
    model = from_functions(
        lambda key: {"w": jnp.zeros((4, 3)), "b": jnp.zeros(3)},
        lambda params, x: x @ params["w"] + params["b"],
        input_shape=(4,),
    )
    check_variables(Variables({"w": jnp.ones((4, 3)), "b": jnp.ones(3)}), model)
    for params, message in (
        ({"w": jnp.ones((4, 3))}, "params/b is missing, the model has .3,"),
        ({"w": jnp.ones((4, 2)), "b": jnp.ones(3)}, "params/w is .4, 2., the model has .4, 3."),
        ({"w": jnp.ones((4, 3)), "b": jnp.ones(3), "c": jnp.ones(1)}, "the model has none"),
    ):
        with pytest.raises(ValueError, match=message):
            check_variables(Variables(params), model)
