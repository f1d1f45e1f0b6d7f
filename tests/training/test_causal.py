"""The cross-entropy of next tokens."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_reader import LENGTH, TOKENS, PairTable, Reader

from unlearnkit.base import Dataset
from unlearnkit.training import CausalCrossEntropy, Recipe, fit
from unlearnkit.training.causal import next_tokens

KEY = jax.random.key(6)
MODEL = PairTable().model()
RECIPE = Recipe(epochs=40, batch_size=8, learning_rate=2.0)


@pytest.fixture(scope="module")
def texts():
    """Each id is followed by the next one, and 8 by 0; rows of 4 to 8."""
    start = np.arange(32)[:, None] + np.arange(LENGTH)
    x = np.where(np.arange(LENGTH) < 4 + np.arange(32)[:, None] % 5, start % 9, TOKENS.pad)
    return Dataset(jnp.asarray(x, jnp.int32), jnp.zeros(32, jnp.int32), TOKENS)


def test_is_the_mean_over_next_tokens_without_padding(texts):
    weight = np.random.default_rng(0).normal(size=(10, 10))
    params = {"table": {"weight": jnp.asarray(weight, jnp.float32)}}
    loss, (_, metrics) = CausalCrossEntropy(MODEL, RECIPE, sign=-1.0)(params, {}, texts, KEY, None)
    log_p = weight - np.log(np.exp(weight).sum(1, keepdims=True))
    pairs = [(row[t], row[t + 1]) for row in np.asarray(texts.x) for t in range(LENGTH - 1)]
    pairs = [pair for pair in pairs if pair[1] != TOKENS.pad]
    expected = -np.mean([log_p[pair] for pair in pairs])
    assert float(loss) == pytest.approx(-expected, rel=1e-5)
    assert float(metrics["loss"]) == pytest.approx(expected, rel=1e-5)
    right = np.mean([weight[a].argmax() == b for a, b in pairs])
    assert float(metrics["accuracy"]) == pytest.approx(right)


def test_descends_to_the_next_tokens(texts):
    objective = CausalCrossEntropy(MODEL, RECIPE)
    found = fit(KEY, MODEL, texts, RECIPE, objective=objective)
    assert found.info.history["accuracy"][-1] == 1
    weight = np.asarray(found.variables.params["table"]["weight"])
    np.testing.assert_array_equal(weight[:9].argmax(1), (np.arange(9) + 1) % 9)
    np.testing.assert_array_equal(weight[TOKENS.pad], 0)


@pytest.mark.parametrize("size", [7, 12, 101, 130])  # 101 in one block a number, 130 in 65 twos
def test_next_tokens_against_float64(size):
    draw = np.random.default_rng(size)
    logits = 30 * draw.normal(size=(3, 5, size)).astype(np.float32)
    logits[0] = np.round(logits[0] / 20)  # with ties
    x = draw.integers(0, size, (3, 5)).astype(np.int32)
    log_p, right, there = next_tokens(jnp.asarray(logits), jnp.asarray(x), 0)
    wide = logits.astype(np.float64)
    wide -= wide.max(-1, keepdims=True)
    of_all = wide - np.log(np.exp(wide).sum(-1, keepdims=True))
    expected = np.take_along_axis(of_all[:, :-1], x[:, 1:, None], 2)[..., 0]
    np.testing.assert_allclose(log_p, expected, rtol=2e-6, atol=2e-6)
    np.testing.assert_array_equal(right, logits[:, :-1].argmax(-1) == x[:, 1:])
    np.testing.assert_array_equal(there, x[:, 1:] != 0)
    likely = np.where(np.arange(5) % 2, x, np.roll(logits.argmax(-1), 1, 1)).astype(np.int32)
    right = next_tokens(jnp.asarray(logits), jnp.asarray(likely), 0)[1]
    np.testing.assert_array_equal(right, logits[:, :-1].argmax(-1) == likely[:, 1:])
    assert np.asarray(right)[:, 1::2].all()
    slope = jax.grad(lambda z: next_tokens(z, jnp.asarray(x), 0)[0].sum())(jnp.asarray(logits))
    own = np.eye(size)[x[:, 1:]] - np.exp(of_all[:, :-1])
    np.testing.assert_allclose(slope[:, :-1], own, atol=1e-5)
    np.testing.assert_array_equal(slope[:, -1], 0)


def test_networks_of_classes_are_refused():
    with pytest.raises(ValueError, match="CausalCrossEntropy needs .* head='tokens'"):
        CausalCrossEntropy(Reader().model(), RECIPE)


def test_networks_of_next_tokens_need_their_own_loss(texts, unchecked_types):
    with pytest.raises(ValueError, match=r"got \[8, 8, 10\]; .*objective=CausalCrossEntropy"):
        fit(KEY, MODEL, texts, RECIPE)
