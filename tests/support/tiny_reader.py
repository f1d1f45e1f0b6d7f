"""Language networks small enough for closed forms: a reader with vectors, and a table of pairs."""

import dataclasses

import jax
import jax.numpy as jnp

from unlearnkit.base import Model, Tokens, Variables

TOKENS = Tokens(vocabulary=10, pad=9)
LENGTH = 8


@dataclasses.dataclass(frozen=True)
class Reader:
    """The mean vector of a row's tokens, `hidden` tanh units or none, and a linear layer."""

    width: int = 8
    hidden: int = 0
    classes: int = 3

    def init(self, key):
        keys = jax.random.split(key, 3)
        params = {"embedding": {"weight": jax.random.normal(keys[0], (10, self.width))}}
        if self.hidden:
            kernel = jax.random.normal(keys[1], (self.width, self.hidden))
            params["hidden"] = {"kernel": kernel / self.width**0.5}
        kernel = jax.random.normal(keys[2], (self.hidden or self.width, self.classes))
        return Variables({**params, "classifier": {"kernel": kernel}})

    def embed(self, variables, x):
        return variables.params["embedding"]["weight"][x]

    def apply_embedded(self, variables, embedded, x, key=None):
        there = (x != TOKENS.pad)[..., None]
        mean = (embedded * there).sum(1) / jnp.maximum(there.sum(1), 1)
        if self.hidden:
            mean = jnp.tanh(mean @ variables.params["hidden"]["kernel"])
        return mean @ variables.params["classifier"]["kernel"]

    def apply(self, variables, x):
        return self.apply_embedded(variables, self.embed(variables, x), x)

    def apply_train(self, variables, x, key):
        return self.apply(variables, x), variables.state

    def model(self):
        names = ("embedding", *(("hidden",) if self.hidden else ()), "classifier")
        return Model(
            self.init, self.apply, self.apply_train, tuple(((name,),) for name in names),
            (LENGTH,), self.classes, input_dtype="int32", embed=self.embed,
            apply_embedded=self.apply_embedded, tokens=TOKENS,
        )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class PairTable:
    """Tells the next token by a table of the last one: logits [n, length, vocabulary]."""

    def init(self, key):
        return Variables({"table": {"weight": jnp.zeros((10, 10))}})

    def apply(self, variables, x):
        return variables.params["table"]["weight"][x]

    def apply_train(self, variables, x, key):
        return self.apply(variables, x), variables.state

    def model(self):
        return Model(
            self.init, self.apply, self.apply_train, ((("table",),),), (LENGTH,), 10,
            input_dtype="int32", tokens=TOKENS,
        )  # fmt: skip
