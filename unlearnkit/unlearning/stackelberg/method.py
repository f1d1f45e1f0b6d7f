"""Unlearning as a Stackelberg game against a membership auditor (SG-Unlearn)."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from unlearnkit.base import (
    Cost,
    Model,
    OnEpoch,
    OnSnapshot,
    Task,
    Unlearned,
    UnlearnInfo,
    Variables,
)
from unlearnkit.costs import Stopwatch
from unlearnkit.kernels import FEATURES, MEMBER_SIGNS, FeatureName, SvmStatus
from unlearnkit.training import CrossEntropy, DivergedError, Objective, Recipe, init_train_state
from unlearnkit.trials import NoEffect, UnlearnerTrial
from unlearnkit.unlearning._sgd import SgdSettings
from unlearnkit.unlearning.stackelberg.auditing_set import DEFAULT_FOLDS, Drawn, make_pool
from unlearnkit.unlearning.stackelberg.auditors import AUDITORS, Auditor, QuantileAuditor
from unlearnkit.unlearning.stackelberg.game import (
    Game,
    GradientPath,
    Keys,
    SparseObjective,
    play_epoch,
)
from unlearnkit.validation import (
    all_finite,
    check_above,
    check_at_least,
    check_known,
    check_task,
    check_variables,
)

AuditorName = Literal["hinge", "squared_hinge", "logistic", "mlp", "quantile"]


class AuditorWarning(UserWarning):
    """An auditor was degenerate, so that its gradient is unreliable."""


@dataclasses.dataclass(frozen=True)
class StackelbergUnlearn(SgdSettings):
    """Fine-tunes on the retain set against an auditor who best-responds with a membership attack.

    min_w  CE(D_r; w) + γ‖w‖₁ + α M(D_val(w); a) - β CE(D_f; w)
    such that a = argmax_a' M(D_tr(w); a')

    D(w) is the auditing set: the outputs of w on the forget set (members) and on as many validation
    examples (non-members), drawn anew and divided anew into folds each epoch. M is minus the mean
    surrogate loss of the auditor on the fold that it was not trained on, averaged over the folds.
    An epoch is one compiled call: a pass of SGD over the retain set, in training mode, then

      w <- w - η S ∂/∂w [α M - β CE(D_f; w)],   in evaluation mode,

    over the full auditing set, the forget set's loss being that of its members in it. S is the
    number of steps of the pass, so that the pass and the answer weigh as the objective says. The
    answer has no momentum: α = β = 0 is `FineTune`.

    Attributes:
      epochs: passes over the retain set, each with one step against the auditor.
      learning_rate: η.
      alpha: α >= 0.
      auditor: a name in `AUDITORS`, or an auditor of these classes with settings of its own.
      feature: what the auditor sees; see `kernels.membership_features`. `margin` is the loss on a
        scale where the near-zero losses of a network that has learned its data by heart do not
        coincide in float32; Di et al. 2024 have `loss`, `probabilities` and `logits`.
      folds: of the auditor's cross-validation. None takes 3, or as many as there are forget
        examples where these are fewer (`info.adapted` says so), see `make_pool`.
      gradient: `total`; `implicit` through the auditor's response alone, as Di et al. 2024,
        equation (4) prints; or `direct`, as if the auditor did not respond.
      per_class: one auditor for each class of the forget set, as the shares of outputs may differ.
      same_classes: non-members are of the forget set's classes only. When a class is forgotten,
        False (Di et al. 2024) asks it to look like the held-out data of all classes, True like
        held-out data of its own class, which the validation set must then hold.
      l1: γ >= 0, of a sparsity-promoting term.
      forget_weight: β >= 0, of a term that lowers the utility on the forget set.
      clip_norm: the largest global norm of ∂/∂w [α M - β CE(D_f; w)] in units of α + β, or None, as
        Di et al. 2024. Now and then an auditor's gradient is tens of times as long as in the epochs
        around it, long enough to lose the network in one step.
      chunk: auditing examples a forward pass; activations of one chunk are kept in memory.

    `info.history` holds per epoch, beside `loss` and `accuracy` of the pass: `auditor_utility` (M),
    `auditor_accuracy` (held out), `auditor_status` (the greatest `SvmStatus` of the folds),
    `auditor_residual` (likewise), `auditor_converged` (the share of the folds) and `answer_norm`
    (of the answer's gradient, before it is clipped).

    Example:
      unlearn = unlearning.StackelbergUnlearn(epochs=5, alpha=1.0, auditor="hinge")
      forgotten, info = unlearn(key, model, variables, task)

    Cost: an epoch takes a pass over the retain set, and a step against the auditor.

    Source: Di et al. 2024, Algorithm 1 and §4.2; defaults of its Table 5, batch size aside.
    Algorithm 1 prints one step of η on either term; its pass is S steps in practice, and its
    reference code accumulates the auditor's gradients as a sum over folds and classes. Here M is a
    mean and the step S times as long, so that α depends on neither. That code also runs the pass in
    evaluation mode from the second epoch on; here it is always in training mode.
    """

    epochs: int = 30
    learning_rate: float = 1e-2
    alpha: float = 1.0
    auditor: AuditorName | Auditor = "hinge"
    feature: FeatureName = "margin"
    folds: int | None = None
    gradient: GradientPath = "total"
    per_class: bool = False
    same_classes: bool = False
    l1: float = 0.0
    forget_weight: float = 0.0
    clip_norm: float | None = None
    chunk: int = 1000

    trial: ClassVar[UnlearnerTrial] = UnlearnerTrial(
        one_record=NoEffect(
            frozenset({"mlp", "batch_norm"}),
            "Di et al. 2024, equation (3): the record's outputs are to be like those of held-out "
            "examples, which are right and sure of it; Retrain is not of a wrong label. Measured "
            "gain of the confidence's distance: -0.004 ± 0.10 (mlp), -0.31 ± 0.08 (batch_norm).",
        ),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("alpha", "l1", "forget_weight"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} must be finite and >= 0, got {value}")
        if self.clip_norm is not None:
            check_above(self, 0, "clip_norm")
        if isinstance(self.auditor, str):
            check_known("auditor", self.auditor, AUDITORS)
        check_known("feature", self.feature, FEATURES)
        if isinstance(self._auditor(), QuantileAuditor) and self.feature not in MEMBER_SIGNS:
            raise ValueError(
                f"a quantile auditor needs a score, got the vectors {self.feature!r}; "
                "choose feature='margin', 'loss' or 'confidence'"
            )
        check_known("gradient", self.gradient, get_args(GradientPath))
        if self.folds is not None:
            check_at_least(self, 2, "folds")
        check_at_least(self, 1, "chunk")

    def __call__(
        self,
        key: Key[Array, ""],
        model: Model,
        variables: Variables,
        task: Task,
        *,
        on_epoch: OnEpoch | None = None,
        on_snapshot: OnSnapshot | None = None,
    ) -> Unlearned:
        """Returns the network after the game.

        Raises:
          ValueError: a task or variables that do not fit the model, a batch larger than the retain
            set, or an auditing set with fewer members or non-members than folds.
          DivergedError: the loss, an output or a weight is no longer finite.

        Warns:
          AuditorWarning: an auditor did not converge or saw constant outputs.
        """
        state = variables
        history: dict[str, list[float]] = {}
        seconds = compile_seconds = gradients = 0.0
        for epoch, done in enumerate(self.play(key, model, variables, task), 1):
            state, gradients = done.variables, gradients + done.cost.example_gradients
            seconds += done.cost.seconds
            compile_seconds += done.cost.compile_seconds
            for name, value in done.metrics.items():
                history.setdefault(name, []).append(value)
            if on_epoch is not None:
                on_epoch(epoch, done.metrics)
            if on_snapshot is not None:
                on_snapshot(epoch, done.variables)
        _warn_of_degenerate(history)
        arrays = {name: jnp.asarray(values) for name, values in history.items()}
        cost = Cost(gradients, seconds, compile_seconds)
        info = UnlearnInfo(arrays, cost, adapted=self._adapted(variables, task))
        return Unlearned(state, info)

    def play(
        self, key: Key[Array, ""], model: Model, variables: Variables, task: Task
    ) -> Iterator[Played]:
        """Yields the network after each epoch, for those who watch the game.

        What is yielded is gone when the next epoch begins: use it before. Errors are those of
        `__call__`; a degenerate auditor is in the metrics.

        Args:
          key: of the batches' order, the steps and the auditing sets.
          model: the network.
          variables: trained on all of `task.train`.
          task: what to forget, and what to keep.
        """
        check_task(task, model)
        check_variables(variables, model)
        recipe, _ = self.fitted(variables, task.retain)
        steps = recipe.steps_per_epoch(task.retain.size)
        drawn = self._drawn(task)
        pool, game = drawn.pool, self._game(drawn)
        objective: Objective = CrossEntropy(model, recipe)
        objective = SparseObjective(objective, self.l1) if self.l1 > 0 else objective
        keys = Keys(*jax.random.split(key, 3))
        state = init_train_state(recipe, steps, jax.tree.map(jnp.array, variables))
        weights = jnp.float32(self.alpha), jnp.float32(self.forget_weight)
        cost = _epoch_gradients(recipe, game, task)
        for epoch in range(recipe.epochs):
            with Stopwatch() as watch:
                state, metrics = play_epoch(
                    state, task.retain, pool, keys, weights,
                    model=model, objective=objective, recipe=recipe, game=game,
                )  # fmt: skip
                measured = {name: float(value) for name, value in metrics.items()}
            _refuse_divergence(measured, epoch, state.variables, self)
            taken = Cost(cost, watch.seconds, watch.compile_seconds)
            yield Played(state.variables, measured, taken)

    def example_gradients(self, variables: Variables, task: Task) -> float:
        """Returns what a run takes, which follows from sizes alone; see `info.cost`."""
        recipe, _ = self.fitted(variables, task.retain)
        of_epoch = _epoch_gradients(recipe, self._game(self._drawn(task)), task)
        return recipe.epochs * of_epoch

    def _game(self, drawn: Drawn) -> Game:
        return Game(
            self._auditor(), self.feature, self.gradient, drawn.folds, drawn.size, self.chunk,
            n_strata=drawn.pool.quotas.shape[0] // 2,
            moves=self.alpha > 0 or self.forget_weight > 0,
            clip_norm=self.clip_norm,
        )  # fmt: skip

    def _drawn(self, task: Task) -> Drawn:
        return make_pool(
            task, folds=self.folds, same_classes=self.same_classes, per_class=self.per_class
        )

    def _adapted(self, variables: Variables, task: Task) -> dict[str, int | str]:
        """Returns what was chosen in the place of defaults that do not fit; see `UnlearnInfo`."""
        adapted, folds = self.fitted(variables, task.retain).adapted, self._drawn(task).folds
        fewer = self.folds is None and folds < DEFAULT_FOLDS
        return {**adapted, "folds": folds} if fewer else adapted

    def _auditor(self) -> Auditor:
        return AUDITORS[self.auditor] if isinstance(self.auditor, str) else self.auditor


class Played(NamedTuple):
    """An epoch of the game: the network after it, its metrics, and what it took."""

    variables: Variables
    metrics: dict[str, float]
    cost: Cost


def _epoch_gradients(recipe: Recipe, game: Game, task: Task) -> float:
    """Returns what an epoch takes: a pass over the retain set, and a step against the auditor."""
    steps = recipe.steps_per_epoch(task.retain.size)
    return steps * recipe.batch_size + game.example_gradients


def _refuse_divergence(
    metrics: Mapping[str, float], epoch: int, variables: Variables, method: StackelbergUnlearn
) -> None:
    if all_finite((variables, metrics["loss"], metrics["auditor_utility"])):
        return
    raise DivergedError(
        f"unlearning diverged in epoch {epoch + 1}: loss {metrics['loss']}, auditor's utility "
        f"{metrics['auditor_utility']}; lower learning_rate={method.learning_rate:g}, "
        f"alpha={method.alpha:g} or forget_weight={method.forget_weight:g}"
    )


def _warn_of_degenerate(history: dict[str, list[float]]) -> None:
    statuses, converged = history.get("auditor_status", []), history.get("auditor_converged", [])
    bad = [
        SvmStatus(int(status)).name.lower()
        for status, share in zip(statuses, converged, strict=True)
        if status >= SvmStatus.CONSTANT_FEATURES or share < 1
    ]
    if bad:
        warnings.warn(
            f"the auditor was degenerate in {len(bad)} of {len(statuses)} epochs "
            f"({', '.join(sorted(set(bad)))}), so that its gradient was unreliable there; "
            "see auditor_status in info.history, and choose another feature or auditor",
            AuditorWarning,
            stacklevel=3,
        )
