"""A network of texts that sees the mean of their tokens' vectors (deep averaging)."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from unlearnkit.base import Model, State, Tokens, Variables
from unlearnkit.models.transformer import Head


@dataclasses.dataclass(frozen=True)
class _Averaging:
    """Sizes of the network; its methods are the functions of the `Model`."""

    tokens: Tokens
    width: int
    hidden: tuple[int, ...]
    n_classes: int
    dropout: float

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of the layers after the embedding."""
        return (*(f"hidden_{i}" for i in range(len(self.hidden))), "classifier")


@dataclasses.dataclass(frozen=True)
class _Init(_Averaging):
    def __call__(self, key: Key[Array, ""]) -> Variables:
        sizes = (self.width, *self.hidden, self.n_classes)
        drawn = jax.random.normal(key, (self.tokens.vocabulary, self.width))
        params = {"embedding": {"weight": 0.1 * drawn}}
        for number, name in enumerate(self.layers):
            n_in, n_out = sizes[number : number + 2]
            kernel = jax.random.normal(jax.random.fold_in(key, 1 + number), (n_in, n_out))
            params[name] = {"kernel": kernel * n_in**-0.5, "bias": jnp.zeros(n_out)}
        return Variables(params)


@dataclasses.dataclass(frozen=True)
class _Embed(_Averaging):
    def __call__(
        self, variables: Variables, x: Int[Array, "n length"]
    ) -> Float[Array, "n length width"]:
        found: Array = variables.params["embedding"]["weight"][x]
        return found


@dataclasses.dataclass(frozen=True)
class _ApplyEmbedded(_Averaging):
    def __call__(
        self,
        variables: Variables,
        embedded: Float[Array, "n length width"],
        x: Int[Array, "n length"],
        key: Key[Array, ""] | None = None,
    ) -> Float[Array, "n c"]:
        seen = x != self.tokens.pad
        if key is not None and self.dropout:
            seen &= jax.random.bernoulli(key, 1 - self.dropout, x.shape)
        weights = seen[..., None].astype(embedded.dtype)
        h = (embedded * weights).sum(1) / jnp.maximum(weights.sum(1), 1)
        for name in self.layers:
            layer = variables.params[name]
            h = h @ layer["kernel"] + layer["bias"]
            h = h if name == "classifier" else jax.nn.gelu(h)
        return h.astype(jnp.promote_types(h.dtype, jnp.float32))


@dataclasses.dataclass(frozen=True)
class _Apply(_Averaging):
    def __call__(self, variables: Variables, x: Int[Array, "n length"]) -> Float[Array, "n c"]:
        return _logits(self, variables, x)


@dataclasses.dataclass(frozen=True)
class _ApplyTrain(_Averaging):
    def __call__(
        self, variables: Variables, x: Int[Array, "n length"], key: Key[Array, ""]
    ) -> tuple[Float[Array, "n c"], State]:
        return _logits(self, variables, x, key), variables.state


def _logits(
    sizes: _Averaging, variables: Variables, x: Array, key: Key[Array, ""] | None = None
) -> Array:
    same = (sizes.tokens, sizes.width, sizes.hidden, sizes.n_classes, sizes.dropout)
    return _ApplyEmbedded(*same)(variables, _Embed(*same)(variables, x), x, key)


def deep_averaging(
    *,
    input_shape: tuple[int, ...],
    n_classes: int,
    head: Head = "classes",
    vocabulary: int | None = None,
    pad_id: int = 0,
    width: int = 64,
    hidden: tuple[int, ...] = (64,),
    dropout: float = 0.0,
) -> Model:
    """Returns a network that sees the mean of a text's vectors: it learns from few texts, quickly.

    f(x) = MLP(1/T Σ_t E[x_t]), over the T tokens that are no padding. `embed` and `apply_embedded`
    are as of `transformer`.

    Args:
      input_shape: (length,) of a row of token ids.
      n_classes: labels, or the size of the vocabulary where `head` is `answer`.
      head: `classes`, or `answer`, whose labels are ids.
      vocabulary: rows of the embedding; None for 512 with the head `classes`, else `n_classes`.
      pad_id: the id that fills rows on the right.
      width: of a token's vector.
      hidden: units of the layers between.
      dropout: the share of a text's tokens that is left out in training.

    Raises:
      ValueError: the head `tokens`, which a mean cannot have, or sizes out of range.

    Source: Iyyer et al. 2015 (deep averaging networks; word dropout).

    Example:
      models.create("deep_averaging", input_shape=(64,), n_classes=2, vocabulary=4096)
    """
    if head == "tokens":
        raise ValueError(
            "the mean of a text has no next token for each of its tokens; choose head='classes' or "
            "'answer', or the network gpt2_tiny"
        )
    (length,) = input_shape
    if vocabulary is None:
        vocabulary = n_classes if head == "answer" else 512
    if min(length, n_classes, width, *hidden) < 1 or not 0 <= dropout < 1:
        raise ValueError(
            "sizes must be >= 1 and dropout in [0, 1), got "
            f"{input_shape=}, {n_classes=}, {width=}, {hidden=}, {dropout=}"
        )
    sizes = (Tokens(vocabulary, pad_id), width, tuple(hidden), n_classes, dropout)
    names = ("embedding", *_Averaging(*sizes).layers)
    return Model(
        _Init(*sizes),
        _Apply(*sizes),
        _ApplyTrain(*sizes),
        tuple(((name,),) for name in names),
        (length,),
        n_classes,
        input_dtype="int32",
        embed=_Embed(*sizes),
        apply_embedded=_ApplyEmbedded(*sizes),
        tokens=sizes[0],
    )
