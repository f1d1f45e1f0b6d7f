"""Data of token ids through checks, splits, training, checkpoints and logs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from token_task import LENGTH, RECIPE, TOKENS, MeanEmbedding, draw, make_model, make_task, same

from unlearnkit.auditing import accuracy
from unlearnkit.base import Dataset, Normalisation, Tokens, concatenate
from unlearnkit.data import RandomForget
from unlearnkit.data import make_task as split_task
from unlearnkit.forging import match_rows, verify
from unlearnkit.host.reserve import reserve
from unlearnkit.models import create, from_functions, from_linen
from unlearnkit.training import (
    CheckpointError,
    Recipe,
    TrajectoryError,
    fit,
    fit_many,
    penultimate,
    predict,
    read_trajectory,
)
from unlearnkit.validation import check_compatible, check_dataset, check_task, check_variables

KEY = jax.random.key(5)


@pytest.fixture(scope="module")
def model():
    return make_model()


@pytest.fixture(scope="module")
def task():
    return make_task()


@pytest.fixture(scope="module")
def trained(model, task):
    return fit(KEY, model, task.train, RECIPE).variables


def test_a_task_of_tokens_is_accepted(model, task):
    check_task(task, model)


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (np.ones((3, 6), np.float32), TypeError, r"x of dataset must be integer .* got float32"),
        (np.ones((3, 6), bool), TypeError, "got bool"),
        (np.full((3, 6), 10, np.int32), ValueError, r"in 0 … 9, got 10 at index \(0, 0\)"),
        (np.array([[1, 2], [3, -1]]), ValueError, r"got -1 at index \(1, 1\)"),
        (np.ones((3, 6, 1), np.int32), ValueError, r"\[n, length\], got the shape \[3, 6, 1\]"),
        (np.ones((3, 0), np.int32), ValueError, "at least one example"),
    ],
)
def test_what_are_no_ids_of_the_vocabulary_is_refused(x, error, message):
    with pytest.raises(error, match=message):
        check_dataset(Dataset(x, np.zeros(len(x), np.int32), TOKENS))


def test_large_ids_are_not_taken_for_pixels():
    """A warning would be an error here."""
    check_dataset(Dataset(np.full((3, 40), 255, np.int32), np.zeros(3, np.int32), Tokens(256)))


def test_integers_without_a_vocabulary_are_refused():
    with pytest.raises(TypeError, match=r"must be floating point, got int32; .*Tokens\("):
        check_dataset(draw(0, 4)._replace(normalisation=Normalisation()))


@pytest.mark.parametrize(("vocabulary", "pad"), [(1, 0), (5, 5), (5, -1)])
def test_a_vocabulary_has_its_padding(vocabulary, pad):
    with pytest.raises(ValueError, match="must be"):
        Tokens(vocabulary, pad)


def test_networks_and_data_of_two_kinds_do_not_meet(model):
    with pytest.raises(ValueError, match=r"is int32, but the model takes float32 .*'int32'"):
        check_compatible(draw(0, 4), create("logistic", input_shape=(LENGTH,), n_classes=3))
    reals = Dataset(jnp.zeros((4, LENGTH)), jnp.zeros(4, jnp.int32))
    with pytest.raises(ValueError, match=r"is float32, but the model takes int32 .*'float32'"):
        check_compatible(reals, model)


def test_inputs_are_floating_point_or_integer():
    with pytest.raises(ValueError, match="input_dtype must be floating point or integer"):
        from_linen(MeanEmbedding(), input_shape=(LENGTH,), input_dtype="bool")


def test_a_network_of_tokens_that_mixes_its_batch_is_refused(model):
    def mixing(params, ids):
        vectors = params["embedding"][ids].sum(1)
        return vectors - vectors.mean(0)

    mixed = from_functions(
        lambda key: {"embedding": jax.random.normal(key, (10, 3))},
        mixing,
        input_shape=(LENGTH,),
        input_dtype="int32",
    )
    with pytest.raises(ValueError, match="mixes the examples"):
        check_variables(mixed.init(KEY), mixed)
    check_variables(model.init(KEY), model)


def test_rows_keep_their_type_and_their_vocabulary(task):
    taken = task.train.take(np.array([3, 1, 3]))
    assert taken.x.dtype == jnp.int32
    assert taken.normalisation == TOKENS
    np.testing.assert_array_equal(taken.x, np.asarray(task.train.x)[[3, 1, 3]])
    both = concatenate(taken, task.forget)
    assert (both.x.dtype, both.size, both.normalisation) == (jnp.int32, 27, TOKENS)
    held = reserve(task.train)
    assert held.x.shape == (256, LENGTH)
    assert held.x.dtype == jnp.int32
    np.testing.assert_array_equal(held.x[: task.train.size], task.train.x)


def test_two_vocabularies_do_not_mix(task, model):
    other = draw(0, 5)._replace(normalisation=Tokens(vocabulary=10, pad=1))
    with pytest.raises(ValueError, match="pad=1"):
        concatenate(task.train, other)
    with pytest.raises(ValueError, match=r"validation is normalised as Tokens\(.*pad=1\)"):
        check_task(task._replace(validation=other), model)


def test_a_split_takes_tokens(task):
    found = split_task(KEY, task.train, task.test, RandomForget(fraction=0.1))
    assert found.forget.size == round(0.1 * task.train.size)
    assert {part.normalisation for part in found} == {TOKENS}
    assert {part.x.dtype for part in found} == {jnp.dtype(jnp.int32)}


def test_training_beats_chance(model, task, trained):
    assert accuracy(model, trained, task.test) > 0.7


def test_the_features_of_a_network_of_tokens(model, trained, task):
    features = penultimate(model, trained, task.test.x)
    kernel, bias = (trained.params["classifier"][name] for name in ("kernel", "bias"))
    found = np.asarray(features) @ np.asarray(kernel) + np.asarray(bias)
    np.testing.assert_allclose(found, predict(model, trained, task.test.x), atol=1e-5)


def test_many_runs_are_as_one(model, task, trained):
    many = fit_many(jax.random.split(KEY, 2), model, task.train, RECIPE, batching="map")
    alone = fit(jax.random.split(KEY, 2)[1], model, task.train, RECIPE)
    assert same(jax.tree.map(lambda leaf: leaf[1], many.variables), alone.variables)


def test_ids_are_not_rounded_where_networks_compute_in_bfloat16():
    """257 is no number of bfloat16, and would be read as 256."""
    tokens = Tokens(vocabulary=258)
    y = np.arange(40) % 2
    rows = np.where(y[:, None] == 1, 257, 256) * np.ones((1, LENGTH), np.int64)
    dataset = Dataset(jnp.asarray(rows, jnp.int32), jnp.asarray(y, jnp.int32), tokens)
    model = from_linen(MeanEmbedding(258), input_shape=(LENGTH,), input_dtype="int32")
    recipe = Recipe(epochs=20, batch_size=20, learning_rate=1.0, compute_dtype="bfloat16")
    assert fit(KEY, model, dataset, recipe).info.history["accuracy"][-1] == 1


def test_a_stopped_run_goes_on_to_the_same_bits(model, task, trained, tmp_path):
    class Stopped(Exception):
        pass

    def stop(epoch, metrics):
        if epoch == 3:
            raise Stopped

    with pytest.raises(Stopped):
        fit(KEY, model, task.train, RECIPE, checkpoint=tmp_path, on_epoch=stop)
    seen = []
    resumed = fit(
        KEY, model, task.train, RECIPE, checkpoint=tmp_path, on_epoch=lambda *e: seen.append(e[0])
    )
    assert seen == [4, 5, 6]
    assert same(resumed.variables, trained)


def test_a_checkpoint_is_of_one_vocabulary(model, task, tmp_path):
    fit(KEY, model, task.train, RECIPE, checkpoint=tmp_path)
    other = task.train._replace(normalisation=Tokens(vocabulary=10, pad=1))
    with pytest.raises(CheckpointError, match="normalisation"):
        fit(KEY, model, other, RECIPE, checkpoint=tmp_path)


@pytest.fixture(scope="module")
def log(model, task, tmp_path_factory):
    folder = tmp_path_factory.mktemp("log")
    fit(KEY, model, task.train, RECIPE, trajectory=folder, every=20)
    return folder


def test_a_log_replays_to_the_last_bit(model, task, log):
    report = verify(log, task.train, tolerance=0, model=model)
    assert report.valid
    assert report.complete
    np.testing.assert_array_equal(report.errors, np.zeros(len(report.errors)))


def test_a_log_names_its_vocabulary(log, model, task):
    assert read_trajectory(log).claim.data.normalisation == TOKENS
    other = task.train._replace(normalisation=Tokens(vocabulary=11))
    with pytest.raises(TrajectoryError, match=r"other data \(differs in normalisation\)"):
        verify(log, other, model=model)


def test_the_rows_of_a_log_are_found(log, task):
    order = np.random.default_rng(0).permutation(task.train.size)
    rows = match_rows(read_trajectory(log), task.train.take(order))
    assert same(task.train.take(order).take(rows), task.train)
