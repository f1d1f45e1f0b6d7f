"""NTK scrubbing."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Literal, get_args

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Key

from unlearnkit.base import Cost, Model, OnEpoch, Task, Unlearned, Variables
from unlearnkit.costs import BACKWARD, FORWARD, JVP, VJP, Stopwatch
from unlearnkit.trials import UnlearnerTrial
from unlearnkit.unlearning._one_shot import finish
from unlearnkit.unlearning.fisher_forgetting import add_fisher_noise, check_noise, noise_cost
from unlearnkit.unlearning.ntk_scrub.products import size_of
from unlearnkit.unlearning.ntk_scrub.settings import OF_KERNEL, Form, NtkSettings, Size, choose_form
from unlearnkit.unlearning.ntk_scrub.solves import Shift, ntk_shift, trapezium_scale
from unlearnkit.validation import check_known, check_task, check_variables

PointName = Literal["trained", "pretrained"]


@dataclasses.dataclass(frozen=True)
class NtkScrub(NtkSettings):
    """Moves by the difference that retraining makes in the linearised network, then adds noise.

    h(w) = w + s (w_Dr - w_D),   w_D = argmin_v 1/N Σ_i ℓ(f_lin(v, x_i), y_i) + (λ/2)‖v - c‖²

    with f_lin the network linearised in its weights, evaluation mode, w_Dr the same on the retain
    set alone, and c the weights from which fine-tuning began. Under the L2 loss and with one ridge
    for both runs this is h(w) = w - s P J_fᵀ M V.

    Attributes:
      linearise_at: the `trained` weights, or `pretrained`: c.
      scale: s; a number, 1 being exact where the network is linear; or `trapezium`, see
        `trapezium_scale`, made for SGD that went elsewhere than the linearised network. It needs c,
        and is 3 wherever the linearisation predicts the trained weights exactly.
      noise: α of the Fisher noise at h(w), on the retain set; 0 adds none. The scrubbed weights of
        a forgotten class stay its mean; the public code draws them anew, see `FisherForgetting`.
      loss, form, store, weight_decay, tol, max_steps, newton_steps, rank, chunk, jacobian_chunk,
        precision: see `NtkSettings`. λ and the loss are those of the fine-tuning.

    Example:
      unlearn = unlearning.NtkScrub(weight_decay=0.1, tol=1e-3)
      forgotten, info = unlearn(key, model, variables, task)

    Cost: a backward pass over all examples for each class where the Jacobian or the kernel is held,
    forms `stored` and `dense`; else passes over all examples until its solves have converged.

    Source: Golatkar et al. 2020b, Proposition 2 and equations (10), (11). The printed (10) has two
    signs wrong, as h(w) = w + P J_fᵀ M V with V = (Y_f - f₀) + Θ_rfᵀ Θ_rr⁻¹ (Y_r - f₀): the correct
    ones are h(w) = w - P J_fᵀ M V with V = (Y_f - f₀) - Θ_rfᵀ Θ_rr⁻¹ (Y_r - f₀). Its public code is
    `form="public"` with `scale="trapezium"`: it linearises at the trained weights, takes these for
    the centre of the decay, and the errors of the softmax for those of the L2 loss, which is one
    Newton step with an identity for B; the e of its trapezium is from the true initialisation.
    """

    linearise_at: PointName = "trained"
    scale: float | Literal["trapezium"] = 1.0
    noise: float = 1e-9

    # By passes alone, which are counted one by one; what the other forms find is compared with it.
    trial: ClassVar[UnlearnerTrial] = UnlearnerTrial(
        small={"weight_decay": 0.01, "form": "matrix_free", "rank": 0}, whole_sets=True
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_noise(noise=self.noise)
        check_known("linearise_at", self.linearise_at, get_args(PointName))
        if isinstance(self.scale, str) and self.scale != "trapezium":
            raise ValueError(f"scale must be a number or 'trapezium', got {self.scale!r}")
        if not isinstance(self.scale, str) and not self.scale > 0:
            raise ValueError(f"scale must be > 0, got {self.scale}")

    def __call__(
        self,
        key: Key[Array, ""],
        model: Model,
        variables: Variables,
        task: Task,
        *,
        initial: Variables | None = None,
        on_epoch: OnEpoch | None = None,
    ) -> Unlearned:
        """Returns the scrubbed network.

        `info.solves` holds `all` and `retain`, how the two problems ended; `info.history` the
        `scale` s, the `shift` ‖h(w) - w‖, its `shift_error`, relative and at most, and the form
        that was taken: `form_dense`, `form_stored` … is 1.

        Args:
          key: of the preconditioner's signs and of the noise.
          model: the network.
          variables: the fine-tuned weights w.
          task: the question.
          initial: the weights c from which fine-tuning began and to which its decay pulled. Where
            None, the c at which w is a minimum of the training loss, w + ∇L(w) / λ.
            A `Study` with a start passes it.
          on_epoch: called once.

        Raises:
          ValueError: a task or variables that do not fit the model, no `initial` where
            `linearise_at`, `scale` or a decay of 0 need it, or a `form` that the memory does not
            hold.
          DivergedError: a weight is no longer finite.
        """
        check_task(task, model)
        check_variables(variables, model)
        if initial is not None:
            check_variables(initial, model)
        point = self._point(variables, initial)
        size = size_of(variables.params, task.train.size, model.n_classes)
        form = choose_form(self.settings(), size)
        solve_key, noise_key = jax.random.split(key)
        with Stopwatch() as watch:
            found = ntk_shift(
                solve_key,
                model,
                self.settings(),
                form,
                point,
                None if initial is None else initial.params,
                task.train,
                task.retain.size,
            )
            scale: Any = self.scale
            if initial is not None and self.scale == "trapezium":
                from_centre = optax.tree.sub(variables.params, initial.params)
                error = optax.tree.sub(from_centre, found.retrained)
                scale = trapezium_scale(found.step, error)
            params = jax.tree.map(
                lambda w, d: w + jnp.asarray(scale, w.dtype) * d, variables.params, found.step
            )
            if self.noise > 0:
                scrubbed = Variables(params, variables.state)
                chunk = self.jacobian_chunk
                params = add_fisher_noise(
                    noise_key, model, scrubbed, task.retain.x, alpha=self.noise, chunk=chunk
                )
            jax.block_until_ready(params)
        work = self._cost(model, task, size, form, found, initial)
        length = float(scale) * float(optax.tree.norm(found.step))
        return finish(
            model,
            params,
            variables.state,
            task,
            Cost(work, watch.seconds, watch.compile_seconds),
            solves=found.solves,
            history={
                "scale": float(scale),
                "shift": length,
                "shift_error": float(found.error),
                f"form_{form.name}": 1.0,
            },
            on_epoch=on_epoch,
        )

    def _point(self, variables: Variables, initial: Variables | None) -> Variables:
        """Returns where to linearise, which may need the weights before fine-tuning."""
        if initial is not None:
            return initial if self.linearise_at == "pretrained" else variables
        for needed, what in (
            (self.linearise_at == "pretrained", "linearise_at='pretrained'"),
            (self.scale == "trapezium", "scale='trapezium'"),
            (self.weight_decay == 0, "weight_decay=0"),
        ):
            if needed:
                raise ValueError(
                    f"{what} needs the weights from which fine-tuning began; "
                    "pass them as initial=..."
                )
        return variables

    def _cost(
        self,
        model: Model,
        task: Task,
        size: Size,
        form: Form,
        found: Shift,
        initial: Variables | None,
    ) -> float:
        """Returns the example-gradients; a Jacobian is one backward pass per class."""
        n, centred = task.train.size, initial is not None or form.name == "public"
        passes = FORWARD + (0.0 if centred else VJP) + float(found.passes)
        jacobian = FORWARD + BACKWARD * model.n_classes
        if form.name in OF_KERNEL:
            passes += size.kernel_passes * jacobian
        elif form.name == "stored" or self.preconditioned:
            passes += jacobian
        if self.loss == "l2":
            passes += JVP
        return n * passes + (noise_cost(model, task.retain.size) if self.noise > 0 else 0.0)
