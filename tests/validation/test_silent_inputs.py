"""Inputs that are most likely mistakes are named, and honest ones are not."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unlearnkit import data, models, training
from unlearnkit.auditing import audit_reference, evaluate, klom
from unlearnkit.base import Dataset, Normalisation, Task, Variables
from unlearnkit.models import from_functions
from unlearnkit.validation import (
    InputWarning,
    check_dataset,
    check_held_out,
    check_variables,
    shared_rows,
)

KEY = jax.random.key(0)
SYMMETRIC = Normalisation("symmetric", (0.5,), (0.5,))
BYTES = Normalisation("bytes", (0.0,), (1 / 255,))


def model_of(apply, d=4):
    return from_functions(
        lambda key: {"w": jax.random.normal(key, (d, 3))}, apply, input_shape=(d,)
    )


LOGITS = model_of(lambda params, x: x @ params["w"])
SOFTMAX = model_of(lambda params, x: jax.nn.softmax(x @ params["w"]))


def draw(seed, n):
    x = jax.random.uniform(jax.random.key(seed), (n, 4))
    return Dataset(x, jax.random.randint(jax.random.key(seed + 50), (n,), 0, 3))


def quiet(function, *args, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return function(*args, **kwargs)


class TestRange:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 1)).astype(np.float32)
    y = np.zeros(6, np.int32)

    @pytest.mark.parametrize("module", [np, jnp])
    @pytest.mark.parametrize("shape", [(6, 4, 4, 1), (6, 16)])
    def test_bytes_left_as_they_are_are_named(self, module, shape):
        x = module.asarray(self.pixels.reshape(shape))
        with pytest.warns(InputWarning, match=r"x of train holds values from .*divide pixels"):
            check_dataset(Dataset(x, module.asarray(self.y)), name="train")

    def test_bytes_normalised_as_if_they_were_in_0_to_1_are_named(self):
        x = SYMMETRIC.apply(jnp.asarray(self.pixels))
        with pytest.warns(InputWarning, match="'symmetric' takes for pixels from"):
            check_dataset(Dataset(x, jnp.asarray(self.y), SYMMETRIC))

    def test_resized_bytes_are_named_too(self):
        x = jnp.asarray(self.pixels * 0.731)
        with pytest.warns(InputWarning, match="where 0 to 1 is expected"):
            check_dataset(Dataset(x, jnp.asarray(self.y)))

    def test_bytes_below_zero_are_named_too(self):
        x = jnp.asarray(self.pixels - 255)  # as inverted or centred ones are
        with pytest.warns(InputWarning, match="x of dataset holds values from -255 to"):
            check_dataset(Dataset(x, jnp.asarray(self.y)))

    @pytest.mark.parametrize(
        "dataset",
        [
            Dataset(jnp.asarray(pixels / 255), jnp.asarray(y)),
            Dataset(SYMMETRIC.apply(jnp.asarray(pixels / 255)), jnp.asarray(y), SYMMETRIC),
            Dataset(jnp.asarray(pixels), jnp.asarray(y), BYTES),
            Dataset(jax.random.normal(KEY, (6, 4, 4, 1)) * 2, jnp.asarray(y)),  # standardised
            Dataset(jax.random.normal(KEY, (6, 16)) * 1e3, jnp.asarray(y)),  # incomes
            Dataset(jnp.arange(6.0)[:, None] * 9, jnp.asarray(y)),  # ages
            Dataset(jnp.asarray(pixels.reshape(6, 16) > 99, jnp.float32), jnp.asarray(y)),
        ],
        ids=["unit", "symmetric", "declared", "standardised", "features", "ages", "binary"],
    )
    def test_honest_ranges_are_not(self, dataset):
        quiet(check_dataset, dataset)

    def test_it_is_said_where_data_enter(self):
        train = Dataset(jnp.asarray(self.pixels.reshape(6, 16)), jnp.asarray(self.y))
        test = draw(1, 6)._replace(x=jax.random.uniform(KEY, (6, 16)))
        with pytest.warns(InputWarning, match="x of train"):
            data.make_task(KEY, train, test, data.RandomForget(count=1))
        network = models.create("logistic", input_shape=(16,), n_classes=3)
        recipe = training.Recipe(epochs=1, batch_size=6)
        with pytest.warns(InputWarning, match="x of dataset"):
            training.fit(KEY, network, train, recipe)


class TestOutputs:
    def test_probabilities_are_refused_wherever_weights_are_checked(self):
        with pytest.raises(ValueError, match=r"returns probabilities.*remove the softmax"):
            check_variables(SOFTMAX.init(KEY), SOFTMAX)
        dataset, recipe = draw(1, 8), training.Recipe(epochs=1, batch_size=4)
        with pytest.raises(ValueError, match="returns probabilities"):
            training.fit(KEY, SOFTMAX, dataset, recipe)
        with pytest.raises(ValueError, match="returns probabilities"):
            training.fit_many(jax.random.split(KEY), SOFTMAX, dataset, recipe)

    @pytest.mark.parametrize(
        "apply",
        [
            LOGITS.apply,
            lambda v, x: jax.nn.log_softmax(x @ v.params["w"]),
            lambda v, x: jax.nn.sigmoid(x @ v.params["w"]),
            lambda v, x: 0 * x @ v.params["w"],
        ],
        ids=["logits", "log_softmax", "sigmoid", "zero"],
    )
    def test_logits_and_log_probabilities_pass(self, apply):
        check_variables(LOGITS.init(KEY), LOGITS._replace(apply=apply))

    def test_a_network_that_mixes_its_batch_in_evaluation_mode_is_refused(self):
        def apply(params, x):
            logits = x @ params["w"]
            return logits - logits.mean(0)

        mixing = model_of(apply)
        with pytest.raises(ValueError, match="the model in evaluation mode mixes the examples"):
            check_variables(mixing.init(KEY), mixing)
        with pytest.raises(ValueError, match="mixes the examples"):
            evaluate(KEY, mixing, mixing.init(KEY), honest_task())


def honest_task():
    return Task(draw(1, 60), draw(2, 20), draw(3, 10), draw(4, 30))


class TestReference:
    task = honest_task()

    def test_the_audited_weights_as_reference_are_named(self):
        variables = LOGITS.init(KEY)
        for reference in (variables, audit_reference(KEY, LOGITS, variables, self.task)):
            with pytest.warns(InputWarning, match="the reference answers as the audited network"):
                evaluate(KEY, LOGITS, variables, self.task, reference=reference)

    def test_a_network_one_bit_away_is_another(self):
        variables = LOGITS.init(KEY)
        w = variables.params["w"]
        other = Variables({"w": w.at[0, 0].set(w[0, 0] * (1 + 2e-7))})
        quiet(evaluate, KEY, LOGITS, variables, self.task, reference=other)

    def test_an_ensemble_compared_with_itself_is_named(self):
        rng = np.random.default_rng(0)
        margins = rng.normal(size=(5, 8))
        with pytest.warns(InputWarning, match="the ensemble is compared with itself"):
            klom(margins, margins[::-1])
        quiet(klom, margins, np.concatenate([margins[:4], rng.normal(size=(1, 8))]))


class TestHeldOut:
    train, test = draw(1, 400), draw(2, 200)

    def task(self, test):
        return data.make_task(KEY, self.train, test, data.RandomForget(count=40))

    def test_the_training_set_as_test_set_is_named_with_the_number(self):
        with pytest.warns(InputWarning, match="400 of 400 examples are in both the test set"):
            self.task(self.train)

    @pytest.mark.parametrize("copies", [3, 100])
    def test_shared_rows_are_named_wherever_they_stand(self, copies):
        mixed = jnp.concatenate([self.test.x[copies:], self.train.x[-copies:]])
        with pytest.warns(InputWarning, match=f"{copies} of 200 examples"):
            self.task(self.test._replace(x=mixed))

    def test_a_percent_of_copies_is_what_honest_data_hold(self):
        mixed = self.test.x.at[0].set(self.train.x[5]).at[9].set(self.train.x[7])
        quiet(self.task, self.test._replace(x=mixed))

    def test_a_small_training_set_inside_a_large_test_set_is_all_shared(self):
        with pytest.warns(InputWarning, match="2 of 2 examples"):
            check_held_out([self.train.take(np.array([0, 1]))], self.train)

    def test_an_audit_names_them(self):
        task = honest_task()
        leaky = task._replace(test=task.forget)
        with pytest.warns(InputWarning, match="20 of 20 examples are in both"):
            evaluate(KEY, LOGITS, LOGITS.init(KEY), leaky)
        with pytest.warns(InputWarning, match="20 of 20 examples are in both"):
            audit_reference(KEY, LOGITS, LOGITS.init(KEY), leaky)
        quiet(evaluate, KEY, LOGITS, LOGITS.init(KEY), task)

    def test_digits_are_quiet(self):
        parts = [data.load("digits", split=split) for split in ("train", "test")]
        quiet(data.make_task, KEY, *parts, data.RandomForget(fraction=0.1))


class TestRows:
    def test_equal_rows_alone_have_equal_hashes(self):
        x = np.random.default_rng(0).integers(0, 3, (3000, 6)).astype(np.float32)
        _, classes = np.unique(x, axis=0, return_inverse=True)
        hashes = shared_rows.row_hashes(x)
        _, found = np.unique(hashes, return_inverse=True)
        pairs = set(zip(classes.ravel().tolist(), found.tolist(), strict=True))
        assert len(pairs) == classes.max() + 1 == found.max() + 1

    def test_order_sign_of_zero_and_blocks(self, monkeypatch):
        x = np.array([[1.0, 2.0], [2.0, 1.0], [0.0, 3.0], [-0.0, 3.0]], np.float32)
        hashes = shared_rows.row_hashes(x)
        assert hashes[0] != hashes[1]
        assert hashes[2] == hashes[3]
        monkeypatch.setattr(shared_rows, "_BLOCK", 2)
        np.testing.assert_array_equal(shared_rows.row_hashes(x), hashes)
        np.testing.assert_array_equal(shared_rows.row_hashes(jnp.asarray(x)), hashes)

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
    def test_other_precisions(self, dtype):
        x = jnp.arange(15.0).reshape(5, 3).astype(dtype)
        assert len(np.unique(shared_rows.row_hashes(x))) == 5

    def test_an_array_is_read_once_as_long_as_it_lives(self, monkeypatch):
        reads = []
        original = shared_rows._hash
        monkeypatch.setattr(shared_rows, "_hash", lambda x: reads.append(1) or original(x))
        x = jax.random.normal(KEY, (4, 3))
        first = shared_rows.row_hashes(x)
        np.testing.assert_array_equal(shared_rows.row_hashes(x), first)
        assert len(reads) == 1
        shared_rows.row_hashes(jax.random.normal(jax.random.key(1), (4, 3)))
        assert len(reads) == 2

    def test_a_numpy_array_that_was_changed_is_read_again(self):
        x = np.ones((2, 3), np.float32)
        before = shared_rows.row_hashes(x)
        x[0] = 2
        assert shared_rows.row_hashes(x)[0] != before[0]
        assert shared_rows.range_of(x).high == 2
