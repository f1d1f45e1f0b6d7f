"""Finds the arguments that switch a module to training mode, and checks their effect.

A *mode* is the keyword arguments of the training call; the evaluation call gives each of them the
opposite. Which arguments a module takes is read from the signature of its `__call__`; whether they
do what they say is read from its traced training call, without computing anything.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.extend.core as jex

from unlearnkit.base import Variables

Mode: TypeAlias = tuple[tuple[str, bool], ...]
"""Names and values of the training call's arguments."""

USUAL_NAMES: Mode = (
    ("train", True),
    ("training", True),
    ("is_training", True),
    ("deterministic", False),
    ("use_running_average", False),
)
"""The arguments that are recognised, each with its value in training."""


class Traced(NamedTuple):
    """What a traced call does.

    Attributes:
      draws: whether its output depends on the key.
      moves: whether it returns another state than it was given.
    """

    draws: bool
    moves: bool


class Calls(NamedTuple):
    """A module's training and evaluation under one mode, as functions that can be traced.

    Attributes:
      shapes: shapes and dtypes of its variables.
      train: (variables, x [n, ...], key) -> (output, state).
      evaluate: likewise, for a module that may misbehave in evaluation; None where the library
        that it is built with would refuse that.
      drops: whether the module has dropout of a rate above 0.
      normalises: whether the module has batch statistics.
      traced: what the training call does, where it has been traced already.
    """

    shapes: Variables
    train: Callable[..., Any]
    evaluate: Callable[..., Any] | None
    drops: bool
    normalises: bool
    traced: Traced | None = None

    def trace(self, example: jax.ShapeDtypeStruct) -> Traced:
        """Returns what the training call does.

        Args:
          example: the shape and dtype of one.
        """
        return self.traced or trace_call(self.train, self.shapes, example)


def arguments(mode: Mode, *, train: bool) -> dict[str, bool]:
    """Returns the keyword arguments of the training or of the evaluation call."""
    return {name: value if train else not value for name, value in mode}


def choose_mode(
    called: Callable[..., Any],
    given: str | Mapping[str, bool] | None,
    calls: Callable[[Mode], Calls],
    example: jax.ShapeDtypeStruct,
) -> Mode:
    """Returns the mode of a module, after checking that it has an effect.

    Args:
      called: the unbound `__call__` of its class.
      given: the name of the argument, the arguments of the training call, or None to find out.
      calls: the module's calls under a mode.
      example: the shape and dtype of one.

    Raises:
      ValueError: an unknown argument; a module with dropout or batch statistics that are unused in
        training, or used in evaluation too.
    """
    parameters = inspect.signature(called).parameters
    if isinstance(given, Mapping):
        mode = tuple((name, bool(value)) for name, value in given.items())
        _check_taken(parameters, mode)
        calls(mode).trace(example)
        return mode
    mode = tuple(usual for usual in USUAL_NAMES if usual[0] in parameters)
    if given is None:
        _check_taken(parameters, mode)
        if _takes_any(parameters):
            mode += _answered(calls, mode, example)
    elif given not in dict(mode):
        mode = ((given, dict(USUAL_NAMES).get(given, True)), *mode)
        _check_taken(parameters, mode)
    found = calls(mode)
    traced = found.trace(example)
    if given is None:
        _check_complete(calls, mode, traced, _switches(parameters, mode), example)
    _check_alive(found, traced, mode)
    if found.evaluate is not None:
        _check_still(trace_call(found.evaluate, found.shapes, example))
    return mode


def trace_call(
    call: Callable[..., Any], shapes: Variables, example: jax.ShapeDtypeStruct
) -> Traced:
    """Returns what `call` (variables, x, key) -> (output, state) does with two examples.

    Args:
      call: (variables, x, key) -> (output, state).
      shapes: of the variables, as `jax.eval_shape` gives them.
      example: the shape and dtype of one.
    """
    x = jax.ShapeDtypeStruct((2, *example.shape), example.dtype)
    key = jax.eval_shape(lambda: jax.random.key(0))
    traced, shape = jax.make_jaxpr(call, return_shape=True)(shapes, x, key)
    n_params, n_state = len(jax.tree.leaves(shapes.params)), len(jax.tree.leaves(shapes.state))
    roles = ["params"] * n_params + ["state"] * n_state + ["x", "key"]
    depends = _dependencies(traced.jaxpr, [{role} for role in roles])
    n_outputs = len(jax.tree.leaves(shape[0]))
    return Traced(
        any("key" in roles for roles in depends[:n_outputs]),
        any(roles != {"state"} for roles in depends[n_outputs:]),
    )


