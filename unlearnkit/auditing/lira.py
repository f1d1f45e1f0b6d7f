"""The likelihood-ratio attack, on trained networks (LiRA) and on unlearned ones (U-LiRA)."""

from __future__ import annotations

import dataclasses
from typing import Literal

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Key

from unlearnkit.auditing.scores import check_scores, score_attack
from unlearnkit.auditing.shadows import Shadows, train_shadows
from unlearnkit.base import Audited, Dataset, Model, Task, Unlearner, Variables, concatenate
from unlearnkit.kernels import margins
from unlearnkit.training import Recipe, predict
from unlearnkit.validation import check_held_out, check_task, check_variables

Mode = Literal["online", "offline"]
Variance = Literal["auto", "pooled", "example"]
MANY_SHADOWS = 64


@dataclasses.dataclass(frozen=True)
class Lira:
    """Asks for each example whether its margin looks like those of networks that knew it.

    With φ the margin log p_y / (1 - p_y) and Gaussians fitted to the shadows with the example (in)
    and without it (out):

        online   log N(φ; μ_in, σ_in²) - log N(φ; μ_out, σ_out²)
        offline  (φ - μ_out) / σ_out,   of the order of 1 - P(N(μ_out, σ_out²) > φ)

    Members are forget examples, others as many test examples; the larger set is subsampled. The
    shadows are trained as the network was: on the retain set, and on half of these candidates.

    Attributes:
      recipe: of the network under attack.
      unlearner: the method by which it was unlearned: shadows then unlearn too, and `in` means
        learned and unlearned (U-LiRA). None attacks a trained network (LiRA).
      count: shadows, even.
      mode: `online` or `offline`.
      variance: `example`, each example's own; `pooled`, one of all examples, of the deviations from
        each example's mean; `auto`, `pooled` below 64 shadows, as Carlini et al. do.

    Source: Carlini et al. 2022, Membership inference attacks from first principles; Hayes et al.
    2024, Inexact unlearning needs more careful evaluations (U-LiRA). The pooled variance is that
    within examples; the public code of LiRA pools the spread between examples too.
    """

    recipe: Recipe = Recipe()  # noqa: RUF009 (frozen, and so safe to share)
    unlearner: Unlearner | None = None
    count: int = 16
    mode: Mode = "online"
    variance: Variance = "auto"

    def __post_init__(self) -> None:
        if self.count < 4 or self.count % 2:
            raise ValueError(f"count must be even and >= 4, got {self.count}")
        _check_choices(self.mode, self.variance)

    def __call__(
        self, key: Key[Array, ""], model: Model, variables: Variables, task: Task
    ) -> Audited:
        """Returns the attack's metrics and ROC curve, see `score_attack`.

        Raises:
          ValueError: a task or variables that do not fit the model, or fewer than two forget or
            test examples.
          DivergedError: a shadow diverged.
        """
        check_variables(variables, model)
        candidates, is_member, shadows = self.train(key, model, task)
        found = margins(predict(model, variables, candidates.x), candidates.y)
        return self.attack(shadows, np.asarray(found, np.float64), is_member)

    def train(
        self, key: Key[Array, ""], model: Model, task: Task
    ) -> tuple[Dataset, Bool[np.ndarray, " n"], Shadows]:
        """Returns the candidates, which of them are of the forget set, and the shadows.

        They serve every network that this task and this unlearner made; see `attack`.

        Raises:
          ValueError: see `__call__`.
          DivergedError: a shadow diverged.
        """
        check_task(task, model)
        check_held_out((task.retain, task.forget), task.test)
        size = min(task.forget.size, task.test.size)
        if size < 2:
            raise ValueError(
                f"at least 2 forget and 2 test examples are needed, got {task.forget.size} and "
                f"{task.test.size}"
            )
        choose_key, shadow_key = jax.random.split(key)
        keys = jax.random.split(choose_key)
        orders = [
            jax.random.permutation(k, part.size)
            for k, part in zip(keys, (task.forget, task.test), strict=True)
        ]
        candidates = concatenate(
            task.forget.take(orders[0][:size]), task.test.take(orders[1][:size])
        )
        background = task._replace(forget=task.forget.take(orders[0][size:]))
        shadows = train_shadows(
            shadow_key,
            model,
            background,
            candidates,
            self.recipe,
            count=self.count,
            unlearner=self.unlearner,
        )
        return candidates, np.repeat([True, False], size), shadows

    def attack(
        self,
        shadows: Shadows,
        found: Float[np.ndarray, " n"],
        is_member: Bool[np.ndarray, " n"],
    ) -> Audited:
        """Returns the attack's metrics on margins that are at hand.

        Args:
          shadows: of the same candidates.
          found: their margins under the network that is attacked.
          is_member: which of them are members.

        Raises:
          ValueError: margins that are not finite, or fewer than two members or others.
        """
        check_scores(found[is_member], found[~is_member])
        scores = lira_scores(found, shadows, mode=self.mode, variance=self.variance)
        return score_attack(scores[is_member], scores[~is_member])


