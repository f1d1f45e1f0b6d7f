"""The weights of a decoder, under the names and in the layouts in which they are published.

`gpt2` has matrices [in, out] as `Conv1D` of `transformers`, `llama` [out, in] as `Linear` of
PyTorch; the fresh head of classes is a `kernel` [in, out], as in the other networks of this
library.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from unlearnkit.base import Params, Path
from unlearnkit.models.transformer.configuration import Decoder, Network

Shapes: TypeAlias = Mapping[Path, tuple[int, ...]]
"""The shape of each array by its path in the parameters."""

EMBEDDING: Mapping[str, Path] = {"gpt2": ("wte", "weight"), "llama": ("embed_tokens", "weight")}
BLOCKS: Mapping[str, str] = {"gpt2": "h", "llama": "layers"}
"""The name of the blocks, which are numbered from 0."""
FINAL_NORM: Mapping[str, str] = {"gpt2": "ln_f", "llama": "norm"}
CLASSIFIER: Path = ("classifier", "kernel")
LANGUAGE_HEAD: Path = ("lm_head", "weight")
_DEVIATION = 0.02
_LAST_OF_A_RESIDUAL = ("c_proj",)


def shapes_of(network: Network) -> Shapes:
    """Returns the shape of each array, from the input to the output."""
    decoder = network.decoder
    width, family = decoder.width, decoder.family
    found: dict[Path, tuple[int, ...]] = {EMBEDDING[family]: (decoder.vocabulary, width)}
    if family == "gpt2":
        found["wpe", "weight"] = (decoder.positions, width)
    block = (_gpt2_block if family == "gpt2" else _llama_block)(decoder)
    for number in range(decoder.depth):
        for path, shape in block.items():
            found[(BLOCKS[family], str(number), *path)] = shape
    for leaf in ("weight", "bias") if family == "gpt2" else ("weight",):
        found[FINAL_NORM[family], leaf] = (width,)
    if network.head == "classes":
        found[CLASSIFIER] = (width, network.n_classes)
    elif not decoder.tied:
        found[LANGUAGE_HEAD] = (decoder.vocabulary, width)
    return found


def _gpt2_block(decoder: Decoder) -> Shapes:
    width, hidden = decoder.width, decoder.hidden
    matrices: Shapes = {
        ("attn", "c_attn"): (width, 3 * width),
        ("attn", "c_proj"): (width, width),
        ("mlp", "c_fc"): (width, hidden),
        ("mlp", "c_proj"): (hidden, width),
    }
    norms: Shapes = {("ln_1",): (width,), ("ln_2",): (width,)}
    order: tuple[Path, ...] = (
        ("ln_1",),
        ("attn", "c_attn"),
        ("attn", "c_proj"),
        ("ln_2",),
        ("mlp", "c_fc"),
        ("mlp", "c_proj"),
    )
    shapes = {**matrices, **norms}
    return {
        (*path, leaf): shape
        for path in order
        for leaf, shape in (("weight", shapes[path]), ("bias", shapes[path][-1:]))
    }


def _llama_block(decoder: Decoder) -> Shapes:
    width, hidden = decoder.width, decoder.hidden
    queries = decoder.heads * decoder.head_width
    keys = decoder.key_value_heads * decoder.head_width
    return {
        ("input_layernorm", "weight"): (width,),
        ("self_attn", "q_proj", "weight"): (queries, width),
        ("self_attn", "k_proj", "weight"): (keys, width),
        ("self_attn", "v_proj", "weight"): (keys, width),
        ("self_attn", "o_proj", "weight"): (width, queries),
        ("post_attention_layernorm", "weight"): (width,),
        ("mlp", "gate_proj", "weight"): (hidden, width),
        ("mlp", "up_proj", "weight"): (hidden, width),
        ("mlp", "down_proj", "weight"): (width, hidden),
    }


def init_params(network: Network, key: Key[Array, ""]) -> Params:
    """Returns fresh weights: norms 1, biases 0, all else N(0, .02²).

    In the family `gpt2` the matrices that end a residual are N(0, .02² / (2 depth)).

    Source: Radford et al. 2019, §2.3, and the initialisation of `transformers`.
    """
    deep = (2 * network.decoder.depth) ** -0.5
    tree: dict[str, object] = {}
    for number, (path, shape) in enumerate(shapes_of(network).items()):
        *modules, leaf = path
        if len(shape) == 1:
            value = jnp.zeros(shape) if leaf == "bias" else jnp.ones(shape)
        else:
            scale = deep if modules[-1] in _LAST_OF_A_RESIDUAL else 1.0
            drawn = jax.random.normal(jax.random.fold_in(key, number), shape)
            value = _DEVIATION * scale * drawn
        put(tree, path, value)
    return tree


def put(tree: dict[str, object], path: Path, value: object) -> None:
    """Puts a value at a path of nested dicts, which are made where they are not there.

    Args:
      tree: the outermost dict.
      path: of names.
      value: what is put there.
    """
    *modules, leaf = path
    for name in modules:
        inner = tree.setdefault(name, {})
        assert isinstance(inner, dict)
        tree = inner
    tree[leaf] = value


def layers_of(network: Network) -> tuple[tuple[Path, ...], ...]:
    """Returns the layers from the input to the output: the embeddings, each block, the head.

    The last norm belongs to the last block. A head that is tied to the embedding is no layer of its
    own, so that what resets or trains the last layers leaves the embedding as it is.
    """
    family = network.decoder.family
    modules = list(dict.fromkeys(path[:-1] for path in shapes_of(network)))
    heads = (CLASSIFIER[:-1], LANGUAGE_HEAD[:-1])
    embeddings = (EMBEDDING[family][:-1], ("wpe",))
    groups = [tuple(path for path in modules if path in embeddings)]
    groups += [
        tuple(path for path in modules if path[:2] == (BLOCKS[family], str(number)))
        for number in range(network.decoder.depth)
    ]
    groups[-1] += ((FINAL_NORM[family],),)
    last = tuple(path for path in modules if path in heads)
    return tuple([*groups, last] if last else groups)
