"""What work costs: example-gradients, wall time with compilation apart, and memory.

A forward and backward pass of one example is 1 example-gradient.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import jax

FORWARD, BACKWARD, TANGENT = 1 / 3, 2 / 3, 1 / 3
"""Parts of an example-gradient; a tangent is what forward mode adds to a forward pass."""
VJP = FORWARD + BACKWARD
"""A vector-Jacobian product of one example; the gradient of its loss is one."""
JVP = FORWARD + TANGENT
"""A Jacobian-vector product of one example."""
HVP = 2.0
"""A Hessian-vector product of one example."""


class Stopwatch:
    """Measures a `with` block: `seconds` without compilation, `compile_seconds` of it.

    Compilation is what JAX reports of tracing, lowering and compiling while the block runs, in
    every thread. The caller blocks on the results inside the block.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.compile_seconds = 0.0

    def __enter__(self) -> Stopwatch:
        jax.monitoring.register_event_duration_secs_listener(self._on_event)
        self._start = time.perf_counter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.seconds, self.compile_seconds = self.lap()
        jax.monitoring.unregister_event_duration_listener(self._on_event)

    def lap(self) -> tuple[float, float]:
        """Returns the seconds up to now, without compilation and of compilation."""
        elapsed = time.perf_counter() - self._start
        compiled = min(self.compile_seconds, elapsed)
        return elapsed - compiled, compiled

    def _on_event(self, event: str, duration_secs: float, **_: Any) -> None:
        if event.startswith("/jax/core/compile/"):
            self.compile_seconds += duration_secs


def program_bytes(function: Any, *arguments: Any, **options: Any) -> int:
    """Returns the bytes that a compiled program takes besides its arguments.

    temporaries + outputs, by the compiler's own account; arguments that are donated are outputs.

    Args:
      function: what `jax.jit` returned.
      *arguments: arrays, or `jax.ShapeDtypeStruct`s in their place.
      **options: keyword arguments, static ones too.

    Raises:
      RuntimeError: the backend does not account for its memory.
    """
    analysis = function.lower(*arguments, **options).compile().memory_analysis()
    if analysis is None:
        raise RuntimeError("this backend does not say how much memory a program takes")
    taken = analysis.temp_size_in_bytes + analysis.output_size_in_bytes
    return int(taken - analysis.alias_size_in_bytes)


def program_flops(function: Any, *arguments: Any, **options: Any) -> float | None:
    """Returns the floating-point operations of a program, before the compiler rewrites it.

    The count is that of the program for a CPU, since JAX has none for accelerators; None where JAX
    was started without a CPU.

    Args:
      function: what `jax.jit` returned.
      *arguments: arrays that are bound to no device, or `jax.ShapeDtypeStruct`s.
      **options: keyword arguments, static ones too.
    """
    try:
        cpu = jax.devices("cpu")[0]
    except RuntimeError:
        return None
    with jax.default_device(cpu):
        analysis = function.lower(*arguments, **options).cost_analysis()
    return None if analysis is None else float(analysis["flops"])


def device_bytes(device: jax.Device | None = None) -> int | None:
    """Returns the bytes that JAX may use on a device, None where it does not say, as on a CPU.

    Args:
      device: None takes the first.
    """
    chosen = jax.devices()[0] if device is None else device
    statistics = chosen.memory_stats() or {}
    limit = statistics.get("bytes_limit")
    return None if limit is None else int(limit)


def available_bytes() -> int | None:
    """Returns the bytes that a computation may still take on the default device.

    On a CPU that is what Linux says is available, within the limit of the process's group; None
    where nobody says.
    """
    if jax.default_backend() != "cpu":
        return device_bytes()
    known = [_available_of_system(), _limit_of_group()]
    return min((n for n in known if n is not None), default=None)


def _available_of_system() -> int | None:
    with contextlib.suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        (line,) = [line for line in lines if line.startswith("MemAvailable:")]
        return int(line.split()[1]) * 1024
    return None


def _limit_of_group() -> int | None:
    with contextlib.suppress(OSError, ValueError):
        folder = Path("/sys/fs/cgroup")
        limit = int((folder / "memory.max").read_text(encoding="ascii"))
        return limit - int((folder / "memory.current").read_text(encoding="ascii"))
    return None


def largest_batch(
    taken: Callable[[int], int], limit: int, *, least: int, most: int, tries: int = 3
) -> int:
    """Returns a large batch whose program fits, by few compilations.

    The memory of a program grows in proportion to its batch, apart from a constant: programs of two
    sizes give the line, and the size at which it meets the limit is compiled to make sure.

    Args:
      taken: batch -> bytes, as by `program_bytes`; each call compiles.
      limit: the most bytes that it may take.
      least: the smallest batch that makes sense.
      most: the largest.
      tries: sizes between them that are compiled, each below the last; then the smallest is
        taken.

    Raises:
      ValueError: `least` is below 1 or above `most`, `tries` is below 1, or even the smallest batch
        exceeds the limit.
    """
    if not 1 <= least <= most or tries < 1:
        raise ValueError(
            f"1 <= least <= most and tries >= 1 must hold, got {least}, {most} and {tries}"
        )
    at_least = taken(least)
    if at_least > limit:
        raise ValueError(
            f"a batch of {least} takes {at_least / 1e9:.3g} GB, more than the {limit / 1e9:.3g} GB "
            "there are; choose a smaller batch"
        )
    if most == least:
        return least
    above, at_above = most, taken(most)
    for _ in range(tries):
        if at_above <= limit:
            return above
        # Where the line from the smallest batch to this one meets the limit, and below it.
        share = (limit - at_least) / (at_above - at_least)
        above = max(least, min(above - 1, least + int(share * (above - least))))
        if above == least:
            return least
        at_above = taken(above)
    return above if at_above <= limit else least
