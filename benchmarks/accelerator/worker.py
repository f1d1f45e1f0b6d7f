"""The process that jobs run in: `python -m benchmarks.accelerator.worker WORK`.

It reads one request per line from its standard input and answers in lines of JSON on its standard
output; what jobs print goes to standard error. One process serves many jobs, so that programs
compiled and data loaded by one are there for the next.
"""

from __future__ import annotations

import gc
import importlib
import json
import math
import os
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from benchmarks.accelerator.job import Unavailable

MEMORY = ("RESOURCE_EXHAUSTED", "out of memory", "OutOfMemory", "Out of memory")
"""What JAX and PyTorch say where the card has too little memory."""


def main() -> None:
    """Serves requests until there are no more."""
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever prints, prints to standard error

    lock = threading.Lock()  # jobs may tell from several threads

    def tell(event: str, **content: Any) -> None:
        line = json.dumps({"event": event, **content}, default=float) + "\n"
        with lock:
            channel.write(line)

    threading.Thread(target=end_with_the_runner, args=(os.getppid(),), daemon=True).start()
    work = Path(sys.argv[1])
    for line in sys.stdin:
        request = json.loads(line)
        if request["do"] == "describe":
            answer(lambda: tell("device", **describe_device()), tell)
        else:
            answer(lambda request=request: serve(request, work, tell), tell)
        gc.collect()


def end_with_the_runner(runner: int) -> None:
    """Ends this process when the runner has ended, however it did: a card is held by none."""
    while os.getppid() == runner:
        time.sleep(0.5)
    os._exit(1)


def answer(action: Any, tell: Any) -> None:
    """Runs `action`; whatever it raises is reported."""
    try:
        action()
    except Unavailable as reason:
        tell("failed", note=str(reason), kind="unavailable")
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        message = f"{type(error).__name__}: {error}"
        short = any(word in message for word in MEMORY)
        tell("failed", note=message[:400], kind="memory" if short else "error")


def serve(request: dict[str, Any], work: Path, tell: Any) -> None:
    """Runs one job and tells its rows as they come."""
    from benchmarks.accelerator.context import Context
    from benchmarks.frame import row_to_json

    module, _, function = request["run"].partition(":")
    run = getattr(importlib.import_module(module), function)
    context = Context(
        work,
        rehearse=request["rehearse"],
        ends=time.monotonic() + request["seconds"],
        gigabytes=request["gigabytes"],
        say=lambda what: tell("stage", what=what),
    )
    for row in run(context):
        tell("row", row=finite(row_to_json(row)))
    tell("done", provenance=_provenance())


def finite(value: Any) -> Any:
    """Returns JSON values with None for what is not finite, which JSON has no word for."""
    if isinstance(value, dict):
        return {name: finite(inner) for name, inner in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def describe_device() -> dict[str, Any]:
    """Returns the platform, the name and the memory of the first device."""
    import jax

    device = jax.devices()[0]
    statistics = device.memory_stats() or {}
    return {
        "platform": device.platform,
        "kind": device.device_kind,
        "gigabytes": statistics.get("bytes_limit", 0) / 1e9,
    }


def _provenance() -> dict[str, Any] | None:
    if "jax" not in sys.modules:
        return None
    from unlearnkit.io.provenance import provenance

    return {**provenance("torch"), "xla_flags": os.environ.get("XLA_FLAGS", "")}


if __name__ == "__main__":
    main()
