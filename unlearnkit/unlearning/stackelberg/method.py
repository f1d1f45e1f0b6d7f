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
from unlearnkit.host.order import epoch_rows
from unlearnkit.host.random import AnyKey, host_key
from unlearnkit.host.reserve import reserve
from unlearnkit.kernels import FEATURES, MEMBER_SIGNS, FeatureName, SvmStatus
from unlearnkit.training import CrossEntropy, DivergedError, Objective, Recipe, rate_table
from unlearnkit.training.recipe import split_recipe
from unlearnkit.training.step import start_state
from unlearnkit.trials import NoEffect, UnlearnerTrial
from unlearnkit.unlearning._passes import FittedPair, Pass, Plan, fit_pair, take_passes
from unlearnkit.unlearning._sgd import SgdSettings
from unlearnkit.unlearning.random_label import relabelling_gradients, relabelling_passes
from unlearnkit.unlearning.stackelberg.auditing_set import DEFAULT_FOLDS, Drawn, make_pool
from unlearnkit.unlearning.stackelberg.auditors import AUDITORS, Auditor, QuantileAuditor
from unlearnkit.unlearning.stackelberg.game import (
    AnswerName,
    Game,
    GradientPath,
    SparseObjective,
    play_answer,
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
BaseName = Literal["retain", "random_label"]
WEAK = 1e-3
"""Answers that are shorter than this share of their passes in every epoch are warned about."""
_AUDITS = 2**32 - 1
"""Folded into the key of random labels for the auditors', apart from the epochs 0, 1, ..."""


class AuditorWarning(UserWarning):
    """An auditor was degenerate, so that its gradient is unreliable."""


class WeakAnswerWarning(UserWarning):
    """The answers to the auditor were too short to matter beside the passes."""


@dataclasses.dataclass(frozen=True)
class StackelbergUnlearn(SgdSettings):
    """Fine-tunes on the retain set against an auditor who best-responds with a membership attack.

    min_w  CE(D_r; w) + γ‖w‖₁ + α M(D_val(w); a) - β CE(D_f; w)
    such that a = argmax_a' M(D_tr(w); a')

    D(w) is the auditing set: the outputs of w on the forget set (members) and on as many validation
    examples (non-members), drawn anew and divided anew into folds each epoch. M is minus the mean
    surrogate loss of the auditor on the fold that it was not trained on, averaged over the folds.
    An epoch is a pass of SGD over the retain set, in training mode, then one answer,

      w <- w - η / (1 - μ) ∂/∂w [α M - β CE(D_f; w)],   in evaluation mode,

    over the full auditing set, the forget set's loss being that of its members in it. μ is the
    momentum: the answer is as long as one gradient that goes through the optimiser of the pass is
    in all, however many steps a pass has. α = β = 0 is `FineTune`, or `RandomLabel`.

    Units of α and β. In earlier versions the answer was w <- w - η S ∂/∂w [...] with S steps a
    pass, so that α depended on the size of the data. An α or β of then is α S (1 - μ) now: 4.5
    times as large for 45 steps and momentum .9, 35 times for 351. A value in the old units cannot
    be told from a new one; one that is too small to matter is warned about.

    Attributes:
      epochs: passes over the retain set, each with one step against the auditor.
      learning_rate: η.
      alpha: α >= 0, in the units above.
      auditor: a name in `AUDITORS`, or an auditor of these classes with settings of its own.
      feature: what the auditor sees; see `kernels.membership_features`. `margin` is the loss on a
        scale where the near-zero losses of a network that has learned its data by heart do not
        coincide in float32; Di et al. 2024 have `loss`, `probabilities` and `logits`, their public
        code `logits_loss`.
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
      answer: `step` as above; or `optimizer`, the form of the public code of Di et al. 2024: the
        answer's gradient is one more step of the pass's optimiser, with its momentum and weight
        decay.
      base: what the answer is added to: `retain`, fine-tuning; or `random_label`, before each pass
        over the retain set one over the forget set under random labels, as `RandomLabel`.

    `info.history` holds per epoch, beside `loss` and `accuracy` of the pass: `auditor_utility` (M),
    `auditor_accuracy` (held out), `auditor_status` (the greatest `SvmStatus` of the folds),
    `auditor_residual` (likewise), `auditor_converged` (the share of the folds), `answer_norm` (of
    the answer's gradient, before it is clipped) and `answer_share` (the length of the answer over
    the way from where the epoch began to where its passes ended).

    Example:
      unlearn = unlearning.StackelbergUnlearn(epochs=5, alpha=1.0, auditor="hinge")
      forgotten, info = unlearn(key, model, variables, task)

    Cost: an epoch takes a pass over the retain set (and the forget set, with random labels), and a
    step against the auditor.

    Source: Di et al. 2024, Algorithm 1 and §4.2; defaults of its Table 5, batch size aside.
    Algorithm 1 prints one step of η on either term; its pass is S steps in practice, and the answer
    one step of the same optimiser. Its public code sums the auditors' losses over three splits that
    hold out 30 % each, and over b parts of the auditing set: what is 1 there is .9 b here, where M
    is a mean (4.5 for CIFAR-10 in parts of 1,000). That code runs the pass in evaluation mode from
    the second epoch on, and the answer in training mode; here it is the other way round. What
    `base="random_label"` does is the future work that the paper names.
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
    answer: AnswerName = "step"
    base: BaseName = "retain"

    trial: ClassVar[UnlearnerTrial] = UnlearnerTrial(
        effective={"alpha": 0.6},
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
        check_known("answer", self.answer, get_args(AnswerName))
        check_known("base", self.base, get_args(BaseName))
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
          WeakAnswerWarning: every answer was under a thousandth of its passes, see `answer_share`.
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
        if not _warn_of_degenerate(history):
            self._warn_of_weak(history, variables, task)
        arrays = {name: jnp.asarray(values) for name, values in history.items()}
        cost = Cost(gradients, seconds, compile_seconds)
        adapted = self._with_folds(self._base(variables, task).adapted, task)
        info = UnlearnInfo(arrays, cost, adapted=adapted)
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
        base, drawn = self._base(variables, task), self._drawn(task)
        recipe, pool, game = base.recipe, drawn.pool, self._game(drawn)
        plan, steps, audits = self._passes(key, base, model, task)
        form, numbers = split_recipe(recipe)
        state = start_state(variables, recipe=form)
        rates = rate_table(recipe, steps, recipe.epochs * steps)
        weights = jnp.float32(self.alpha), jnp.float32(self.forget_weight)
        cost, done = (base.example_gradients / max(recipe.epochs, 1)) + game.example_gradients, 0
        for epoch in range(recipe.epochs):
            with Stopwatch() as watch:
                start = jax.tree.map(jnp.copy, state.variables.params)
                state, measured, done = take_passes(state, plan(epoch), rates, done, recipe)
                state, metrics = play_answer(
                    audits.fold_in(epoch).typed(), state, start, pool, weights, rates[done - 1],
                    numbers, model=model, game=game, form=form,
                )  # fmt: skip
                measured |= {name: float(value) for name, value in metrics.items()}
            self._refuse_divergence(measured, epoch, state.variables, task)
            taken = Cost(cost, watch.seconds, watch.compile_seconds)
            yield Played(state.variables, measured, taken)

    def example_gradients(self, variables: Variables, task: Task) -> float:
        """Returns what a run takes, which follows from sizes alone; see `info.cost`."""
        base, game = self._base(variables, task), self._game(self._drawn(task))
        return base.example_gradients + base.recipe.epochs * game.example_gradients

    def _base(self, variables: Variables, task: Task) -> _Base:
        if self.base == "random_label":
            pair = fit_pair(self, variables, task, None)
            return _Base(pair.retain, pair, pair.adapted, relabelling_gradients(pair, task))
        recipe, adapted = self.fitted(variables, task.retain)
        return _Base(recipe, None, adapted, recipe.example_gradients(task.retain.size))

    def _passes(
        self, key: Key[Array, ""], base: _Base, model: Model, task: Task
    ) -> tuple[Plan, int, AnyKey]:
        """Returns the passes of each epoch, the steps of an epoch, and the key of the auditors."""
        if base.pair is not None:
            both = [self._objective(model, recipe) for recipe in (base.pair.forget, base.recipe)]
            plan, steps = relabelling_passes(key, base.pair, model, (both[0], both[1]), task)
            return plan, steps, host_key(key).fold_in(_AUDITS)
        order_key, step_key, audits = host_key(key).split(3)
        objective, held = self._objective(model, base.recipe), reserve(task.retain)
        typed, size, batch = step_key.typed(), task.retain.size, base.recipe.batch_size

        def plan_of(epoch: int) -> list[Pass]:
            return [Pass(objective, held, epoch_rows(order_key, epoch, size, batch), typed)]

        return plan_of, base.recipe.steps_per_epoch(size), audits

    def _objective(self, model: Model, recipe: Recipe) -> Objective:
        objective = CrossEntropy(model, recipe)
        return SparseObjective(objective, self.l1) if self.l1 > 0 else objective

    def _game(self, drawn: Drawn) -> Game:
        return Game(
            self._auditor(), self.feature, self.gradient, drawn.folds, drawn.size, self.chunk,
            n_strata=drawn.pool.quotas.shape[0] // 2,
            moves=self.alpha > 0 or self.forget_weight > 0,
            clip_norm=self.clip_norm,
            answer=self.answer,
        )  # fmt: skip

    def _drawn(self, task: Task) -> Drawn:
        return make_pool(
            task, folds=self.folds, same_classes=self.same_classes, per_class=self.per_class
        )

    def _with_folds(self, adapted: Mapping[str, int | str], task: Task) -> dict[str, int | str]:
        """Returns what was chosen in the place of defaults that do not fit; see `UnlearnInfo`."""
        folds = self._drawn(task).folds
        fewer = self.folds is None and folds < DEFAULT_FOLDS
        return {**adapted, "folds": folds} if fewer else dict(adapted)

    def _warn_of_weak(
        self, history: Mapping[str, list[float]], variables: Variables, task: Task
    ) -> None:
        largest = max(history.get("answer_share", [0.0]), default=0.0)
        if (self.alpha > 0 or self.forget_weight > 0) and history and largest < WEAK:
            warnings.warn(
                f"the answers to the auditor were at most {largest:.1g} of their passes' way: "
                f"alpha={self.alpha:g} and forget_weight={self.forget_weight:g} hardly matter; "
                f"{self._conversion(variables, task)}",
                WeakAnswerWarning,
                stacklevel=3,
            )

    def _conversion(self, variables: Variables, task: Task) -> str:
        """Returns how values in the units of earlier versions are told in today's."""
        recipe = self._base(variables, task).recipe
        factor = recipe.steps_per_epoch(task.retain.size) * (1 - recipe.momentum)
        return f"in the units of earlier versions? multiply both by {factor:.3g}"

    def _refuse_divergence(
        self, metrics: Mapping[str, float], epoch: int, variables: Variables, task: Task
    ) -> None:
        if all_finite((variables, metrics["loss"], metrics["auditor_utility"])):
            return
        raise DivergedError(
            f"unlearning diverged in epoch {epoch + 1}: loss {metrics['loss']}, auditor's utility "
            f"{metrics['auditor_utility']}; lower learning_rate={self.learning_rate:g}, "
            f"alpha={self.alpha:g} or forget_weight={self.forget_weight:g}; "
            f"{self._conversion(variables, task)}"
        )

    def _auditor(self) -> Auditor:
        return AUDITORS[self.auditor] if isinstance(self.auditor, str) else self.auditor


class Played(NamedTuple):
    """An epoch of the game: the network after it, its metrics, and what it took."""

    variables: Variables
    metrics: dict[str, float]
    cost: Cost


class _Base(NamedTuple):
    """The passes that the answers are added to.

    Attributes:
      recipe: of the pass over the retain set, and of the optimiser.
      pair: of both passes, where the forget set is passed over too.
      adapted: see `UnlearnInfo`.
      example_gradients: of all epochs.
    """

    recipe: Recipe
    pair: FittedPair | None
    adapted: dict[str, int | str]
    example_gradients: float


def _warn_of_degenerate(history: Mapping[str, list[float]]) -> bool:
    """Warns of degenerate auditors; returns whether there were any."""
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
    return bool(bad)
