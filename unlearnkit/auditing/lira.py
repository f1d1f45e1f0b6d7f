"""The likelihood-ratio attack, on trained networks (LiRA) and on unlearned ones (U-LiRA)."""

from __future__ import annotations

import dataclasses
from typing import Literal

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Key

from unlearnkit.auditing.case import Case, Subject
from unlearnkit.auditing.queries import ALONE, Queries
from unlearnkit.auditing.scores import check_scores, score_attack
from unlearnkit.auditing.shadows import (
    ShadowNetworks,
    Shadows,
    ask_shadows,
    margins_of_queries,
    train_shadow_networks,
)
from unlearnkit.base import Audited, Dataset, Model, Task, Unlearner, Variables, concatenate
from unlearnkit.host.random import host_key
from unlearnkit.training import Recipe, train_from
from unlearnkit.validation import check_choice, check_held_out, check_task, check_variables

Mode = Literal["online", "offline", "offline_two_sided"]
Variance = Literal["auto", "pooled", "example"]
Fit = Literal["unbiased", "reference"]
MANY_SHADOWS = 64
FEWEST_OTHERS = 20
"""Non-members to compare a few members, or one, with, where the test set has as many."""


@dataclasses.dataclass(frozen=True)
class Lira:
    """Compares each example's margin with those of shadow networks with and without it.

    With φ the margin log p_y / (1 - p_y) and Gaussians fitted to the shadows with the example (in)
    and without it (out):

        online             log N(φ; μ_in, σ_in²) - log N(φ; μ_out, σ_out²)
        offline            (φ - μ_out) / σ_out,   of the order of 1 - P(N(μ_out, σ_out²) > φ)
        offline_two_sided  -log N(φ; μ_out, σ_out²)

    `offline` is the paper's: only a margin above what the shadows say speaks for a member.
    `offline_two_sided` is that of its public code: any margin that is unlike theirs does, one below
    them too. With several queries of an example the score is the mean over them.

    Members are forget examples, others as many test examples, or up to 20 where there are fewer
    members, so that one record is ranked among several; the larger set is subsampled. The
    shadows are trained as the network was: on the retain set, and on half of these candidates.

    Attributes:
      recipe: of the network under attack.
      unlearner: the method by which it was unlearned: shadows then unlearn too, and `in` means
        learned and unlearned (U-LiRA). None attacks a trained network (LiRA).
      count: shadows, even.
      mode: `online`, `offline` or `offline_two_sided`.
      variance: `example`, each example's own; `pooled`, one of all examples, of the deviations from
        each example's mean; `auto`, `pooled` below 64 shadows, as Carlini et al. do.
      fit: `unbiased`, means and variances over n - 1; or `reference`, see `lira_scores`.
      queries: the views of each candidate that the networks are asked for.

    Example:
      audit = auditing.Lira(training.Recipe(epochs=30), unlearning.FineTune(), count=16)
      metrics, curves = audit(key, model, variables, task)

    Source: Carlini et al. 2022, Membership inference attacks from first principles; Hayes et al.
    2024, Inexact unlearning needs more careful evaluations (U-LiRA). The pooled variance is that
    within examples; the public code of LiRA pools the spread between examples too (`reference`). It
    asks its networks in training mode; all are asked in evaluation mode here.
    """

    recipe: Recipe = Recipe()  # noqa: RUF009 (frozen, and so safe to share)
    unlearner: Unlearner | None = None
    count: int = 16
    mode: Mode = "online"
    variance: Variance = "auto"
    fit: Fit = "unbiased"
    queries: Queries = ALONE

    def __post_init__(self) -> None:
        if self.count < 4 or self.count % 2:
            raise ValueError(f"count must be even and >= 4, got {self.count}")
        _check_choices(self.mode, self.variance, self.fit)

    def __call__(
        self, key: Key[Array, ""], model: Model, variables: Variables, task: Task
    ) -> Audited:
        """Returns the attack's metrics and ROC curve, see `score_attack`.

        Raises:
          ValueError: a task or variables that do not fit the model.
          DivergedError: a shadow diverged.
        """
        check_variables(variables, model)
        candidates, is_member, shadows = self.train(key, model, task)
        found = margins_of_queries(model, variables, candidates, self.queries)
        return self.attack(shadows, found, is_member)

    def judge(self, key: Key[Array, ""], case: Case, subject: Subject) -> Audited:
        """Returns the attack on a network of a study: by its recipe, and its method's shadows.

        The trained shadows serve all methods of the case; each method then unlearns them anew.

        Raises:
          ValueError: a task or variables that do not fit the model.
          DivergedError: a shadow diverged.
        """
        method = subject.unlearner
        if method is not None:
            method = train_from(method, case.start)
        attack = dataclasses.replace(self, recipe=case.recipe, unlearner=method)

        def trained() -> ShadowNetworks:
            candidates, _, background, shadow_key = _choose(key, case.model, case.task)
            return train_shadow_networks(
                *(shadow_key, case.model, background, candidates, case.recipe),
                count=self.count,
                start=case.start,
            )

        networks = case.share("shadow_networks", {"count": self.count}, trained)
        candidates, is_member, shadows = attack.train(key, case.model, case.task, networks)
        found = margins_of_queries(case.model, subject.variables, candidates, self.queries)
        return attack.attack(shadows, found, is_member)

    def train(
        self,
        key: Key[Array, ""],
        model: Model,
        task: Task,
        networks: ShadowNetworks | None = None,
    ) -> tuple[Dataset, Bool[np.ndarray, " n"], Shadows]:
        """Returns the candidates, which of them are of the forget set, and the shadows.

        They serve every network that this task and this unlearner made; see `attack`.

        Args:
          key: drives the choice of candidates, the training and the unlearning of the shadows.
          model: the network.
          task: its forget set gives the members among the candidates, its test set the others.
          networks: the shadows as they were trained with this key, model and task; None trains
            them.

        Raises:
          ValueError: see `__call__`.
          DivergedError: a shadow diverged.
        """
        candidates, is_member, background, shadow_key = _choose(key, model, task)
        if networks is None:
            networks = train_shadow_networks(
                shadow_key, model, background, candidates, self.recipe, count=self.count
            )
        shadows = ask_shadows(
            shadow_key,
            model,
            background,
            candidates,
            self.recipe,
            networks,
            unlearner=self.unlearner,
            queries=self.queries,
        )
        return candidates, is_member, shadows

    def attack(
        self,
        shadows: Shadows,
        found: Float[np.ndarray, " n *q"],
        is_member: Bool[np.ndarray, " n"],
    ) -> Audited:
        """Returns the attack's metrics on given margins.

        Args:
          shadows: of the same candidates.
          found: their margins under the network that is attacked, of the shadows' queries.
          is_member: which of them are members.

        Raises:
          ValueError: margins that are not finite, or no members or no others.
        """
        each = found.reshape(len(found), -1).mean(axis=1)
        check_scores(each[is_member], each[~is_member])
        scores = lira_scores(found, shadows, mode=self.mode, variance=self.variance, fit=self.fit)
        return score_attack(scores[is_member], scores[~is_member])


