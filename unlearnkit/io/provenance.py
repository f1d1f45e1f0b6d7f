"""The provenance of a figure: commit, versions, device, date."""

from __future__ import annotations

import datetime
import functools
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import jax

import unlearnkit

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "scipy", "scikit-learn")
_CODE = ("--", ":/*.py", ":/pyproject.toml")
"""What a figure depends on; other results that lie about are no change of it."""


def provenance(*extra_packages: str) -> dict[str, Any]:
    """Returns what a reader needs to judge a figure, as JSON values.

    Args:
      *extra_packages: further packages whose versions matter, as a peer's; left out where they are
        not installed.
    """
    device = jax.devices()[0]
    return {
        "unlearnkit": unlearnkit.__version__,
        "commit": _git("rev-parse", "--short", "HEAD"),
        "uncommitted_changes": bool(_git("status", "--porcelain", "--untracked-files=no", *_CODE)),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": f"{device.platform}: {device.device_kind} x {jax.device_count()}",
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "dtype": str(jax.dtypes.canonicalize_dtype(float)),
        "python": platform.python_version(),
        "versions": {
            name: version for name in (*PACKAGES, *extra_packages) if (version := _version(name))
        },
    }


def environment() -> dict[str, str]:
    """Returns what decides the last bit of a computation besides the program and its inputs."""
    device = jax.devices()[0]
    return {
        "platform": device.platform,
        "device": device.device_kind,
        "processor": _processor() if device.platform == "cpu" else "",
        "threads": str(cpu_threads()) if device.platform == "cpu" else "",
        **{name: _version(name) or "" for name in ("jax", "jaxlib", "flax", "optax")},
        "unlearnkit": unlearnkit.__version__,
        "x64": str(jax.config.values["jax_enable_x64"]),
        "threefry_partitionable": str(jax.config.values["jax_threefry_partitionable"]),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


@functools.cache
def cpu_threads() -> int | None:
    """Returns how many threads JAX's programs use on the CPU, as it was when first asked.

    JAX asks when it starts. Sums over large arrays are split among the threads, so that their last
    bits depend on the number.
    """
    if (told := os.environ.get("NPROC", "")).isdecimal():
        return int(told)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor())


def _git(*arguments: str) -> str | None:
    """Returns git's output for the checkout of this file, None outside of one."""
    try:
        return subprocess.run(
            ["git", *arguments],
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).parent,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
