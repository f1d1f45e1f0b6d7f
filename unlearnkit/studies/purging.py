"""Removes from stores and results what holds rows that were to be forgotten."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors

from unlearnkit.base import Dataset, Normalisation
from unlearnkit.io.files import write_text
from unlearnkit.studies.store import Store

_WEIGHTS = {
    "original": "trained on all rows",
    "trained": "trained on all rows",
    "clean": "trained on all rows",
    "victim": "trained on all rows, or on poisons made of them",
    "defended": "trained on what a defence kept",
    "robust_training": "trained on all rows, or on poisons made of them",
    "unlearn": "made to forget some rows; whether they did is what an audit tells",
    "reference": "trained without some rows, and the store does not say which",
    "retrained": "trained without some rows, and the store does not say which",
}
"""Kinds of stages that are weights, and what they saw."""
_TRAINED = {"train": "trained on all rows", "unlearn": _WEIGHTS["unlearn"]}
_ARRAYS = (".npz", ".npy", ".safetensors")
_DRAWN = (".html", ".svg", ".png")
_UNREADABLE = (
    *(OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error),
    SafetensorError,
)
_MOST_BYTES = 1 << 30


class Held(NamedTuple):
    """Something that holds forgotten rows.

    Attributes:
      path: the file or folder.
      why: what of them, in words.
    """

    path: Path
    why: str


class Purged(NamedTuple):
    """What was removed, and what is left.

    Attributes:
      removed: files and folders that are gone.
      left: what still holds the rows, and is for a person to decide about.
    """

    removed: tuple[Held, ...]
    left: tuple[Held, ...]


class Traces:
    """Recognises examples of a dataset in arrays, whatever they were normalised by.

    Each example is known by its bytes: as it is stored, and under each of the normalisations that
    the library has, as float32 and float64.
    """

    def __init__(self, versions: Sequence[Dataset], rows: np.ndarray) -> None:
        """Takes the bytes of all examples.

        Args:
          versions: the same examples under several normalisations.
          rows: those that are to be forgotten.
        """
        self._all: set[bytes] = set()
        self._forgotten: set[bytes] = set()
        self._size = int(np.prod(versions[0].x.shape[1:]))
        for x in _representations(versions):
            flat = x.reshape(len(x), -1)
            self._all.update(row.tobytes() for row in flat)
            self._forgotten.update(row.tobytes() for row in flat[rows])

    def holds_forgotten(self, array: np.ndarray) -> bool:
        """Whether an array has one of the forgotten examples as a row."""
        return any(row in self._forgotten for row in self._rows(array))

    def holds_any(self, array: np.ndarray) -> bool:
        """Whether an array has any of the dataset's examples as a row."""
        return any(row in self._all for row in self._rows(array))

    def in_bytes(self, content: bytes) -> bool:
        """Whether one of the forgotten examples stands somewhere in a file."""
        return any(row in content for row in self._forgotten)

    def _rows(self, array: np.ndarray) -> Iterator[bytes]:
        if array.ndim == 0 or array.size == 0 or array.size % self._size:
            return
        flat = np.ascontiguousarray(array).reshape(-1, self._size)
        yield from (row.tobytes() for row in flat)


def purge(
    places: Sequence[Path | str],
    versions: Sequence[Dataset],
    rows: np.ndarray,
    *,
    dry_run: bool = False,
) -> Purged:
    """Removes what holds forgotten rows from stores and results, and lists what still does.

    Removed is what holds the rows, poisoned sets of the same data, in which they or what was made
    of them stand, decoded copies, and what holds values of single examples (losses, scores,
    curves), of whichever question: a store does not say, and computes them again. Tables of means
    stay, and so do weights, which are listed.

    Args:
      places: stores; folders of `run`, `train`, `unlearn`, `recommend` and `poison`; others, in
        which only files of arrays are looked at.
      versions: the training set as it is stored and under each normalisation.
      rows: that were to be forgotten.
      dry_run: remove nothing, and say what would be.

    Raises:
      FileNotFoundError: there is no such folder.
      StoreError: a store that cannot be used.

    Example:
      versions = [data.load("digits", split="train", normalisation=n) for n in ("unit", "standard")]
      found = studies.purge(["runs/store"], versions, rows)
      print(found.left)
    """
    traces, removed, left = Traces(versions, rows), list[Held](), list[Held]()

    def drop(path: Path, why: str) -> None:
        removed.append(Held(path, why))
        if not dry_run:
            path.unlink()

    for place in map(Path, places):
        if not place.is_dir():
            raise FileNotFoundError(f"there is no folder {place}")
        for folder in _folders(place):
            if (folder / "store.json").is_file() and (folder / "stages").is_dir():
                _purge_store(folder, traces, removed, left, dry_run=dry_run)
            elif (folder / "metrics.jsonl").is_file():
                _purge_run(folder, drop, removed, dry_run=dry_run)
            else:
                _purge_files(folder, traces, drop, left)
    return Purged(tuple(removed), tuple(left))


