"""Membership auditors as differentiable functions of their features.

An auditor is fitted to the features of one fold and judged on another. Fit and judgement are both
differentiable in the features, whatever the attacker: by the implicit function theorem where it
solves a problem, through its steps where it takes steps.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from unlearnkit.kernels import SvmStatus, svm
from unlearnkit.kernels.svm import Loss
from unlearnkit.validation import check_above, check_at_least

_LOSSES: dict[str, Callable[[Array], Array]] = {
    "hinge": lambda m: jnp.maximum(1 - m, 0),
    "squared_hinge": lambda m: jnp.maximum(1 - m, 0) ** 2,
    "logistic": lambda m: jax.nn.softplus(-m),
}


class Fit(NamedTuple):
    """How an auditor's training ended.

    Attributes:
      status: a value of `SvmStatus`.
      converged: whether the residual is below the auditor's tolerance.
      residual: of its optimality conditions; for unrolled steps the norm of the last gradient.
    """

    status: Int[Array, ""]
    converged: Bool[Array, ""]
    residual: Float[Array, ""]


@runtime_checkable
class Auditor(Protocol):
    """A binary classifier; a hashable value, so that it can be a static argument."""

    def fit(
        self,
        key: Key[Array, ""],
        features: Float[Array, "n d"],
        labels: Float[Array, " n"],
        weight: Float[Array, " n"],
    ) -> tuple[Any, Fit]:
        """Returns the fitted classifier, and how its training ended.

        Args:
          key: of its initialisation, where it has one.
          features: [n, d] what is seen of each example.
          labels: [n] 1 for members, -1 for others.
          weight: [n] of each example's loss; 0 leaves it out.
        """
        ...

    def decision(self, fitted: Any, features: Float[Array, "n d"]) -> Float[Array, " n"]:
        """Returns a number an example, above 0 for members."""
        ...

    def loss(self, margins: Float[Array, " n"]) -> Float[Array, " n"]:
        """Returns l of the margins, label times decision."""
        ...


@dataclasses.dataclass(frozen=True)
class LinearAuditor:
    """A linear classifier: a support vector machine, or logistic regression.

    min_(w, b)  1/2 |w|² + C Σ_i v_i l(y_i (w·s_i + b))

    Attributes:
      surrogate: l: `hinge`, `squared_hinge` or `logistic`.
      C: weight of the losses against the regularisation.

    Source: Di et al. 2024, §4.1 and §6.1, A.4 (the linear SVM); the prediction-confidence attacks
    of Salem et al. 2019 and Song & Mittal 2021 are of this kind.
    """

    surrogate: Loss = "hinge"
    C: float = 1.0

    def __post_init__(self) -> None:
        if self.surrogate not in _LOSSES:
            raise ValueError(
                f"surrogate must be one of {', '.join(_LOSSES)}, got {self.surrogate!r}"
            )
        if not 0 < self.C < float("inf"):
            raise ValueError(f"C must be finite and > 0, got {self.C}")

    def fit(
        self,
        key: Key[Array, ""],
        features: Float[Array, "n d"],
        labels: Float[Array, " n"],
        weight: Float[Array, " n"],
    ) -> tuple[Any, Fit]:
        """Returns weights and bias; `key` is not used."""
        solution = svm(features, labels, C=self.C, loss=self.surrogate, sample_weight=weight)
        info = solution.info
        fit = Fit(info.status, info.converged, info.kkt_residual)
        return (solution.weights, solution.bias), fit

    def decision(self, fitted: Any, features: Float[Array, "n d"]) -> Float[Array, " n"]:
        """Returns w·s + b."""
        weights, bias = fitted
        found: Array = features @ weights + bias
        return found

    def loss(self, margins: Float[Array, " n"]) -> Float[Array, " n"]:
        """Returns the surrogate of the 0-1 loss."""
        return _LOSSES[self.surrogate](margins)


@dataclasses.dataclass(frozen=True)
class MlpAuditor:
    """A network with one hidden layer, trained by unrolled full-batch gradient descent.

    h(s) = v·tanh(W s + b) + c;  `steps` steps of descent on the mean logistic loss from a random
    initialisation. The derivative is that of the steps themselves.

    Attributes:
      width: hidden units.
      steps: of gradient descent.
      learning_rate: of these steps.

    Source: the neural attacks of Nasr et al. 2018, which Di et al. 2024, §4.1 unifies.
    """

    width: int = 8
    steps: int = 50
    learning_rate: float = 1.0

    def __post_init__(self) -> None:
        check_at_least(self, 1, "width", "steps")
        check_above(self, 0, "learning_rate")

    def fit(
        self,
        key: Key[Array, ""],
        features: Float[Array, "n d"],
        labels: Float[Array, " n"],
        weight: Float[Array, " n"],
    ) -> tuple[Any, Fit]:
        """Returns the network's weights after the steps."""

        def objective(net: Any) -> Array:
            losses = self.loss(labels * self.decision(net, features))
            return weight @ losses / jnp.maximum(jnp.sum(weight), 1)

        def step(net: Any, _: None) -> tuple[Any, None]:
            slope = jax.grad(objective)(net)
            return jax.tree.map(lambda w, g: w - self.learning_rate * g, net, slope), None

        start = self._init(key, features)
        net, _ = jax.lax.scan(step, start, None, length=self.steps)
        value, slope = jax.value_and_grad(objective)(jax.lax.stop_gradient(net))
        residual = jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(slope)))
        learned = value <= objective(start)  # else the steps were too long, and ran away
        status = jnp.where(learned, SvmStatus.OPTIMAL.value, SvmStatus.NOT_CONVERGED.value)
        return net, jax.lax.stop_gradient(Fit(status, learned, residual))

    def decision(self, fitted: Any, features: Float[Array, "n d"]) -> Float[Array, " n"]:
        """Returns the log odds of membership, in nats."""
        hidden = jnp.tanh(features @ fitted["hidden"] + fitted["hidden_bias"])
        found: Array = hidden @ fitted["out"] + fitted["out_bias"]
        return found

    def loss(self, margins: Float[Array, " n"]) -> Float[Array, " n"]:
        """Returns the logistic loss."""
        return _LOSSES["logistic"](margins)

    def _init(self, key: Key[Array, ""], features: Array) -> dict[str, Array]:
        first, second = jax.random.split(key)
        d, dtype = features.shape[1], features.dtype
        return {
            "hidden": jax.random.normal(first, (d, self.width), dtype) / jnp.sqrt(d),
            "hidden_bias": jnp.zeros(self.width, dtype),
            "out": jax.random.normal(second, (self.width,), dtype) / self.width,
            "out_bias": jnp.zeros((), dtype),
        }


