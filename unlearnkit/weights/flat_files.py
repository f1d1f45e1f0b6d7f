"""Safetensors and `.npz`: arrays by name, and no code."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from unlearnkit.io.files import write_bytes
from unlearnkit.io.tensor_files import Header, WeightsError, read_tensors, write_tensors
from unlearnkit.training.checkpoint import read_checkpoint, write_checkpoint
from unlearnkit.weights.containers import Container, Place


def read_own(path: Path) -> Container:
    """Returns a checkpoint of this library after checking it against its sidecar."""
    arrays, metadata = read_checkpoint(path)
    placed: dict[Place, np.ndarray] = {(name,): array for name, array in arrays.items()}
    return Container("unlearnkit", placed, metadata)


def write_own(path: Path, container: Container, arrays: Mapping[Place, np.ndarray]) -> None:
    """Writes a checkpoint of this library with its sidecar.

    Args:
      path: the file.
      container: what was read, whose metadata is kept.
      arrays: all of them, by place.
    """
    metadata = container.rest if isinstance(container.rest, Mapping) else {}
    write_checkpoint(path, {name: array for (name,), array in arrays.items()}, metadata)


def read_safetensors(path: Path) -> Container:
    """Returns the arrays of any safetensors file.

    Raises:
      WeightsError: a header that lies, a truncated file, or a type that NumPy cannot hold.
    """
    found = read_tensors(path)
    placed: dict[Place, np.ndarray] = {(name,): array for name, array in found.arrays.items()}
    return Container("safetensors", placed, found.header)


def write_safetensors(path: Path, container: Container, arrays: Mapping[Place, np.ndarray]) -> None:
    """Writes safetensors with the header of the file that was read, byte for byte.

    Args:
      path: the file.
      container: what was read.
      arrays: all of them, by place, with the shapes and types of the file.
    """
    header = container.rest
    assert isinstance(header, Header)
    write_tensors(path, header, {name: array for (name,), array in arrays.items()})


def read_npz(path: Path) -> Container:
    """Returns the arrays of a `.npz`; one that holds Python objects is refused.

    Raises:
      WeightsError: a damaged file, or one with a pickle in it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            packed = any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist())
        with np.load(path, allow_pickle=False) as file:
            arrays: dict[Place, np.ndarray] = {(name,): file[name] for name in file.files}
    except (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise WeightsError(
            f"cannot read {path} as a .npz file ({error}); it is damaged, or holds Python objects, "
            "which are never opened"
        ) from error
    return Container("npz", arrays, packed)


def write_npz(path: Path, container: Container, arrays: Mapping[Place, np.ndarray]) -> None:
    """Writes a `.npz`, compressed where the one that was read is.

    Args:
      path: the file.
      container: what was read.
      arrays: all of them, by place.
    """
    content = io.BytesIO()
    kind = zipfile.ZIP_DEFLATED if container.rest else zipfile.ZIP_STORED
    with zipfile.ZipFile(content, "w", kind) as archive:
        for (name,), array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)
    write_bytes(path, content.getvalue())
