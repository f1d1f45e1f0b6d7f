"""Decoders of text by name: GPT-2, Llama's family, and tiny ones of both."""

from __future__ import annotations

from unlearnkit.base import Model, Tokens
from unlearnkit.models.transformer.configuration import Decoder, Head, Network
from unlearnkit.models.transformer.decoder import Apply, ApplyEmbedded, ApplyTrain, Embed, Init
from unlearnkit.models.transformer.parameters import layers_of

_SCANNED = 8
"""Blocks from which on they are one compiled loop, where nothing is said."""


def transformer(
    decoder: Decoder,
    *,
    length: int,
    head: Head = "classes",
    n_classes: int | None = None,
    pad_id: int = 0,
    dropout: float = 0.0,
    rematerialise: bool = False,
    scan: bool | None = None,
) -> Model:
    """Returns a decoder of text with a head.

    Inputs are token ids [n, length], filled on the right with `pad_id`. Attention is causal and
    sees no padding. Logits are [n, n_classes] for the head `classes`, taken at the last token that
    is no padding; [n, vocabulary] for `answer`, of the token that follows it, as the label's in
    "The sentiment of the review is:"; and [n, length, vocabulary] for `tokens`, of the token that
    follows each.

    `model.embed` returns the vector of each token [n, length, width] before positions are added,
    and `model.apply_embedded(variables, embedded, x, key=None)` the logits of such vectors, whose
    padding is still read from x; with a key, in training mode.

    Args:
      decoder: family and sizes.
      length: of a row.
      head: `classes`, `answer` or `tokens`.
      n_classes: labels of the head `classes`; the other heads have the vocabulary's.
      pad_id: the id that fills rows.
      dropout: the share of the embedding's and of each residual's numbers that is set to 0 in
        training.
      rematerialise: whether the backward pass computes the inside of each block anew, in the place
        of keeping it.
      scan: whether blocks are one compiled loop, which compiles faster; None for yes from 8 blocks
        on.

    Raises:
      ValueError: sizes that do not fit, a row longer than the positions, or another number of
        classes than the head has.

    Source: Radford et al. 2019 (GPT-2); Touvron et al. 2023 (Llama).

    Example:
      decoder = models.Decoder("gpt2", 512, 64, 2, 4, 4, 16, 256, 128)
      model = models.transformer(decoder, length=32, head="answer", pad_id=0)
    """
    if not 1 <= length <= decoder.positions:
        raise ValueError(
            f"rows of {length} tokens were given, but the network takes 1 … {decoder.positions}; "
            "cut the texts, or choose another network"
        )
    classes = _classes(decoder, head, n_classes)
    looped = decoder.depth >= _SCANNED if scan is None else scan
    network = Network(decoder, head, classes, pad_id, dropout, rematerialise, looped)
    return Model(
        Init(network),
        Apply(network),
        ApplyTrain(network),
        layers_of(network),
        (length,),
        classes,
        input_dtype="int32",
        embed=Embed(network),
        apply_embedded=ApplyEmbedded(network),
        tokens=Tokens(decoder.vocabulary, pad_id),
    )


def _classes(decoder: Decoder, head: Head, n_classes: int | None) -> int:
    if head == "classes":
        if n_classes is None or n_classes < 1:
            raise ValueError(f"the head 'classes' needs n_classes >= 1, got {n_classes}")
        return n_classes
    if n_classes not in (None, decoder.vocabulary):
        raise ValueError(
            f"the head {head!r} has one logit per token of the vocabulary, {decoder.vocabulary}, "
            f"got n_classes={n_classes}; set vocabulary={n_classes}, or take the head 'classes'"
        )
    return decoder.vocabulary


def gpt2_decoder(
    vocabulary: int = 50257, *, width: int, depth: int, heads: int, positions: int = 1024
) -> Decoder:
    """Returns the sizes of a GPT-2: the hidden layer has four times the width.

    Args:
      vocabulary: rows of the embedding.
      width: of a token's vector; a multiple of `heads`.
      depth: blocks.
      heads: of the attention.
      positions: the longest row.
    """
    each = width // max(heads, 1)
    return Decoder("gpt2", vocabulary, width, depth, heads, heads, each, 4 * width, positions)