def _choose(
    key: Key[Array, ""], model: Model, task: Task
) -> tuple[Dataset, Bool[np.ndarray, " n"], Task, Key[Array, ""]]:
    """Returns candidates, which are members, what all shadows train on besides, and their key."""
    check_task(task, model)
    check_held_out((task.retain, task.forget), task.test)
    size = min(task.forget.size, task.test.size)
    others = min(task.test.size, max(size, FEWEST_OTHERS))
    # Every two shadows halve the candidates: of an odd number one would be in neither.
    others -= (size + others) % 2
    choose_key, shadow_key = (part.typed() for part in host_key(key).split())
    keys = jax.random.split(choose_key)
    orders = [
        jax.random.permutation(k, part.size)
        for k, part in zip(keys, (task.forget, task.test), strict=True)
    ]
    candidates = concatenate(task.forget.take(orders[0][:size]), task.test.take(orders[1][:others]))
    background = task._replace(forget=task.forget.take(orders[0][size:]))
    return candidates, np.repeat([True, False], [size, others]), background, shadow_key


def lira_scores(
    found: Float[np.ndarray, " n *q"],
    shadows: Shadows,
    *,
    mode: Mode = "online",
    variance: Variance = "auto",
    fit: Fit = "unbiased",
) -> Float[np.ndarray, " n"]:
    """Returns the score of every candidate, larger for members; see `Lira`.

    `reference` is the fit of the public code, to be put beside numbers that it gave: μ is the
    median; σ is over n, about the mean; of the shadows, each candidate's first k in order are
    taken, k the fewest that any has; `pooled` is one σ of all margins of all candidates, and online
    that of `in` serves for `out` too. Its offline form is `offline_two_sided`. It adds 1e-30 to σ;
    margins that do not vary are refused here.

    Args:
      found: [n] margins under the network that is attacked, or [n, q] of q queries.
      shadows: margins [s, n] or [s, n, q] of the shadows, each candidate in at least two of them
        and out of at least two (offline: out of).
      mode: `online`, `offline` or `offline_two_sided`.
      variance: `auto`, `pooled` or `example`; of each query too.
      fit: `unbiased` or `reference`.

    Raises:
      ValueError: margins that are not finite or do not vary, or too few shadows of a candidate.

    Source: Carlini et al. 2022; the public code is tensorflow/privacy, research/mi_lira_2021.
    """
    _check_choices(mode, variance, fit)
    margins = np.asarray(shadows.margins, np.float64)
    if margins.shape[1:] != found.shape:
        raise ValueError(
            "found must hold a margin per candidate and query, "
            f"got {list(found.shape)} for {list(margins.shape[1:])} of the shadows"
        )
    for name, values in (("the shadows", margins), ("the network", found)):
        if not np.all(np.isfinite(values)):
            raise ValueError(f"margins of {name} must be finite, got NaN or infinity: it diverged")
    if variance == "auto":
        variance = "pooled" if len(margins) < MANY_SHADOWS else "example"
    margins = margins.reshape(*margins.shape[:2], -1)
    asked = np.asarray(found, np.float64).reshape(len(found), -1)
    fits = _reference_fit if fit == "reference" else _unbiased_fit
    mean, std = fits(margins, ~shadows.is_in, variance, "out of")
    if mode == "online":
        mean_in, std_in = fits(margins, shadows.is_in, variance, "in")
        if fit == "reference" and variance == "pooled":
            std = std_in
        scores = _log_density(asked, mean_in, std_in) - _log_density(asked, mean, std)
    elif mode == "offline":
        scores = (asked - mean) / std
    else:
        scores = -_log_density(asked, mean, std)
    result: np.ndarray = scores.mean(axis=1)
    return result


