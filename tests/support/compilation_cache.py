"""Compiled programs kept on disk, for all files, workers and runs of the suite.

Run as a script, it prints the folder: JAX_COMPILATION_CACHE_DIR, or one inside the checkout.
"""

import hashlib
import os
import platform
from pathlib import Path

ROOT = Path(__file__).parents[2]
OWN = ROOT / ".jax_cache"
MAX_BYTES = 2**30


def folder() -> str:
    """Returns where programs are kept, by default in a folder for each kind of processor.

    A program holds instructions of the processor that it was compiled on.
    """
    if given := os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return given
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        processor = next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        processor = platform.processor()
    kind = hashlib.sha256(processor.encode()).hexdigest()[:8]
    return str(OWN / f"{platform.machine()}-{kind}")


def keep_programs() -> None:
    """Keeps what this process, and those that it starts, compile."""
    import jax

    os.environ["JAX_COMPILATION_CACHE_DIR"] = folder()
    # Tests compile many small programs: each is worth keeping.
    seconds = os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    jax.config.update("jax_compilation_cache_dir", folder())
    jax.config.update("jax_persistent_cache_min_compile_time_secs", float(seconds))


def delete_oldest(kept: Path = OWN, *, max_bytes: int = MAX_BYTES) -> None:
    """Deletes the programs that were written first until the rest takes `max_bytes` at most."""
    written = []
    for path in kept.rglob("*-cache"):
        status = path.stat()
        written.append((status.st_mtime_ns, status.st_size, path))
    surplus = sum(size for _, size, _ in written) - max_bytes
    for _, size, path in sorted(written):
        if surplus <= 0:
            break
        path.unlink(missing_ok=True)
        surplus -= size


if __name__ == "__main__":
    print(folder())