SMOLLM2_135M = Decoder("llama", 49152, 576, 30, 9, 3, 64, 1536, 8192, 1e-5, 100_000.0)
"""SmolLM2-135M of Allal et al. 2025, and its Instruct."""


def gpt2_tiny(
    *,
    input_shape: tuple[int, ...],
    n_classes: int,
    head: Head = "classes",
    vocabulary: int | None = None,
    pad_id: int = 0,
    width: int = 64,
    depth: int = 2,
    heads: int = 4,
    dropout: float = 0.0,
    rematerialise: bool = False,
    scan: bool | None = None,
) -> Model:
    """Returns a GPT-2 of 2 blocks of width 64 with four heads, for text that a CPU trains on.

    Args:
      input_shape: (length,) of a row of token ids; there are as many positions.
      n_classes: labels, or the size of the vocabulary where `head` is `answer` or `tokens`.
      head: what the logits are of; see `transformer`.
      vocabulary: rows of the embedding; None for 512 with the head `classes`, else `n_classes`.
      pad_id: the id that fills rows on the right.
      width: of a token's vector.
      depth: blocks.
      heads: of the attention; a divisor of `width`.
      dropout: see `transformer`.
      rematerialise: see `transformer`.
      scan: see `transformer`.

    Raises:
      ValueError: see `transformer`.

    Source: the family of Radford et al. 2019, at a size of our own.

    Example:
      models.create("gpt2_tiny", input_shape=(32,), n_classes=512, head="answer")
    """
    size, length = _vocabulary(head, n_classes, vocabulary, 512), _length("gpt2_tiny", input_shape)
    return transformer(
        gpt2_decoder(size, width=width, depth=depth, heads=heads, positions=length),
        length=length,
        head=head,
        n_classes=n_classes,
        pad_id=pad_id,
        dropout=dropout,
        rematerialise=rematerialise,
        scan=scan,
    )


def gpt2(
    *,
    input_shape: tuple[int, ...],
    n_classes: int,
    head: Head = "classes",
    vocabulary: int | None = None,
    pad_id: int = 50256,
    dropout: float = 0.0,
    rematerialise: bool = False,
) -> Model:
    """Returns GPT-2 small: 12 blocks of width 768; 124,439,808 parameters with a head of tokens.

    Args:
      input_shape: (length,) of a row of token ids, at most 1024.
      n_classes: labels, or the size of the vocabulary where `head` is `answer` or `tokens`.
      head: what the logits are of; see `transformer`.
      vocabulary: rows of the embedding; None for 50257 with the head `classes`, else `n_classes`.
      pad_id: the id that fills rows on the right; the end of a text, which GPT-2 has no pad for.
      dropout: see `transformer`; GPT-2 was pretrained with .1.
      rematerialise: see `transformer`.

    Raises:
      ValueError: see `transformer`.

    Source: Radford et al. 2019.

    Example:
      models.create("gpt2", input_shape=(128,), n_classes=50257, head="answer")
    """
    size = _vocabulary(head, n_classes, vocabulary, 50257)
    return transformer(
        gpt2_decoder(size, width=768, depth=12, heads=12),
        length=_length("gpt2", input_shape),
        head=head,
        n_classes=n_classes,
        pad_id=pad_id,
        dropout=dropout,
        rematerialise=rematerialise,
    )


def gpt2_medium(
    *,
    input_shape: tuple[int, ...],
    n_classes: int,
    head: Head = "classes",
    vocabulary: int | None = None,
    pad_id: int = 50256,
    dropout: float = 0.0,
    rematerialise: bool = False,
) -> Model:
    """Returns GPT-2 medium: 24 blocks of width 1024; 354,823,168 parameters with a head of tokens.

    Args:
      input_shape: (length,) of a row of token ids, at most 1024.
      n_classes: labels, or the size of the vocabulary where `head` is `answer` or `tokens`.
      head: what the logits are of; see `transformer`.
      vocabulary: rows of the embedding; None for 50257 with the head `classes`, else `n_classes`.
      pad_id: see `gpt2`.
      dropout: see `transformer`; GPT-2 was pretrained with .1.
      rematerialise: see `transformer`.

    Raises:
      ValueError: see `transformer`.

    Source: Radford et al. 2019; the network of Pawelczyk et al. 2024, §4.1.

    Example:
      models.create("gpt2_medium", input_shape=(128,), n_classes=50257, head="answer")
    """
    size = _vocabulary(head, n_classes, vocabulary, 50257)
    return transformer(
        gpt2_decoder(size, width=1024, depth=24, heads=16),
        length=_length("gpt2_medium", input_shape),
        head=head,
        n_classes=n_classes,
        pad_id=pad_id,
        dropout=dropout,
        rematerialise=rematerialise,
    )


