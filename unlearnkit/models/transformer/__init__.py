"""Decoders of text, GPT-2's and Llama's, as pure functions over token ids."""

from __future__ import annotations

from unlearnkit.models.transformer.configuration import Decoder, Family, Head, Network
from unlearnkit.models.transformer.decoder import network_of
from unlearnkit.models.transformer.sharding import partition_specs, shard_variables
from unlearnkit.models.transformer.sizes import (
    SMOLLM2_135M,
    gpt2,
    gpt2_decoder,
    gpt2_medium,
    gpt2_tiny,
    llama_tiny,
    smollm2_135m,
    transformer,
)

__all__ = [
    "SMOLLM2_135M",
    "Decoder",
    "Family",
    "Head",
    "Network",
    "gpt2",
    "gpt2_decoder",
    "gpt2_medium",
    "gpt2_tiny",
    "llama_tiny",
    "network_of",
    "partition_specs",
    "shard_variables",
    "smollm2_135m",
    "transformer",
]
