"""The scrubbing shift of the linearised network under the L2 loss, by three implementations.

With J the Jacobian over all N examples, Θ = J Jᵀ, r the errors of the linearised network at the
centre c of the decay, and ρ = N λ, ρ_r = N_r λ the ridges that a mean loss with decay λ amounts to:

    w_D  - c = Jᵀ v,     (Θ + ρ) v = r              trained on all
    w_Dr - c = J_rᵀ u,   (Θ_rr + ρ_r) u = r_r       trained on the retain set
    w_Dr - w_D = -Jᵀ a,  a = v - [u; 0],  (Θ + ρ) a = [-(ρ - ρ_r) u; V],  V = r_f - Θ_rfᵀ u

The last line gives the shift without the cancellation of the two before it. Eliminating the retain
set from it is equation (10) of Golatkar et al. 2020b, corrected, with a ridge of its own for each
of the two runs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from unlearnkit import kernels
from unlearnkit.base import Dataset, Model, Params, SolveInfo, Variables
from unlearnkit.kernels import Precision
from unlearnkit.training import predict
from unlearnkit.unlearning._one_shot import at_state
from unlearnkit.unlearning.ntk_scrub.softmax import newton_cg
from unlearnkit.validation import check_above, check_at_least, check_choice, check_known

LossName = Literal["l2", "softmax"]
ImplementationName = Literal["matrix_free", "dense", "blocks"]


@dataclasses.dataclass(frozen=True)
class NtkSettings:
    """How the linearised problem is solved.

    Attributes:
      loss: `softmax` cross-entropy, the convex problem solved by Newton-CG; or `l2`,
        1/2 ‖f - onehot‖², which has a closed form.
      implementation: of the closed form. `matrix_free`: two preconditioned solves by products with
        Θ; `dense`: two dense ridge solves; `blocks`: the P, M and V of equation (10). The last two
        hold J [n c, p] and Θ [n c, n c]. The softmax problem is always solved matrix-free.
      weight_decay: λ of the fine-tuning's (λ/2)‖w - c‖².
      tol: relative residual of each solve.
      max_steps: the most steps of a solve by conjugate gradients.
      newton_steps: the most Newton steps (softmax).
      rank: of the preconditioner `sketched_ntk`, which holds n c rank numbers; 0 for none (l2).
      chunk: examples at a time in products; memory does not grow with the data.
      jacobian_chunk: examples at a time whose Jacobians are held, c p numbers each.
      precision: of the products with the Jacobian; below `highest` an accelerator is faster, and
        the residual that can be reached grows.
    """

    loss: LossName = "softmax"
    implementation: ImplementationName = "matrix_free"
    weight_decay: float = 0.1
    tol: float = 1e-4
    max_steps: int = 1000
    newton_steps: int = 30
    rank: int = 2048
    chunk: int = 100
    jacobian_chunk: int = 8
    precision: Precision = "highest"

    def __post_init__(self) -> None:
        check_known("loss", self.loss, get_args(LossName))
        check_known("implementation", self.implementation, get_args(ImplementationName))
        check_choice("precision", self.precision, Precision)
        if self.loss == "softmax" and self.implementation != "matrix_free":
            raise ValueError(
                f"implementation={self.implementation!r} is a closed form of the L2 loss; "
                "choose loss='l2' or implementation='matrix_free'"
            )
        check_at_least(self, 0, "weight_decay")
        if self.weight_decay == 0 and self._needs_decay:
            raise ValueError(
                "weight_decay must be > 0 for the preconditioner and for loss='softmax', got 0; "
                "set rank=0, or a small decay"
            )
        check_above(self, 0, "tol")
        check_at_least(self, 0, "rank")
        check_at_least(self, 1, "max_steps", "newton_steps", "chunk", "jacobian_chunk")

    @property
    def preconditioned(self) -> bool:
        """Whether the Jacobians are sketched."""
        return self.loss == "l2" and self.implementation == "matrix_free" and self.rank > 0

    @property
    def _needs_decay(self) -> bool:
        return self.loss == "softmax" or self.preconditioned

    def settings(self) -> NtkSettings:
        """Returns these settings alone, so that what builds on them shares their compilation."""
        names = (field.name for field in dataclasses.fields(NtkSettings))
        return NtkSettings(**{name: getattr(self, name) for name in names})


class Shift(NamedTuple):
    """What scrubbing the linearised network gives.

    Attributes:
      step: w_Dr - w_D.
      retrained: w_Dr - c, seen from the centre of the decay.
      solves: `all` and `retain`.
    """

    step: Params
    retrained: Params
    solves: dict[str, SolveInfo]


class _Network(NamedTuple):
    """The network around `params`, in products."""

    apply: Callable[[Params, Array], Array]
    params: Params
    x: Array
    chunk: int
    precision: Precision

    def push(self, vector: Params) -> Float[Array, "n c"]:
        return kernels.jacobian_vp(
            self.apply, self.params, self.x, vector, chunk=self.chunk, precision=self.precision
        )

    def pull(self, cotangent: Float[Array, "n c"]) -> Params:
        return kernels.jacobian_transpose_vp(
            self.apply, self.params, self.x, cotangent, chunk=self.chunk, precision=self.precision
        )


class _Duals(NamedTuple):
    """u, zero on the forget set, and a of the module's docstring, [n, c] both."""

    retrained: Array
    step: Array
    solves: dict[str, SolveInfo]


