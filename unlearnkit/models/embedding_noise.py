"""A network of tokens that adds the noise of a poison to the vectors of its tokens."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from unlearnkit.base import Dataset, Model, State, Tokens, Variables
from unlearnkit.validation import check_embedding

COLUMNS = 2
"""At the end of a row, the number of its noise: 0, 0 for none."""


@dataclasses.dataclass(frozen=True)
class EmbeddingNoise:
    """The noise of each row, made from the number that the row ends in.

    ξ = noise_std N(0, I) of shape [length, width], 0 where a row is padding; of one number always
    the same.

    Attributes:
      noise_std: ε, in the units of the embedding.
      pad: the id of padding.
      seed: of all noise.
    """

    noise_std: float
    pad: int
    seed: int = 0

    def __call__(self, x: Int[Array, "n columns"], width: int) -> Float[Array, "n length width"]:
        """Returns the noise of rows of tokens and their numbers, [n, length, width]."""
        tokens, numbers = x[:, :-COLUMNS], x[:, -COLUMNS:]
        there = ((tokens != self.pad) & numbers.any(1, keepdims=True))[..., None]

        def draw(number: Int[Array, " 2"]) -> Float[Array, "length width"]:
            key = jax.random.fold_in(jax.random.key(self.seed), number[0])
            key = jax.random.fold_in(key, number[1])
            return jax.random.normal(key, (tokens.shape[1], width))

        def drawn() -> Float[Array, "n length width"]:
            return jnp.where(there, self.noise_std * jax.vmap(draw)(numbers), 0.0)

        found: Array = jax.lax.cond(
            numbers.any(), drawn, lambda: jnp.zeros((*tokens.shape, width), jnp.float32)
        )
        return found


@dataclasses.dataclass(frozen=True)
class _Init:
    network: Model

    def __call__(self, key: Key[Array, ""]) -> Variables:
        return self.network.init(key)


@dataclasses.dataclass(frozen=True)
class _Embed:
    """The vectors of a row's tokens, without noise."""

    network: Model
    noise: EmbeddingNoise

    def __call__(self, variables: Variables, x: Array) -> Array:
        assert self.network.embed is not None
        return self.network.embed(variables, x[:, :-COLUMNS])


@dataclasses.dataclass(frozen=True)
class _ApplyEmbedded:
    network: Model

    def __call__(
        self, variables: Variables, embedded: Array, x: Array, key: Key[Array, ""] | None = None
    ) -> Array:
        assert self.network.apply_embedded is not None
        found: Array = self.network.apply_embedded(variables, embedded, x[:, :-COLUMNS], key)
        return found


@dataclasses.dataclass(frozen=True)
class _Noisy:
    """Logits of rows whose vectors have their noise added."""

    network: Model
    noise: EmbeddingNoise

    def _logits(self, variables: Variables, x: Array, key: Key[Array, ""] | None = None) -> Array:
        embedded = _Embed(self.network, self.noise)(variables, x)
        noise = self.noise(x, embedded.shape[-1]).astype(embedded.dtype)
        return _ApplyEmbedded(self.network)(variables, embedded + noise, x, key)


@dataclasses.dataclass(frozen=True)
class _Apply(_Noisy):
    def __call__(self, variables: Variables, x: Array) -> Array:
        return self._logits(variables, x)


@dataclasses.dataclass(frozen=True)
class _ApplyTrain(_Noisy):
    def __call__(self, variables: Variables, x: Array, key: Key[Array, ""]) -> tuple[Array, State]:
        return self._logits(variables, x, key), variables.state


def with_embedding_noise(model: Model, *, noise_std: float = 0.1**0.5, seed: int = 0) -> Model:
    """Returns a network of tokens that can train on Gaussian poisons.

    Its rows end in two more ids, the number of a noise that is added to the vectors of the row's
    tokens; 0, 0 adds none. So a poisoned data set is as small as a clean one, and every method that
    trains on token ids trains on it: `poisoning.GaussianPoison` writes the numbers, and
    `with_noise_columns` gives a data set without any. Padding gets no noise. `embed` and
    `apply_embedded` leave the noise out.

    Args:
      model: a network of token ids with `embed`, `apply_embedded` and `tokens`.
      noise_std: ε of all poisons, in the units of the embedding.
      seed: of the noise.

    Raises:
      ValueError: a network without these, or a noise_std that is not finite and > 0.

    Example:
      noisy = models.with_embedding_noise(model, noise_std=0.1**0.5)
      train = models.with_noise_columns(train)

    Source: Pawelczyk et al. 2024, §5.1: noise on the embeddings of a text (ε² = 0.1 on IMDb).
    """
    check_embedding(model, method="with_embedding_noise")
    if model.tokens is None:
        raise ValueError(
            "noise on embeddings is left out where a row is padding, but the model does not say "
            "what that is; give it tokens=Tokens(vocabulary, pad)"
        )
    if not 0 < noise_std < float("inf"):
        raise ValueError(f"noise_std must be finite and > 0, got {noise_std}")
    noise = EmbeddingNoise(noise_std, model.tokens.pad, seed)
    (length,) = model.input_shape
    return model._replace(
        init=_Init(model),
        apply=_Apply(model, noise),
        apply_train=_ApplyTrain(model, noise),
        embed=_Embed(model, noise),
        apply_embedded=_ApplyEmbedded(model),
        input_shape=(length + COLUMNS,),
        origin=None,
    )


def embedding_noise(model: Model) -> EmbeddingNoise | None:
    """Returns the noise that a network of `with_embedding_noise` adds; None for any other."""
    return model.embed.noise if isinstance(model.embed, _Embed) else None


def with_noise_columns(dataset: Dataset) -> Dataset:
    """Returns rows of token ids with the number of no noise behind each.

    Args:
      dataset: [n, length] token ids.

    Raises:
      ValueError: no token ids.
    """
    if not isinstance(dataset.normalisation, Tokens):
        raise ValueError(f"noise columns are for token ids, got x of {dataset.x.dtype}")
    x = np.pad(np.asarray(dataset.x), ((0, 0), (0, COLUMNS)))
    return dataset._replace(x=jax.device_put(x))


def write_noise(
    key: Key[Array, ""], dataset: Dataset, x: Int[Array, "m columns"]
) -> Int[Array, "m columns"]:
    """Returns rows that end in the numbers of m different noises.

    Args:
      key: draws the numbers.
      dataset: of the vocabulary; a number is two of its ids.
      x: [m, length + 2] rows that end in 0, 0.

    Raises:
      ValueError: no token ids, or rows with noise already.
    """
    tokens, rows = dataset.normalisation, np.asarray(x)
    if not isinstance(tokens, Tokens) or rows[:, -COLUMNS:].any():
        raise ValueError(
            f"rows must be token ids that end in {COLUMNS} zeros, the number of no noise; make "
            "them by models.with_noise_columns"
        )
    high = tokens.vocabulary - 1
    bits = np.asarray(jax.random.key_data(key)).ravel().astype(np.uint64)
    drawn = np.random.default_rng(bits).choice(high**2, len(rows), replace=False)
    numbers = np.stack([1 + drawn // high, 1 + drawn % high], 1).astype(rows.dtype)
    found: Array = jax.device_put(np.concatenate([rows[:, :-COLUMNS], numbers], 1))
    return found


def width_of(model: Model, variables: Variables, x: Int[Array, "n columns"]) -> int:
    """Returns the width of the vectors of a network's tokens.

    Args:
      model: with `embed`.
      variables: its weights.
      x: rows that it takes.
    """
    assert model.embed is not None
    return int(jax.eval_shape(model.embed, variables, x).shape[-1])
