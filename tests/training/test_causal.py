"""The cross-entropy of next tokens."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_reader import LENGTH, TOKENS, PairTable, Reader

from unlearnkit.base import Dataset
from unlearnkit.training import CausalCrossEntropy, Recipe, fit

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


def test_networks_of_classes_are_refused():
    with pytest.raises(ValueError, match="CausalCrossEntropy needs .* head='tokens'"):
        CausalCrossEntropy(Reader().model(), RECIPE)


def test_networks_of_next_tokens_need_their_own_loss(texts, unchecked_types):
    with pytest.raises(ValueError, match=r"got \[8, 8, 10\]; .*objective=CausalCrossEntropy"):
        fit(KEY, MODEL, texts, RECIPE)
