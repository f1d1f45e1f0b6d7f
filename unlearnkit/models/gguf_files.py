"""Llamas in GGUF, the files of llama.cpp: weights are dequantised, names those of Hugging Face."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from unlearnkit.io.tensor_files import WeightsError
from unlearnkit.io.vocabularies import byte_level
from unlearnkit.models.transformer.configuration import Decoder

if TYPE_CHECKING:
    from gguf import ReaderTensor
    from tokenizers import Tokenizer

_Said: TypeAlias = Mapping[str, Any]
_CONTROL = 3
"""The type of tokens that stand for no text."""
_SPLITS_DIGITS: Mapping[str, bool] = {"gpt-2": False, "smollm": True}
"""By GGUF's name of how texts are split before BPE: whether digits are tokens by themselves."""
_NAMES: Mapping[str, str] = {
    "token_embd": "embed_tokens",
    "output_norm": "norm",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


class GgufFile(NamedTuple):
    """What a GGUF file holds.

    Attributes:
      decoder: family and sizes.
      arrays: float32, by published name.
      tokenizer: of its vocabulary and merges; None where the `tokenizers` library is not installed.
      pad: the id that fills rows, None where the file does not say.
    """

    decoder: Decoder
    arrays: Mapping[str, np.ndarray]
    tokenizer: Tokenizer | None
    pad: int | None


def read_gguf(path: Path) -> GgufFile:
    """Returns the sizes, the dequantised weights and the tokenizer of a GGUF file.

    llama.cpp turns the rows of queries and keys so that the pairs of a rotation stand beside each
    other; they are turned back.

    Raises:
      FileNotFoundError: no such file.
      ImportError: the package gguf is not installed.
      WeightsError: a damaged file, another architecture, or a quantisation that is not known.
    """
    if importlib.util.find_spec("gguf") is None:
        raise ImportError(f"{path} needs the package gguf; pip install 'unlearnkit[language]'")
    import gguf

    if not path.is_file():
        raise FileNotFoundError(f"no file at {path}")
    try:
        file = gguf.GGUFReader(path)
        said = {n: f.contents() for n, f in file.fields.items() if not n.startswith("tokenizer.")}
    except (ValueError, IndexError, KeyError, OSError) as error:
        raise WeightsError(f"{path} is not readable as GGUF ({error}); copy it again") from None
    decoder = _decoder(said, {tensor.name for tensor in file.tensors}, path)
    arrays = dict(_array(tensor, decoder, path) for tensor in file.tensors)
    tokenizer, pad = _tokenizer(file.fields, path)
    return GgufFile(decoder, arrays, tokenizer, pad)


def _decoder(said: _Said, names: set[str], path: Path) -> Decoder:
    family = said.get("general.architecture")
    if family != "llama":
        raise WeightsError(f"{path} is of the architecture {family!r}; of GGUF, llama is read")
    scaling = said.get("llama.rope.scaling.type", "none")
    if scaling != "none" or "rope_freqs.weight" in names:
        raise WeightsError(f"{path} has rotary positions that are scaled ({scaling}): not read")
    try:
        width, heads = said["llama.embedding_length"], said["llama.attention.head_count"]
        return Decoder(
            "llama",
            said["llama.vocab_size"],
            width,
            said["llama.block_count"],
            heads,
            said.get("llama.attention.head_count_kv", heads),
            said.get("llama.rope.dimension_count", width // heads),
            said["llama.feed_forward_length"],
            said["llama.context_length"],
            # Stored as float32: 1e-5 is 9.999999747378752e-06.
            float(f"{said['llama.attention.layer_norm_rms_epsilon']:.6g}"),
            float(said.get("llama.rope.freq_base", 10_000.0)),
            tied="output.weight" not in names,
        )
    except KeyError as error:
        raise WeightsError(f"{path} does not say {error}") from None


def _array(tensor: ReaderTensor, decoder: Decoder, path: Path) -> tuple[str, np.ndarray]:
    """Returns the published name of a tensor and its values."""
    from gguf.quants import dequantize

    try:
        values = dequantize(tensor.data, tensor.tensor_type)
    except (NotImplementedError, KeyError):
        raise WeightsError(
            f"{path}: {tensor.name} is quantised as {tensor.tensor_type.name}, which is not known; "
            "convert the file to F16 or Q8_0"
        ) from None
    values = np.asarray(values, np.float32)
    if tensor.name.endswith(("attn_q.weight", "attn_k.weight")):
        values = _turn_back(values, decoder.head_width)
    return _published_name(tensor.name, path), values


def _turn_back(values: np.ndarray, head_width: int) -> np.ndarray:
    """Returns rows (a0 b0 a1 b1 …) of each head as (a0 a1 … b0 b1 …)."""
    pairs = values.reshape(-1, head_width // 2, 2, values.shape[1])
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(values.shape)


def _published_name(name: str, path: Path) -> str:
    if name == "output.weight":
        return "lm_head.weight"
    *block, leaf, kind = name.split(".")
    if leaf not in _NAMES or kind != "weight":
        raise WeightsError(f"{path} holds {name}, which a plain Llama does not have")
    within = f"layers.{block[1]}." if block else ""
    return f"model.{within}{_NAMES[leaf]}.weight"


def _tokenizer(fields: _Said, path: Path) -> tuple[Tokenizer | None, int | None]:
    def said(name: str) -> Any:
        field = fields.get(f"tokenizer.ggml.{name}")
        return None if field is None else field.contents()

    pads = [said("padding_token_id"), said("eos_token_id")]
    pad = next((int(one) for one in pads if one is not None), None)
    if importlib.util.find_spec("tokenizers") is None or said("tokens") is None:
        return None, pad
    if said("model") != "gpt2" or said("pre") not in _SPLITS_DIGITS:
        raise WeightsError(
            f"{path} has a tokenizer of the kind {said('model')!r}, {said('pre')!r}; read are "
            f"byte-level BPEs ('gpt2') of {', '.join(map(repr, _SPLITS_DIGITS))}"
        )
    tokens, kinds = said("tokens"), said("token_type")
    special = [token for token, kind in zip(tokens, kinds, strict=True) if kind == _CONTROL]
    merges = [tuple(merge.split(" ")) for merge in said("merges")]
    ids = {token: number for number, token in enumerate(tokens)}
    made = byte_level(ids, merges, special=special, digits=_SPLITS_DIGITS[said("pre")])
    return made, pad
