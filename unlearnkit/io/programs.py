"""Compiled programs kept on disk, so that a command's second run does not compile them again.

A kept program is code that the process runs. So the folder is the user's own and closed to others
(mode 0700); one that belongs to somebody else, or that others may write to, is not used.
"""

from __future__ import annotations

import hashlib
import os
import platform
import stat
import warnings
from pathlib import Path

import jax

MAX_BYTES = 2 * 2**30
"""What the programs of one folder may take when a process begins to use it."""


class ProgramCacheWarning(UserWarning):
    """Compiled programs are not kept."""


def keep_programs(
    folder: str | os.PathLike[str] | None = None, *, max_bytes: int = MAX_BYTES
) -> Path | None:
    """Keeps what this process compiles, and takes what earlier ones kept.

    Call it before the first computation. Where `JAX_COMPILATION_CACHE_DIR` is set, or JAX was
    configured by `jax_compilation_cache_dir`, that choice stands and nothing is changed.

    Args:
      folder: where; None takes a folder of the user's cache (`$XDG_CACHE_HOME`, else `~/.cache`),
        one for each kind of processor, whose instructions a program holds.
      max_bytes: what the folder may hold now; the programs that were used least recently go first.

    Returns:
      The folder; None where nothing is kept.

    Raises:
      ValueError: `max_bytes` is not positive.

    Warns:
      ProgramCacheWarning: the folder cannot be made, or is not the user's alone.

    Example:
      from unlearnkit.io.programs import keep_programs
      keep_programs()
    """
    if max_bytes < 1:
        raise ValueError(f"max_bytes must be >= 1, got {max_bytes}")
    if chosen := jax.config.values["jax_compilation_cache_dir"]:
        return Path(chosen)
    place = user_folder() if folder is None else Path(folder)
    if problem := _make_private(place):
        warnings.warn(
            f"compiled programs are not kept: {problem}", ProgramCacheWarning, stacklevel=2
        )
        return None
    _delete_oldest(place, max_bytes)
    settings = {
        "jax_compilation_cache_dir": str(place),
        # Small programs are most of what a study compiles.
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    for name, value in settings.items():
        jax.config.update(name, value)
    return place


def user_folder() -> Path:
    """Returns the folder of the user's cache for programs of this kind of processor."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "unlearnkit" / "programs" / f"{platform.machine()}-{_processor()}"


def _processor() -> str:
    """Returns a name for the instructions that this processor has."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        instructions = next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        instructions = platform.processor()
    return hashlib.sha256(instructions.encode()).hexdigest()[:8]


def _make_private(folder: Path) -> str | None:
    """Makes a folder that is the user's alone; returns what is wrong with it, or None."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        status = folder.stat()
    except OSError as error:
        return f"{folder} cannot be made ({error.strerror})"
    if not hasattr(os, "getuid"):
        return None
    if status.st_uid != os.getuid():
        return f"{folder} belongs to another user"
    if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return f"{folder} may be written to by others; remove it, or chmod 700"
        folder.chmod(0o700)
    if not os.access(folder, os.W_OK | os.X_OK):
        return f"{folder} cannot be written to"
    return None


def _delete_oldest(folder: Path, max_bytes: int) -> None:
    """Deletes what was used least recently until the rest takes `max_bytes` at most."""
    held = []
    for path in folder.iterdir():
        try:
            status = path.stat()
        except OSError:  # another process deleted it
            continue
        held.append((max(status.st_atime, status.st_mtime), status.st_size, path))
    surplus = sum(size for _, size, _ in held) - max_bytes
    for _, size, path in sorted(held):
        if surplus <= 0:
            return
        path.unlink(missing_ok=True)
        surplus -= size
