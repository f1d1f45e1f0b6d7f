"""A tiny problem of text: which third of the vocabulary the words of a row are mostly from."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from unlearnkit.base import Dataset, Task, Tokens
from unlearnkit.models import from_linen
from unlearnkit.training import Recipe

TOKENS = Tokens(vocabulary=10, pad=9)
LENGTH = 8
RECIPE = Recipe(epochs=6, batch_size=16, learning_rate=0.5)


class MeanEmbedding(nn.Module):
    """The mean embedding of a row's words, padding left out, and a linear layer."""

    vocabulary: int = TOKENS.vocabulary

    @nn.compact
    def __call__(self, ids):
        there = (ids != TOKENS.pad)[..., None]
        vectors = nn.Embed(self.vocabulary, 8, name="embedding")(ids)
        mean = (vectors * there).sum(1) / jnp.maximum(there.sum(1), 1)
        return nn.Dense(3, name="classifier")(mean)


def make_model():
    return from_linen(MeanEmbedding(), input_shape=(LENGTH,), input_dtype="int32")


def draw(seed, n):
    """Returns rows of 4 to 8 words, of which the label's third of the vocabulary has two thirds."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, n)
    own = 3 * y[:, None] + rng.integers(0, 3, (n, LENGTH))
    words = np.where(rng.random((n, LENGTH)) < 0.67, own, rng.integers(0, 9, (n, LENGTH)))
    words[np.arange(LENGTH) >= rng.integers(4, LENGTH + 1, n)[:, None]] = TOKENS.pad
    return Dataset(jnp.asarray(words, jnp.int32), jnp.asarray(y, jnp.int32), TOKENS)


def make_task():
    return Task(draw(1, 120), draw(2, 24), draw(3, 30), draw(4, 60))


def same(one, other):
    """Whether two pytrees are equal bit for bit, metadata included."""
    leaves, others = jax.tree.leaves(one), jax.tree.leaves(other)
    return jax.tree.structure(one) == jax.tree.structure(other) and all(
        a.dtype == b.dtype and np.asarray(a).tobytes() == np.asarray(b).tobytes()
        for a, b in zip(leaves, others, strict=True)
    )
