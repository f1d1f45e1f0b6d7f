"""Whether a training run can be differentiated: what its steps do that has no useful derivative."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import jax
import jax.extend.core as jex
import jax.numpy as jnp

from unlearnkit.base import Model
from unlearnkit.models.modes import trace_call
from unlearnkit.training.recipe import Recipe

_POOLS = {"reduce_window_max": "max-pool", "reduce_window_min": "min-pool"}
_CHOICES = {
    "argmax": "argmax",
    "argmin": "argmin",
    "sort": "sort",
    "top_k": "top_k",
    "round": "round",
    "sign": "sign",
}
_CALLED_BY_SHAPE = ("scan", "while", "cond")


def check_smooth(model: Model, recipe: Recipe) -> None:
    """Raises ValueError if a run by a recipe has no derivative worth following, naming why.

    Asked of the network in training mode: no max-pool or other choice of the largest entry, whose
    derivative jumps between entries, and no dropout, of which a metagradient sees one draw. Asked
    of the optimiser: its update is differentiable where a gradient is 0, which that of Adam is not.
    ReLUs are let through; GELU makes better metagradients.

    Args:
      model: the network.
      recipe: how it is trained.

    Raises:
      ValueError: see above.

    Source: Engstrom et al. 2025, §3, on training that is smooth in its inputs.
    """
    if recipe.optimizer in ("adam", "adamw"):
        raise ValueError(
            f"optimizer={recipe.optimizer!r} cannot be differentiated through: it divides by the "
            "root of a mean square, whose derivative is infinite where a gradient is 0, as at dark "
            "pixels; use optimizer='sgd'"
        )
    rough = _rough_layers(model, recipe.frozen_state)
    if rough:
        raise ValueError(
            f"the network has {' and '.join(rough)} in training, which cannot be replayed "
            "smoothly: train one with average pools and without dropout, as "
            "models.create('cnn_mnist', pool='average', activation='gelu'), or frozen_state=True "
            "for no dropout"
        )


@lru_cache(maxsize=64)
def _rough_layers(model: Model, frozen: bool) -> tuple[str, ...]:
    """Returns what of a network is not smooth, by name."""
    example = jax.ShapeDtypeStruct(model.input_shape, jnp.dtype(model.input_dtype))
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    x = jax.ShapeDtypeStruct((2, *example.shape), example.dtype)
    found: list[str] = []
    if frozen:
        traced = jax.make_jaxpr(model.apply)(shapes, x)
    else:
        if trace_call(model.apply_train, shapes, example).draws:
            found.append("dropout")
        key = jax.eval_shape(lambda: jax.random.key(0))
        traced = jax.make_jaxpr(model.apply_train)(shapes, x, key)
    n_params = len(jax.tree.leaves(shapes))
    moves = [False] * n_params + [True] + [False] * (len(traced.jaxpr.invars) - n_params - 1)
    for name in _choices(traced.jaxpr, moves)[0]:
        if name not in found:
            found.append(name)
    return tuple(found)


def _choices(program: jex.Jaxpr, inputs: Sequence[bool]) -> tuple[list[str], list[bool]]:
    """Returns what in a program chooses among values that depend on the examples, and which outputs
    so depend.

    Args:
      program: what is walked through.
      inputs: for each of its inputs whether it depends on the examples.
    """
    depends = dict(zip(program.invars, inputs, strict=True))
    stopped = _only_stopped(program)
    found: list[str] = []

    def moves(atom: jex.Var | jex.Literal) -> bool:
        return not isinstance(atom, jex.Literal) and depends.get(atom, False)

    for equation in program.eqns:
        given = [moves(atom) for atom in equation.invars]
        name, results = equation.primitive.name, [any(given)] * len(equation.outvars)
        if any(given) and not stopped.issuperset(equation.outvars):
            if name in _POOLS or name in _CHOICES:
                found.append((_POOLS | _CHOICES)[name])
            elif name in ("reduce_max", "reduce_min") or (name in ("max", "min") and all(given)):
                found.append("max-pool")
        for inner in _bodies(equation):
            fits = len(inner.invars) == len(given) and name not in _CALLED_BY_SHAPE
            names, outputs = _choices(inner, given if fits else [any(given)] * len(inner.invars))
            found += names
            if fits and len(outputs) == len(results):
                results = outputs
        depends.update(zip(equation.outvars, results, strict=True))
    return found, [moves(atom) for atom in program.outvars]


def _only_stopped(program: jex.Jaxpr) -> set[jex.Var]:
    """Returns the values of which no derivative is taken, as the largest logit of a softmax."""
    needed = {atom for atom in program.outvars if not isinstance(atom, jex.Literal)}
    stopped: set[jex.Var] = set()
    for equation in reversed(program.eqns):
        used = not needed.isdisjoint(equation.outvars)
        if used and equation.primitive.name != "stop_gradient":
            needed.update(a for a in equation.invars if not isinstance(a, jex.Literal))
        if not used:
            stopped.update(equation.outvars)
    return stopped


def _bodies(equation: jex.JaxprEqn) -> list[jex.Jaxpr]:
    """Returns the programs that an equation calls."""
    held = [
        part
        for value in equation.params.values()
        for part in (value if isinstance(value, tuple | list) else (value,))
    ]
    bodies = [part.jaxpr if isinstance(part, jex.ClosedJaxpr) else part for part in held]
    return [part for part in bodies if isinstance(part, jex.Jaxpr)]
