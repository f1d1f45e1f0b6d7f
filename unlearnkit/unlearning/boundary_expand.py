"""Training the forget set into an extra class that is then removed (Boundary Expand)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from unlearnkit.base import (
    Model,
    OnEpoch,
    OnSnapshot,
    Params,
    Path,
    State,
    Task,
    Unlearned,
    Variables,
)
from unlearnkit.trials import UnlearnerTrial
from unlearnkit.unlearning._passes import descend_on_forget, gradients_on_forget
from unlearnkit.unlearning._sgd import SgdSettings, snapshots_of
from unlearnkit.validation import check_task, check_variables


@dataclasses.dataclass(frozen=True)
class BoundaryExpand(SgdSettings):
    """Teaches the forget set to a shadow class of its own, and drops that class.

    min over (w, u, b) of the mean over forget of CE([f_w(x), u·φ_w(x) + b], c),   c = n_classes

    with φ the input of the last layer, and no b where that has no bias; the result is w alone.
    BatchNorm in training mode (batches under 8: evaluation mode).

    Attributes:
      epochs: passes over the forget set; each uses every example, see `SgdSettings` for the rest.

    Example:
      unlearn = unlearning.BoundaryExpand(epochs=5, learning_rate=1e-3)
      forgotten, info = unlearn(key, model, variables, task)

    Cost: `epochs * forget` example-gradients.

    Source: Chen et al. 2023; defaults of Di et al. 2024, Table 5 (learning rate 1e-5, 10 epochs)
    and §6.1 (momentum 0.9, weight decay 5e-4), at which the network barely moves. u and b are drawn
    as the model draws a logit of its last layer. Some public code keeps the shadow class, so that a
    forgotten example is "predicted" as none. Di et al. 2024, A.2.3 has the descriptions of Boundary
    Shrink and Boundary Expand exchanged.
    """

    learning_rate: float = 1e-5

    on_forget: ClassVar[bool] = True

    trial: ClassVar[UnlearnerTrial] = UnlearnerTrial(
        small={"batch_size": 16, "learning_rate": 1e-3},
        effective={"epochs": 5, "batch_size": 10, "learning_rate": 0.02},
    )

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
        """Returns the network after teaching the shadow class, without it.

        Raises:
          ValueError: a task or variables that do not fit the model, a last layer that is no linear
            layer, or a batch larger than the forget set.
          DivergedError: the loss is no longer finite.
        """
        check_task(task, model)
        check_variables(variables, model)
        fitted = self.fitted(variables, task.forget)
        last = linear_output(model, variables)
        init_key, run_key = jax.random.split(key)
        shadow = jax.tree.map(lambda w: w[..., :1], _at(jax.jit(model.init)(init_key).params, last))
        expanded = Variables({"network": variables.params, "shadow": shadow}, variables.state)
        as_shadow = task.forget._replace(y=jnp.full_like(task.forget.y, model.n_classes))

        def without_shadow(variables: Variables) -> Variables:
            return variables._replace(params=variables.params["network"])

        unlearned = descend_on_forget(
            run_key,
            expand(model, last),
            expanded,
            as_shadow,
            fitted,
            on_epoch=on_epoch,
            on_snapshot=snapshots_of(without_shadow, on_snapshot),
        )
        return unlearned._replace(variables=without_shadow(unlearned.variables))

    def example_gradients(self, variables: Variables, task: Task) -> float:
        """Returns what a run takes, which follows from sizes alone; see `info.cost`."""
        recipe, _ = self.fitted(variables, task.forget)
        return gradients_on_forget(recipe, task.forget.size)


def linear_output(model: Model, variables: Variables) -> Path:
    """Returns where the last layer's kernel [d, c] and bias [c], if any, stand in the parameters.

    Raises:
      ValueError: the last layer is not linear.
    """
    layer = model.layers[-1] if model.layers else ()
    found: Any = _at(variables.params, layer[0]) if len(layer) == 1 else None
    if isinstance(found, dict) and {"kernel"} <= found.keys() <= {"kernel", "bias"}:
        kernel, *bias = (found[name].shape for name in ("kernel", "bias") if name in found)
        if len(kernel) == 2 and all(shape == kernel[1:] for shape in [(model.n_classes,), *bias]):
            return layer[0]
    shapes = jax.tree.map(jnp.shape, found) if found is not None else layer
    raise ValueError(
        f"Boundary Expand needs a last layer of kernel [d, {model.n_classes}] and, at most, bias "
        f"[{model.n_classes}], got {shapes}; name its parameters so, or choose Boundary Shrink"
    )


def expand(model: Model, last: Path) -> Model:
    """Returns the model with one logit more, of parameters {"network": ..., "shadow": ...}.

    Args:
      model: a network whose last layer is linear.
      last: where that layer's parameters stand.
    """
    return model._replace(
        apply=_Apply(model.apply, last),
        apply_train=_ApplyTrain(model.apply_train, last),
        n_classes=model.n_classes + 1,
    )


@dataclasses.dataclass(frozen=True)
class _Apply:
    apply: Callable[[Variables, Array], Array]
    last: Path

    def __call__(self, variables: Variables, x: Array) -> Float[Array, "n c"]:
        params, axes = _both_heads(variables.params, self.last)
        heads = jax.vmap(lambda p: self.apply(Variables(p, variables.state), x), (axes,))(params)
        return _join(heads)


@dataclasses.dataclass(frozen=True)
class _ApplyTrain:
    apply_train: Callable[[Variables, Array, Key[Array, ""]], tuple[Array, State]]
    last: Path

    def __call__(
        self, variables: Variables, x: Array, key: Key[Array, ""]
    ) -> tuple[Float[Array, "n c"], State]:
        params, axes = _both_heads(variables.params, self.last)
        heads, state = jax.vmap(
            lambda p: self.apply_train(Variables(p, variables.state), x, key),
            in_axes=(axes,),
            out_axes=(0, None),
        )(params)
        return _join(heads), state


def _both_heads(params: Params, last: Path) -> tuple[Params, Params]:
    """Returns the network with two last layers stacked, and the axes that vmap maps over.

    Only the last layer is batched: what comes before it is computed once. The second one is the
    shadow logit in every column, as its shape must be that of the first.
    """
    network, shadow = params["network"], params["shadow"]
    head = _at(network, last)
    stacked = jax.tree.map(lambda w, u: jnp.stack([w, jnp.broadcast_to(u, w.shape)]), head, shadow)
    axes = jax.tree.map(lambda _: None, network)
    return _put(network, last, stacked), _put(axes, last, jax.tree.map(lambda _: 0, head))


def _join(heads: Float[Array, "2 n c"]) -> Float[Array, "n c_plus_1"]:
    return jnp.concatenate([heads[0], heads[1][:, :1]], axis=1)


def _at(tree: Any, path: Path) -> Any:
    for name in path:
        tree = tree[name]
    return tree


def _put(tree: Any, path: Path, value: Any) -> Any:
    if not path:
        return value
    return {**tree, path[0]: _put(tree[path[0]], path[1:], value)}
