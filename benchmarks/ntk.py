"""The dense empirical NTK against neural-tangents, which runs in an environment of its own.

`peers/neural_tangents/requirements.txt` says how to make it; where it stands elsewhere, name its
interpreter in NEURAL_TANGENTS_PYTHON. The same parameters and inputs go to both, the kernels are
compared number by number, and the peer is the best of its implementations that runs.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import problems
from benchmarks.frame import Row, Timing, compare
from unlearnkit import kernels

PEER = Path(__file__).parent / "peers" / "neural_tangents"
REPEATS = 3
LIMIT = 40
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
        rows.append(_row("lenet", f"LeNet, n {n}", problems.apply_lenet, lenet, x[:n]))
    for n in sizes:
        name = f"All-CNN, width 16, n {n}"
        rows.append(_row("allcnn", name, problems.apply_all_cnn, all_cnn, images[:n]))
    return rows


def _row(network: str, size: str, apply: problems.Apply, params: Any, x: Any) -> Row:
    inputs = jnp.asarray(x)
    theirs = _neural_tangents(network, params, np.asarray(x))
    ours = lambda: kernels.empirical_ntk(apply, params, inputs)  # noqa: E731
    timing = compare({"ours": ours}, repeats=REPEATS)["ours"]
    if theirs is None:
        return Row("empirical NTK", size, timing, note="neural-tangents is not installed")
    kernel = np.asarray(ours())
    finished = {name: answer for name, answer in theirs.items() if not isinstance(answer, str)}
    best = min(finished, key=lambda name: finished[name][1].seconds)
    reference, peer = finished[best]
    error = float(np.abs(kernel - reference).max() / np.abs(reference).max())
    return Row(
        "empirical NTK",
        size,
        timing,
        f"neural-tangents, {best.lower()}",
        peer,
        goal=1,
        accuracy=f"differs by {error:.1e} of the largest entry",
        note="; ".join(
            f"{name.lower()} {answer if isinstance(answer, str) else f'{answer[1].seconds:.3g} s'}"
            for name, answer in theirs.items()
        ),
    )


def _neural_tangents(
    network: str, params: Any, x: np.ndarray
) -> dict[str, tuple[np.ndarray, Timing] | str] | None:
    """Returns by implementation its kernel and timing, or why it has none; None without the peer.

    Each runs in a process of its own, which is given LIMIT seconds.
    """
    python = os.environ.get("NEURAL_TANGENTS_PYTHON", str(PEER / ".venv" / "bin" / "python"))
    if not Path(python).exists():
        return None
    names = problems.LENET_LAYERS if network == "lenet" else range(len(params))
    arrays: Any = {
        f"{name}.{part}": np.asarray(values)
        for name in names
        for part, values in params[name].items()
    }
    with tempfile.TemporaryDirectory() as folder:
        problem, result = Path(folder) / "problem.npz", Path(folder) / "result.npz"
        np.savez(problem, network=network, repeats=REPEATS, x=x, **arrays)
        command = [python, str(PEER / "measure.py")]

        def measure(implementation: str) -> tuple[np.ndarray, Timing] | str:
            try:
                subprocess.run(
                    [*command, implementation, str(problem), str(result)],
                    check=True,
                    capture_output=True,
                    timeout=LIMIT,
                )
            except subprocess.TimeoutExpired:
                return f"over {LIMIT} s"
            except subprocess.CalledProcessError as failed:
                errors = [line for line in failed.stderr.decode().splitlines() if "Error:" in line]
                return f"fails ({errors[-1][:80] if errors else failed.returncode})"
            with np.load(result) as out:
                seconds = out["seconds"]
                timing = Timing(float(np.median(seconds)), float(np.min(seconds)), len(seconds))
                return out["kernel"], timing

        return {name: measure(name) for name in IMPLEMENTATIONS}