def _check_taken(parameters: Mapping[str, inspect.Parameter], mode: Mode) -> None:
    """Raises ValueError if the signature does not take the mode, or needs more arguments."""
    unknown = [name for name, _ in mode if name not in parameters]
    if unknown and not _takes_any(parameters):
        known = ", ".join(name for name in list(parameters)[2:]) or "none but its input"
        raise ValueError(
            f"the module's __call__ has no argument {', '.join(unknown)}; "
            f"name one that it has as mode= (its arguments: {known})"
        )
    missing = [
        name
        for name, parameter in list(parameters.items())[2:]
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        and name not in dict(mode)
    ]
    if missing:
        raise ValueError(
            f"the module's __call__ needs {', '.join(missing)}, which nothing here gives; if it "
            f"says whether the module trains, name it as mode={missing[0]!r}, else give it a "
            "default"
        )


def _check_alive(found: Calls, traced: Traced, mode: Mode) -> None:
    """Raises ValueError if dropout never drops, or statistics never change."""
    dead = [
        what
        for what, there, alive in (
            ("dropout", found.drops, traced.draws),
            ("batch statistics", found.normalises, traced.moves),
        )
        if there and not alive
    ]
    if not dead:
        return
    called = ", ".join(f"{name}={value}" for name, value in mode) or "no argument"
    raise ValueError(
        f"the module has {' and '.join(dead)}, but its training call (with {called}) is as in "
        "evaluation: nothing would be dropped or counted. Name the argument that says whether it "
        f"trains as mode='name' (recognised by themselves: {_names(USUAL_NAMES)}), pass that "
        "argument on inside the module, or state the training call yourself, as mode={} for a "
        "module that is to be the same in training"
    )


def _check_still(traced: Traced) -> None:
    if not (traced.draws or traced.moves):
        return
    does = "draws random numbers" if traced.draws else "moves its statistics"
    raise ValueError(
        f"the module {does} in its evaluation call too, which must be a function of weights and "
        "inputs alone; name the argument that says whether it trains as mode='name', or state the "
        "training call's arguments as mode={'name': value}"
    )


def _check_complete(
    calls: Callable[[Mode], Calls],
    mode: Mode,
    traced: Traced,
    switches: Iterable[str],
    example: jax.ShapeDtypeStruct,
) -> None:
    """Raises ValueError if another boolean argument enables more dropout or statistics."""
    for switch in switches:
        for value in (True, False):
            other = _try(calls, (*mode, (switch, value)), example)
            if other is not None and (other.draws > traced.draws or other.moves > traced.moves):
                raise ValueError(
                    f"the module's argument {switch!r} switches dropout or statistics on, but its "
                    f"name is not recognised; give mode={switch!r}, or state the training call's "
                    f"arguments, as mode={{{switch!r}: {value}}}"
                )


def _answered(calls: Callable[[Mode], Calls], mode: Mode, example: jax.ShapeDtypeStruct) -> Mode:
    """Returns the usual names that a module with `**kwargs` takes and that change what it does."""
    answered = []
    for name, value in USUAL_NAMES:
        if name in dict(mode):
            continue
        on, off = (_try(calls, (*mode, (name, v)), example) for v in (value, not value))
        if on is not None and on != off:
            answered.append((name, value))
    return tuple(answered)


def _try(
    calls: Callable[[Mode], Calls], mode: Mode, example: jax.ShapeDtypeStruct
) -> Traced | None:
    """Returns what the training call does under a mode, or None where it cannot be made."""
    try:
        return calls(mode).trace(example)
    except Exception:  # a user's code may raise anything on an argument that is not its own
        return None


def _takes_any(parameters: Mapping[str, inspect.Parameter]) -> bool:
    return any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())


def _switches(parameters: Mapping[str, inspect.Parameter], mode: Mode) -> list[str]:
    """Returns the arguments with a boolean default that are not the mode's."""
    return [
        name
        for name, parameter in parameters.items()
        if isinstance(parameter.default, bool) and name not in dict(mode)
    ]


def _names(mode: Mode) -> str:
    return ", ".join(name for name, _ in mode)


def _dependencies(jaxpr: Any, inputs: Sequence[set[str]]) -> list[set[str]]:
    """Returns for each output of a traced function which kinds of its inputs it depends on.

    A loop or a branch is one step, all of whose outputs depend on all of its inputs.
    """
    known = dict(zip(jaxpr.invars, inputs, strict=True))

    def read(atom: Any) -> set[str]:
        return set() if isinstance(atom, jex.Literal) else known.get(atom, set())

    for equation in jaxpr.eqns:
        given = [read(atom) for atom in equation.invars]
        inner = _inlined(equation)
        if inner is None:
            together = set().union(*given)
            results = [together] * len(equation.outvars)
        else:
            results = _dependencies(inner, given)
        known.update(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _inlined(equation: Any) -> Any | None:
    """Returns the body of an equation that only calls it, as `jit` and `checkpoint` do."""
    if equation.primitive.name in ("scan", "while"):
        return None
    bodies = [
        getattr(value, "jaxpr", value)
        for value in equation.params.values()
        if isinstance(value, jex.Jaxpr | jex.ClosedJaxpr)
    ]
    if len(bodies) != 1:
        return None
    (body,) = bodies
    fits = len(body.invars) == len(equation.invars) and len(body.outvars) == len(equation.outvars)
    return body if fits else None
