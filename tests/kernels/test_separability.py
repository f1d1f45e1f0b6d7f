"""What assumes a mean over examples refuses a loss that mixes them, and nothing else."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from unlearnkit import kernels
from unlearnkit.base import Dataset
from unlearnkit.validation import separability
from unlearnkit.validation.separability import check_mean_of_examples, check_rows_alone

PARAMS = {
    "w": jax.random.normal(jax.random.key(0), (4, 5)),
    "v": jax.random.normal(jax.random.key(1), (5, 3)),
}
X = jax.random.normal(jax.random.key(2), (8, 4))
Y = jnp.arange(8, dtype=jnp.int32) % 3
DATA = Dataset(X, Y)


def plain(params, x):
    return jnp.tanh(x @ params["w"]) @ params["v"]


def normed(params, x, weight=1.0):
    """Batch statistics between the layers; `weight` mixes them with fixed ones."""
    h = x @ params["w"]
    mean, spread = weight * h.mean(0), weight * h.std(0) + (1 - weight)
    return jnp.tanh((h - mean) / (spread + 1e-3)) @ params["v"]


def layer_normed(params, x):
    h = x @ params["w"]
    return ((h - h.mean(1, keepdims=True)) / h.std(1, keepdims=True)) @ params["v"]


def losses(apply, params, x, y):
    return optax.softmax_cross_entropy_with_integer_labels(apply(params, x), y)


def mean_loss(apply):
    return lambda params, x, y: losses(apply, params, x, y).mean()


def dropped(params, x):
    h = jnp.tanh(x @ params["w"])
    kept = jax.random.bernoulli(jax.random.key(7), 0.5, h.shape)
    return (h * kept) @ params["v"]


def weighted(params, x, y):
    """Weights by class, normalised over the batch."""
    weights = jnp.array([1.0, 2.0, 5.0])[y]
    return weights @ losses(plain, params, x, y) / weights.sum()


def regularised(params, x, y):
    return mean_loss(plain)(params, x, y) + 0.1 * jnp.sum(params["w"] ** 2)


MIXING = {
    "batch statistics": mean_loss(normed),
    "batch statistics of a small loss": lambda params, x, y: 1e-6 * mean_loss(normed)(params, x, y),
    "a hundredth of batch statistics": mean_loss(partial(normed, weight=0.01)),
    "weights normalised by batch": weighted,
    "the hardest example": lambda params, x, y: losses(plain, params, x, y).max(),
    "the square of the mean": lambda params, x, y: mean_loss(plain)(params, x, y) ** 2,
    "contrast": lambda params, x, y: (
        mean_loss(plain)(params, x, y) + 0.01 * jnp.mean((x @ x.T) ** 2)
    ),
}
SEPARATE = {
    "plain": mean_loss(plain),
    "layer norm": mean_loss(layer_normed),
    "regularised": regularised,
    "dropout": mean_loss(dropped),
    "half precision": mean_loss(
        lambda params, x: plain(
            jax.tree.map(lambda w: w.astype(jnp.bfloat16), params), x.astype(jnp.bfloat16)
        ).astype(jnp.float32)
    ),
    "confident": mean_loss(lambda params, x: 100 * plain(params, x)),
    "constant": lambda params, x, y: jnp.float32(1.0),
    "not finite": lambda params, x, y: mean_loss(plain)(params, x, y) * jnp.nan,
}


@pytest.mark.parametrize("name", MIXING)
def test_a_loss_that_mixes_is_refused(name):
    with pytest.raises(ValueError, match="mixes the examples of a batch"):
        check_mean_of_examples(MIXING[name], PARAMS, X, Y)


@pytest.mark.parametrize("name", SEPARATE)
def test_a_mean_over_examples_passes(name):
    check_mean_of_examples(SEPARATE[name], PARAMS, X, Y)


def test_a_sum_is_refused_by_name():
    with pytest.raises(ValueError, match="the sum over the examples"):
        check_mean_of_examples(lambda params, x, y: losses(plain, params, x, y).sum(), PARAMS, X, Y)


def fresh(apply=normed):
    """A function of its own, of which no verdict is known."""
    return lambda params, x, y: mean_loss(apply)(params, x, y)


@pytest.mark.parametrize(
    "x",
    [X[:1], jnp.broadcast_to(X[0], X.shape), jnp.concatenate([X[:1]] * 6 + [X[1:2]])],
    ids=["one example", "copies of one", "two that differ"],
)
def test_mixing_is_found_where_rows_are_equal_or_few(x):
    with pytest.raises(ValueError, match="mixes"):
        check_mean_of_examples(fresh(), PARAMS, x, Y[: len(x)])
    check_mean_of_examples(fresh(plain), PARAMS, x, Y[: len(x)])


def test_rows_without_a_gradient_do_not_hide_the_others():
    x = X.at[0].set(0)  # its derivative passes a dead unit alone

    def dead_at_zero(params, x):
        return jnp.where(jnp.any(x != 0, 1, keepdims=True), normed(params, x), 0.0)

    def flat_at_zero(params, x):  # where the batch statistics have no derivative either
        return normed(params, x * jnp.abs(x))

    for apply in (dead_at_zero, flat_at_zero):
        with pytest.raises(ValueError, match="mixes"):
            check_mean_of_examples(fresh(apply), PARAMS, x, Y)


def test_a_verdict_that_was_not_reached_is_not_kept():
    loss = fresh()
    check_mean_of_examples(loss, jax.tree.map(jnp.zeros_like, PARAMS), X, Y)
    with pytest.raises(ValueError, match="mixes"):
        check_mean_of_examples(loss, PARAMS, X, Y)


def test_a_function_is_probed_once_with_two_compilations(compilations):
    loss = compilations(fresh(plain))
    check_mean_of_examples(loss, PARAMS, X, Y)
    assert loss.count == 2
    check_mean_of_examples(loss, PARAMS, X[1:5], Y[1:5])
    check_mean_of_examples(loss, PARAMS, X[:1], Y[:1])
    assert loss.count == 2


def test_under_a_transformation_it_is_skipped_and_with_constants_it_is_not():
    loss = fresh()
    jax.jit(lambda params, x: kernels.gradient_bank(loss, params, Dataset(x, Y)))(PARAMS, X)
    with pytest.raises(ValueError, match="mixes"):
        jax.jit(lambda scale: scale * kernels.gradient_bank(loss, PARAMS, DATA))(1.0)


LOSS_KERNELS = {
    "gradient_bank": lambda loss: kernels.gradient_bank(loss, PARAMS, DATA),
    "GradientOperator": lambda loss: kernels.GradientOperator(loss, PARAMS, DATA),
    "gram": lambda loss: kernels.gram(kernels.GradientOperator(loss, PARAMS, DATA)),
    "empirical_fisher_diagonal": lambda loss: kernels.empirical_fisher_diagonal(loss, PARAMS, DATA),
    "risk_gradient": lambda loss: kernels.risk_gradient(loss, PARAMS, DATA, chunk=4),
    "risk_hessian_operator": lambda loss: kernels.risk_hessian_operator(
        loss, PARAMS, DATA, chunk=4
    ),
}
COTANGENT = jnp.ones((8, 3))
APPLY_KERNELS = {
    "fisher_diagonal": lambda apply: kernels.fisher_diagonal(apply, PARAMS, X),
    "risk_ggn_operator": lambda apply: kernels.risk_ggn_operator(
        apply, PARAMS, X, kernels.cross_entropy_hessian, chunk=4
    ),
    "empirical_ntk": lambda apply: kernels.empirical_ntk(apply, PARAMS, X, method="jacobian"),
    "ntk_operator": lambda apply: kernels.ntk_operator(apply, PARAMS, X, damping=0.0),
    "jacobian": lambda apply: kernels.jacobian(apply, PARAMS, X),
    "jacobian_vp": lambda apply: kernels.jacobian_vp(apply, PARAMS, X, PARAMS, chunk=4),
    "jacobian_transpose_vp": lambda apply: kernels.jacobian_transpose_vp(
        apply, PARAMS, X, COTANGENT, chunk=4
    ),
    "sketched_ntk": lambda apply: kernels.sketched_ntk(
        jax.random.key(0), apply, PARAMS, X, damping=1.0, rank=4
    ),
}


@pytest.mark.parametrize("name", LOSS_KERNELS)
def test_every_kernel_of_a_loss_refuses_batch_statistics(name):
    with pytest.raises(ValueError, match="mixes the examples of a batch"):
        LOSS_KERNELS[name](MIXING["batch statistics"])


@pytest.mark.parametrize("name", APPLY_KERNELS)
def test_every_kernel_of_outputs_refuses_batch_statistics(name):
    with pytest.raises(ValueError, match="apply mixes the examples of a batch"):
        APPLY_KERNELS[name](normed)


@pytest.mark.parametrize("apply", [plain, layer_normed, dropped])
def test_rows_alone_pass(apply):
    check_rows_alone(apply, PARAMS, X)


def test_the_whole_batch_may_be_mixed_where_no_chunk_is_asked_for():
    """A product over all inputs at once makes no such assumption."""
    assert kernels.jacobian_vp(normed, PARAMS, X, PARAMS).shape == (8, 3)


def test_an_operator_remains_a_pytree():
    operator = kernels.GradientOperator(SEPARATE["plain"], PARAMS, DATA)
    shapes = jax.tree.map(jnp.shape, operator)
    assert shapes.dataset.x == (8, 4)
    rows = jax.jit(lambda o: o.matvec(jnp.ones(o.shape[1])))(operator)
    np.testing.assert_allclose(rows, operator.matvec(jnp.ones(35)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "rows",
    [
        [0, 1, 0, 0, 0],  # those at fixed places are equal
        [0, 1],
        [0],
        [0, 0, 0, 0],  # scaled copies stand in
    ],
)
def test_rows_that_differ_are_looked_for_in_inputs_of_several_arrays(rows):
    inputs = {"ids": jnp.zeros((len(rows), 2), int), "values": X[jnp.array(rows)]}
    with pytest.raises(ValueError, match="apply mixes the examples of a batch"):
        check_rows_alone(lambda params, x: normed(params, x["values"]), PARAMS, inputs)
    check_rows_alone(lambda params, x: plain(params, x["values"]), PARAMS, inputs)


def test_rows_of_several_arrays_differ_where_any_array_does():
    tokens = jnp.array([[0], [0], [7], [0], [9]])
    inputs = {"tokens": tokens, "mask": jnp.ones((5, 1), bool), "values": jnp.ones((5, 2))}
    found, rows = separability._three_rows(inputs, None)
    assert rows.tolist() == [0, 4, 2]
    assert (found["tokens"].ravel().tolist(), found["tokens"].dtype) == ([0, 9, 7], tokens.dtype)
    alone, _ = separability._three_rows(jax.tree.map(lambda leaf: leaf[:2], inputs), None)
    assert alone["mask"].all()
    assert alone["tokens"].ravel().tolist() == [0, 1, 1]


def test_the_probes_choose_rows_that_differ_in_their_labels():
    x = jnp.stack([X[0], X[0] + 9, X[1], X[2], X[3]])
    y = jnp.array([0, 0, 0, 1, 2])
    rows = separability._three_rows(x, y)[1]
    assert sorted(np.asarray(y)[rows].tolist()) == [0, 1, 2]
