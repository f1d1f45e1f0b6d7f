"""What a file of weights holds, whatever its format: arrays by their place in it."""

from __future__ import annotations

import dataclasses
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from unlearnkit.io.tensor_files import WeightsError, check_size
from unlearnkit.training.checkpoint import is_checkpoint

Place: TypeAlias = tuple[str, ...]
"""The keys from the root of a file to an array; a name in a flat file is one key."""
Format: TypeAlias = Literal["unlearnkit", "safetensors", "npz", "msgpack", "orbax", "torch"]


@dataclasses.dataclass(frozen=True)
class Container:
    """The arrays of a file, and what is needed to write them back as they were.

    Attributes:
      format: of the file.
      arrays: by place, on the host, with the types of the file.
      rest: what else the format's writer needs.
      notes: what was chosen in reading it, in words.
    """

    format: Format
    arrays: Mapping[Place, np.ndarray]
    rest: object = None
    notes: tuple[str, ...] = ()


def changed(container: Container, arrays: Mapping[Place, np.ndarray]) -> dict[Place, np.ndarray]:
    """Returns those of `arrays` that are not the ones that were read."""
    read = container.arrays
    return {place: array for place, array in arrays.items() if array is not read[place]}


def told(place: Place) -> str:
    """Returns a place as text."""
    return "/".join(place)


def nested_arrays(tree: object, place: Place = ()) -> Iterator[tuple[Place, np.ndarray]]:
    """Yields the arrays of nested dicts and lists; numbers and texts among them are passed by.

    Args:
      tree: of arrays.
      place: where it stands.
    """
    if isinstance(tree, Mapping):
        for name, value in tree.items():
            yield from nested_arrays(value, (*place, str(name)))
    elif isinstance(tree, list | tuple):
        for number, value in enumerate(tree):
            yield from nested_arrays(value, (*place, str(number)))
    elif hasattr(tree, "shape") and hasattr(tree, "dtype"):
        yield place, np.asarray(tree)


def put_back(tree: object, arrays: Mapping[Place, np.ndarray], place: Place = ()) -> object:
    """Returns nested dicts and lists with the arrays at some places replaced.

    Args:
      tree: as `nested_arrays` takes it.
      arrays: by place.
      place: where `tree` stands.
    """
    if place in arrays:
        return arrays[place]
    if isinstance(tree, Mapping):
        return {name: put_back(v, arrays, (*place, str(name))) for name, v in tree.items()}
    if isinstance(tree, list | tuple):
        return [put_back(value, arrays, (*place, str(n))) for n, value in enumerate(tree)]
    return tree


def format_of(path: Path) -> Format:
    """Returns the format of a file, by what it holds and not by its ending.

    Raises:
      FileNotFoundError: there is none.
      WeightsError: an empty file, or one of no known format.
    """
    if path.is_dir():
        return "orbax"
    if not path.exists():
        raise FileNotFoundError(f"no file of weights at {path}")
    with path.open("rb") as file:
        first = file.read(16)
    if len(first) < 2:
        raise WeightsError(f"{path} is empty; copy it again")
    if first.startswith(b"PK"):
        return _format_of_archive(path)
    length = int.from_bytes(first[:8], "little")  # of the header, if it is safetensors
    if first[0] == 0x80 and first[1] <= 5 and length > path.stat().st_size:
        return "torch"  # a pickle's first byte, then its protocol
    if first[8:9] == b"{" or path.suffix == ".safetensors":
        return "unlearnkit" if is_checkpoint(path) else "safetensors"
    if path.suffix in (".msgpack", ".flax") or first[0] in _MAPS:
        return "msgpack"
    raise WeightsError(
        f"{path} is of no format that is read here: safetensors, .npz, flax's msgpack, an orbax "
        "folder, or a state dict of torch.save"
    )


_MAPS = (*range(0x80, 0x90), 0xDE, 0xDF)
"""First bytes of a msgpack that holds a mapping."""


def _format_of_archive(path: Path) -> Format:
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
    except (OSError, ValueError, RuntimeError, zipfile.BadZipFile) as error:
        raise WeightsError(
            f"{path} begins as an archive, but is damaged or truncated ({error}); copy it again"
        ) from error
    if any(info.filename.split("/")[-1] == "data.pkl" for info in infos):
        return "torch"
    if not infos or not all(info.filename.endswith(".npy") for info in infos):
        raise WeightsError(f"{path} is an archive, but neither of numpy.savez nor of torch.save")
    check_size(path, sum(info.file_size for info in infos))
    return "npz"
