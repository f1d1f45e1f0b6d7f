"""Safetensors and `.npz`: arrays by name, and no code."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, deserialize

from unlearnkit.io.files import write_bytes
from unlearnkit.training.checkpoint import read_checkpoint, write_checkpoint
from unlearnkit.weights.containers import Container, Place, WeightsError, check_size

_TYPES: Mapping[str, np.dtype] = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16),
    "I8": np.dtype(np.int8),
    "U64": np.dtype(np.uint64),
    "U32": np.dtype(np.uint32),
    "U16": np.dtype(np.uint16),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}


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


class _Header(NamedTuple):
    """A safetensors header: its bytes, and where each array stands after it."""

    content: bytes
    ranges: Mapping[str, tuple[int, int]]


def read_safetensors(path: Path) -> Container:
    """Returns the arrays of any safetensors file.

    Raises:
      WeightsError: a header that lies, a truncated file, or a type that NumPy cannot hold.
    """
    check_size(path, path.stat().st_size)
    content = path.read_bytes()
    try:
        found = deserialize(content)
    except SafetensorError as error:
        raise WeightsError(
            f"{path} is not readable as safetensors ({error}); it is truncated, damaged or of "
            "another format"
        ) from None
    end = 8 + int.from_bytes(content[:8], "little")
    said = json.loads(content[8:end])
    ranges = {n: tuple(v["data_offsets"]) for n, v in said.items() if n != "__metadata__"}
    arrays: dict[Place, np.ndarray] = {}
    # `deserialize` returns them in an order that differs from call to call.
    for name, one in sorted(found, key=lambda pair: ranges[pair[0]]):
        if one["dtype"] not in _TYPES:
            raise WeightsError(f"{path}: {name} has the type {one['dtype']}, which is not read")
        array = np.frombuffer(one["data"], _TYPES[one["dtype"]]).reshape(one["shape"])
        arrays[name,] = array
    return Container("safetensors", arrays, _Header(content[:end], ranges))


def write_safetensors(path: Path, container: Container, arrays: Mapping[Place, np.ndarray]) -> None:
    """Writes safetensors with the header of the file that was read, byte for byte.

    Args:
      path: the file.
      container: what was read.
      arrays: all of them, by place, with the shapes and types of the file.
    """
    header = container.rest
    assert isinstance(header, _Header)
    content = bytearray(header.content)
    for name, _ in sorted(header.ranges.items(), key=lambda item: item[1]):
        content += np.asarray(arrays[name,], order="C").tobytes()
    write_bytes(path, bytes(content))


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
