"""The answer of an unlearner to its auditor, as pure functions of arrays."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key

from unlearnkit.base import Dataset, Model, Params, State, Variables
from unlearnkit.costs import FORWARD
from unlearnkit.kernels import (
    MEMBER_SIGNS,
    FeatureName,
    cross_entropy_losses,
    map_batches,
    membership_features,
)
from unlearnkit.training import Objective, Recipe, TrainState
from unlearnkit.training.recipe import RecipeNumbers, optimizer_of_form
from unlearnkit.training.step import Metrics
from unlearnkit.unlearning.stackelberg.auditing_set import Pool, draw
from unlearnkit.unlearning.stackelberg.auditors import Auditor, Fit

GradientPath = Literal["total", "implicit", "direct"]
AnswerName = Literal["step", "optimizer"]


class Audit(NamedTuple):
    """What an auditor achieved on its held-out fold.

    Attributes:
      utility: M = -Σ_i v_i l(y_i h(s_i)) / Σ_i v_i, in units of the auditor's loss; the larger,
        the better members are distinguished.
      accuracy: share of the held-out examples that it calls rightly.
      fit: how its training ended.
    """

    utility: Float[Array, ""]
    accuracy: Float[Array, ""]
    fit: Fit


@dataclasses.dataclass(frozen=True)
class Game:
    """What of a game is fixed before it is compiled.

    Attributes:
      auditor: the attacker.
      feature: what it sees.
      path: which paths the gradient takes.
      folds: of the cross-validation; 1 judges the auditor on what it was fitted to.
      size: of the auditing set.
      chunk: examples a forward pass.
      n_strata: separate auditors, one per class of the forget set; 1 for one of all.
      moves: whether the network answers, or is only watched.
      clip_norm: the largest global norm of the answer's gradient, in units of α + β, or None.
      answer: how the network answers, see `play_answer`.
    """

    auditor: Auditor
    feature: FeatureName
    path: GradientPath
    folds: int
    size: int
    chunk: int
    n_strata: int
    moves: bool
    clip_norm: float | None = None
    answer: AnswerName = "step"

    @property
    def n_chunks(self) -> int:
        """Forward passes over the auditing set."""
        return -(-self.size // self.chunk)

    @property
    def example_gradients(self) -> float:
        """Cost of one step against the auditor; more than one chunk is passed forward twice."""
        if not self.moves:
            return self.size * FORWARD
        return self.size * (1 if self.n_chunks == 1 else 1 + FORWARD)


@dataclasses.dataclass(frozen=True)
class SparseObjective:
    """An objective plus γ‖w‖₁."""

    NUMBERS: ClassVar[tuple[str, ...]] = ("l1",)

    objective: Objective
    l1: float | Float[Array, ""]

    def __call__(
        self, params: Params, state: State, batch: Dataset, key: Key[Array, ""], context: Any = None
    ) -> tuple[Float[Array, ""], tuple[State, Metrics]]:
        """Returns the penalised loss, and what the objective returns beside it."""
        loss, rest = self.objective(params, state, batch, key, context)
        return loss + self.l1 * optax.tree.norm(params, ord=1), rest


@partial(jax.jit, static_argnames=("model", "game", "form"), donate_argnames=("state",))
def play_answer(
    key: Key[Array, ""],
    state: TrainState,
    start: Params,
    pool: Pool,
    weights: tuple[Float[Array, ""], Float[Array, ""]],
    rate: Float[Array, ""],
    numbers: RecipeNumbers,
    *,
    model: Model,
    game: Game,
    form: Recipe,
) -> tuple[TrainState, Metrics]:
    """Returns the state after the answer to the auditor that ends an epoch, and its metrics.

    With `answer="step"` the weights move by -η / (1 - μ) times the gradient of α M - β CE(D_f),
    which is as far as an optimiser with momentum μ carries one gradient in all. With "optimizer"
    that gradient is one more step of the pass's optimiser, its weight decay and the momentum of the
    pass included, and what it leaves in the momentum carries on in the next pass.

    Args:
      key: of the auditing set and the auditors.
      state: after the passes of the epoch; donated.
      start: the weights before these passes.
      pool: whom the auditing set is drawn from.
      weights: α and β.
      rate: η of the last step of the passes.
      numbers: of the optimiser.
      model: the network.
      game: what of it is fixed.
      form: of the recipe, see `training.recipe.split_recipe`.
    """
    variables = state.variables
    slope, metrics = answer_gradient(key, model, variables, pool, weights, game=game)
    if slope is None:
        return state, {**metrics, "answer_share": jnp.float32(0)}
    momentum = 0.0 if numbers.momentum is None else numbers.momentum
    reach = rate / (1 - momentum)
    passed = optax.tree.norm(optax.tree.sub(variables.params, start))
    metrics = {**metrics, "answer_share": reach * optax.tree.norm(slope) / passed}
    if game.answer == "step":
        return state._replace(variables=_step(variables, reach, slope)), metrics
    optimizer = optimizer_of_form(form, numbers, lambda _: rate)
    updates, opt_state = optimizer.update(slope, state.opt_state, variables.params)
    moved = variables._replace(params=optax.apply_updates(variables.params, updates))
    return state._replace(variables=moved, opt_state=opt_state), metrics


def answer_auditor(
    key: Key[Array, ""],
    model: Model,
    variables: Variables,
    pool: Pool,
    weights: tuple[Float[Array, ""], Float[Array, ""]],
    length: Float[Array, ""] | float,
    *,
    game: Game,
) -> tuple[Variables, Metrics]:
    """Returns the network after one step against the auditor, and how the auditor fared before it.

    Args:
      key: draws the auditing set and its folds, and starts a neural auditor.
      model: the network.
      variables: its weights.
      pool: whom the auditing set is drawn from.
      weights: α and β.
      length: of the step, in units of the gradient.
      game: the rest.
    """
    slope, metrics = answer_gradient(key, model, variables, pool, weights, game=game)
    return (variables if slope is None else _step(variables, length, slope)), metrics


def answer_gradient(
    key: Key[Array, ""],
    model: Model,
    variables: Variables,
    pool: Pool,
    weights: tuple[Float[Array, ""], Float[Array, ""]],
    *,
    game: Game,
) -> tuple[Params | None, Metrics]:
    """Returns the gradient of α M - β CE(D_f), clipped, and how the auditor fared.

    It is None where the network does not answer.

    Args:
      key: draws the auditing set, its folds and the auditors' initialisations.
      model: the network.
      variables: its weights.
      pool: whom the auditing set is drawn from.
      weights: α and β.
      game: what of it is fixed.
    """

    def cost(params: Params) -> tuple[Array, Metrics]:
        return auditor_cost(key, model, variables._replace(params=params), pool, weights, game=game)

    if not game.moves:
        return None, {**cost(variables.params)[1], "answer_norm": jnp.float32(0)}
    slope, metrics = jax.grad(cost, has_aux=True)(variables.params)
    metrics["answer_norm"] = optax.tree.norm(slope)
    if game.clip_norm is not None:
        longest = game.clip_norm * (weights[0] + weights[1])
        slope = optax.tree.scale(jnp.minimum(1, longest / metrics["answer_norm"]), slope)
    return slope, metrics


def _step(variables: Variables, length: Array | float, slope: Params) -> Variables:
    params = jax.tree.map(lambda w, g: (w - length * g).astype(w.dtype), variables.params, slope)
    return variables._replace(params=params)


def auditor_cost(
    key: Key[Array, ""],
    model: Model,
    variables: Variables,
    pool: Pool,
    weights: tuple[Float[Array, ""], Float[Array, ""]],
    *,
    game: Game,
) -> tuple[Float[Array, ""], Metrics]:
    """Returns α M - β CE(D_f), and how the auditor fared; see `answer_auditor`.

    Args:
      key: draws the auditing set, its folds and the auditors' initialisations.
      model: the network.
      variables: its weights and state.
      pool: whom the auditing set is drawn from.
      weights: α and β.
      game: what of it is fixed.
    """
    draw_key, fit_key = jax.random.split(key)
    rows, folds = draw(draw_key, pool, game.size, game.folds)
    examples, groups = pool.dataset.take(rows), pool.groups[rows]
    logits = _logits(model, variables, examples.x, game)
    # Vectors have no sign: the auditor finds a direction of its own.
    sign = MEMBER_SIGNS.get(game.feature, 1.0)
    features = sign * membership_features(game.feature, logits, examples.y)
    members = groups % 2 == 0
    labels = jnp.where(members, 1, -1).astype(features.dtype)
    present = (groups // 2) == jnp.arange(game.n_strata)[:, None, None]
    held_out = present & (folds == jnp.arange(game.folds)[:, None])
    # A single member cannot be held out: with one fold the auditor is judged on what it learned.
    learned = present & (~held_out if game.folds > 1 else True)
    n_audits = game.n_strata * game.folds
    weight = pool.weights[groups].astype(features.dtype)

    def audit(fit_key: Array, train: Array, held_out: Array) -> tuple[Audit, Array]:
        return _audit_with_gradient(
            game, fit_key, features, labels, train * weight, held_out * weight
        )

    audits, slopes = jax.vmap(audit)(
        jax.random.split(fit_key, n_audits),
        learned.reshape(n_audits, -1),
        held_out.reshape(n_audits, -1),
    )
    share = (held_out * weight).reshape(n_audits, -1).sum(1) / jnp.sum(weight)
    forgotten = jnp.where(members, cross_entropy_losses(logits, examples.y), 0)
    utility = share @ audits.utility
    slope = jnp.tensordot(share, slopes, 1)
    # Linear in the features: of the right value, and of the right derivative.
    answered = utility + jnp.sum(slope * (features - jax.lax.stop_gradient(features)))
    alpha, beta = weights
    metrics = {
        "auditor_utility": utility,
        "auditor_accuracy": share @ audits.accuracy,
        "auditor_status": jnp.max(audits.fit.status),
        "auditor_residual": jnp.max(audits.fit.residual),
        "auditor_converged": jnp.mean(audits.fit.converged),
    }
    return alpha * answered - beta * jnp.sum(forgotten) / jnp.sum(members), metrics


def _audit_with_gradient(
    game: Game, key: Key[Array, ""], features: Array, labels: Array, train: Array, held_out: Array
) -> tuple[Audit, Array]:
    """Returns an audit and its gradient in the features.

    The gradient is zero where an auditor did not converge and has none: `auditor_converged` says
    so, and the host warns.
    """

    def utility(features: Array) -> tuple[Array, Audit]:
        audit = audit_fold(game.auditor, game.path, key, features, labels, train, held_out)
        return audit.utility, audit

    features = jax.lax.stop_gradient(features)
    if not game.moves:
        return utility(features)[1], jnp.zeros_like(features)
    slope, audit = jax.grad(utility, has_aux=True)(features)
    lost = ~audit.fit.converged & ~jnp.all(jnp.isfinite(slope))
    return audit, jnp.where(lost, 0, slope)


def audit_fold(
    auditor: Auditor,
    path: GradientPath,
    key: Key[Array, ""],
    features: Float[Array, "n d"],
    labels: Float[Array, " n"],
    train: Float[Array, " n"],
    held_out: Float[Array, " n"],
) -> Audit:
    """Returns what an auditor that is fitted to one fold achieves on another.

    The features are standardised by the mean and standard deviation of the training fold, which are
    part of the auditor's response. The derivative of the utility has two paths: directly through
    the held-out features, and implicitly through the response; `total` is their sum.

    Args:
      auditor: the attacker.
      path: which paths a derivative takes: `total`, `implicit` or `direct`.
      key: of the auditor's own randomness.
      features: s, of both folds.
      labels: y, +1 for members and -1 for non-members.
      train: weights of the training fold; 0 for what is not in it.
      held_out: weights v of the held-out fold.

    Source: Di et al. 2024, equations (1) and (4); the direct path, which (4) leaves out, belongs to
    the gradient of (3).
    """
    seen = jax.lax.stop_gradient(features) if path == "direct" else features
    judged = jax.lax.stop_gradient(features) if path == "implicit" else features
    with jax.default_matmul_precision("highest"):
        centre, scale = _standardisation(seen, train)
        fitted, fit = auditor.fit(key, (seen - centre) / scale, labels, train)
        margins = labels * auditor.decision(fitted, (judged - centre) / scale)
        total = jnp.maximum(jnp.sum(held_out), 1)
        utility = -(held_out @ auditor.loss(margins)) / total
        accuracy = held_out @ (margins > 0) / total
    return Audit(utility, accuracy, fit)


def _standardisation(features: Array, weight: Array) -> tuple[Array, Array]:
    """Returns mean [d] and standard deviation [d], 1 for a feature that is constant."""
    share = weight / jnp.maximum(jnp.sum(weight), 1)
    centre = share @ features
    variance = share @ (features - centre) ** 2
    rounding = 8 * jnp.finfo(features.dtype).eps * jnp.max(jnp.abs(features), axis=0)
    varies = jax.lax.stop_gradient(variance > rounding**2)
    return centre, jnp.where(varies, jnp.sqrt(jnp.where(varies, variance, 1)), 1)


def _logits(model: Model, variables: Variables, x: Array, game: Game) -> Float[Array, "n c"]:
    if game.n_chunks == 1:
        return model.apply(variables, x)
    length = -(-game.size // game.n_chunks)
    found: Array = map_batches(jax.checkpoint(model.apply), variables, (x,), length)
    return found
