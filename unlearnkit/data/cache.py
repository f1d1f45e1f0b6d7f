"""Decoded splits as memory-mapped `.npy` files with a JSON sidecar; checked before every use.

A split is three files: `<split>.x.npy`, `<split>.y.npy` and `<split>.json`, which is written last
and holds the fingerprint of the source and the digest of both arrays. Whatever does not agree with
it, from a killed writer, a full disk or another process in between, is decoded again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np

from unlearnkit.data.source import Pixels, Progress, Source
from unlearnkit.io.files import atomic_path, sha256_of_array, write_json

_VERSION = 2
_log = logging.getLogger(__name__)


def read_cached(source: Source, split: str, progress: Progress | None) -> Pixels:
    """Returns one split, from the cache where that is sound, else decoded and then cached.

    Args:
      source: where the data comes from.
      split: `train` or `test`.
      progress: called while decoding; not at all on a hit.
    """
    if source.cache is None:
        return source.read(split, progress)
    fingerprint = source.fingerprint()
    folders = (source.cache, _user_folder(source.cache))
    for folder in folders:
        pixels = _read(folder, split, fingerprint)
        if pixels is not None:
            return pixels
    pixels = source.read(split, progress)
    for folder in folders:
        try:
            _write(folder, split, fingerprint, pixels)
        except OSError as error:
            _log.info("cannot keep decoded data in %s: %s", folder, error)
            continue
        _log.info("kept decoded data in %s", folder)
        return pixels
    _log.warning(
        "decoded data could not be kept in %s or %s; it will be decoded again next time, "
        "set XDG_CACHE_HOME to a writable folder with space",
        *folders,
    )
    return pixels


def _user_folder(beside: Path) -> Path:
    """Returns the folder in the user's cache that stands for `beside`."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    digest = hashlib.sha256(str(beside.resolve()).encode()).hexdigest()[:16]
    return root / "unlearnkit" / f"{beside.name}-{digest}"


def _read(folder: Path, split: str, fingerprint: str) -> Pixels | None:
    """Returns the cached split, or None where there is none, a stale or a damaged one."""
    sidecar = folder / f"{split}.json"
    try:
        entry = json.loads(sidecar.read_text(encoding="utf-8"))
        if entry.pop("sha256") != _entry_digest(entry):
            raise ValueError(f"{sidecar.name} does not have its own digest")
        if entry["version"] != _VERSION or entry["fingerprint"] != fingerprint:
            _log.info("the source of %s has changed; decoding again", sidecar)
            return None
        x, y = (_map(folder / f"{split}.{part}.npy", entry[part]) for part in ("x", "y"))
        mean, std = (tuple(float(v) for v in entry[key]) for key in ("mean", "std"))
        return Pixels(x, y, float(entry["white"]), mean, std, bool(entry["features"]))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
        _log.warning("the cache %s is damaged (%r); decoding again", sidecar, error)
        return None


def _map(path: Path, entry: dict[str, str]) -> np.ndarray:
    """Returns the array at `path` memory-mapped, after comparing its digest."""
    array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    if sha256_of_array(array) != entry["sha256"]:
        raise ValueError(f"{path.name} does not have the digest {entry['sha256']}")
    return array


def _entry_digest(entry: dict[str, Any]) -> str:
    """Returns the digest of a sidecar's entries, in whatever order they stand."""
    return hashlib.sha256(json.dumps(entry, sort_keys=True).encode()).hexdigest()


def _write(folder: Path, split: str, fingerprint: str, pixels: Pixels) -> None:
    """Writes the split; the sidecar last, so that it never describes files not yet there."""
    _make_folder(folder)
    entry: dict[str, Any] = {
        "version": _VERSION,
        "fingerprint": fingerprint,
        "white": pixels.white,
        "mean": pixels.mean,
        "std": pixels.std,
        "features": pixels.features,
    }
    for part, array in (("x", pixels.x), ("y", pixels.y)):
        with (
            atomic_path(folder / f"{split}.{part}.npy") as temporary,
            temporary.open("wb") as file,
        ):
            np.save(file, array, allow_pickle=False)
        entry[part] = {
            "sha256": sha256_of_array(array),
            "shape": list(array.shape),
            "dtype": array.dtype.str,
        }
    entry["sha256"] = _entry_digest(entry)
    write_json(folder / f"{split}.json", entry)


def _make_folder(folder: Path) -> None:
    """Makes `folder`; a parent that its owner marked read-only stays as it is, for root too."""
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not existing.stat().st_mode & 0o222:
        raise PermissionError(f"{existing} is read-only")
    folder.mkdir(parents=True, exist_ok=True)
