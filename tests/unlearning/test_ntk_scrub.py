"""NTK scrubbing against closed forms, dense float64 oracles and itself."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from jax.flatten_util import ravel_pytree

from unlearnkit import unlearning
from unlearnkit.base import Dataset, Variables
from unlearnkit.training import Recipe, fit
from unlearnkit.unlearning import NtkScrub, SolveWarning
from unlearnkit.unlearning.fisher_forgetting import fisher_noise_variance
from unlearnkit.unlearning.ntk_scrub.solves import shift_by, trapezium_scale

KEY = jax.random.key(3)
L2 = NtkScrub(loss="l2", weight_decay=0.1, tol=5e-6, noise=0.0, rank=8, chunk=5, jacobian_chunk=3)
FORMS = ("matrix_free", "stored", "dense", "blocks")


def trained_net(model, task, start):
    recipe = Recipe(epochs=5, batch_size=4, learning_rate=0.05, frozen_state=True)
    return fit(jax.random.key(0), model, task.train, recipe, variables=start).variables


class TestLinearModel:
    @pytest.mark.parametrize("linearise_at", ["trained", "pretrained"])
    @pytest.mark.parametrize("form", FORMS)
    def test_equals_retraining(self, make_model, make_task, ridge, distance, form, linearise_at):
        model, start = make_model()
        task, train = make_task(), ridge(0.1).train
        original, retrained = train(task.train, start), train(task.retain, start)
        method = dataclasses.replace(L2, form=form, linearise_at=linearise_at)
        scrubbed = method(KEY, model, original, task, initial=start)
        assert distance(scrubbed.variables, retrained) < 1e-5
        assert distance(original, retrained) > 1e-2
        assert all(bool(info.converged) for info in scrubbed.info.solves.values())

    @pytest.mark.parametrize("form", FORMS)
    def test_finds_the_centre_of_the_decay_by_itself(
        self, make_model, make_task, ridge, distance, form, x64
    ):
        model, start = make_model()
        task, train = make_task(), ridge(0.1).train
        method = dataclasses.replace(L2, form=form, tol=1e-10)
        scrubbed = method(KEY, model, train(task.train, start), task)
        assert distance(scrubbed.variables, train(task.retain, start)) < 1e-8

    def test_the_printed_equation_fails_where_the_corrected_one_holds(
        self, make_model, make_task, distance, x64
    ):
        """With more weights than outputs and no ridge, P is a projection, as in the paper."""
        model, start = make_model(shape=(3, 3, 1))
        task = make_task(6, 2, (3, 3, 1))
        outputs = model.apply(start, task.train.x)
        flat, unravel = ravel_pytree(start.params)
        jacobian = np.asarray(
            jax.jacobian(lambda w: model.apply(Variables(unravel(w)), task.train.x))(flat)
        ).reshape(24, -1)
        errors = np.asarray(jax.nn.one_hot(task.train.y, 3) - outputs).reshape(-1)
        (j_r, j_f), (e_r, e_f) = np.split(jacobian, [18]), np.split(errors, [18])
        inverse = np.linalg.inv(j_r @ j_r.T)
        projection = np.eye(len(flat)) - j_r.T @ inverse @ j_r
        m = np.linalg.inv(j_f @ projection @ j_f.T)
        predicted = j_f @ j_r.T @ inverse @ e_r
        corrected = -projection @ j_f.T @ m @ (e_f - predicted)
        printed = projection @ j_f.T @ m @ (e_f + predicted)

        truth = np.linalg.pinv(j_r) @ e_r - np.linalg.pinv(jacobian) @ errors
        assert np.linalg.norm(corrected - truth) < 1e-9 * np.linalg.norm(truth)
        assert np.linalg.norm(printed - truth) > 0.5 * np.linalg.norm(truth)

        on_all = Variables(unravel(flat + np.linalg.pinv(jacobian) @ errors))
        for form in FORMS:
            method = dataclasses.replace(L2, form=form, weight_decay=0.0, rank=0, tol=1e-11)
            scrubbed = method(KEY, model, on_all, task, initial=start).variables
            step = ravel_pytree(scrubbed.params)[0] - ravel_pytree(on_all.params)[0]
            assert np.linalg.norm(step - corrected) < 1e-8 * np.linalg.norm(corrected)


class TestNetworks:
    @pytest.mark.parametrize(
        ("name", "linearise_at"),
        [("mlp", "trained"), ("batch_norm", "trained"), ("batch_norm", "pretrained")],
    )
    def test_the_forms_agree(self, make_model, make_task, distance, name, linearise_at):
        model, start = make_model(name)
        task = make_task()
        original = trained_net(model, task, start)
        steps = []
        for form in FORMS:
            method = dataclasses.replace(L2, form=form, linearise_at=linearise_at)
            scrubbed = method(KEY, model, original, task, initial=start).variables
            for new, old in zip(
                jax.tree.leaves(scrubbed.state), jax.tree.leaves(original.state), strict=True
            ):
                assert np.array_equal(new, old)
            steps.append(jax.tree.map(jnp.subtract, scrubbed.params, original.params))
        for other in steps[1:]:
            assert distance(steps[0], other) < 1e-4

    @pytest.mark.parametrize(("chunk", "rank"), [(1, 0), (7, 4), (100, 10**6)])
    def test_neither_chunks_nor_the_preconditioner_change_the_shift(
        self, make_model, make_task, distance, chunk, rank, x64
    ):
        model, start = make_model("mlp", hidden=(5,))
        task = make_task()
        original = trained_net(model, task, start)
        exact, other = (
            dataclasses.replace(L2, tol=1e-10, **options)
            for options in (
                {"form": "dense"},
                {"chunk": chunk, "jacobian_chunk": chunk, "rank": rank},
            )
        )
        one, two = (m(KEY, model, original, task, initial=start) for m in (exact, other))
        shift = jax.tree.map(jnp.subtract, one.variables.params, original.params)
        assert distance(one.variables, two.variables, shift) < 1e-7


class TestSoftmax:
    @pytest.mark.parametrize("linearise_at", ["trained", "pretrained"])
    def test_is_the_optimum_of_the_linearised_network(
        self, make_model, make_task, distance, linearise_at, x64
    ):
        model, start = make_model("mlp", hidden=(4,))
        task = make_task()
        original = trained_net(model, task, start)
        point = original if linearise_at == "trained" else start
        centre, unravel = ravel_pytree(start.params)
        here = np.asarray(ravel_pytree(point.params)[0])
        jacobian = np.asarray(
            jax.jacobian(lambda w: model.apply(Variables(unravel(w)), task.train.x))(here)
        )
        outputs = np.asarray(model.apply(point, task.train.x))
        labels = np.asarray(task.train.y)

        def minimum(n):
            def loss(w):
                z = outputs[:n] + jacobian[:n] @ (w - here)
                p = np.exp(z - z.max(1, keepdims=True))
                p /= p.sum(1, keepdims=True)
                errors = (p - np.eye(3)[labels[:n]]) / n
                value = -np.mean(np.log(p[np.arange(n), labels[:n]]))
                away = w - np.asarray(centre)
                gradient = np.einsum("ia,iap->p", errors, jacobian[:n]) + 0.05 * away
                return value + 0.025 * away @ away, gradient

            options = {"gtol": 1e-12, "maxiter": 5000}
            return scipy.optimize.minimize(loss, here, jac=True, method="BFGS", options=options).x

        wanted = minimum(task.retain.size) - minimum(task.train.size)
        method = NtkScrub(
            weight_decay=0.05, tol=1e-9, noise=0.0, chunk=5, linearise_at=linearise_at
        )
        scrubbed = method(KEY, model, original, task, initial=start)
        step = jax.tree.map(jnp.subtract, scrubbed.variables.params, original.params)
        assert distance(step, unravel(wanted)) < 1e-6
        assert all(bool(info.converged) for info in scrubbed.info.solves.values())

    def test_the_centre_found_by_itself_makes_the_trained_weights_optimal(
        self, make_model, make_task, x64
    ):
        model, start = make_model("mlp", hidden=(4,))
        task = make_task()
        info = NtkScrub(tol=1e-9)(KEY, model, trained_net(model, task, start), task).info
        assert int(info.solves["all"].steps) == 0
        assert int(info.solves["retain"].steps) > 0


class TestScale:
    def test_is_the_published_formula(self):
        for seed in range(6):
            shift, error = np.random.default_rng(seed).normal(size=(2, 3))
            size, legs = np.linalg.norm(shift), np.linalg.norm(error)
            c = shift @ error / size / legs
            long = 2 * np.sin(np.arccos(c) - np.pi / 2) if c < 0 else 2 * np.cos(np.arccos(c))
            np.testing.assert_allclose(
                trapezium_scale({"w": jnp.asarray(shift)}, {"w": jnp.asarray(error)}),
                (size + long * legs) / size,
                rtol=1e-5,
            )

    def test_is_three_where_the_linearisation_is_exact(self, make_model, make_task, ridge):
        model, start = make_model()
        task = make_task()
        original = ridge(0.1).train(task.train, start)
        method = dataclasses.replace(L2, scale="trapezium", form="dense")
        info = method(KEY, model, original, task, initial=start).info
        np.testing.assert_allclose(info.history["scale"], [3.0], rtol=1e-3)

    def test_multiplies_the_shift(self, make_model, make_task, distance):
        model, start = make_model("mlp", hidden=(4,))
        task = make_task()
        one, half = (
            dataclasses.replace(L2, scale=s)(KEY, model, start, task).variables.params
            for s in (1.0, 0.5)
        )
        middle = jax.tree.map(lambda a, b: (a + b) / 2, one, start.params)
        assert distance(half, middle) < 1e-6


def test_the_noise_is_that_of_the_fisher_at_the_shifted_weights(make_model, make_task):
    model, start = make_model("mlp", hidden=(40,))
    task = make_task(40, 10)
    method = dataclasses.replace(L2, tol=1e-4)
    quiet = method(KEY, model, start, task).variables
    noisy = dataclasses.replace(method, noise=1e-4)(KEY, model, start, task).variables
    variance = fisher_noise_variance(model, quiet, task.retain.x, alpha=1e-4)
    standard = jax.tree.map(
        lambda a, b, v: (a - b) / jnp.sqrt(v), noisy.params, quiet.params, variance
    )
    flat = ravel_pytree(standard)[0]
    assert abs(float(jnp.std(flat)) - 1) < 4 / np.sqrt(2 * len(flat))


@pytest.mark.parametrize("loss", ["l2", "softmax"])
def test_memory_grows_by_copies_of_the_data_and_vectors_of_outputs(make_model, optimised, loss):
    """Per example: its 64 pixels, the 3 rows of the sketch, and outputs; no activations (256), no
    row of the Jacobian (p = 17,411) and none of the kernel (3 n)."""
    model, start = make_model("mlp", (8, 8, 1), hidden=(256,))
    method = NtkScrub(loss=loss, rank=4, chunk=20, jacobian_chunk=4)
    settings, form = method.settings(), "matrix_free"

    def temporary(n):
        train = Dataset(jnp.zeros((n, 8, 8, 1)), jnp.zeros(n, jnp.int32))
        kept = n - n // 10
        lowered = shift_by.lower(KEY, model, settings, form, None, start, start.params, train, kept)
        return lowered.compile().memory_analysis().temp_size_in_bytes

    numbers = (temporary(2000) - temporary(500)) / 1500 / 4
    assert numbers < 4 * 64 + 3 * (20 + 3 * settings.rank)


def test_a_solve_that_falls_short_is_told(make_model, make_task):
    model, start = make_model("mlp", hidden=(5,))
    hasty = dataclasses.replace(L2, max_steps=1, rank=0)
    with pytest.warns(SolveWarning, match=r"'(all|retain)' did not converge: relative residual"):
        info = hasty(KEY, model, start, make_task()).info
    assert not bool(info.solves["retain"].converged)
    assert float(info.solves["retain"].residual) > 1e-3
    with pytest.warns(SolveWarning, match="'retain' did not converge"):
        NtkScrub(newton_steps=1, tol=1e-6)(KEY, model, start, make_task())


def test_another_noise_or_scale_compiles_nothing(make_model, make_task):
    model, start = make_model("mlp", hidden=(5,))
    task = make_task()
    L2(KEY, model, start, task)
    before = shift_by._cache_size()
    dataclasses.replace(L2, noise=1e-8, scale=2.0)(jax.random.key(8), model, start, task)
    assert shift_by._cache_size() == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "hinge"}, "unknown loss 'hinge'; known: l2, softmax"),
        ({"form": "blocks"}, "closed form of the L2 loss"),
        ({"form": "public", "loss": "l2"}, "public.*choose loss='softmax'"),
        ({"form": "kernel"}, "unknown form 'kernel'; known: auto, dense"),
        ({"form": "dense", "store": "bfloat16"}, "is of form='stored'"),
        ({"weight_decay": -0.1}, "weight_decay must be >= 0, got -0.1"),
        ({"weight_decay": 0.0}, "weight_decay must be > 0"),
        ({"noise": -1e-9}, "noise must be >= 0"),
        ({"noise": float("nan")}, "noise must be >= 0"),
        ({"tol": 0.0}, "tol must be > 0"),
        ({"scale": "trapeze"}, "scale must be a number or 'trapezium'"),
        ({"scale": -1.0}, "scale must be > 0"),
        ({"linearise_at": "start"}, "unknown linearise_at"),
        ({"rank": -1}, "rank must be >= 0"),
        ({"chunk": 0}, "chunk must be >= 1"),
    ],
)
def test_bad_settings_are_refused(options, message, unchecked_types):
    with pytest.raises(ValueError, match=message):
        NtkScrub(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"linearise_at": "pretrained"},
        {"scale": "trapezium"},
        {"loss": "l2", "weight_decay": 0.0, "rank": 0},
    ],
)
def test_what_needs_the_initial_weights_says_so(make_model, make_task, options):
    model, start = make_model()
    with pytest.raises(ValueError, match="needs the weights from which fine-tuning began"):
        unlearning.create("ntk_scrub", **options)(KEY, model, start, make_task())


def test_initial_weights_of_another_network_are_refused(make_model, make_task):
    model, start = make_model()
    with pytest.raises(ValueError, match="variables do not fit the model"):
        NtkScrub()(KEY, model, start, make_task(), initial=Variables({"other": jnp.zeros(3)}))
