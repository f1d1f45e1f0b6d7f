"""A decoder of text as pure functions of its weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from unlearnkit.base import Model, Params, State, Variables
from unlearnkit.models.transformer.configuration import Decoder, Network
from unlearnkit.models.transformer.parameters import (
    BLOCKS,
    CLASSIFIER,
    EMBEDDING,
    FINAL_NORM,
    LANGUAGE_HEAD,
    init_params,
)


@dataclasses.dataclass(frozen=True)
class Init:
    """Makes fresh weights; see `init_params`."""

    network: Network

    def __call__(self, key: Key[Array, ""]) -> Variables:
        return Variables(init_params(self.network, key))


@dataclasses.dataclass(frozen=True)
class Embed:
    """Returns the vector of each token, before positions are added."""

    network: Network

    def __call__(
        self, variables: Variables, x: Int[Array, "n length"]
    ) -> Float[Array, "n length width"]:
        found: Array = _at(variables.params, EMBEDDING[self.network.decoder.family])[x]
        return found


@dataclasses.dataclass(frozen=True)
class ApplyEmbedded:
    """Returns the logits of rows whose tokens' vectors are given.

    What stands at the places of padding changes nothing. With a key the network is in training
    mode: dropout is on.
    """

    network: Network

    def __call__(
        self,
        variables: Variables,
        embedded: Float[Array, "n length width"],
        x: Int[Array, "n length"],
        key: Key[Array, ""] | None = None,
    ) -> Float[Array, "n ..."]:
        """Returns the logits.

        Args:
          variables: the weights.
          embedded: the tokens' vectors.
          x: the tokens, of which the padding is read.
          key: of dropout; None for evaluation mode.
        """
        return _decode(self.network, variables.params, embedded, x, key)


@dataclasses.dataclass(frozen=True)
class Apply:
    """Returns the logits of rows of tokens, in evaluation mode."""

    network: Network

    def __call__(self, variables: Variables, x: Int[Array, "n length"]) -> Float[Array, "n ..."]:
        return ApplyEmbedded(self.network)(variables, Embed(self.network)(variables, x), x)


@dataclasses.dataclass(frozen=True)
class ApplyTrain:
    """Returns the logits of rows of tokens in training mode, and the state, which is empty."""

    network: Network

    def __call__(
        self, variables: Variables, x: Int[Array, "n length"], key: Key[Array, ""]
    ) -> tuple[Float[Array, "n ..."], State]:
        """Returns the logits and the state.

        Args:
          variables: the weights.
          x: the tokens.
          key: of dropout.
        """
        embedded = Embed(self.network)(variables, x)
        return ApplyEmbedded(self.network)(variables, embedded, x, key), variables.state


def network_of(model: Model) -> Network:
    """Returns what a network of `transformer` is made of.

    Raises:
      ValueError: a network of another kind.
    """
    found = getattr(model.apply, "network", None)
    if not isinstance(found, Network):
        raise ValueError(
            "a language network of models.transformer is needed, as models.load_pretrained "
            "returns it"
        )
    return found


class _Row(NamedTuple):
    """What all blocks need to know of the rows.

    Attributes:
      there: [n, length] where there is no padding.
      turns: cosine and sine [length, head_width] of the rotary positions.
    """

    there: Bool[Array, "n length"]
    turns: tuple[Float[Array, "length width"], Float[Array, "length width"]]


def _decode(
    network: Network, params: Params, h: Array, x: Array, key: Key[Array, ""] | None
) -> Array:
    decoder = network.decoder
    keys = jax.random.split(jax.random.key(0) if key is None else key, decoder.depth + 1)
    drop = 0.0 if key is None else network.dropout
    if decoder.family == "gpt2":
        h = h + params["wpe"]["weight"][: h.shape[1]].astype(h.dtype)
    row = _Row(x != network.pad, _turns(decoder, h.shape[1]))
    h = _blocks(network, params, _dropped(h, drop, keys[-1]), row, drop, keys[:-1])
    if network.head != "tokens":
        last = jnp.where(row.there, jnp.arange(h.shape[1]), 0).max(1)
        h = jnp.take_along_axis(h, last[:, None, None], 1)[:, 0]
    h = _norm(decoder, params[FINAL_NORM[decoder.family]], h)
    if network.head == "classes":
        return _float32(h @ _at(params, CLASSIFIER))
    head = _at(params, EMBEDDING[decoder.family] if decoder.tied else LANGUAGE_HEAD)
    return _float32(h @ head.T)


def _blocks(
    network: Network, params: Params, h: Array, row: _Row, drop: float, keys: Array
) -> Array:
    """Returns what the blocks make of `h`, one after the other."""
    decoder = network.decoder
    block: Callable[..., Array] = partial(
        _gpt2_block if decoder.family == "gpt2" else _llama_block, decoder, drop
    )
    if network.rematerialise:
        # In a loop nothing can be merged across its borders, which the barrier is there to prevent.
        block = jax.checkpoint(block, prevent_cse=not network.scan)
    numbered = params[BLOCKS[decoder.family]]
    weights = [numbered[str(number)] for number in range(decoder.depth)]
    if not network.scan:
        for one, own in zip(weights, keys, strict=True):
            h = block(one, h, row, own)
        return h
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *weights)
    moved, _ = jax.lax.scan(
        lambda h, one: (block(one[0], h, row, one[1]), None), h, (stacked, keys)
    )
    return moved


def _gpt2_block(
    decoder: Decoder, drop: float, weights: Params, h: Array, row: _Row, key: Key[Array, ""]
) -> Array:
    one, two = jax.random.split(key)
    attn, mlp = weights["attn"], weights["mlp"]
    q, k, v = jnp.split(_conv1d(attn["c_attn"], _norm(decoder, weights["ln_1"], h)), 3, -1)
    q, k, v = (_in_heads(part, decoder.heads) for part in (q, k, v))
    mixed = _attend(q, k, v, row.there)
    h = h + _dropped(_conv1d(attn["c_proj"], mixed), drop, one)
    hidden = jax.nn.gelu(_conv1d(mlp["c_fc"], _norm(decoder, weights["ln_2"], h)), approximate=True)
    return h + _dropped(_conv1d(mlp["c_proj"], hidden), drop, two)


def _llama_block(
    decoder: Decoder, drop: float, weights: Params, h: Array, row: _Row, key: Key[Array, ""]
) -> Array:
    one, two = jax.random.split(key)
    attn, mlp = weights["self_attn"], weights["mlp"]
    x = _norm(decoder, weights["input_layernorm"], h)
    q = _rotate(_in_heads(_linear(attn["q_proj"], x), decoder.heads), row)
    k = _rotate(_in_heads(_linear(attn["k_proj"], x), decoder.key_value_heads), row)
    v = _in_heads(_linear(attn["v_proj"], x), decoder.key_value_heads)
    mixed = _attend(q, k, v, row.there)
    h = h + _dropped(_linear(attn["o_proj"], mixed), drop, one)
    x = _norm(decoder, weights["post_attention_layernorm"], h)
    hidden = jax.nn.silu(_linear(mlp["gate_proj"], x)) * _linear(mlp["up_proj"], x)
    return h + _dropped(_linear(mlp["down_proj"], hidden), drop, two)


def _attend(q: Array, k: Array, v: Array, there: Array) -> Array:
    """Returns the mixed values [n, length, heads * head_width]; no token sees a later or a pad."""
    mixed = jax.nn.dot_product_attention(q, k, v, mask=there[:, None, None, :], is_causal=True)
    return mixed.reshape(*mixed.shape[:2], -1)


def _in_heads(x: Array, heads: int) -> Array:
    return x.reshape(*x.shape[:2], heads, -1)


def _rotate(x: Float[Array, "n length heads width"], row: _Row) -> Array:
    """Returns queries or keys turned by their position.

    (a, b) -> (a cos - b sin, b cos + a sin) for the halves a, b of a head.
    """
    cosine, sine = (part[:, None].astype(x.dtype) for part in row.turns)
    a, b = jnp.split(x, 2, -1)
    return x * cosine + jnp.concatenate([-b, a], -1) * sine


def _turns(decoder: Decoder, length: int) -> tuple[Array, Array]:
    """Returns cosine and sine of position · base^(-2 i / head_width), twice for both halves."""
    exponents = jnp.arange(0, decoder.head_width, 2, dtype=jnp.float32) / decoder.head_width
    angles = jnp.arange(length, dtype=jnp.float32)[:, None] / decoder.rotary_base**exponents
    twice = jnp.concatenate([angles, angles], -1)
    return jnp.cos(twice), jnp.sin(twice)


def _norm(decoder: Decoder, weights: Params, x: Array) -> Array:
    """Returns LayerNorm for the family `gpt2`, RMSNorm for `llama`; at float32 at least."""
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    if decoder.family == "gpt2":
        wide = wide - wide.mean(-1, keepdims=True)
    scaled = wide * jax.lax.rsqrt((wide * wide).mean(-1, keepdims=True) + decoder.epsilon)
    normed = scaled.astype(x.dtype) * weights["weight"]
    found: Array = normed + weights["bias"] if decoder.family == "gpt2" else normed
    return found


def _conv1d(weights: Params, x: Array) -> Array:
    # Of rows in one axis: on a CPU the gradient of a bias is slow as a sum over two.
    y = x.reshape(-1, x.shape[-1]) @ weights["weight"] + weights["bias"]
    return _adapted(weights, x, y.reshape(*x.shape[:-1], -1))


def _linear(weights: Params, x: Array) -> Array:
    return _adapted(weights, x, x @ weights["weight"].T)


def _adapted(weights: Params, x: Array, y: Array) -> Array:
    """Returns what a matrix gives, with what its low-rank adapter adds; see `models.lora`."""
    return y + (x @ weights["lora_a"]) @ weights["lora_b"] if "lora_a" in weights else y


def _dropped(x: Array, rate: float, key: Key[Array, ""]) -> Array:
    if rate == 0:
        return x
    kept = jax.random.bernoulli(key, 1 - rate, x.shape)
    return jnp.where(kept, x / (1 - rate), 0)


def _at(params: Params, path: tuple[str, ...]) -> Any:
    for name in path:
        params = params[name]
    return params


def _float32(logits: Array) -> Array:
    """Returns logits at float32 at least, whatever the network computes in."""
    return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
