"""The differentiable SVM against cvxpylayers and scikit-learn, and its cost in n.

cvxpylayers runs in the Python that UNLEARNKIT_CVXPYLAYERS_PYTHON names, by default this one, so
that torch need not be installed here; without it its row says so.
"""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.svm import SVC, LinearSVC

from benchmarks.frame import Row, Timing, compare, time_call
from unlearnkit.kernels import svm
from unlearnkit.kernels.svm import Loss

PEER = Path(__file__).parent / "peers" / "cvxpylayers" / "svm.py"
PEER_PYTHON = os.environ.get("UNLEARNKIT_CVXPYLAYERS_PYTHON", sys.executable)
DIMENSIONS = 10
EXAMPLES = 10_000
FOLDS = 10


def run() -> list[Row]:
    """Returns the rows of the three comparisons."""
    return [layer_row(), *fold_rows(), *scaling_rows()]


def make_problem(n: int, dtype: Any) -> tuple[np.ndarray, np.ndarray]:
    """Two Gaussian classes at a distance of 2.5, about one example in ten misclassified."""
    rng = np.random.default_rng(0)
    y = np.where(np.arange(n) % 2 == 0, 1, -1)
    x = rng.normal(size=(n, DIMENSIONS)) + 0.4 * y[:, None]
    return x.astype(dtype), y


class Layer(NamedTuple):
    """The layer's row without a peer, and what a peer is compared on."""

    row: Row
    arguments: tuple[Any, ...]
    gradient: np.ndarray


def own_layer(n: int = EXAMPLES, *, repeats: int = 10) -> Layer:
    """The layer and its gradient in the features, in float64 as cvxpylayers has it."""
    x, y = make_problem(n, np.float64)
    with jax.enable_x64(True):
        arguments = (jnp.asarray(x), jnp.asarray(y), jnp.asarray(1.0), jnp.ones(n))
        (_, solution), gradient = _value_and_gradient(*arguments)
        ours = time_call(lambda: _value_and_gradient(*arguments), repeats=repeats)
        accuracy = f"KKT residual {solution.info.kkt_residual:.1e}"
        accuracy += f", {_against_differences(arguments, np.asarray(gradient))}"
    size = f"hinge, n {n}, d {DIMENSIONS}, float64"
    row = Row("SVM + gradient", size, ours, accuracy=accuracy)
    return Layer(row, arguments, np.asarray(gradient))


def layer_row() -> Row:
    """Compares the layer and its gradient with cvxpylayers'."""
    row, arguments, gradient = own_layer()
    x, y = make_problem(EXAMPLES, np.float64)
    answer = _cvxpylayers(x, y, repeats=3)
    if answer is None:
        note = "cvxpylayers or torch is missing: set UNLEARNKIT_CVXPYLAYERS_PYTHON"
        return dataclasses.replace(row, peer_name="cvxpylayers", note=note)
    seconds = answer["seconds"]
    peer = Timing(float(np.median(seconds)), float(np.min(seconds)), len(seconds))
    by_default, exact = (
        np.linalg.norm(answer[name] - gradient) / np.linalg.norm(gradient)
        for name in ("gradient", "gradient_lsmr")
    )
    with jax.enable_x64(True):
        peer_accuracy = _against_differences(arguments, answer["gradient"])
    note = (
        f"gradients {exact:.1e} apart with cvxpylayers' LSMR, {by_default:.1e} with its default; "
    )
    note += f"cvxpylayers also set up its problem for {float(answer['setup']):.0f} s"
    return dataclasses.replace(
        row,
        peer_name=f"cvxpylayers {answer['version']}",
        peer=peer,
        goal=50,
        peer_accuracy=peer_accuracy,
        note=note,
    )


@jax.jit
def _value_and_gradient(x: jax.Array, y: jax.Array, C: jax.Array, weight: jax.Array) -> Any:
    def value(x: jax.Array) -> Any:
        solution = svm(x, y, C=C, sample_weight=weight)
        return jnp.sum(solution.weights) + solution.bias, solution

    return jax.value_and_grad(value, has_aux=True)(x)


@partial(jax.jit, static_argnames="loss")
def _forward(x: jax.Array, y: jax.Array, C: jax.Array, weight: jax.Array, *, loss: Loss) -> Any:
    return svm(x, y, C=C, loss=loss, sample_weight=weight)


def _against_differences(arguments: Any, gradient: np.ndarray, step: float = 1e-7) -> str:
    """How far the gradient is from a central difference, along the gradient itself."""
    x, *rest = arguments
    direction = gradient / np.linalg.norm(gradient)
    ahead, behind = (
        float(_value_and_gradient(x + s * direction, *rest)[0][0]) for s in (step, -step)
    )
    slope = np.vdot(gradient, direction)
    return f"slope {abs((ahead - behind) / (2 * step) / slope - 1):.1e} from differences"


