"""The scrubbing shift of the linearised network: from what is held to the weights."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key

from unlearnkit import kernels
from unlearnkit.base import Dataset, Model, Params, SolveInfo, Variables
from unlearnkit.costs import JVP, VJP
from unlearnkit.kernels.solvers import Scalar
from unlearnkit.training import predict
from unlearnkit.unlearning._one_shot import at_state
from unlearnkit.unlearning.ntk_scrub import products
from unlearnkit.unlearning.ntk_scrub.products import Dual, Held, Network, Space
from unlearnkit.unlearning.ntk_scrub.ridge import (
    Kernel,
    Preconditioners,
    Ridges,
    factorised,
    solve_blocks,
    solve_published,
    solve_ridges,
)
from unlearnkit.unlearning.ntk_scrub.settings import OF_KERNEL, Form, NtkSettings
from unlearnkit.unlearning.ntk_scrub.softmax import Optimum, newton_cg


class Shift(NamedTuple):
    """What scrubbing the linearised network gives.

    Attributes:
      step: w_Dr - w_D.
      retrained: w_Dr - c, seen from the centre of the decay.
      solves: `all` and `retain`.
      error: of `step`, at most, ‖error‖ / ‖w_Dr - w_D‖; NaN where it is not known.
      passes: of the network for products with J and Jᵀ, in gradients per example.
    """

    step: Params
    retrained: Params
    solves: dict[str, SolveInfo]
    error: Float[Array, ""]
    passes: Float[Array, ""]


def ntk_shift(
    key: Key[Array, ""],
    model: Model,
    settings: NtkSettings,
    form: Form,
    point: Variables,
    centre: Params | None,
    train: Dataset,
    n_retain: int,
) -> Shift:
    """Returns the shift from training on all to training on the first `n_retain` of `train`.

    Args:
      key: of the preconditioner's signs.
      model: the network.
      settings: how to solve.
      form: what is held of the Jacobian.
      point: where the network is linearised, evaluation mode.
      centre: c; None takes the c at which `point` is a minimum of the training loss.
      train: the retain set, then the forget set.
      n_retain: N_r.
    """
    held = products.hold(form, settings, model, point, train.x)
    found: Shift = shift_by(key, model, settings, form.name, held, point, centre, train, n_retain)
    return found


@partial(jax.jit, static_argnames=("model", "settings", "form", "n_retain"))
def shift_by(
    key: Key[Array, ""],
    model: Model,
    settings: NtkSettings,
    form: str,
    held: Held,
    point: Variables,
    centre: Params | None,
    train: Dataset,
    n_retain: int,
) -> Shift:
    """Returns `ntk_shift` from what `products.hold` gave.

    Args:
      key: see `ntk_shift`.
      model: likewise.
      settings: likewise.
      form: the name of the form.
      held: what it holds.
      point: see `ntk_shift`.
      centre: likewise.
      train: likewise.
      n_retain: likewise.
    """
    apply = at_state(model, point.state)
    network = Network(apply, point.params, train.x, settings.chunk, settings.precision)
    outputs = predict(model, point, train.x, chunk=settings.chunk)
    targets = jax.nn.one_hot(train.y, outputs.shape[1], dtype=outputs.dtype)
    with jax.default_matmul_precision("highest"):
        space = products.of_jacobian(held, network) if form == "stored" else None
        space = products.of_network(network) if space is None else space
        problem = _Problem(key, network, settings, form, held, space, n_retain)
        if form == "public":
            return _ridge_shift(problem, targets - jax.nn.softmax(outputs))
        guess = jax.nn.softmax(outputs) if settings.loss == "softmax" else outputs
        displacement = _displacement(network, targets - guess, settings.weight_decay, centre)
        if settings.loss == "softmax":
            # Without a centre the displacement is Jᵀ of these coefficients.
            scale = 1 / (len(outputs) * settings.weight_decay)
            known = scale * (targets - guess) if centre is None else None
            return _softmax_shift(problem, outputs, targets, displacement, known)
        return _ridge_shift(problem, targets - outputs + network.push(displacement))


class _Problem(NamedTuple):
    key: Key[Array, ""]
    network: Network
    settings: NtkSettings
    form: str
    held: Held
    space: Space
    n_retain: int

    @property
    def holds_kernel(self) -> bool:
        return self.form in OF_KERNEL

    @property
    def by_passes(self) -> bool:
        """Whether each product takes passes of the network."""
        return self.form == "matrix_free"

    def sketch(self, ridge: Scalar, dtype: DTypeLike) -> Array | None:
        """Returns J S, or None where it is not needed."""
        settings = self.settings
        if not settings.preconditioned or self.holds_kernel:
            return None
        if self.form == "stored":
            return products.sketch_of(self.key, self.held, settings.rank, dtype)
        return self.low_rank(ridge).factor

    def low_rank(self, ridge: Scalar) -> kernels.LowRank:
        network = self.network
        return kernels.sketched_ntk(
            self.key,
            network.apply,
            network.params,
            network.x,
            damping=ridge,
            rank=self.settings.rank,
            chunk=self.settings.jacobian_chunk,
        )


def trapezium_scale(shift: Params, error: Params) -> Float[Array, ""]:
    """Returns by how much the shift is lengthened where training left the linearised network.

    s = 1 + 2 |cos(δ, e)| ‖e‖ / ‖δ‖,   e = w - w_Dr

    the ratio of the parallel sides of an isosceles trapezium with δ and legs e.

    Args:
      shift: δ.
      error: e, from the predicted retrained weights to the trained ones.

    Source: Golatkar et al. 2020b, the notebook of its public code, whose two cases,
    ‖δ‖ + 2 sin(arccos c - π/2)‖e‖ for c < 0 and ‖δ‖ + 2 c ‖e‖ else, are this one.
    """
    ratio = 2 * jnp.abs(kernels.rayleigh_quotient(shift, error))
    return 1 + jnp.where(kernels.tree_norm(shift) == 0, 0, ratio)


def _displacement(
    network: Network, residual: Array, weight_decay: float, centre: Params | None
) -> Params:
    """Returns params - c; at a minimum, λ (params - c) is minus the gradient of the mean loss."""
    if centre is not None:
        return jax.tree.map(jnp.subtract, network.params, centre)
    return network.pull(residual / (len(residual) * weight_decay))


def _ridge_shift(problem: _Problem, errors: Array) -> Shift:
    network, settings, n = problem.network, problem.settings, len(errors)
    ridges = Ridges(settings.weight_decay * n, settings.weight_decay * problem.n_retain)
    solve = {"blocks": solve_blocks, "public": solve_published}.get(problem.form)
    if solve is not None:
        duals = solve(problem.held, settings, errors, ridges, problem.n_retain)
    else:
        duals = solve_ridges(
            _kernel(problem, errors), settings, errors, ridges, problem.n_retain,
            _preconditioners(problem, errors, ridges),
        )  # fmt: skip
    step = jax.tree.map(jnp.negative, network.pull(duals.step))
    size = kernels.tree_norm(step)
    error = duals.error / jnp.where(size > 0, size, 1)
    by_passes = problem.by_passes or not problem.space.is_exact
    passes = 2 * VJP + (JVP + VJP) * (duals.products if by_passes else 0)
    retrained = network.pull(duals.retrained)
    return Shift(step, retrained, duals.solves, error, jnp.asarray(passes, errors.dtype))


def _kernel(problem: _Problem, like: Array) -> Kernel:
    if not problem.holds_kernel:
        space = problem.space
        return Kernel(space.theta, space.near_theta, space.is_exact)

    def theta(vector: Array) -> Array:
        found: Array = (problem.held @ vector.reshape(-1)).reshape(like.shape)
        return found

    return Kernel(theta, theta, is_exact=True)


def _preconditioners(problem: _Problem, errors: Array, ridges: Ridges) -> Preconditioners:
    """Returns those of Θ + ρ and of Θ_rr + ρ_r."""
    if not problem.settings.preconditioned:
        return None, None
    m, c = problem.n_retain, errors.shape[1]
    if problem.holds_kernel:
        return factorised(problem.held, ridges, m, c)
    if problem.form == "stored":
        rank = problem.settings.rank
        factor = products.sketch_of(problem.key, problem.held, rank, errors.dtype)
        columns = problem.held[0].shape[-1]
        sketch = kernels.LowRank.of_sketch(factor, ridges.all, columns=columns)
    else:
        sketch = problem.low_rank(ridges.all)
    mask = jnp.repeat(jnp.arange(len(errors)) < m, c).astype(errors.dtype)
    shift = sketch.shift * ridges.retain / ridges.all
    return sketch, sketch.restricted_to(mask, shift=shift)


def _softmax_shift(
    problem: _Problem,
    outputs: Array,
    targets: Array,
    displacement: Params,
    known: Array | None,
) -> Shift:
    """The problem on the retain set starts at the solution on all, so that its way is the shift."""
    settings, n, m = problem.settings, len(outputs), problem.n_retain
    space, start = problem.space, displacement
    if problem.holds_kernel:
        pushed = problem.network.push(displacement)
        square = kernels.tree_norm(displacement) ** 2
        space = products.of_kernel(problem.held, pushed, square)
        start = Dual(jnp.zeros_like(pushed), jnp.ones_like(square), pushed, square)
        if known is not None:  # as coefficients, where the gradient vanishes up to rounding
            start = space.pull(known)
    sketch = problem.sketch(settings.weight_decay, outputs.dtype)
    solve = partial(newton_cg, space, targets=targets, settings=settings, sketch=sketch)
    on_all = solve(outputs, start, weights=jnp.full((n, 1), 1 / n))
    kept = jnp.where(jnp.arange(n)[:, None] < m, 1 / m, 0.0)
    on_retain = solve(on_all.outputs, on_all.displacement, weights=kept)
    solves = {"all": on_all.info, "retain": on_retain.info}
    step, retrained = on_retain.step, on_retain.displacement
    if problem.holds_kernel:
        step, retrained = (_pull_dual(problem, v, displacement) for v in (step, retrained))
    size = kernels.tree_norm(step)
    error = (on_all.error + on_retain.error) / jnp.where(size > 0, size, 1)
    return Shift(step, retrained, solves, error, _softmax_passes(problem, on_all, on_retain))


def _pull_dual(problem: _Problem, vector: Dual, displacement: Params) -> Params:
    """Returns the weights Jᵀ a + s d."""
    pulled = problem.network.pull(vector.coefficients)
    return optax.tree.add_scale(pulled, vector.share, displacement)


def _softmax_passes(problem: _Problem, *solves: Optimum) -> Array:
    """Returns the gradients per example: both first gradients, and each solve's products."""
    dtype = solves[0].error.dtype
    if problem.holds_kernel:
        return jnp.asarray(JVP + 2 * VJP, dtype)  # d pushed, and what was found pulled
    if not problem.by_passes and problem.space.is_exact:
        return jnp.asarray(0.0, dtype)
    pairs = sum(s.info.steps if problem.by_passes else s.newton for s in solves)
    return jnp.asarray(2 * VJP + (JVP + VJP) * pairs, dtype)
