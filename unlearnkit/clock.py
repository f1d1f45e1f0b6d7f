"""Wall time with compilation counted apart."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

import jax


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
        elapsed = time.perf_counter() - self._start
        jax.monitoring.unregister_event_duration_listener(self._on_event)
        self.compile_seconds = min(self.compile_seconds, elapsed)
        self.seconds = elapsed - self.compile_seconds

    def _on_event(self, event: str, duration_secs: float, **_: Any) -> None:
        if event.startswith("/jax/core/compile/"):
            self.compile_seconds += duration_secs
