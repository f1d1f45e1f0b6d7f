"""Locks that end with the process that holds them, also between machines.

A claim NAME is held in two steps. On one machine, which shares one kernel, by the system's lock on
the file NAME.MACHINE: it is exact, and freed the moment its process ends. Between machines by the
link NAME, which says whose file counts. Making a link is atomic on network file systems too, where
locks may hold on one machine alone. The owner touches its file every few seconds; a file that was
not touched for some minutes, as the other machine's own clock counts them, is of a dead process.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import json
import os
import platform
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

try:
    import fcntl
except ImportError:  # no such locks on Windows
    fcntl = None  # type: ignore[assignment]

_FIRST_PAUSE, _LONGEST_PAUSE = 0.01, 0.5
_BUSY = (errno.EACCES, errno.EAGAIN)
_BEAT_SECONDS = 10.0
_ABANDONED_SECONDS = 120.0
"""Without a beat; network file systems may show one a minute late."""
_LEFT_SECONDS = 86_400.0
"""Files of other machines that are older are left from dead processes."""


@contextlib.contextmanager
def locked(
    paths: Sequence[Path], *, wait: bool = True, until: float | None = None
) -> Iterator[bool]:
    """Yields whether this process, or thread, alone holds these names.

    The claim of a process that ended, however it ended, is free: at once for processes of its
    machine, and for others after two minutes. Claims are taken in the order of their names, so that
    two that want several never wait for each other. A machine that was stopped for longer finds its
    claim taken over, and then both compute; so do two machines that take over in the same moment.

    Args:
      paths: of files that are made, and removed in the end, in folders that exist.
      wait: whether to wait until they are free; otherwise nothing is held where one is not.
      until: when to give up waiting, in seconds since the epoch; None waits for ever.

    Raises:
      OSError: the files cannot be made, or their file system has neither locks nor links.
    """
    with contextlib.ExitStack() as held:
        watched: dict[Path, tuple[object, float]] = {}
        owned = []
        for path in sorted(set(paths)):
            pause = _FIRST_PAUSE
            while (claim := _try_claim(path, watched)) is None:
                if not wait or (until is not None and time.time() >= until):
                    held.close()
                    yield False
                    return
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            held.callback(claim.release)
            owned.append(claim)
        held.enter_context(_beating([claim.descriptor for claim in owned]))
        yield True


def sweep(folder: Path) -> None:
    """Removes the claims of processes that are no more.

    Args:
      folder: of claims alone.
    """
    for path in listed(folder, "*"):
        with contextlib.suppress(OSError):  # gone meanwhile, as a claim's link with its file
            name = os.readlink(path) if path.is_symlink() else path.name
            claimed, _, machine = name.rpartition(".")
            if machine == _machine():
                with locked([path.with_name(claimed)], wait=False):
                    pass
            elif time.time() - path.lstat().st_mtime > _LEFT_SECONDS:
                path.unlink(missing_ok=True)


def listed(folder: Path, pattern: str) -> list[Path]:
    """Returns what matches; nothing where a folder goes, or cannot be read, meanwhile."""
    try:
        return list(folder.glob(pattern))
    except OSError:
        return []


class _Claim:
    """A name that is held."""

    def __init__(self, path: Path, own: Path, descriptor: int) -> None:
        self.path, self.own, self.descriptor = path, own, descriptor

    def release(self) -> None:
        with contextlib.suppress(OSError):  # no link, or another machine's
            if os.readlink(self.path) == self.own.name:
                self.path.unlink()
        self.let_go()

    def let_go(self) -> None:
        """Frees the name for this machine alone."""
        self.own.unlink(missing_ok=True)  # while it is held: nobody else's file is removed
        os.close(self.descriptor)


def _try_claim(path: Path, watched: dict[Path, tuple[object, float]]) -> _Claim | None:
    """Returns the claim of a name where it was free.

    Args:
      path: the name.
      watched: what was last seen of the claims of other machines, and since when.
    """
    own, has_locks = path.with_name(f"{path.name}.{_machine()}"), True
    try:
        descriptor = _try_lock(own)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.ENOLCK, errno.ENOSYS):
            raise
        own.unlink(missing_ok=True)
        # Each process is a machine of its own: it is known by its beat alone.
        has_locks, own = False, path.with_name(f"{path.name}.{uuid.uuid4().hex}")
        descriptor = os.open(own, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
    if descriptor is None:
        return None
    claim = _Claim(path, own, descriptor)
    try:
        if _is_mine(claim, watched, has_locks):
            return claim
    except BaseException:
        claim.let_go()
        raise
    claim.let_go()
    return None


def _is_mine(claim: _Claim, watched: dict[Path, tuple[object, float]], has_locks: bool) -> bool:
    """Returns whether the link says so now, or could be made to."""
    path, own = claim.path, claim.own
    try:
        os.symlink(own.name, path)
        return True
    except FileExistsError:
        pass
    except OSError:
        if has_locks:
            return True  # a file system without links: the lock alone counts
        raise
    try:
        owner = os.readlink(path)
    except FileNotFoundError:
        return False  # freed meanwhile
    except OSError:
        owner = ""  # a file that is no link, which no running process makes
    if owner == own.name:
        return True  # left by a dead process of this machine
    if owner and not _is_abandoned(path, owner, watched):
        return False
    link = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    os.symlink(own.name, link)
    link.replace(path)
    return os.readlink(path) == own.name


def _is_abandoned(path: Path, owner: str, watched: dict[Path, tuple[object, float]]) -> bool:
    """Whether the owner's file did not change for long, while it was watched."""
    seen = owner, _touched(path.with_name(owner))
    before, since = watched.get(path, (None, 0.0))
    if before != seen:
        watched[path] = seen, time.monotonic()
        return False
    return time.monotonic() - since >= _ABANDONED_SECONDS


def _touched(path: Path) -> int | None:
    """Returns when a file was touched last; opening it asks a network file system anew."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        return os.fstat(descriptor).st_mtime_ns
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _beating(descriptors: Sequence[int]) -> Iterator[None]:
    """Touches open files again and again, in a thread."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(_BEAT_SECONDS):
            for descriptor in descriptors:
                with contextlib.suppress(OSError):
                    os.utime(descriptor)

    thread = threading.Thread(target=beat, name="claims", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@functools.cache
def _machine() -> str:
    """Returns a name of the running kernel: who shares it shares its locks."""
    try:
        told = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    except OSError:
        told = f"{platform.node()} {uuid.getnode()}"
    return hashlib.sha256(told.strip().encode()).hexdigest()[:16]


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
