"""The folder in which the results of a study's stages are kept."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
import uuid
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from unlearnkit.io.files import read_regular_file, sync_folder, write_json, write_text
from unlearnkit.studies.store.claims import listed, lock, locked, sweep
from unlearnkit.studies.store.keys import StageKey
from unlearnkit.studies.store.stages import (
    DamagedError,
    Stage,
    as_read,
    encode_stage,
    read_stage,
    write_stage,
)

_HEADER = {"format": "unlearnkit-store", "version": 1}
_STORE, _INDEX, _STAGES, _UNFINISHED, _CLAIMS, _TEMPORARY, _STUDIES = (
    "store.json",
    "index.jsonl",
    "stages",
    "unfinished",
    "claims",
    "temporary",
    "studies",
)
_MOST_BYTES = 1000
_SWEPT_AFTER_SECONDS = 60
"""A temporary folder is locked as soon as it is made; this is more than that takes."""
_FORGOTTEN_AFTER_SECONDS = 30 * 86_400.0
"""Nobody goes on with what was begun so long ago."""


class StoreError(RuntimeError):
    """The store cannot be used, or not written to."""


class StoreWarning(UserWarning):
    """A stage is damaged, was not kept, or was not claimed; the study goes on."""


class Store:
    """Keeps the results of stages, so that none is computed twice.

    A stage is a folder `stages/KIND/AB/KEY` of `stage.json` (what it is, for people too) and
    `arrays.safetensors`. It is there whole or not at all, whenever a process is killed; what is
    read must agree with its digests, and counts as missing otherwise. Several processes, and
    several studies, may share a store. `index.jsonl` has a line for each stage that was written,
    for people; the store never reads it. `unfinished` has the checkpoints of long trainings, each
    until its stage is there; `studies` the TOML texts of studies that took from it.

    Example:
      store = Store("runs/store")
      stage = store.obtain(stage_key("original", recipe, inputs), train)
    """

    def __init__(self, folder: str | Path, *, reuse: Literal["any-version"] | None = None):
        """Opens a store, or makes an empty one, and removes what killed processes left.

        Args:
          folder: an empty one, one that does not exist, or a store.
          reuse: `any-version` takes a stage of another environment (program, libraries, device)
            where there is none of the own, and says so in `Stage.reused_from`.

        Raises:
          StoreError: the folder holds other files or a store of another version, or cannot be used.
        """
        if reuse not in (None, "any-version"):
            raise ValueError(f"reuse must be 'any-version' or None, got {reuse!r}")
        self.folder, self.reuse = Path(folder), reuse
        try:
            _open(self.folder)
        except OSError as error:
            raise StoreError(f"cannot use {self.folder}: {error}; choose another folder") from error
        self._sweep()

    def obtain(self, key: StageKey, compute: Callable[[], Stage]) -> Stage:
        """Returns the stage of a key, which is computed and kept where it is not there.

        Of all processes that want it at once, one computes it and the others wait. What comes back
        has the same bits and types whether it was read or computed. A stage that cannot be written
        is only said, and comes back all the same.

        Args:
          key: of the stage.
          compute: makes it.

        Raises:
          TypeError: the stage holds what a store does not keep.
        """
        if (found := self._get(key, lambda _: None)) is not None:
            return found
        with self.claim(key):
            if (found := self.get(key)) is not None:
                return found
            stage = as_read(compute())
            try:
                self.put(key, stage)
            except StoreError as error:
                _warn(f"{error}; the study goes on without")
            return stage

    def get(self, key: StageKey) -> Stage | None:
        """Returns the stage of a key, or None where it is not there; a damaged one is said."""
        return self._get(key, _warn)

    def put(self, key: StageKey, stage: Stage) -> None:
        """Writes a stage; one that is there whole stays as it is.

        Args:
          key: of the stage.
          stage: its result.

        Raises:
          TypeError: the stage holds what a store does not keep; the message says where.
          StoreError: the disk is full, or the folder cannot be written. Nothing is left behind.
        """
        document, content = encode_stage(key, stage)
        try:
            self._write(key, document, content)
        except OSError as error:
            if not self._holds(key):  # otherwise another process was faster
                raise StoreError(f"{self.folder} took no {key.kind}: {error}") from error
        self._append_to_index(key, document, len(content))

    @contextlib.contextmanager
    def claim(
        self, *keys: StageKey, wait: bool = True, until: float | None = None
    ) -> Iterator[bool]:
        """Yields whether this process, or thread, is the only one to compute these stages.

        Claims end with their process, however it ends: at once for others on its machine, and after
        two minutes for other machines. Claim all that is wanted at once: who claims a second time
        within a claim may wait for ever. Look again once the claim is there, as another may have
        computed the stages meanwhile. Where the file system has neither locks nor links, or cannot
        be written, that is said, and all claims are granted.

        Args:
          *keys: of the stages.
          wait: whether to wait for others; otherwise it is False while one of them has a claim.
          until: when to give up waiting, in seconds since the epoch; None waits for ever.
        """
        folder = self.folder / _CLAIMS
        with contextlib.ExitStack() as held:
            try:
                folder.mkdir(exist_ok=True)
                paths = [folder / f"{key.kind}-{key.name}" for key in keys]
                mine = held.enter_context(locked(paths, wait=wait, until=until))
            except OSError as error:
                _warn(f"nothing is claimed in {self.folder}, stages may be computed twice: {error}")
                mine = True
            yield mine

    def unfinished(self, key: StageKey) -> Path:
        """Returns the folder in which who has the claim of a stage may keep what it has so far."""
        return self.folder / _UNFINISHED / key.kind / key.content[:2] / key.name

    def discard_unfinished(self, key: StageKey) -> None:
        """Removes what was kept of a stage before it was there."""
        shutil.rmtree(self.unfinished(key), ignore_errors=True)

    @contextlib.contextmanager
    def probe(self) -> Iterator[Path]:
        """Yields a folder that whoever shares the store can see meanwhile.

        Raises:
          StoreError: it cannot be made.
        """
        with contextlib.ExitStack() as held:
            try:
                path = held.enter_context(self._temporary_folder())
            except OSError as error:
                raise StoreError(f"{self.folder} cannot be written: {error}") from error
            yield path

    def remember(self, study: str) -> None:
        """Keeps the TOML text of a study, so that a report can be made of the store alone."""
        name = f"{hashlib.sha256(study.encode()).hexdigest()[:12]}.toml"
        with contextlib.suppress(OSError):  # its stages are there, and its text elsewhere
            (self.folder / _STUDIES).mkdir(exist_ok=True)
            write_text(self.folder / _STUDIES / name, study)

    def studies(self) -> dict[str, str]:
        """Returns the texts of the studies that took from it, by short names of their own."""
        found = sorted((self.folder / _STUDIES).glob("*.toml"))
        return {path.stem: path.read_bytes().decode("utf-8") for path in found}

    def folders(self) -> list[Path]:
        """Returns the folders of all stages, each `…/KIND/AB/KEY`."""
        return sorted(self._stages())

    def discard(self, folders: Iterable[Path]) -> None:
        """Removes stages, which are gone at once.

        Args:
          folders: of them, see `folders`.

        Raises:
          StoreError: the folder cannot be written.
        """
        self._remove(folders)

    def size(self) -> int:
        """Returns how many bytes all stages take."""
        return sum(_size(folder) for folder in self._stages())

    def prune(self, keep: Collection[StageKey]) -> None:
        """Removes all stages but some.

        Args:
          keep: keys of those that stay.

        Raises:
          StoreError: the folder cannot be written.
        """
        kept = {self._place(key) for key in keep}
        self._remove(folder for folder in self._stages() if folder not in kept)

    def shrink(self, max_bytes: int) -> None:
        """Removes stages, those first that were written first, until the rest is small enough.

        Args:
          max_bytes: how many bytes stages may take.

        Raises:
          StoreError: the folder cannot be written.
        """
        sizes = {folder: _size(folder) for folder in sorted(self._stages(), key=_written)}
        excess, removed = sum(sizes.values()) - max_bytes, []
        for folder, size in sizes.items():
            if excess <= 0:
                break
            removed.append(folder)
            excess -= size
        self._remove(removed)

    def _get(self, key: StageKey, say: Callable[[str], None]) -> Stage | None:
        place = self._place(key)
        places = [place]
        if self.reuse:
            others = set(place.parent.glob(f"{key.content}-*")) - {place}
            places += sorted(others, key=_written, reverse=True)
        for folder in places:
            if not os.path.lexists(folder):
                continue
            try:
                return read_stage(folder, key)
            except DamagedError as error:
                say(f"{error}; it counts as missing")
        return None

    def _place(self, key: StageKey) -> Path:
        return self.folder / _STAGES / key.kind / key.content[:2] / key.name

    def _stages(self) -> list[Path]:
        return list((self.folder / _STAGES).glob("*/*/*"))

    def _holds(self, key: StageKey) -> bool:
        try:
            read_stage(self._place(key), key)
        except DamagedError:
            return False
        return True

    def _write(self, key: StageKey, document: Mapping[str, Any], content: bytes) -> None:
        place = self._place(key)
        with self._temporary_folder() as temporary:
            write_stage(temporary, document, content)
            place.parent.mkdir(parents=True, exist_ok=True)
            if os.path.lexists(place):
                if self._holds(key):
                    return
                self._set_aside(place)
            temporary.rename(place)
            sync_folder(place.parent)

    def _remove(self, folders: Iterable[Path]) -> None:
        try:
            for folder in folders:
                self._set_aside(folder)
        except OSError as error:
            raise StoreError(f"{self.folder} cannot be pruned: {error}") from error

    def _set_aside(self, folder: Path) -> None:
        """Removes a stage, which is gone at once."""
        with self._temporary_folder() as temporary, contextlib.suppress(FileNotFoundError):
            folder.rename(temporary / folder.name)

    @contextlib.contextmanager
    def _temporary_folder(self) -> Iterator[Path]:
        """Yields a new folder, which is removed in the end if it is still there.

        It is locked meanwhile, so that others see whether its owner lives.
        """
        path = self.folder / _TEMPORARY / uuid.uuid4().hex
        path.mkdir(parents=True)
        with contextlib.ExitStack() as last:
            last.callback(shutil.rmtree, path, ignore_errors=True)
            descriptor = os.open(path, os.O_RDONLY)
            last.callback(os.close, descriptor)
            with contextlib.suppress(OSError):
                lock(descriptor)
            yield path

    def _sweep(self) -> None:
        """Removes temporary folders and claims of processes that are no more, and checkpoints.

        A checkpoint goes where its stage is there, or nobody wrote to it for a month.
        """
        newest = time.time() - _SWEPT_AFTER_SECONDS
        for path in listed(self.folder / _TEMPORARY, "*"):
            with contextlib.suppress(OSError):  # gone meanwhile, by another process
                if path.stat().st_mtime < newest and _is_free(path):
                    shutil.rmtree(path, ignore_errors=True)
        sweep(self.folder / _CLAIMS)
        oldest, begun = time.time() - _FORGOTTEN_AFTER_SECONDS, self.folder / _UNFINISHED
        for path in listed(begun, "*/*/*"):
            with contextlib.suppress(OSError):
                finished = (self.folder / _STAGES / path.relative_to(begun)).exists()
                if finished or path.stat().st_mtime < oldest:
                    shutil.rmtree(path, ignore_errors=True)

    def _append_to_index(
        self, key: StageKey, document: Mapping[str, Any], array_bytes: int
    ) -> None:
        names = ("written", "kind", "content", "failure", "description")
        line = {name: document[name] for name in names} | {"array_bytes": array_bytes}
        with (
            contextlib.suppress(OSError),  # the stage is there, and nothing reads the index
            (self.folder / _INDEX).open("a", encoding="utf-8") as file,
        ):
            file.write(json.dumps({**line, "environment": key.environment.digest}) + "\n")


def _open(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / _STORE
    if not path.exists():
        ours = (_INDEX, _STAGES, _UNFINISHED, _CLAIMS, _TEMPORARY, _STUDIES)
        names = [part.name for part in folder.iterdir()]
        if foreign := sorted(n for n in names if n not in ours and not n.startswith(f".{_STORE}.")):
            raise StoreError(
                f"{folder} holds files that are no store's, as {foreign[0]}; "
                "choose an empty or a new folder"
            )
        write_json(path, _HEADER)
    try:
        header = json.loads(read_regular_file(path, at_most=_MOST_BYTES))
    except ValueError as error:
        raise StoreError(
            f"{path} cannot be read ({error}); where the folder is a store, remove this file"
        ) from None
    if not isinstance(header, dict) or header.get("format") != _HEADER["format"]:
        raise StoreError(f"{path} is not of a store; choose another folder")
    if header.get("version") != _HEADER["version"]:
        raise StoreError(
            f"{folder} is a store of format version {header.get('version')!r:.20}; this release "
            f"reads {_HEADER['version']}; choose another folder"
        )


def _size(folder: Path) -> int:
    with contextlib.suppress(FileNotFoundError):  # it was removed meanwhile
        return sum(path.stat().st_size for path in folder.glob("*"))
    return 0


def _written(folder: Path) -> float:
    with contextlib.suppress(FileNotFoundError):
        return folder.stat().st_mtime
    return 0.0


def _is_free(folder: Path) -> bool:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        return lock(descriptor)
    finally:
        os.close(descriptor)


def _warn(message: str) -> None:
    warnings.warn(message, StoreWarning, stacklevel=3)
