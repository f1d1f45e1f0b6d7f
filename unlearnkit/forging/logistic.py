"""Exact forgeries of logistic regression."""

from __future__ import annotations

import dataclasses
from typing import Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from unlearnkit.base import Cost, Dataset, Forged, Model, SoftDataset, Variables
from unlearnkit.costs import Stopwatch
from unlearnkit.forging.steps import Step, check_forgeable, step_error
from unlearnkit.validation import check_choice, check_continuous

Toward: TypeAlias = Literal["zero", "allowed"]


class LogisticInfo(NamedTuple):
    """How an exact forgery was made.

    Attributes:
      rank: of G, weights and intercepts together.
      distance: ‖X' - T‖₂ to the images T aimed at, black for `zero`; in normalised pixels.
      cost: what it took.
    """

    rank: int
    distance: Float[Array, ""]
    cost: Cost


class Affine(NamedTuple):
    """A network's logits W^T x + a, in float64 on the host.

    Attributes:
      kernel: W [d, n].
      intercept: a [n], or None where the network has none.
    """

    kernel: np.ndarray
    intercept: np.ndarray | None

    def logits(self, x: np.ndarray) -> np.ndarray:
        """Returns the logits [b, n] of examples x [b, d]."""
        z = x @ self.kernel
        found: np.ndarray = z if self.intercept is None else z + self.intercept
        return found


