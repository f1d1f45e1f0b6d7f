"""What one file of a user answers: it loads, it asks for one option, or it is refused."""

import dataclasses
import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Case:
    """One file, or folder of files.

    Attributes:
      what: as docs/data.md calls it.
      write: (folder) -> what is loaded: a path, or an object of Python.
      refused: how the message goes (a pattern) where nothing is said; empty where it loads.
      option: what the message names, with which it then loads; none where nothing helps.
      finds: what is loaded, where that differs from the usual.
      warns: how the warning goes, a pattern.
      sound: whether there is anything in the file that could be loaded.
    """

    what: str
    write: Callable[[Path], Any]
    refused: str = ""
    option: dict[str, Any] = dataclasses.field(default_factory=dict)
    finds: Any = None
    warns: str = ""
    sound: bool = True


def loads(what, write, finds=None, *, warns=""):
    """Returns a case that needs no word."""
    return Case(what, write, finds=finds, warns=warns)


def asks(what, write, message, finds=None, **option):
    """Returns a case that loads with the option that its message names."""
    return Case(what, write, message, option, finds)


def foreign(what, write, message):
    """Returns a case of a format that is not read, whose message says how to convert it."""
    return Case(what, write, message)


def wrong(what, write, message, finds=None):
    """Returns a case in which there is nothing that could be loaded."""
    return Case(what, write, message, finds=finds, sound=False)


def content(name, data, encoding="utf-8"):
    """Returns a writer of a text, or of bytes; those of a `.gz` are packed."""
    data = data.encode(encoding) if isinstance(data, str) else data

    def write(folder):
        packed = name.lower().endswith(".gz") and not data.startswith(b"no gzip")
        (folder / name).write_bytes(gzip.compress(data) if packed else data)
        return folder / name

    return write


def npy(values, name="rows.npy"):
    """Returns a writer of one array."""

    def write(folder):
        with (folder / name).open("wb") as file:
            np.save(file, values)
        return folder / name

    return write


def npz(name="rows.npz", **arrays):
    """Returns a writer of arrays."""

    def write(folder):
        with (folder / name).open("wb") as file:
            np.savez(file, **arrays)
        return folder / name

    return write
