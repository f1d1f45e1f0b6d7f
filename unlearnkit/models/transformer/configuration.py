"""What a decoder of text is made of: its family, its sizes, its head."""

from __future__ import annotations

import dataclasses
from typing import Literal, TypeAlias, get_args

Family: TypeAlias = Literal["gpt2", "llama"]
"""`gpt2`: learned positions, LayerNorm and GELU; `llama`: rotary positions, RMSNorm and SwiGLU."""
Head: TypeAlias = Literal["classes", "answer", "tokens"]
"""What the logits are of: a label of the text, the token that follows it, or each next token."""


@dataclasses.dataclass(frozen=True)
class Decoder:
    """A decoder's family and sizes, as a `config.json` of Hugging Face has them.

    Attributes:
      family: `gpt2` or `llama`.
      vocabulary: rows of the embedding.
      width: of a token's vector.
      depth: blocks.
      heads: of the attention.
      key_value_heads: heads of keys and values, which groups of query heads share; `gpt2` has as
        many as query heads.
      head_width: of one head.
      hidden: width of the layer between in a block's perceptron.
      positions: the longest row.
      epsilon: added to a variance before its root is taken.
      rotary_base: of the wavelengths of rotary positions.
      tied: whether the head of tokens is the embedding.
    """

    family: Family
    vocabulary: int
    width: int
    depth: int
    heads: int
    key_value_heads: int
    head_width: int
    hidden: int
    positions: int
    epsilon: float = 1e-5
    rotary_base: float = 10_000.0
    tied: bool = True

    def __post_init__(self) -> None:
        if self.family not in get_args(Family):
            raise ValueError(
                f"family must be one of {', '.join(get_args(Family))}, got {self.family!r}"
            )
        sizes = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.type == "int"
        }
        if wrong := [f"{name}={size}" for name, size in sizes.items() if size < 1]:
            raise ValueError(f"sizes of a transformer must be >= 1, got {', '.join(wrong)}")
        if self.heads % self.key_value_heads:
            raise ValueError(
                "heads must be a multiple of key_value_heads, which they share, got "
                f"{self.heads} and {self.key_value_heads}"
            )
        if self.family == "gpt2" and (
            self.heads * self.head_width != self.width or self.key_value_heads != self.heads
        ):
            raise ValueError(
                "heads of the family gpt2 share the width evenly and have their own keys and "
                f"values, got width={self.width}, heads={self.heads}, "
                f"key_value_heads={self.key_value_heads}, head_width={self.head_width}"
            )
        if self.family == "llama" and self.head_width % 2:
            raise ValueError(
                f"rotary positions turn pairs of numbers: head_width must be even, got "
                f"{self.head_width}"
            )


@dataclasses.dataclass(frozen=True)
class Network:
    """A decoder with a head, and how it is computed.

    Attributes:
      decoder: its sizes.
      head: see `Head`.
      n_classes: labels, for the head `classes`.
      pad: the id that fills rows on the right; it is seen by no other token.
      dropout: the share of the embedding's and of each residual's numbers set to 0 in training.
      rematerialise: whether a block's inner values are computed anew for its gradient.
      scan: whether blocks are one compiled loop.
    """

    decoder: Decoder
    head: Head = "classes"
    n_classes: int = 2
    pad: int = 0
    dropout: float = 0.0
    rematerialise: bool = False
    scan: bool = False

    def __post_init__(self) -> None:
        if self.head not in get_args(Head):
            raise ValueError(f"head must be one of {', '.join(get_args(Head))}, got {self.head!r}")
        if not 0 <= self.pad < self.decoder.vocabulary:
            raise ValueError(f"pad_id must be in 0 … {self.decoder.vocabulary - 1}, got {self.pad}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")
