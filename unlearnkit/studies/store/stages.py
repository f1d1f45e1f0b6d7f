"""One stage of a study as two files: what it is, and its arrays."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from safetensors.numpy import load, save

from unlearnkit.io.files import read_regular_file, sync_folder
from unlearnkit.io.text import escaped
from unlearnkit.studies.store.environment import Environment
from unlearnkit.studies.store.keys import StageKey
from unlearnkit.studies.store.packing import pack, unpack

_FORMAT, _VERSION = "unlearnkit-stage", 1
_STAGE, _ARRAYS = "stage.json", "arrays.safetensors"
_MOST_JSON_BYTES = 1 << 28
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)


class DamagedError(ValueError):
    """A folder does not hold what was written there."""


class Stage(NamedTuple):
    """The result of one stage of a study.

    Attributes:
      description: the settings, for people.
      tree: arrays in dicts, lists, tuples, and NamedTuples and frozen dataclasses of this library.
      info: what was measured and what it cost, by name.
      failure: why there is no result, or None.
      reused_from: the environment in which the stage was computed, where that is another one than
        was asked for; a store gives it, and does not keep it.
    """

    description: Mapping[str, Any]
    tree: Any = None
    info: Mapping[str, Any] = {}
    failure: str | None = None
    reused_from: Mapping[str, str] | None = None


def encode_stage(key: StageKey, stage: Stage) -> tuple[dict[str, Any], bytes]:
    """Returns what stands in the two files of a stage.

    Raises:
      TypeError: the stage holds what a store does not keep.
    """
    packed, arrays = pack(_parts(stage))
    content = save(arrays) if arrays else b""
    document = {
        "format": _FORMAT,
        "version": _VERSION,
        "kind": key.kind,
        "content": key.content,
        "written": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **packed,
        "arrays": {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()},
        "environment": dict(key.environment.facts),
    }
    return {**document, "sha256": _digest(document)}, content


def write_stage(folder: Path, document: Mapping[str, Any], content: bytes) -> None:
    """Writes the files of a stage to an empty folder, and waits until they are on the disk.

    Args:
      folder: where to.
      document: what `stage.json` says.
      content: of the arrays' file; empty where there are none.
    """
    if content:
        _write_durably(folder / _ARRAYS, content)
    text = json.dumps(document, indent=1, allow_nan=False) + "\n"
    _write_durably(folder / _STAGE, text.encode())
    sync_folder(folder)


def read_stage(folder: Path, key: StageKey) -> Stage:
    """Returns the stage in a folder, of the content of this key and of any environment.

    Raises:
      DamagedError: the files are not what was written there, or there by another key.
    """
    try:
        return _read(folder, key)
    except (*_UNREADABLE, SafetensorError) as error:
        raise DamagedError(f"{folder} is damaged: {escaped(str(error), 300)}") from error


def as_read(stage: Stage) -> Stage:
    """Returns a stage as it will be read."""
    return Stage(**unpack(*pack(_parts(stage))))


def _parts(stage: Stage) -> dict[str, Any]:
    return {
        "description": dict(stage.description),
        "failure": stage.failure,
        "info": dict(stage.info),
        "tree": stage.tree,
    }


def _read(folder: Path, key: StageKey) -> Stage:
    document = json.loads(read_regular_file(folder / _STAGE, at_most=_MOST_JSON_BYTES))
    if document.pop("sha256") != _digest(document):
        raise ValueError(f"{_STAGE} is not as it was written")
    if (document["format"], document["version"]) != (_FORMAT, _VERSION):
        raise ValueError(f"{_STAGE} has format version {document['version']}")
    environment = Environment.of(document["environment"])
    written = StageKey(document["kind"], document["content"], environment)
    if written != dataclasses.replace(key, environment=environment) or written.name != folder.name:
        raise ValueError(f"{_STAGE} is of another stage")
    content, said = b"", document["arrays"]
    if said["bytes"]:
        content = read_regular_file(folder / _ARRAYS, at_most=said["bytes"])
    if hashlib.sha256(content).hexdigest() != said["sha256"]:
        raise ValueError(f"{_ARRAYS} is not as it was written")
    parts = {name: document[name] for name in ("description", "failure", "info", "tree")}
    stage = Stage(**unpack(parts, load(content) if content else {}))
    other = environment != key.environment
    return stage._replace(reused_from=dict(environment.facts) if other else None)


def _digest(document: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _write_durably(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
