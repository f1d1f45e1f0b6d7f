"""Safetensors: arrays by name, and no code; read with their header, and written back under it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, deserialize

from unlearnkit.io.files import write_bytes

MAX_BYTES = 2**36
"""What a file may hold, 64 GiB: more is taken for a damaged or hostile one."""
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


class WeightsError(ValueError):
    """A file of weights that cannot be read, is refused, or does not fit the network."""


class Header(NamedTuple):
    """A safetensors header: its bytes, and where each array stands after it."""

    content: bytes
    ranges: Mapping[str, tuple[int, int]]


class TensorFile(NamedTuple):
    """The arrays of a safetensors file in its order, and its header.

    Attributes:
      arrays: by name, on the host, with the types of the file.
      header: as it was read.
    """

    arrays: Mapping[str, np.ndarray]
    header: Header


def check_size(path: Path, size: float) -> None:
    """Raises WeightsError if a file holds, or says that it holds, more than is believed."""
    if not size <= MAX_BYTES:
        raise WeightsError(
            f"{path} says that it holds {size} bytes, but at most {MAX_BYTES} are read"
        )


def read_tensors(path: Path) -> TensorFile:
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
    arrays: dict[str, np.ndarray] = {}
    # `deserialize` returns them in an order that differs from call to call.
    for name, one in sorted(found, key=lambda pair: ranges[pair[0]]):
        if one["dtype"] not in _TYPES:
            raise WeightsError(f"{path}: {name} has the type {one['dtype']}, which is not read")
        arrays[name] = np.frombuffer(one["data"], _TYPES[one["dtype"]]).reshape(one["shape"])
    return TensorFile(arrays, Header(content[:end], ranges))


def write_tensors(path: Path, header: Header, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes safetensors with a header that was read, byte for byte.

    Args:
      path: the file.
      header: of the file that was read.
      arrays: all of them, by name, with the shapes and types of that file.
    """
    content = bytearray(header.content)
    for name, _ in sorted(header.ranges.items(), key=lambda item: item[1]):
        content += np.asarray(arrays[name], order="C").tobytes()
    write_bytes(path, bytes(content))
