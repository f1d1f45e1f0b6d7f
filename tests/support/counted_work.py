"""Counts the work that is done with a network, where it is done.

The logits pass through a linear identity that tells the host how many rows went by: forward, along
a tangent, or backward. So a method's cost is compared with what it made the network do, whatever
function of the library it called for that, in loops and under `vmap` and `grad` too.
"""

import dataclasses
from collections import Counter

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from unlearnkit.base import Model
from unlearnkit.costs import BACKWARD, FORWARD, TANGENT

PARTS = {"forward": FORWARD, "tangent": TANGENT, "backward": BACKWARD}
"""Of an example-gradient, for each row."""
ALONG = {"forward": "tangent", "tangent": "tangent", "backward": "backward"}
"""How the derivative of a pass counts."""
ACROSS = {"tangent": "backward", "backward": "tangent"}
"""How its transpose counts."""
_seen: Counter = Counter()
_passing = Primitive("passing_rows")


def _emit(logits, *, way, rows):
    jax.debug.callback(lambda: _seen.update({way: rows}))
    return logits


def _jvp(primals, tangents, *, way, rows):
    (logits,), (tangent,) = primals, tangents
    passed = _passing.bind(logits, way=way, rows=rows)
    if type(tangent) is ad.Zero:
        return passed, tangent
    return passed, _passing.bind(tangent, way=ALONG[way], rows=rows)


def _transpose(cotangent, _, *, way, rows):
    if type(cotangent) is ad.Zero:
        return (cotangent,)
    return (_passing.bind(cotangent, way=ACROSS[way], rows=rows),)


def _batch(arguments, axes, *, way, rows):
    (logits,), (axis,) = arguments, axes
    return _passing.bind(logits, way=way, rows=rows * logits.shape[axis]), axis


_passing.def_impl(_emit)
_passing.def_abstract_eval(lambda logits, **_: logits)
mlir.register_lowering(_passing, mlir.lower_fun(_emit, multiple_results=False))
ad.primitive_jvps[_passing] = _jvp
ad.primitive_transposes[_passing] = _transpose
batching.primitive_batchers[_passing] = _batch


def _mark(logits):
    return _passing.bind(jnp.asarray(logits), way="forward", rows=logits.shape[0])


@dataclasses.dataclass(frozen=True)
class _Apply:
    model: Model

    def __call__(self, variables, x):
        return _mark(self.model.apply(variables, x))


@dataclasses.dataclass(frozen=True)
class _ApplyTrain:
    model: Model

    def __call__(self, variables, x, key):
        logits, state = self.model.apply_train(variables, x, key)
        return _mark(logits), state


def counting(model: Model) -> Model:
    """Returns the network with its passes counted."""
    return model._replace(apply=_Apply(model), apply_train=_ApplyTrain(model))


def work_of(run) -> float:
    """Returns the example-gradients of what `run()` does with a network of `counting`."""
    _seen.clear()
    jax.block_until_ready(run())
    jax.effects_barrier()
    return sum(PARTS[way] * rows for way, rows in _seen.items())