def _folders(place: Path) -> Iterator[Path]:
    """Yields a folder and those below it, but not what is within a store or a run's curves."""
    yield place
    if (place / "store.json").is_file():
        return
    for path in sorted(place.iterdir()):
        if path.is_dir() and not path.is_symlink() and path.name != "curves":
            yield from _folders(path)


def _purge_store(
    folder: Path,
    traces: Traces,
    removed: list[Held],
    left: list[Held],
    *,
    dry_run: bool,
) -> None:
    store = Store(folder)
    weights: dict[str, int] = {}
    gone: list[Path] = []
    for stage in store.folders():
        kind, arrays = stage.parent.parent.name, stage / "arrays.safetensors"
        if kind in _WEIGHTS:
            weights[kind] = weights.get(kind, 0) + 1
        elif arrays.is_file() and (why := _why(kind, arrays, traces)) is not None:
            gone.append(stage)
            removed.append(Held(stage, why))
    if not dry_run:
        store.discard(gone)
    begun = sum(1 for _ in (folder / "unfinished").glob("*/*/*"))
    for kind, count in weights.items():
        left.append(Held(folder, f"weights of {count} stages {kind}: {_WEIGHTS[kind]}"))
    if begun:
        left.append(Held(folder / "unfinished", f"checkpoints of {begun} trainings"))


def _why(kind: str, file: Path, traces: Traces) -> str | None:
    """Returns why a stage is to go, or None."""
    if kind != "attack":
        return f"{kind}: values of single examples"
    arrays = _read(file)
    if arrays is None or any(map(traces.holds_any, arrays)):
        return "attack: a poisoned set of these data"
    return None


def _purge_run(
    folder: Path, drop: Callable[[Path, str], None], removed: list[Held], *, dry_run: bool
) -> None:
    """Removes curves and pages of a study's results; tables of means stay."""
    for path in sorted(folder.iterdir()):
        if path.name == "curves" and path.is_dir():
            for curve in sorted(path.glob("*.npz")):
                drop(curve, "curves of single examples")
        elif path.suffix in _DRAWN:
            drop(path, "drawn from values of single examples; `unlearnkit report` makes it anew")
    lines = folder / "records.jsonl"
    if lines.is_file() and '"curves"' in (text := lines.read_text(encoding="utf-8")):
        removed.append(Held(lines, "curves of single examples, out of the records"))
        if not dry_run:
            kept = [_without_curves(line) for line in text.splitlines()]
            write_text(lines, "".join(f"{line}\n" for line in kept))


def _without_curves(line: str) -> str:
    try:
        said = json.loads(line)
    except ValueError:
        return ""
    said.pop("curves", None)
    return json.dumps(said)


def _purge_files(
    folder: Path, traces: Traces, drop: Callable[[Path, str], None], left: list[Held]
) -> None:
    """Looks at the files of a folder that is no store and no run of a study."""
    command = _command(folder)
    cached = ".unlearnkit" in folder.parts
    if (folder / "manifest.json").is_file() and list(folder.glob("state-*.safetensors")):
        left.append(Held(folder, "a log of training: weights that were trained on rows it names"))
    for path in sorted(p for p in folder.iterdir() if p.is_file() and not p.is_symlink()):
        arrays = _read(path)
        if arrays is None:
            if path.stat().st_size <= _MOST_BYTES and traces.in_bytes(path.read_bytes()):
                left.append(Held(path, "the rows themselves, in a file of no known kind"))
            continue
        ours = cached or command == "poison" or path.name == "poison.safetensors"
        if ours and (any(map(traces.holds_any, arrays)) or path.name == "poison.safetensors"):
            drop(path, "decoded rows" if cached else "a poisoned set of these data")
        elif any(map(traces.holds_forgotten, arrays)):
            left.append(Held(path, "the rows themselves: a copy of the data"))
        elif command in _TRAINED:
            left.append(Held(path, f"weights: {_TRAINED[command]}"))
        elif command == "recommend":
            left.append(Held(path, f"weights: {_WEIGHTS['unlearn']}"))


def _command(folder: Path) -> str:
    try:
        said = json.loads((folder / "record.json").read_text(encoding="utf-8"))
        return str(said["asked"]["command"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _read(path: Path) -> list[np.ndarray] | None:
    """Returns the arrays of a file; None of another kind, or one that cannot be read."""
    if path.suffix not in _ARRAYS:
        return None
    try:
        content = path.read_bytes()
        if path.suffix == ".safetensors":
            return list(load_safetensors(content).values())
        found = np.load(io.BytesIO(content), allow_pickle=False)
        return [found] if isinstance(found, np.ndarray) else [found[name] for name in found]
    except _UNREADABLE:
        return None


def _representations(versions: Sequence[Dataset]) -> Iterator[np.ndarray]:
    """Yields the examples as arrays, in each form in which files have them."""
    for version in versions:
        x = np.asarray(version.x)
        yield np.ascontiguousarray(x)
        if x.dtype == np.float32:
            yield x.astype(np.float64)
        if isinstance(version.normalisation, Normalisation):
            unit = np.asarray(version.normalisation.invert(version.x), np.float32)
            yield unit
            for white in (255, 16):
                whole = np.round(unit * white)
                if ((whole >= 0) & (whole <= white)).all():
                    yield whole.astype(np.uint8)