@dataclasses.dataclass(frozen=True)
class LogisticForger:
    """Builds a batch of any b >= rank G that takes a step of logistic regression exactly.

      X' C' = b G,   y'_k = s(x'_k) - c'_k

    G [d, n] is the gradient, X' [d, b] the images, C' [b, n] the derivatives of the examples'
    losses in their logits, with rows that sum to zero and span those of G. With an intercept the
    columns of C' sum to b times its gradient as well. Everything is solved in float64.

    Of all X' the one nearest to given images T is taken, X' = T + (b G - T C') C'⁺: for `zero`
    T = 0, the least norm, and C' is random; for `allowed` T are b allowed examples, and C' is as
    near to theirs as it may be, so that images and labels stay near those of true examples.

    Attributes:
      toward: which images.

    Example:
      forge = forging.LogisticForger()
      batch, error, info = forge(key, model, step, allowed)

    Source: Suliman et al. 2024, proposition 2 and its proof; the intercept and the choice among
    solutions are ours.
    """

    toward: Toward = "zero"

    def __post_init__(self) -> None:
        check_choice("toward", self.toward, Toward)

    def __call__(self, key: Key[Array, ""], model: Model, step: Step, allowed: Dataset) -> Forged:
        """Returns the batch, with real labels that sum to 1.

        Args:
          key: draws C', or the images.
          model: logistic regression on the flattened input.
          step: to be taken.
          allowed: examples.

        Raises:
          ValueError: another network, b < rank G, or see `unlearnkit.forging.steps`.
        """
        normalisation = check_continuous(allowed, method="LogisticForger")
        check_forgeable(model, step, allowed)
        with Stopwatch() as watch:
            affine, b = read_affine(model, step.variables), step.batch_size
            kernel, intercept = read_gradient(step)
            stacked = kernel if intercept is None else np.vstack([kernel, intercept])
            basis = row_space(stacked, b)
            images, coefficients = self._aim(key, affine, basis, b, allowed)
            mean = None if intercept is None else basis @ intercept
            c = with_mean(coefficients, mean) @ basis
            check_rank(c, len(basis))
            x = images + ((b * kernel - images.T @ c) @ np.linalg.pinv(c)).T
            y = _softmax(affine.logits(x)) - c
            batch = SoftDataset(
                jnp.asarray(x.reshape(b, *model.input_shape), jnp.float32),
                jnp.asarray(y, jnp.float32),
                normalisation,
            )
            error = step_error(model, step, batch)
            distance = jnp.asarray(np.linalg.norm(x - images), jnp.float32)
            jax.block_until_ready(error)
        cost = Cost(float(b), watch.seconds, watch.compile_seconds)
        return Forged(batch, error, LogisticInfo(len(basis), distance, cost))

    def _aim(
        self, key: Key[Array, ""], affine: Affine, basis: np.ndarray, b: int, allowed: Dataset
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns images T [b, d] and the coordinates [b, r] of rows of C' in the basis."""
        if self.toward == "zero":
            drawn = jax.random.normal(key, (b, len(basis)))
            return np.zeros((b, affine.kernel.shape[0])), np.asarray(drawn, np.float64)
        chosen = allowed.take(jax.random.permutation(key, allowed.size)[:b])
        images = np.asarray(chosen.x, np.float64).reshape(b, -1)
        slopes = _softmax(affine.logits(images))
        slopes[np.arange(b), np.asarray(chosen.y)] -= 1
        return images, slopes @ basis.T


def read_affine(model: Model, variables: Variables) -> Affine:
    """Returns the weights of logistic regression.

    Raises:
      ValueError: another network.
    """
    kernel, intercept = _find(variables)
    found = Affine(
        np.asarray(kernel, np.float64),
        None if intercept is None else np.asarray(intercept, np.float64),
    )
    probe = jax.random.normal(jax.random.key(0), (2, *model.input_shape))
    expected = found.logits(np.asarray(probe, np.float64).reshape(2, -1))
    with jax.default_matmul_precision("highest"):
        if np.allclose(model.apply(variables, probe), expected, rtol=1e-4, atol=1e-4):
            return found
    raise _not_logistic()


def read_gradient(step: Step) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns the gradient [d, n] of W and that [n] of the intercept, if there is one, in float64.

    Rows sum to zero by lemma 1; what rounding has left of their sums is taken off.
    """
    kernel, intercept = _find(Variables(step.gradient))
    return _centred(kernel), None if intercept is None else _centred(intercept)


def row_space(gradient: np.ndarray, b: int) -> np.ndarray:
    """Returns an orthonormal basis [r, n] of at most b rows that spans those of G.

    With b >= n - 1 it is one of all rows that sum to zero, whatever the rank of G: then nothing of
    G, however small, is left out.

    Raises:
      ValueError: b < rank G.
    """
    n = gradient.shape[1]
    if b >= n - 1:
        return np.linalg.svd(np.eye(n) - 1 / n)[2][: n - 1]
    _, sizes, rows = np.linalg.svd(gradient, full_matrices=False)
    tolerance = sizes[0] * max(gradient.shape) * np.finfo(np.float32).eps
    rank = int(np.sum(sizes > tolerance))
    if b < rank:
        raise ValueError(
            f"the batch size must be >= the rank of the gradient, {rank}, got {b}: "
            "fewer examples cannot take this step (proposition 2)"
        )
    return rows[: max(rank, 1)]


def with_mean(coefficients: np.ndarray, mean: np.ndarray | None) -> np.ndarray:
    """Returns coordinates [b, r] moved as one to a mean [r], if there is one to be met."""
    return coefficients if mean is None else coefficients + (mean - coefficients.mean(0))


def check_rank(c: np.ndarray, rank: int) -> None:
    """Raises ValueError if the rows of C' do not span those of G.

    Raises:
      ValueError: its rank is less than `rank`.
    """
    found = int(np.linalg.matrix_rank(c))
    if found < rank:
        raise ValueError(
            f"the examples' derivatives span {found} of {rank} dimensions of the gradient's rows; "
            "draw others with another key, or take toward='zero'"
        )


def _find(variables: Variables) -> tuple[Array, Array | None]:
    """Returns the kernel and the intercept among the weights."""
    by_rank: dict[int, list[Array]] = {}
    for leaf in jax.tree.leaves(variables.params):
        by_rank.setdefault(leaf.ndim, []).append(leaf)
    kernels, intercepts = by_rank.pop(2, []), by_rank.pop(1, [])
    if by_rank or len(kernels) != 1 or len(intercepts) > 1:
        raise _not_logistic()
    return kernels[0], intercepts[0] if intercepts else None


def _centred(array: Array) -> np.ndarray:
    values = np.asarray(array, np.float64)
    found: np.ndarray = values - values.mean(-1, keepdims=True)
    return found


def _not_logistic() -> ValueError:
    return ValueError(
        "LogisticForger needs logits = W^T x + a of the flattened input, as "
        "models.create('logistic', ...) makes them; for other networks take OptimiseForger"
    )


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    found: np.ndarray = powers / powers.sum(axis=1, keepdims=True)
    return found
