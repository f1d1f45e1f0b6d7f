"""How decoders are published: the `config.json` and the names of Hugging Face, both ways."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

from unlearnkit.base import Path
from unlearnkit.models.transformer.configuration import Decoder, Network
from unlearnkit.models.transformer.parameters import CLASSIFIER, LANGUAGE_HEAD

Config: TypeAlias = Mapping[str, Any]
"""What a `config.json` says."""
_PREFIX: Mapping[str, str] = {"gpt2": "transformer.", "llama": "model."}
"""What stands before the names of the decoder in a network with a head."""
SCORE = "score.weight"
"""The head of classes, [classes, width]."""
_BUFFERS = re.compile(r"\.attn\.(bias|masked_bias)$|\.rotary_emb\.inv_freq$")
"""Arrays of old files that are computed, not learnt."""
_USUAL: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
    "gpt2": {
        "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
        "add_cross_attention": (False,),
    },
    "llama": {
        "hidden_act": ("silu", "swish"),
        "attention_bias": (False,),
        "mlp_bias": (False,),
    },
}
"""Settings of which one value is computed here; absent, they have it."""


def read_decoder(config: Config, where: str) -> Decoder:
    """Returns the sizes that a `config.json` says.

    Args:
      config: as it was read.
      where: it stands, for messages.

    Raises:
      ValueError: another architecture, a setting that is not computed here, or a size that is
        missing or none.
    """
    family = str(config.get("model_type"))
    if family not in _USUAL:
        raise ValueError(
            f"{where} is of the architecture {family!r}; read are {' and '.join(_USUAL)}"
        )
    for name, values in _USUAL[family].items():
        if config.get(name, values[0]) not in values:
            raise ValueError(
                f"{where} sets {name}={config[name]!r}, which is not computed here; "
                f"{name}={values[0]!r} is"
            )
    return (_gpt2 if family == "gpt2" else _llama)(_Said(config, where))


class _Said(NamedTuple):
    """What a `config.json` says, with errors that name it."""

    config: Config
    where: str

    def size(self, name: str, usual: int | None = None) -> int:
        """Returns a whole number >= 1; `usual` where it is absent or null."""
        found = self.config.get(name)
        if found is None and usual is not None:
            return usual
        if name not in self.config:
            raise ValueError(f"{self.where} does not say {name!r}")
        if not isinstance(found, int) or isinstance(found, bool) or found < 1:
            raise self._wrong(name, "a whole number >= 1")
        return found

    def number(self, name: str, usual: float) -> float:
        """Returns a number > 0."""
        found = self.config.get(name, usual)
        if not isinstance(found, int | float) or not 0 < found < float("inf"):
            raise self._wrong(name, "a number > 0")
        return float(found)

    def tied(self, usual: bool) -> bool:
        """Returns whether the head of tokens is the embedding."""
        found = self.config.get("tie_word_embeddings", usual)
        if not isinstance(found, bool):
            raise self._wrong("tie_word_embeddings", "true or false")
        return found

    def below(self, *names: str) -> _Said:
        """Returns what the first table says that is there, of settings by name."""
        for name in names:
            if found := self.config.get(name):
                if not isinstance(found, Mapping):
                    raise self._wrong(name, "a table")
                return _Said(found, self.where)
        return _Said({}, self.where)

    def _wrong(self, name: str, wanted: str) -> ValueError:
        return ValueError(f"{self.where} says {name}={self.config[name]!r}, where {wanted} belongs")


def _gpt2(said: _Said) -> Decoder:
    width, heads = said.size("n_embd"), said.size("n_head")
    return Decoder(
        "gpt2",
        said.size("vocab_size"),
        width,
        said.size("n_layer"),
        heads,
        heads,
        width // heads,
        said.size("n_inner", 4 * width),
        said.size("n_positions"),
        said.number("layer_norm_epsilon", 1e-5),
        tied=said.tied(True),
    )


def _llama(said: _Said) -> Decoder:
    rotary = said.below("rope_parameters", "rope_scaling")
    kind = rotary.config.get("rope_type", rotary.config.get("type", "default"))
    if kind != "default":
        raise ValueError(
            f"{said.where} has rotary positions of the kind {kind!r}, which is not computed here; "
            "'default' is"
        )
    width, heads = said.size("hidden_size"), said.size("num_attention_heads")
    return Decoder(
        "llama",
        said.size("vocab_size"),
        width,
        said.size("num_hidden_layers"),
        heads,
        said.size("num_key_value_heads", heads),
        said.size("head_dim", max(1, width // heads)),
        said.size("intermediate_size"),
        said.size("max_position_embeddings"),
        said.number("rms_norm_eps", 1e-6),
        rotary.number("rope_theta", said.number("rope_theta", 10_000.0)),
        tied=said.tied(False),
    )


def write_config(network: Network) -> dict[str, Any]:
    """Returns the `config.json` of a network."""
    decoder = network.decoder
    labels = network.head == "classes"
    kind = "ForSequenceClassification" if labels else "LMHeadModel"
    found: dict[str, Any] = {
        "architectures": [f"GPT2{kind}"],
        "model_type": decoder.family,
        "vocab_size": decoder.vocabulary,
        "tie_word_embeddings": decoder.tied,
        "dtype": "float32",
        "pad_token_id": network.pad,
    }
    if labels:
        found["id2label"] = {str(label): f"LABEL_{label}" for label in range(network.n_classes)}
        found["label2id"] = {f"LABEL_{label}": label for label in range(network.n_classes)}
    if decoder.family == "gpt2":
        return found | {
            "n_embd": decoder.width,
            "n_layer": decoder.depth,
            "n_head": decoder.heads,
            "n_inner": decoder.hidden,
            "n_positions": decoder.positions,
            "layer_norm_epsilon": decoder.epsilon,
            "activation_function": "gelu_new",
        }
    kind = "ForSequenceClassification" if labels else "ForCausalLM"
    return found | {
        "architectures": [f"Llama{kind}"],
        "hidden_size": decoder.width,
        "num_hidden_layers": decoder.depth,
        "num_attention_heads": decoder.heads,
        "num_key_value_heads": decoder.key_value_heads,
        "head_dim": decoder.head_width,
        "intermediate_size": decoder.hidden,
        "max_position_embeddings": decoder.positions,
        "rms_norm_eps": decoder.epsilon,
        "rope_theta": decoder.rotary_base,
        "rope_parameters": {"rope_type": "default", "rope_theta": decoder.rotary_base},
        "hidden_act": "silu",
    }


class Published(NamedTuple):
    """An array as it is published.

    Attributes:
      name: in the file.
      transposed: whether it is the transpose of the network's.
    """

    name: str
    transposed: bool = False


def publish(network: Network, path: Path) -> Published:
    """Returns how an array of a network is published.

    Args:
      network: of which it is.
      path: in the parameters.
    """
    if path == CLASSIFIER:
        return Published(SCORE, transposed=True)
    if path == LANGUAGE_HEAD:
        return Published(".".join(path))
    return Published(_PREFIX[network.decoder.family] + ".".join(path))


def plain_name(name: str, network: Network) -> str:
    """Returns the name of a file's array as `publish` gives it, whose file may have no prefix."""
    prefix = _PREFIX[network.decoder.family]
    if name.startswith(prefix) or name in (SCORE, ".".join(LANGUAGE_HEAD)):
        return name
    return prefix + name


def is_buffer(name: str) -> bool:
    """Returns whether an array of a file is computed, as the causal mask of old GPT-2 files."""
    return _BUFFERS.search(name) is not None