def _cvxpylayers(x: np.ndarray, y: np.ndarray, repeats: int) -> dict[str, Any] | None:
    look = "import torch, cvxpylayers, importlib.metadata as m; print(m.version('cvxpylayers'))"
    try:
        found = subprocess.run(
            [PEER_PYTHON, "-c", look], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    with tempfile.TemporaryDirectory() as folder:
        problem, answer = Path(folder) / "problem.npz", Path(folder) / "answer.npz"
        np.savez(problem, x=x, y=y, C=1.0)
        subprocess.run([PEER_PYTHON, PEER, problem, answer, str(repeats)], check=True)
        with np.load(answer) as arrays:
            return {**arrays, "version": found.stdout.strip()}


def fold_rows(n: int = EXAMPLES, *, only: str = "", repeats: int = 3) -> Iterator[Row]:
    """Ten folds at once, against scikit-learn's solvers in a loop; `only` names one of them.

    SVC solves the same problem; LinearSVC regularises the bias too, here a hundredth as much as a
    weight, so that the objectives tell how near it comes.
    """
    x, y = make_problem(n, np.float32)
    masks = np.arange(n) % FOLDS != np.arange(FOLDS)[:, None]
    dual = partial(LinearSVC, loss="hinge", intercept_scaling=10, max_iter=2_000)
    primal = partial(LinearSVC, dual=False, intercept_scaling=10)
    cases: list[tuple[Loss, float, str, Callable[..., Any]]] = [
        ("hinge", 1.0, "SVC(kernel='linear')", partial(SVC, kernel="linear")),
        ("hinge", 1.0, "LinearSVC(loss='hinge')", dual),
        ("hinge", 0.01, "LinearSVC(loss='hinge')", dual),
        ("squared_hinge", 1.0, "LinearSVC(dual=False)", primal),
    ]
    for loss, C, peer, make in cases:
        if only not in peer:
            continue
        answers: dict[str, Any] = {}

        def ours(loss: Loss = loss, C: float = C, answers: dict[str, Any] = answers) -> Any:
            weight = jnp.asarray(masks, jnp.float32)
            answers["ours"] = _folds(jnp.asarray(x), jnp.asarray(y), C, weight, loss=loss)
            return answers["ours"].weights

        def theirs(make: Any = make, C: float = C, answers: dict[str, Any] = answers) -> None:
            answers["peer"] = [make(C=C).fit(x[mask], y[mask]) for mask in masks]

        timings = compare({"ours": ours, "peer": theirs}, repeats=1 if peer[0] == "S" else repeats)
        solution, fits = answers["ours"], answers["peer"]
        best = _objectives(loss, x, y, masks, C, solution.weights, solution.bias)
        found = [np.stack([getattr(f, name)[0] for f in fits]) for name in ("coef_", "intercept_")]
        excess = np.max(_objectives(loss, x, y, masks, C, *found) / best - 1)
        yield Row(
            f"{FOLDS} folds",
            f"{loss}, n {n}, d {DIMENSIONS}, C {C:g}, float32",
            timings["ours"],
            f"scikit-learn {peer}",
            timings["peer"],
            goal=3,
            accuracy=f"KKT residual {np.max(solution.info.kkt_residual):.1e}",
            peer_accuracy=f"objective {excess:+.1e} relative to ours",
        )


@partial(jax.jit, static_argnames="loss")
def _folds(x: jax.Array, y: jax.Array, C: jax.Array, masks: jax.Array, *, loss: Loss) -> Any:
    return jax.vmap(lambda mask: svm(x, y, C=C, loss=loss, sample_weight=mask))(masks)


def _objectives(
    loss: str, x: np.ndarray, y: np.ndarray, masks: np.ndarray, C: float, weights: Any, bias: Any
) -> np.ndarray:
    """The objective of every fold, in float64."""
    weights, bias = np.asarray(weights, np.float64), np.asarray(bias, np.float64)
    excess = np.maximum(1 - y * (weights @ x.T.astype(np.float64) + bias[:, None]), 0)
    losses = excess if loss == "hinge" else excess**2
    return np.sum(weights**2, 1) / 2 + C * np.sum(masks * losses, 1)


def scaling_rows() -> Iterator[Row]:
    """The exponent of time in n from 10^3 to 10^6: the slope of a line through the logarithms."""
    sizes = [10**3, 10**4, 10**5, 10**6]
    calls: dict[str, Callable[..., Any]] = {
        "SVM": partial(_forward, loss="hinge"),
        "SVM + gradient": _value_and_gradient,
    }
    for kernel, call in calls.items():
        timings = []
        for n in sizes:
            x, y = make_problem(n, np.float32)
            # Constants of a million entries would be folded by the compiler, which takes minutes.
            arguments = (jnp.asarray(x), jnp.asarray(y), jnp.asarray(1.0), jnp.ones(n))
            timings.append(time_call(partial(call, *arguments), repeats=3 if n < 10**6 else 1))
        exponent = np.polyfit(np.log(sizes), np.log([t.least for t in timings]), 1)[0]
        times = ", ".join(f"{t.least:.2g} s" for t in timings)
        yield Row(
            f"{kernel}, exponent in n",
            f"hinge, n 10^3 to 10^6, d {DIMENSIONS}, float32",
            timings[-1],
            value=float(exponent),
            note=f"{times} at n 10^3, 10^4, 10^5, 10^6",
        )
