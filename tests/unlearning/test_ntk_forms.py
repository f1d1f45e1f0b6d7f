"""The forms of NTK scrubbing: the same steps by other products, and which one is taken."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from unlearnkit import costs, kernels
from unlearnkit.base import Variables
from unlearnkit.training import Recipe, fit
from unlearnkit.unlearning import NtkScrub, SolveWarning
from unlearnkit.unlearning.ntk_scrub.settings import NtkSettings, Size, choose_form

KEY = jax.random.key(3)
BASE = NtkScrub(weight_decay=0.05, tol=1e-9, noise=0.0, rank=0, chunk=5, jacobian_chunk=3)
SMALL = Size(examples=500, outputs=5, weights=86_765, itemsize=4)


@pytest.fixture
def small(x64, make_model, make_task):
    """A network after fine-tuning in float64: (model, trained, task, start)."""
    model, start = make_model("mlp", hidden=(4,))
    task = make_task()
    recipe = Recipe(epochs=5, batch_size=4, learning_rate=0.05, frozen_state=True)
    trained = fit(jax.random.key(0), model, task.train, recipe, variables=start).variables
    return model, trained, task, start


def scrub(problem, **options):
    model, trained, task, start = problem
    return dataclasses.replace(BASE, **options)(KEY, model, trained, task, initial=start)


def shift(problem, **options):
    found = scrub(problem, **options).variables.params
    return np.asarray(ravel_pytree(found)[0] - ravel_pytree(problem[1].params)[0])


def jacobian_and_outputs(problem):
    model, trained, task, _ = problem
    flat, unravel = ravel_pytree(trained.params)
    outputs = model.apply(trained, task.train.x)
    rows = jax.jacobian(lambda w: model.apply(Variables(unravel(w)), task.train.x))(flat)
    return np.asarray(rows).reshape(outputs.size, -1), np.asarray(outputs)


@pytest.mark.parametrize("loss", ["l2", "softmax"])
def test_the_forms_take_the_same_steps(small, loss):
    """Cut short: iterates far from the solution agree only where they are the same ones."""
    hasty = {"loss": loss, "max_steps": 4, "newton_steps": 2}
    found = []
    for form in ("matrix_free", "stored", "dense"):
        with pytest.warns(SolveWarning):
            found.append(scrub(small, form=form, **hasty))
    wanted, *others = found
    exact = scrub(small, loss=loss, form="dense")
    size = distance(exact, small[1])
    assert distance(wanted, exact) > 1e-3 * size
    for other in others:
        assert distance(other, wanted) < 1e-10 * size
        for name, info in wanted.info.solves.items():
            assert int(other.info.solves[name].steps) == int(info.steps)


def distance(one, other):
    weights = [getattr(found, "variables", found).params for found in (one, other)]
    return float(jnp.linalg.norm(jnp.subtract(*(ravel_pytree(w)[0] for w in weights))))


@pytest.mark.parametrize("loss", ["l2", "softmax"])
def test_a_preconditioner_saves_steps_and_changes_nothing_else(small, loss):
    plain, sketched, stored = (
        scrub(small, loss=loss, form=form, rank=rank)
        for form, rank in (("matrix_free", 0), ("matrix_free", 10**6), ("stored", 10**6))
    )
    size = distance(plain, small[1])
    assert distance(sketched, plain) < 1e-6 * size
    assert distance(stored, sketched) < 1e-10 * size
    steps = [
        sum(int(info.steps) for info in found.info.solves.values())
        for found in (plain, sketched, stored)
    ]
    assert steps[2] == steps[1] < steps[0]


def test_a_kernel_s_factor_replaces_the_steps_of_both_ridge_problems(small):
    solves = scrub(small, loss="l2", form="dense", rank=1).info.solves
    assert int(solves["all"].steps) <= 2
    assert int(solves["retain"].steps) < 20


@pytest.mark.parametrize("loss", ["l2", "softmax"])
def test_a_rounded_jacobian_leaves_exact_residuals(small, loss):
    exact = shift(small, loss=loss, form="dense")
    found = scrub(small, loss=loss, form="stored", store="bfloat16", tol=1e-7)
    assert all(bool(info.converged) for info in found.info.solves.values())
    step = np.asarray(ravel_pytree(found.variables.params)[0] - ravel_pytree(small[1].params)[0])
    assert np.linalg.norm(step - exact) < 1e-4 * np.linalg.norm(exact)


@pytest.mark.parametrize("loss", ["l2", "softmax"])
@pytest.mark.parametrize("tol", [1e-1, 1e-3])
def test_the_shift_is_no_further_off_than_is_told(small, loss, tol):
    exact = shift(small, loss=loss, form="dense")
    found = scrub(small, loss=loss, form="matrix_free", tol=tol)
    told = float(found.info.history["shift_error"][0])
    step = np.asarray(ravel_pytree(found.variables.params)[0] - ravel_pytree(small[1].params)[0])
    # Relative to the step that was made, which may be shorter than the exact one.
    true = np.linalg.norm(step - exact) / np.linalg.norm(step)
    assert true <= told <= 1e4 * tol


@pytest.mark.parametrize("scale", [1.0, "trapezium"])
def test_the_public_form_is_the_notebook_s(small, scale):
    """Two ridge solves on softmax - onehot at the trained weights, e from the initialisation."""
    rows, outputs = jacobian_and_outputs(small)
    _, trained, task, start = small
    residual = np.asarray(jax.nn.softmax(outputs) - jax.nn.one_hot(task.train.y, 3)).reshape(-1)

    def weights(n):
        j, r = rows[: 3 * n], residual[: 3 * n]
        return -j.T @ np.linalg.solve(j @ j.T + n * 0.05 * np.eye(3 * n), r)

    w_all, w_retain = weights(task.train.size), weights(task.retain.size)
    delta = w_retain - w_all
    e = np.asarray(ravel_pytree(trained.params)[0] - ravel_pytree(start.params)[0]) - w_retain
    cosine = delta @ e / np.linalg.norm(delta) / np.linalg.norm(e)
    legs = np.linalg.norm(e) * (
        2 * np.sin(np.arccos(cosine) - np.pi / 2) if cosine < 0 else 2 * cosine
    )
    longer = 1.0 if scale == 1.0 else 1 + legs / np.linalg.norm(delta)
    found = shift(small, form="public", scale=scale)
    np.testing.assert_allclose(found, longer * delta, rtol=1e-8, atol=1e-12)
    assert np.linalg.norm(found - shift(small)) > 0.05 * np.linalg.norm(delta)


def test_the_shift_is_where_both_gradient_flows_end(small):
    """Equation (8) on all examples and on the retain set, for a long time."""
    model, _, task, start = small
    ends = []
    for part in (task.train, task.retain):
        weights, _ = kernels.weight_flow(
            lambda p, x: model.apply(Variables(p), x), start.params, part.x,
            lambda f, y=part.y: kernels.cross_entropy_losses(f, y).mean(),
            jnp.array([500.0]), weight_decay=BASE.weight_decay, tol=1e-9,
        )  # fmt: skip
        ends.append(np.asarray(ravel_pytree(weights)[0]))
    found = shift(small, linearise_at="pretrained")
    np.testing.assert_allclose(found, ends[1] - ends[0], atol=1e-5 * np.linalg.norm(found))


@pytest.mark.parametrize("form", ["dense", "stored", "matrix_free", "blocks", "public"])
def test_float32_weights_stay_so_where_float64_is_allowed(make_model, make_task, form):
    model, start = make_model("mlp", hidden=(4,))
    task = make_task()
    loss = "l2" if form == "blocks" else "softmax"
    method = dataclasses.replace(BASE, form=form, loss=loss, tol=1e-4, rank=4)
    with jax.enable_x64(True):
        found = method(KEY, model, start, task, initial=start).variables
    assert {leaf.dtype for leaf in jax.tree.leaves(found.params)} == {jnp.dtype("float32")}


def test_what_is_held_costs_a_backward_pass_per_output(small):
    n = small[2].train.size
    dense = scrub(small, form="dense").info.cost.example_gradients
    jacobian = costs.FORWARD + 3 * costs.BACKWARD
    passes = costs.FORWARD + jacobian + costs.JVP + 2 * costs.VJP
    np.testing.assert_allclose(dense, n * passes)
    ridge = scrub(small, loss="l2", form="dense").info.cost.example_gradients
    passes = costs.FORWARD + jacobian + costs.JVP + 2 * costs.VJP
    np.testing.assert_allclose(ridge, n * passes)
    free = scrub(small, form="matrix_free")
    steps = sum(int(info.steps) for info in free.info.solves.values())
    assert free.info.cost.example_gradients > n * steps * (costs.JVP + costs.VJP) > 3 * dense


@pytest.mark.parametrize(
    ("examples", "weights", "gigabytes", "options", "form"),
    [
        (400, 86_765, 20, {}, "dense"),
        (500, 86_765, 20, {}, "dense"),
        (501, 86_765, 20, {}, "stored"),
        (500, 1_370_021, 20, {}, "dense"),
        (2000, 86_765, 20, {}, "stored"),
        (2000, 86_765, 4, {}, "dense"),
        (2000, 86_765, 4, {"store": "bfloat16"}, "stored"),
        (2000, 86_765, 1, {}, "matrix_free"),
        (50_000, 86_765, 20, {}, "matrix_free"),
        (500, 86_765, 20, {"form": "matrix_free"}, "matrix_free"),
        (500, 86_765, 20, {"form": "dense"}, "dense"),
    ],
)
def test_the_form_follows_from_outputs_weights_and_memory(
    examples, weights, gigabytes, options, form
):
    size = Size(examples, 5, weights, 4)
    found = choose_form(NtkSettings(**options), size, free=gigabytes * 10**9)
    assert found.name == form
    assert found.why


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ("dense", r"holds Θ of 60,000 examples.*2.88e\+03 GB, and 20 GB are free.*matrix_free"),
        ("stored", r"holds J of 60,000 examples.*GB, and 20 GB are free.*store='bfloat16'"),
    ],
)
def test_what_does_not_fit_is_refused_before_it_is_tried(form, message):
    size = Size(60_000, 10, 61_706, 4)
    with pytest.raises(ValueError, match=message):
        choose_form(NtkSettings(form=form), size, free=20 * 10**9)


def test_a_scrub_refuses_what_the_memory_does_not_hold(monkeypatch, make_model, make_task):
    model, start = make_model("mlp", hidden=(4,))
    monkeypatch.setattr(costs, "available_bytes", lambda: 1000)
    with pytest.raises(ValueError, match="form='dense' holds Θ"):
        dataclasses.replace(BASE, form="dense")(KEY, model, start, make_task())


def test_another_network_of_the_same_kind_compiles_nothing(make_model, make_task):
    """What is held is made by functions that do not depend on the weights."""
    from unlearnkit.kernels import ntk

    model, start = make_model("mlp", hidden=(4,))
    task = make_task()
    method = dataclasses.replace(BASE, form="dense", tol=1e-3)
    method(KEY, model, start, task)
    before = [f._cache_size() for f in (ntk._block, ntk._jacobian, ntk._factors, ntk._rows)]
    moved = Variables(jax.tree.map(lambda w: 1.1 * w, start.params), start.state)
    method(KEY, model, moved, task)
    assert before == [f._cache_size() for f in (ntk._block, ntk._jacobian, ntk._factors, ntk._rows)]
