"""Locks that end with the process that holds them."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

try:
    import fcntl
except ImportError:  # no such locks on Windows
    fcntl = None  # type: ignore[assignment]

_FIRST_PAUSE, _LONGEST_PAUSE = 0.01, 0.5
_BUSY = (errno.EACCES, errno.EAGAIN)


@contextlib.contextmanager
def locked(
    paths: Sequence[Path], *, wait: bool = True, until: float | None = None
) -> Iterator[bool]:
    """Yields whether this process, or thread, alone holds the files of these names.

    The operating system frees the lock of a process that ended, however it ended; the file that it
    leaves behind says only who it was, and stops nobody. Locks are taken in the order of their
    names, so that two that want several never wait for each other. Without locks in the operating
    system all hold.

    Args:
      paths: of files that are made, and removed in the end, in folders that exist.
      wait: whether to wait until they are free; otherwise nothing is held where one is not.
      until: when to give up waiting, in seconds since the epoch; None waits for ever.

    Raises:
      OSError: the files cannot be made, or their file system has no locks.
    """
    with contextlib.ExitStack() as held:
        for path in sorted(set(paths)):
            pause = _FIRST_PAUSE
            while (descriptor := _try_lock(path)) is None:
                if not wait or (until is not None and time.time() >= until):
                    held.close()
                    yield False
                    return
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            held.callback(_release, path, descriptor)
        yield True


def _try_lock(path: Path) -> int | None:
    """Returns the open file where the lock was free, and it is still the one of that name."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if lock(descriptor) and _is_still(path, descriptor):
            owner = {"pid": os.getpid(), "host": platform.node()}
            with contextlib.suppress(OSError):  # a full disk; the lock holds without
                os.ftruncate(descriptor, 0)
                os.write(descriptor, json.dumps(owner).encode() + b"\n")
            return descriptor
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def lock(descriptor: int) -> bool:
    """Returns whether the lock of an open file or folder was free, and so is held now."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _BUSY:
            return False
        raise
    return True


def _is_still(path: Path, descriptor: int) -> bool:
    """Whether the file was not removed by its last owner between opening and locking it."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _release(path: Path, descriptor: int) -> None:
    path.unlink(missing_ok=True)  # while it is held: nobody else's file is removed
    os.close(descriptor)
