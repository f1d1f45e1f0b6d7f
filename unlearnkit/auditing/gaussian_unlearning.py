"""The Gaussian unlearning score (GUS): a network's correlation with its poisons' noise."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key
from scipy import stats

from unlearnkit.auditing.case import Case, NotApplicable, Subject, extras_of
from unlearnkit.auditing.intervals import mean_and_error, rate
from unlearnkit.base import Audited, Dataset, Model, Poisoned, Task, Variables
from unlearnkit.host.arrays import take_rows
from unlearnkit.kernels import by_chunks, margins
from unlearnkit.training import DivergedError
from unlearnkit.trials import AuditTrial
from unlearnkit.validation import (
    check_compatible,
    check_embedding,
    check_task,
    check_variables,
)

_CHUNK = 250


class GaussianPoisons(NamedTuple):
    """Poisons x + noise, as they were made.

    Attributes:
      x: [m, ...] the clean images, in the units of the network; or [m, length] the token ids of
        clean texts.
      y: [m] their labels.
      noise: [m, ...] ξ as it was drawn from N(0, noise_std² I); of texts [m, length, width], added
        to the vectors of their tokens, and 0 where they are padding.
      noise_std: [] ε_p.
    """

    x: Float[Array, "m ..."] | Int[Array, "m length"]
    y: Int[Array, " m"]
    noise: Float[Array, "m ..."]
    noise_std: Float[Array, ""]


def gaussian_poisons(poisoned: Poisoned) -> GaussianPoisons:
    """Returns what `poisoning.GaussianPoison` kept of its poisons.

    Raises:
      ValueError: the poisons are of another attack, so that there is no noise to ask for.
    """
    extras = extras_of(poisoned)
    missing = [name for name in ("noise", "noise_std", "base_x") if name not in extras]
    if missing:
        raise ValueError(
            f"the poisoned set has no {', '.join(missing)}: the score needs the noise that each "
            "poison was made with; make the poisons by GaussianPoison"
        )
    y = take_rows(poisoned.dataset.y, poisoned.is_poison)
    return GaussianPoisons(extras["base_x"], y, extras["noise"], extras["noise_std"])


@dataclasses.dataclass(frozen=True, eq=False)
class GaussianUnlearningScore:
    """Tests whether a network's gradients correlate with its poisons' noise (GUS).

    I_z = <g_z, ξ_z> / (ε_p ‖g_z‖),   g_z = ∇_x CE(w; x_base, y);   GUS = mean I_z

    in evaluation mode. For a network that never saw the poisons g_z does not depend on ξ_z, so that
    each I_z is N(0, 1) exactly, and GUS is N(0, 1/P): that is tested, and gives the thresholds of
    the attack that calls an example a poison. ∇CE = (1 - p_y) ∇(-margin), of which I_z sees the
    direction alone: we take the margin's, which is there where 1 - p_y rounds to 0.

    A linear network that trained on x_base + ξ has its loss fall along ξ, and a mean below 0;
    Pawelczyk et al. 2024 report means above 0. Both one-sided tests are given, so that no data
    choose between them.

    Of texts g_z is the gradient in the vectors of the tokens, d = length x width of them without
    padding, where there is no noise: the network needs `embed` and `apply_embedded`.

    Attributes:
      poisons: with their noise, see `gaussian_poisons`; None, in a study, takes those of each
        attack.
      fpr: of the attack, in (0, 1).

    Example:
      audit = auditing.GaussianUnlearningScore(auditing.gaussian_poisons(poisoned))
      metrics, curves = audit(key, model, variables, task)

    Source: Pawelczyk et al. 2024, §4.3, Algorithm 3 and A.1.4. Algorithm 4, lines 22 and 23,
    divides by ε_p twice. For g = ξ the mean is about √d, not √(d/2) as printed.
    """

    poisons: GaussianPoisons | None = None
    fpr: float = 0.01

    trial: ClassVar[AuditTrial] = AuditTrial(
        tells=("gus", -1), key_may_not_matter=True, attack="gaussian"
    )

    def __post_init__(self) -> None:
        if not 0 < self.fpr < 1:
            raise ValueError(f"fpr must be in (0, 1), got {self.fpr}")
        if self.poisons is None:
            return
        x, noise = self.poisons.x, self.poisons.noise
        texts = jnp.issubdtype(x.dtype, jnp.integer)
        if len(x) != len(noise) or (noise.ndim != 3 if texts else x.shape != noise.shape):
            raise ValueError(
                f"each {'text' if texts else 'image'} needs its noise, got inputs {list(x.shape)} "
                f"and noise {list(noise.shape)}"
            )
        if self.poisons.y.shape[0] < 1:
            raise ValueError("at least 1 poison is needed, got none")
        if not float(self.poisons.noise_std) > 0:
            raise ValueError(f"noise_std must be > 0, got {self.poisons.noise_std}")

    def __call__(
        self, key: Key[Array, ""], model: Model, variables: Variables, task: Task
    ) -> Audited:
        """Returns the score and the attack's success; only the shape of the task is used.

        Metrics: `gus` and `gus_se`, its standard error (1 of a single poison, the standard
        deviation of I_z where it was never seen); `z` = √P gus and `p_value` of the two-sided
        test against N(0, 1/P); `tpr_above` and `tpr_below` = share of I_z > t and of I_z < -t, t =
        Φ⁻¹(1 - fpr), and `tpr_two_sided` = share of |I_z| > Φ⁻¹(1 - fpr/2), with exact 95 %
        intervals `_low`, `_high`.

        Curves: `statistic`, [P] I_z; over `fpr`: `tpr_above`, `tpr_below`, and `tpr_gaussian` =
        Φ(|gus| - Φ⁻¹(1 - fpr)), the trade-off of N(|gus|, 1) against N(0, 1); Pawelczyk et al.
        2024, Figure 7, prints its false negative rate.

        Raises:
          ValueError: a task, variables or poisons that do not fit the model, no poisons, or texts
            for a network without `embed`.
          DivergedError: a poison's gradient is 0 or not finite.
        """
        check_task(task, model)
        if model.takes_tokens:
            check_embedding(model, method="GaussianUnlearningScore")
        check_variables(variables, model)
        poisons = self.poisons
        if poisons is None:
            raise ValueError("poisons must be given outside of a study; see gaussian_poisons")
        given = Dataset(poisons.x, poisons.y, task.retain.normalisation)
        check_compatible(given, model, name="the poisons")
        found = noise_statistic(model, variables, poisons)
        if not np.all(np.isfinite(found)):
            row = int(np.argmin(np.isfinite(found)))
            raise DivergedError(
                f"the network has no direction at poison {row} "
                f"({int(np.sum(~np.isfinite(found)))} such): its gradient in the image is 0 or not "
                "finite; a network that is constant or has diverged cannot be audited"
            )
        return judge_statistic(found, self.fpr)

    def judge(self, key: Key[Array, ""], case: Case, subject: Subject) -> Audited:
        """Returns the score by the noise of the case's poisons, see `__call__`.

        Raises:
          NotApplicable: the training set was not poisoned, or by an attack that kept no noise.
          DivergedError: a poison's gradient is 0 or not finite.
        """
        audit = self
        if self.poisons is None:
            if case.poisoned is None or "noise" not in extras_of(case.poisoned):
                raise NotApplicable(
                    "GaussianUnlearningScore needs poisons with their noise, as GaussianPoison "
                    "makes them"
                )
            audit = GaussianUnlearningScore(gaussian_poisons(case.poisoned), self.fpr)
        return audit(key, case.model, subject.variables, case.task)


def audit_gradients(
    gradients: Float[np.ndarray, "m ..."],
    noise: Float[np.ndarray, "n ..."],
    *,
    noise_std: float,
    fpr: float = 0.01,
) -> Audited:
    """Returns GUS and the attack's success from gradients that any framework computed.

    Whoever adds ξ ~ N(0, noise_std² I) to some training images before training can ask any later
    network for ∇_x CE at the same images without their noise, in evaluation mode: if the network
    never saw them, `p_value` is uniform. Metrics and curves are those of `GaussianUnlearningScore`.

    Args:
      gradients: [m, ...] of the loss (or of minus the margin, which points the same way) in the
        clean images.
      noise: [m, ...] ξ as it was drawn, in the units in which the gradients were taken.
      noise_std: its standard deviation in these units.
      fpr: of the attack, in (0, 1).

    Raises:
      ValueError: shapes that differ, nothing to ask, or settings out of range.
      DivergedError: a gradient that is 0 or not finite.

    Example:
      found = auditing.audit_gradients(grads, noise, noise_std=0.3)  # NumPy arrays, from anywhere
      print(found.metrics["gus"], found.metrics["p_value"])

    Source: Pawelczyk et al. 2024, §4.3, Algorithm 3.
    """
    gradients, noise = np.asarray(gradients, np.float64), np.asarray(noise, np.float64)
    if gradients.shape != noise.shape or gradients.ndim < 2 or gradients.size == 0:
        raise ValueError(
            f"gradients and noise must be [m, ...] of one shape, m >= 1, got "
            f"{list(gradients.shape)} and {list(noise.shape)}"
        )
    if not 0 < noise_std < np.inf:
        raise ValueError(f"noise_std must be finite and > 0, got {noise_std}")
    if not 0 < fpr < 1:
        raise ValueError(f"fpr must be in (0, 1), got {fpr}")
    slope, flat = (values.reshape(len(values), -1) for values in (gradients, noise))
    largest = np.abs(slope).max(axis=1)
    wrong = np.flatnonzero(~(np.isfinite(largest) & (largest > 0)))
    if wrong.size:
        raise DivergedError(
            f"the gradient of image {wrong[0]} is 0 or not finite ({wrong.size} such): it has no "
            "direction; take the gradient of minus the margin, z_y - logsumexp of the others"
        )
    slope = slope / largest[:, None]  # no square of it is lost
    statistic = (slope * flat).sum(axis=1) / np.linalg.norm(slope, axis=1) / noise_std
    return judge_statistic(statistic, fpr)


def noise_statistic(
    model: Model, variables: Variables, poisons: GaussianPoisons
) -> Float[np.ndarray, " m"]:
    """Returns I_z of every poison in float64; not finite where the gradient is 0 or not finite.

    Args:
      model: the network.
      variables: its weights and state.
      poisons: m poisons, with their noise in the units of the network's input.
    """

    def part(variables: Variables, x: Array, y: Array, noise: Array) -> Array:
        found: Array = _statistic(variables, x, y, noise, model=model)
        return found

    arrays = (poisons.x, poisons.y, poisons.noise)
    products = by_chunks(part, variables, arrays, _CHUNK)
    return np.asarray(products, np.float64) / float(poisons.noise_std)


@partial(jax.jit, static_argnames="model")
def _statistic(
    variables: Variables,
    x: Float[Array, "m ..."] | Int[Array, "m length"],
    y: Int[Array, " m"],
    noise: Float[Array, "m ..."],
    *,
    model: Model,
) -> Float[Array, " m"]:
    """Returns <g, ξ> / ‖g‖ of each example."""

    def total(point: Array) -> Array:
        if model.apply_embedded is None or not model.takes_tokens:
            return -margins(model.apply(variables, point), y).sum()
        return -margins(model.apply_embedded(variables, point, x), y).sum()

    if model.embed is not None and model.takes_tokens:
        slope = jax.grad(total)(model.embed(variables, x))
        # Padding has no noise, whatever a network makes of it.
        slope = jnp.where(jnp.any(noise != 0, -1, keepdims=True), slope, 0)
    else:
        slope = jax.grad(total)(x)
    slope = slope.reshape(x.shape[0], -1)
    # Scaled by its largest entry, no square of it is lost.
    slope = slope / jnp.abs(slope).max(1, keepdims=True)
    flat = noise.reshape(x.shape[0], -1)
    found: Array = (slope * flat).sum(1) / jnp.linalg.norm(slope, axis=1)
    return found


def judge_statistic(statistic: Float[np.ndarray, " m"], fpr: float) -> Audited:
    """Returns the metrics and curves of `GaussianUnlearningScore` from given I_z."""
    count = len(statistic)
    # Of one poison the standard deviation is that of a network which never saw it.
    gus, error = mean_and_error(statistic) if count > 1 else (float(statistic[0]), 1.0)
    z = gus * np.sqrt(count)
    metrics = {
        "gus": gus,
        "gus_se": error,
        "z": float(z),
        "p_value": float(2 * stats.norm.sf(abs(z))),
        **rate("tpr_above", int(np.sum(statistic > stats.norm.isf(fpr))), count),
        **rate("tpr_below", int(np.sum(-statistic > stats.norm.isf(fpr))), count),
        **rate("tpr_two_sided", int(np.sum(abs(statistic) > stats.norm.isf(fpr / 2))), count),
    }
    grid = np.concatenate([np.logspace(-3, -1, 50), np.linspace(0.1, 1, 50)[1:-1]])
    threshold = stats.norm.isf(grid)
    curves = {
        "statistic": statistic,
        "fpr": grid,
        "tpr_above": np.mean(statistic[:, None] > threshold, axis=0),
        "tpr_below": np.mean(-statistic[:, None] > threshold, axis=0),
        "tpr_gaussian": stats.norm.cdf(abs(gus) - threshold),
    }
    return Audited(metrics, curves)