def lira_scores(
    found: Float[np.ndarray, " n"],
    shadows: Shadows,
    *,
    mode: Mode = "online",
    variance: Variance = "auto",
) -> Float[np.ndarray, " n"]:
    """Returns the score of every candidate, larger for members; see `Lira`.

    Args:
      found: [n] margins under the network that is attacked.
      shadows: margins [s, n] of the shadows, each candidate in at least two of them and out of at
        least two.
      mode: `online` or `offline`.
      variance: `auto`, `pooled` or `example`.

    Raises:
      ValueError: margins that are not finite or do not vary, or too few shadows of a candidate.
    """
    _check_choices(mode, variance)
    said = np.asarray(shadows.margins, np.float64)
    if said.shape[1:] != found.shape:
        raise ValueError(
            f"found must hold a margin a candidate, got {found.shape} for {said.shape[1]}"
        )
    for name, values in (("the shadows", said), ("the network", found)):
        if not np.all(np.isfinite(values)):
            raise ValueError(f"margins of {name} must be finite, got NaN or infinity: it diverged")
    if variance == "auto":
        variance = "pooled" if len(said) < MANY_SHADOWS else "example"
    z_out, std_out = _standardise(found, said, ~shadows.is_in, variance, "out of")
    if mode == "offline":
        return z_out
    z_in, std_in = _standardise(found, said, shadows.is_in, variance, "in")
    return 0.5 * (z_out**2 - z_in**2) + np.log(std_out / std_in)


def _standardise(
    found: np.ndarray, said: np.ndarray, chosen: np.ndarray, variance: Variance, side: str
) -> tuple[np.ndarray, np.ndarray]:
    """Returns (φ - μ) / σ and σ of the chosen shadows of each candidate."""
    counts = chosen.sum(axis=0)
    if counts.min() < 2:
        raise ValueError(
            f"each candidate must be {side} at least 2 shadows, got {counts.min()} for candidate "
            f"{counts.argmin()}; train more shadows"
        )
    mean = np.sum(said * chosen, axis=0) / counts
    squares = np.sum((said - mean) ** 2 * chosen, axis=0)
    if variance == "pooled":
        std = np.full(len(counts), np.sqrt(squares.sum() / np.sum(counts - 1)))
    else:
        std = np.sqrt(squares / (counts - 1))
    if not std.min() > 0:
        raise ValueError(
            f"the shadows' margins of candidate {std.argmin()} do not vary; "
            "choose variance='pooled', or train shadows with different keys"
        )
    return (found - mean) / std, std


def _check_choices(mode: str, variance: str) -> None:
    if mode not in ("online", "offline"):
        raise ValueError(f"mode must be online or offline, got {mode!r}")
    if variance not in ("auto", "pooled", "example"):
        raise ValueError(f"variance must be auto, pooled or example, got {variance!r}")
