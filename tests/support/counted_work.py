"""Counts the work that is done with a network, where it is done.

The logits pass through a linear identity that tells the host how many rows went by: forward, along
a tangent, or backward. So a method's cost is compared with what it made the network do, whatever
function of the library it called for that, in loops and under `vmap` and `grad` too.
"""

import dataclasses
from collections import Counter

import jax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from unlearnkit.base import Model
from unlearnkit.costs import BACKWARD, FORWARD, TANGENT

PARTS = {"forward": FORWARD, "tangent": TANGENT, "backward": BACKWARD}
"""Of an example-gradient, for each row."""
ALONG = {None: "tangent", "forward": "tangent", "tangent": "tangent", "backward": "backward"}
"""How the derivative of a pass counts."""
ACROSS = {"tangent": "backward", "backward": "tangent"}
"""How its transpose counts."""
_seen: Counter = Counter()
_passing, _entering = Primitive("passing_rows"), Primitive("entering_rows")


def _emit(logits, *, way, rows):
    if way:
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


def _batch_entering(arguments, axes, *, way, rows):
    (x,), (axis,) = arguments, axes
    return _entering.bind(x, way=way, rows=rows * x.shape[axis]), axis


for _primitive in (_passing, _entering):
    _primitive.def_impl(_emit)
    _primitive.def_abstract_eval(lambda array, **_: array)
    mlir.register_lowering(_primitive, mlir.lower_fun(_emit, multiple_results=False))
ad.primitive_jvps[_entering] = lambda x, tangents, **how: (_entering.bind(*x, **how), *tangents)
batching.primitive_batchers[_entering] = _batch_entering
ad.primitive_jvps[_passing] = _jvp
ad.primitive_transposes[_passing] = _transpose
batching.primitive_batchers[_passing] = _batch


@dataclasses.dataclass(frozen=True)
class _Counted:
    model: Model
    at_inputs: bool

    def enter(self, x):
        return _entering.bind(x, way="forward", rows=x.shape[0]) if self.at_inputs else x

    def leave(self, logits):
        return _passing.bind(logits, way=None if self.at_inputs else "forward", rows=len(logits))


class _Apply(_Counted):
    def __call__(self, variables, x):
        return self.leave(self.model.apply(variables, self.enter(x)))


class _ApplyTrain(_Counted):
    def __call__(self, variables, x, key):
        logits, state = self.model.apply_train(variables, self.enter(x), key)
        return self.leave(logits), state


def counting(model: Model, *, at_inputs: bool = False) -> Model:
    """Returns the network with its passes counted.

    Forward passes are counted at the logits, where several networks on the same inputs are seen; or
    `at_inputs`, where passes are seen of which the logits are not used, as those for features.
    """
    return model._replace(apply=_Apply(model, at_inputs), apply_train=_ApplyTrain(model, at_inputs))


def work_of(run) -> float:
    """Returns the example-gradients of what `run()` does with a network of `counting`."""
    _seen.clear()
    jax.block_until_ready(run())
    jax.effects_barrier()
    return sum(PARTS[way] * rows for way, rows in _seen.items())