def llama_tiny(
    *,
    input_shape: tuple[int, ...],
    n_classes: int,
    head: Head = "classes",
    vocabulary: int | None = None,
    pad_id: int = 0,
    width: int = 64,
    depth: int = 2,
    heads: int = 4,
    key_value_heads: int = 2,
    tied: bool = True,
    dropout: float = 0.0,
    rematerialise: bool = False,
    scan: bool | None = None,
) -> Model:
    """Returns a Llama of 2 blocks of width 64, with two heads of keys and values for four queries.

    Args:
      input_shape: (length,) of a row of token ids, at most 2048.
      n_classes: labels, or the size of the vocabulary where `head` is `answer` or `tokens`.
      head: what the logits are of; see `transformer`.
      vocabulary: rows of the embedding; None for 512 with the head `classes`, else `n_classes`.
      pad_id: the id that fills rows on the right.
      width: of a token's vector.
      depth: blocks.
      heads: of the attention; a divisor of `width`.
      key_value_heads: heads of keys and values; a divisor of `heads`.
      tied: whether the head of tokens is the embedding.
      dropout: see `transformer`.
      rematerialise: see `transformer`.
      scan: see `transformer`.

    Raises:
      ValueError: see `transformer`.

    Source: the family of Touvron et al. 2023, at a size of our own.

    Example:
      models.create("llama_tiny", input_shape=(32,), n_classes=512, head="answer")
    """
    size = _vocabulary(head, n_classes, vocabulary, 512)
    each = width // max(heads, 1)
    hidden = 8 * -(-width // 3)  # 8/3 of the width, up to a multiple of 8
    decoder = Decoder(
        "llama", size, width, depth, heads, key_value_heads, each, hidden, 2048, tied=tied
    )
    return transformer(
        decoder,
        length=_length("llama_tiny", input_shape),
        head=head,
        n_classes=n_classes,
        pad_id=pad_id,
        dropout=dropout,
        rematerialise=rematerialise,
        scan=scan,
    )


def smollm2_135m(
    *,
    input_shape: tuple[int, ...],
    n_classes: int,
    head: Head = "classes",
    pad_id: int = 2,
    dropout: float = 0.0,
    rematerialise: bool = False,
) -> Model:
    """Returns SmolLM2-135M with fresh weights: 30 blocks of width 576; see `load_pretrained` too.

    With a head of tokens it has 134,515,008 parameters.

    Args:
      input_shape: (length,) of a row of token ids, at most 8192.
      n_classes: labels, or 49152, the size of the vocabulary, where `head` is `answer` or `tokens`.
      head: what the logits are of; see `transformer`.
      pad_id: the id that fills rows on the right; of `<|im_end|>`, as in its own tokenizer.
      dropout: see `transformer`.
      rematerialise: see `transformer`.

    Raises:
      ValueError: see `transformer`.

    Source: Allal et al. 2025.

    Example:
      models.create("smollm2_135m", input_shape=(128,), n_classes=2)
    """
    return transformer(
        SMOLLM2_135M,
        length=_length("smollm2_135m", input_shape),
        head=head,
        n_classes=n_classes,
        pad_id=pad_id,
        dropout=dropout,
        rematerialise=rematerialise,
    )


def _vocabulary(head: Head, n_classes: int, vocabulary: int | None, usual: int) -> int:
    if vocabulary is not None:
        return vocabulary
    return usual if head == "classes" else n_classes


def _length(name: str, input_shape: tuple[int, ...]) -> int:
    if len(input_shape) != 1:
        raise ValueError(
            f"{name} takes rows of token ids (length,), got examples of shape "
            f"{tuple(input_shape)}; tokenise the texts, or use a network of images"
        )
    return input_shape[0]
