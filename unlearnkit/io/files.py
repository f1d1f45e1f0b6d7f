"""Atomic writes, checked reads, JSON and hashes of files."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; it takes `path`'s place when the block ends well.

    The content is on the disk before the name changes, so that a process killed at any moment
    leaves the old file or the new one, never a part.
    """
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes `text` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_bytes(path: Path, content: bytes) -> None:
    """Writes `content` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def as_json(value: Any, *, digits: int | None = None) -> Any:
    """Returns `value` with numbers that JSON lacks replaced by what it has.

    NaN is null, an infinity its name (`inf`, `-inf`), a number or an array of NumPy or JAX one of
    Python; `numbers_from_json` reads them back. Numbers keep as many significant `digits`, all of
    them for None.
    """
    if isinstance(value, Mapping):
        return {str(name): as_json(part, digits=digits) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(part, digits=digits) for part in value]
    if hasattr(value, "tolist"):
        return as_json(value.tolist(), digits=digits)
    if not isinstance(value, float):
        return value
    if not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value if digits is None else float(f"{value:.{digits}g}")


def numbers_from_json(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns numbers by name as they were before `as_json`; what is no number stays."""
    names = {None: math.nan, "inf": math.inf, "-inf": -math.inf}
    return {name: names.get(value, value) for name, value in values.items()}


def read_regular_file(path: Path, *, at_most: int) -> bytes:
    """Returns the bytes of an untrusted file.

    Raises:
      OSError: there is no such file, or it cannot be read.
      ValueError: a link, a folder, a pipe or a device, or more than `at_most` bytes.
    """
    if path.is_symlink():
        raise ValueError(f"{path} is a link; put the file itself there")
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    descriptor = os.open(path, flags)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"{path} is no regular file")
        if status.st_size > at_most:
            raise ValueError(
                f"{path} has {status.st_size} bytes, but at most {at_most} are expected"
            )
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(status.st_size)
    finally:
        os.close(descriptor)


def sha256_of_file(path: Path) -> str:
    """Returns the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_array(array: np.ndarray) -> str:
    """Returns the SHA-256 of an array's type, shape and every byte, in hexadecimal."""
    # Types that NumPy does not know, as bfloat16, have no name of their own there, and no buffer.
    kind = array.dtype.name if array.dtype.kind == "V" else array.dtype.str
    digest = hashlib.sha256(f"{kind} {array.shape}".encode())
    digest.update(np.asarray(array, order="C").reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def sync_folder(folder: Path) -> None:
    """Waits until the names in a folder are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
