"""What decides the last bit of a result besides settings and inputs."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from pathlib import Path

import jax

import unlearnkit
from unlearnkit.io.provenance import environment

_PACKAGES = ("numpy", "scipy", "scikit-learn")
OPTIONS = (
    "jax_default_device",
    "jax_default_matmul_precision",
    "jax_default_prng_impl",
    "jax_disable_jit",
    "jax_disable_most_optimizations",
    "jax_high_dynamic_range_gumbel",
    "jax_numpy_dtype_promotion",
    "jax_optimization_level",
    "jax_random_seed_offset",
)
"""Of JAX, besides those that `provenance.environment` names."""


@dataclasses.dataclass(frozen=True)
class Environment:
    """The program, its libraries, the device and the options of one computation.

    Attributes:
      facts: values by name, as text, in the order of the names.
    """

    facts: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, facts: Mapping[str, str]) -> Environment:
        """Returns the environment of these facts."""
        return cls(tuple(sorted(facts.items())))

    @classmethod
    def current(cls, *, lane_width: int | None = None) -> Environment:
        """Returns the environment of this process, under the options that hold here.

        Args:
          lane_width: how many runs one compiled program makes side by side, where it makes several.
        """
        values = jax.config.values
        return cls.of(
            {
                **environment(),
                **{name: importlib.metadata.version(name) for name in _PACKAGES},
                **{name.removeprefix("jax_"): str(values[name]) for name in OPTIONS},
                "device_count": str(jax.device_count()),
                "lane_width": str(lane_width),
                "source": source_digest(Path(unlearnkit.__file__).parent),
            }
        )

    @property
    def digest(self) -> str:
        """A SHA-256 over all facts."""
        return hashlib.sha256(json.dumps(self.facts).encode()).hexdigest()


@functools.cache
def source_digest(package: Path) -> str:
    """Returns a SHA-256 over names and contents of all Python files of a package.

    It is read once a process, as the program is.
    """
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(package).as_posix()} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()