def _log_density(x: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    found: np.ndarray = -0.5 * ((x - mean) / std) ** 2 - np.log(std) - 0.5 * np.log(2 * np.pi)
    return found


def _unbiased_fit(
    margins: np.ndarray, chosen: np.ndarray, variance: Variance, side: str
) -> tuple[np.ndarray, np.ndarray]:
    """Returns μ and σ, [n, q] each, of the chosen shadows of each candidate."""
    counts = _counts(chosen, side)[:, None]
    mean = np.sum(margins, axis=0, where=chosen[..., None]) / counts
    squares = np.sum((margins - mean) ** 2, axis=0, where=chosen[..., None])
    if variance == "pooled":
        pooled = squares.sum() / (np.sum(counts - 1) * squares.shape[1])
        return mean, _varying(np.full(mean.shape, np.sqrt(pooled)))
    return mean, _varying(np.sqrt(squares / (counts - 1)))


def _reference_fit(
    margins: np.ndarray, chosen: np.ndarray, variance: Variance, side: str
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the same by the public code's estimators."""
    fewest = _counts(chosen, side).min()
    first = np.argsort(~chosen, axis=0, kind="stable")[:fewest]
    taken = np.take_along_axis(margins, first[..., None], axis=0)
    mean = np.median(taken, axis=0)
    if variance == "pooled":
        return mean, _varying(np.full(mean.shape, taken.std()))
    return mean, _varying(taken.std(axis=0))


def _counts(chosen: np.ndarray, side: str) -> np.ndarray:
    counts: np.ndarray = chosen.sum(axis=0)
    if counts.min() < 2:
        raise ValueError(
            f"each candidate must be {side} at least 2 shadows, got {counts.min()} for candidate "
            f"{counts.argmin()}; train more shadows"
        )
    return counts


def _varying(std: np.ndarray) -> np.ndarray:
    if not std.min() > 0:
        raise ValueError(
            f"the shadows' margins of candidate {std.min(axis=1).argmin()} do not vary; "
            "choose variance='pooled', or train shadows with different keys"
        )
    return std


def _check_choices(mode: str, variance: str, fit: str) -> None:
    check_choice("mode", mode, Mode)
    check_choice("variance", variance, Variance)
    check_choice("fit", fit, Fit)