@dataclasses.dataclass(frozen=True)
class QuantileAuditor:
    """Calls an example a member where its score is above a quantile of the non-members' scores.

    q = argmin_q Σ_{non-members} v_i ρ(s_i - q),  ρ(u) = (1 - f) u + t softplus(-u / t),  the
    pinball loss at 1 - f smoothed over t, and h(s) = (s - q) / t. The derivative is that of the
    implicit function theorem at q.

    The scores are scalars that are larger for members. Bertran et al. regress the quantile on the
    example; here, where the auditor sees outputs alone, it is regressed on the class with
    `per_class=True` and is one number otherwise.

    Attributes:
      false_positive_rate: f, in (0, 1).
      temperature: t, in standard deviations of the scores, > 0.

    Source: Bertran et al. 2023, which Di et al. 2024, §4.1 unifies.
    """

    false_positive_rate: float = 0.1
    temperature: float = 0.25

    def __post_init__(self) -> None:
        if not 0 < self.false_positive_rate < 1:
            raise ValueError(
                f"false_positive_rate must be in (0, 1), got {self.false_positive_rate}"
            )
        check_above(self, 0, "temperature")

    def fit(
        self,
        key: Key[Array, ""],
        features: Float[Array, "n 1"],
        labels: Float[Array, " n"],
        weight: Float[Array, " n"],
    ) -> tuple[Any, Fit]:
        """Returns the quantile; `key` is not used."""
        scores = features[:, 0]
        weight = jnp.where(labels < 0, weight, 0)
        total = jnp.sum(weight)
        share = weight / jnp.where(total > 0, total, 1)

        def excess(q: Array, scores: Array) -> Array:
            below = share @ jax.nn.sigmoid((q - scores) / self.temperature)
            return below - (1 - self.false_positive_rate)

        root = jax.lax.stop_gradient(self._bisect(excess, scores))
        # One Newton step from the root changes it by rounding alone, and its derivative is that of
        # the implicit function theorem.
        slope = jax.grad(excess)(root, jax.lax.stop_gradient(scores))
        q = root - excess(root, scores) / jnp.where(slope > 0, slope, 1)
        residual = jnp.abs(jax.lax.stop_gradient(excess(q, scores)))
        converged = residual <= 1e-4
        status = jnp.where(converged, SvmStatus.OPTIMAL.value, SvmStatus.NOT_CONVERGED.value)
        status = jnp.where(total > 0, status, SvmStatus.NO_EXAMPLES.value)
        return q, Fit(status, converged, residual)

    def decision(self, fitted: Any, features: Float[Array, "n 1"]) -> Float[Array, " n"]:
        """Returns (s - q) / t."""
        found: Array = (features[:, 0] - fitted) / self.temperature
        return found

    def loss(self, margins: Float[Array, " n"]) -> Float[Array, " n"]:
        """Returns the logistic loss."""
        return _LOSSES["logistic"](margins)

    def _bisect(self, excess: Callable[[Array, Array], Array], scores: Array) -> Array:
        reach = 40 * self.temperature  # where the sigmoids of float32 are at their bounds

        def halve(_: Any, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
            low, high = bracket
            middle = (low + high) / 2
            above = excess(middle, scores) > 0
            return jnp.where(above, low, middle), jnp.where(above, middle, high)

        start = jnp.min(scores) - reach, jnp.max(scores) + reach
        low, high = jax.lax.fori_loop(0, 60, halve, start)
        found: Array = (low + high) / 2
        return found


AUDITORS: dict[str, Auditor] = {
    "hinge": LinearAuditor("hinge"),
    "squared_hinge": LinearAuditor("squared_hinge"),
    "logistic": LinearAuditor("logistic"),
    "mlp": MlpAuditor(),
    "quantile": QuantileAuditor(),
}
"""Every auditor by name, with its defaults."""