class _Ridges(NamedTuple):
    """ρ and ρ_r."""

    all: Any
    retain: Any


@partial(jax.jit, static_argnames=("model", "settings", "n_retain"))
def ntk_shift(
    key: Key[Array, ""],
    model: Model,
    settings: NtkSettings,
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
      point: where the network is linearised, evaluation mode.
      centre: c; None takes the c at which `point` is a minimum of the training loss.
      train: the retain set, then the forget set.
      n_retain: N_r.
    """
    apply = at_state(model, point.state)
    network = _Network(apply, point.params, train.x, settings.chunk, settings.precision)
    outputs = predict(model, point, train.x, chunk=settings.chunk)
    targets = jax.nn.one_hot(train.y, outputs.shape[1], dtype=outputs.dtype)
    with jax.default_matmul_precision("highest"):
        guess = jax.nn.softmax(outputs) if settings.loss == "softmax" else outputs
        displacement = _displacement(network, targets - guess, settings.weight_decay, centre)
        if settings.loss == "softmax":
            return _softmax_shift(network, settings, outputs, targets, displacement, n_retain)
        errors = targets - outputs + network.push(displacement)
        ridges = _Ridges(settings.weight_decay * len(errors), settings.weight_decay * n_retain)
        solve = _IMPLEMENTATIONS[settings.implementation]
        duals = solve(key, network, settings, errors, ridges, n_retain)
        step = jax.tree.map(jnp.negative, network.pull(duals.step))
        return Shift(step, network.pull(duals.retrained), duals.solves)


def trapezium_scale(shift: Params, error: Params) -> Float[Array, ""]:
    """Returns by how much the shift is lengthened where training left the linearised network.

    s = 1 + 2 |cos(δ, e)| ‖e‖ / ‖δ‖,   e = w - w_Dr

    the ratio of the parallel sides of an isosceles trapezium with δ and legs e.

    Args:
      shift: δ.
      error: e, from the predicted retrained weights to the trained ones.

    Source: Golatkar et al. 2020b, §4 (the supplementary's trick), in the form of its public code:
    its two cases, ‖δ‖ + 2 sin(arccos c - π/2)‖e‖ for c < 0 and ‖δ‖ + 2 c ‖e‖ else, are this one.
    """
    ratio = 2 * jnp.abs(kernels.rayleigh_quotient(shift, error))
    return 1 + jnp.where(kernels.tree_norm(shift) == 0, 0, ratio)


def _displacement(
    network: _Network, residual: Array, weight_decay: float, centre: Params | None
) -> Params:
    """Returns params - c; at a minimum, λ (params - c) is minus the gradient of the mean loss."""
    if centre is not None:
        return jax.tree.map(jnp.subtract, network.params, centre)
    return network.pull(residual / (len(residual) * weight_decay))


def _matrix_free(
    key: Any, network: _Network, settings: NtkSettings, errors: Array, ridges: _Ridges, m: int
) -> _Duals:
    apply, params, x, chunk, precision = network
    theta = kernels.ntk_operator(apply, params, x, damping=0.0, chunk=chunk, precision=precision)
    kept = jnp.arange(len(errors))[:, None] < m
    for_all, for_retain = _preconditioners(key, network, settings, kept, errors, ridges)
    options: Any = {"tol": settings.tol, "max_steps": settings.max_steps}

    def theta_rr(vector: Array) -> Array:
        return jnp.where(kept, theta(jnp.where(kept, vector, 0)), 0)

    retained = jnp.where(kept, errors, 0)
    u, of_retain = kernels.cg(
        theta_rr, retained, damping=ridges.retain, preconditioner=for_retain, **options
    )
    rest = jnp.where(kept, (ridges.retain - ridges.all) * u, errors - theta(u))
    a, of_all = kernels.cg(theta, rest, damping=ridges.all, preconditioner=for_all, **options)
    return _Duals(u, a, {"all": of_all, "retain": of_retain})


def _preconditioners(
    key: Any,
    network: _Network,
    settings: NtkSettings,
    kept: Array,
    errors: Array,
    ridges: _Ridges,
) -> tuple[Any, Any]:
    """Returns those of Θ + ρ and of Θ_rr + ρ_r, from one sketch of all Jacobians."""
    if not settings.preconditioned:
        return None, None
    apply, params, x, *_ = network
    sketch = kernels.sketched_ntk(
        key,
        apply,
        params,
        x,
        damping=ridges.all,
        rank=settings.rank,
        chunk=settings.jacobian_chunk,
    )
    mask = jnp.broadcast_to(kept, errors.shape).reshape(-1).astype(errors.dtype)
    shift = sketch.shift * ridges.retain / ridges.all
    return sketch, sketch.restricted_to(mask, shift=shift)


def _dense(
    key: Any, network: _Network, settings: NtkSettings, errors: Array, ridges: _Ridges, m: int
) -> _Duals:
    theta, flat = _dense_kernel(network, settings), errors.reshape(-1)
    cut = m * errors.shape[1]
    u, of_retain = _solve_dense(theta[:cut, :cut], flat[:cut], ridges.retain, settings.tol)
    v, of_all = _solve_dense(theta, flat, ridges.all, settings.tol)
    u = jnp.zeros_like(flat).at[:cut].set(u)
    solves = {"all": of_all, "retain": of_retain}
    return _Duals(u.reshape(errors.shape), (v - u).reshape(errors.shape), solves)


def _blocks(
    key: Any, network: _Network, settings: NtkSettings, errors: Array, ridges: _Ridges, m: int
) -> _Duals:
    theta, flat = _dense_kernel(network, settings), errors.reshape(-1)
    cut = m * errors.shape[1]
    theta_rr, theta_rf, theta_ff = theta[:cut, :cut], theta[:cut, cut:], theta[cut:, cut:]
    r_r, r_f = flat[:cut], flat[cut:]
    u, of_retain = _solve_dense(theta_rr, r_r, ridges.retain, settings.tol)
    v = r_f - theta_rf.T @ u
    carried = (ridges.retain - ridges.all) * u
    inverse = partial(
        jax.scipy.linalg.solve, theta_rr + ridges.all * jnp.eye(cut), assume_a="pos"
    )  # fmt: skip
    schur = theta_ff - theta_rf.T @ inverse(theta_rf)
    a_f, _ = _solve_dense(schur, v - theta_rf.T @ inverse(carried), ridges.all, settings.tol)
    # -Jᵀ a = -P J_fᵀ M V, and what the second ridge carries over.
    a = jnp.concatenate([inverse(carried - theta_rf @ a_f), a_f])
    of_all = _measure(theta, a, jnp.concatenate([carried, v]), ridges.all, settings.tol)
    u = jnp.zeros_like(flat).at[:cut].set(u)
    solves = {"all": of_all, "retain": of_retain}
    return _Duals(u.reshape(errors.shape), a.reshape(errors.shape), solves)


_IMPLEMENTATIONS: dict[str, Callable[..., _Duals]] = {
    "matrix_free": _matrix_free,
    "dense": _dense,
    "blocks": _blocks,
}


def _dense_kernel(network: _Network, settings: NtkSettings) -> Float[Array, "nc nc"]:
    apply, params, x, *_ = network
    leaves = jax.tree.leaves(kernels.jacobian(apply, params, x, chunk=settings.jacobian_chunk))
    n, c = leaves[0].shape[:2]
    rows = jnp.concatenate([leaf.reshape(n * c, -1) for leaf in leaves], axis=1)
    return rows @ rows.T


def _solve_dense(matrix: Array, b: Array, ridge: Any, tol: float) -> tuple[Array, SolveInfo]:
    shifted = matrix + ridge * jnp.eye(len(b), dtype=b.dtype)
    x = jax.scipy.linalg.solve(shifted, b, assume_a="pos")
    return x, _measure(matrix, x, b, ridge, tol)


def _measure(matrix: Array, x: Array, b: Array, ridge: Any, tol: float) -> SolveInfo:
    size = kernels.tree_norm(b)
    left = kernels.tree_norm(b - matrix @ x - ridge * x)
    residual = left / jnp.where(size > 0, size, 1)
    nothing = jnp.asarray(jnp.nan, b.dtype)
    return SolveInfo(residual, jnp.asarray(1), residual <= tol, nothing)


def _softmax_shift(
    network: _Network,
    settings: NtkSettings,
    outputs: Array,
    targets: Array,
    displacement: Params,
    m: int,
) -> Shift:
    """The problem on the retain set starts at the solution on all, so that its way is the shift."""
    n = len(outputs)
    solve = partial(newton_cg, network.push, network.pull, targets=targets, settings=settings)
    on_all = solve(outputs, displacement, weights=jnp.full((n, 1), 1 / n))
    kept = jnp.where(jnp.arange(n)[:, None] < m, 1 / m, 0.0)
    on_retain = solve(on_all.outputs, on_all.displacement, weights=kept)
    solves = {"all": on_all.info, "retain": on_retain.info}
    return Shift(on_retain.step, on_retain.displacement, solves)
