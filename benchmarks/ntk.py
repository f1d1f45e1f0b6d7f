"""The dense empirical NTK against neural-tangents, which runs in an environment of its own.

`peers/neural_tangents/requirements.txt` says how to make it, with the jax on which its structured
derivatives run; where it stands elsewhere, name its interpreter in NEURAL_TANGENTS_PYTHON. The same
parameters and inputs go to both, each in a process of its own, whose peak memory is told too; the
kernels are compared number by number, and the peer is the fastest of its implementations. All turns
are taken after one another, ours first and last.

    python -m benchmarks.ntk problem.npz result.npz    # ours, as `measure.py` does theirs
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import problems
from benchmarks.frame import Row, Timing
from unlearnkit import kernels

PEER = Path(__file__).parent / "peers" / "neural_tangents"
REPEATS, SECONDS = 3, 3.0
"""How often a turn repeats its call at the least, and for how long: some take 70 ms."""
LIMIT = 150
"""Seconds that one implementation may take, compilation and repeats included."""
IMPLEMENTATIONS = ("JACOBIAN_CONTRACTION", "NTK_VECTOR_PRODUCTS", "STRUCTURED_DERIVATIVES")


def run(sizes: tuple[int, ...] = (64, 128, 256)) -> list[Row]:
    x, y, _ = problems.mnist(5000)
    lenet = problems.train(
        problems.apply_lenet, problems.init_lenet(jax.random.key(0)), x, y, epochs=1
    )
    all_cnn = problems.init_all_cnn(jax.random.key(1), width=16)
    images = jax.random.normal(jax.random.key(2), (max(sizes), 32, 32, 3))
    rows = []
    for n in sizes:
        rows.append(_row("lenet", f"LeNet, n {n}", lenet, x[:n], goal=3))
    for n in sizes:
        name = f"All-CNN, width 16, n {n}"
        rows.append(_row("allcnn", name, all_cnn, images[:n], goal=2))
    return rows


def _row(network: str, size: str, params: Any, x: Any, goal: float) -> Row:
    names = problems.LENET_LAYERS if network == "lenet" else range(len(params))
    arrays: Any = {
        f"{name}.{part}": np.asarray(values)
        for name in names
        for part, values in params[name].items()
    }
    with tempfile.TemporaryDirectory() as folder:
        problem, result = Path(folder) / "problem.npz", Path(folder) / "result.npz"
        asked: dict[str, Any] = {"repeats": REPEATS, "least_seconds": SECONDS}
        np.savez(problem, network=network, x=np.asarray(x), **asked, **arrays)
        ours_command = [sys.executable, "-m", "benchmarks.ntk", str(problem), str(result)]
        turns = [_measure(ours_command, result)]
        python, script = _peer_python(), str(PEER / "measure.py")
        theirs = {
            name: _measure([str(python), script, name, str(problem), str(result)], result)
            for name in IMPLEMENTATIONS
            if python is not None
        }
        turns.append(_measure(ours_command, result))
    ours = [turn for turn in turns if isinstance(turn, _Measured)]
    timing = _pooled(ours)
    finished = {name: found for name, found in theirs.items() if isinstance(found, _Measured)}
    if not finished:
        return Row("empirical NTK", size, timing, note="neural-tangents is not installed")
    best = min(finished, key=lambda name: finished[name].timing.seconds)
    peer = finished[best]
    error = np.abs(ours[0].kernel - peer.kernel).max() / np.abs(peer.kernel).max()
    return Row(
        "empirical NTK",
        size,
        timing,
        f"neural-tangents, {best.lower()}",
        peer.timing,
        goal=goal,
        accuracy=f"differs by {error:.1e} of the largest entry; {_mebibytes(ours[0])}",
        peer_accuracy=_mebibytes(peer),
        note="; ".join(f"{name.lower()} {_told(found)}" for name, found in theirs.items()),
        metrics={"ours_bytes": ours[0].held, "peer_bytes": peer.held},
    )


class _Measured(NamedTuple):
    """A kernel [n, c, n, c], its times, and the bytes that its process held beyond the inputs."""

    kernel: np.ndarray
    timing: Timing
    held: float


def _pooled(turns: Sequence[_Measured]) -> Timing:
    """Returns the timing of all turns, by the median of their medians."""
    middle = [turn.timing.seconds for turn in turns]
    least = min(turn.timing.least for turn in turns)
    compilation = max(turn.timing.compile_seconds for turn in turns)
    repeats = sum(turn.timing.repeats for turn in turns)
    return Timing(float(np.median(middle)), least, repeats, compilation)


def _mebibytes(measured: _Measured) -> str:
    return f"{measured.held / 2**20:.0f} MiB"


def _told(found: _Measured | str) -> str:
    return found if isinstance(found, str) else f"{found.timing.seconds:.3g} s"


def _peer_python() -> str | None:
    python = os.environ.get("NEURAL_TANGENTS_PYTHON", str(PEER / ".venv" / "bin" / "python"))
    return python if Path(python).exists() else None


def _measure(command: list[str], result: Path) -> _Measured | str:
    """Returns what a process measured, or why it did not; it is given LIMIT seconds."""
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        return f"over {LIMIT} s"
    except subprocess.CalledProcessError as failed:
        errors = [line for line in failed.stderr.decode().splitlines() if "Error:" in line]
        return f"fails ({errors[-1][:80] if errors else failed.returncode})"
    with np.load(result) as out:
        seconds, first = out["seconds"], float(out["first"])
        median = float(np.median(seconds))
        timing = Timing(median, float(np.min(seconds)), len(seconds), max(first - median, 0.0))
        return _Measured(out["kernel"], timing, float(out["bytes"]))


def measure_ours(problem: str, result: str) -> None:
    """Writes what `peers/neural_tangents/measure.py` writes, of our kernel."""

    def most_bytes() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    with np.load(problem) as data:
        network, x = str(data["network"]), jnp.asarray(data["x"])
        repeats, least_seconds = int(data["repeats"]), float(data["least_seconds"])
        layers: dict[str, dict[str, jax.Array]] = {}
        for name in data.files:
            layer, _, part = name.rpartition(".")
            if layer:
                layers.setdefault(layer, {})[part] = jnp.asarray(data[name])
    lenet = network == "lenet"
    apply = problems.apply_lenet if lenet else problems.apply_all_cnn
    params: Any = layers if lenet else list(layers.values())
    seconds: list[float] = []
    before = most_bytes()
    while len(seconds) <= repeats or sum(seconds[1:]) < least_seconds:
        start = time.perf_counter()
        kernel = jax.block_until_ready(kernels.empirical_ntk(apply, params, x))
        seconds.append(time.perf_counter() - start)
    held = most_bytes() - before
    np.savez(result, kernel=kernel, first=seconds[0], seconds=seconds[1:], bytes=held)


if __name__ == "__main__":
    measure_ours(*sys.argv[1:])
