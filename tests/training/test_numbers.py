"""Numbers of objectives, apart from the form that is compiled."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import softmax_regression as sr

from unlearnkit.training import CrossEntropy, Recipe, descend, unit
from unlearnkit.training.numbers import join_numbers, split_numbers
from unlearnkit.unlearning.l1_sparse import _Sparse
from unlearnkit.unlearning.neg_grad_plus import _Difference
from unlearnkit.unlearning.salun import _Masked
from unlearnkit.unlearning.scrub import _Distillation

RECIPE = Recipe(epochs=2, batch_size=7, learning_rate=0.1)
OTHER = dataclasses.replace(RECIPE, learning_rate=0.3, momentum=0.5, schedule="cosine")
SMOOTH = dataclasses.replace(RECIPE, label_smoothing=0.1)


def form(objective):
    return split_numbers(objective)[0]


OBJECTIVES = {
    "cross_entropy": CrossEntropy(sr.MODEL, RECIPE),
    "ascent": CrossEntropy(sr.MODEL, RECIPE, -1.0),
    "difference": _Difference(sr.MODEL, RECIPE, 0.9, 0.1, 5),
    "one_sided": _Difference(sr.MODEL, RECIPE, 1.0, 0.0, 5),
    "distillation": _Distillation(sr.MODEL, RECIPE, 0.9, 0.1, 4.0),
    "sparse": _Sparse(CrossEntropy(sr.MODEL, RECIPE)),
    "masked": _Masked(CrossEntropy(sr.MODEL, RECIPE)),
}
COUNTS = {"difference": 2, "one_sided": 1, "distillation": 3}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_numbers_taken_out_and_put_back_are_the_objective(name):
    objective = OBJECTIVES[name]
    apart, numbers = split_numbers(objective)
    assert len(numbers) == COUNTS.get(name, 0)
    joined = join_numbers(apart, numbers)
    assert type(joined) is type(objective)
    assert split_numbers(joined) == (apart, numbers)
    for field in dataclasses.fields(objective):
        if field.name in objective.NUMBERS:
            assert getattr(joined, field.name) == getattr(objective, field.name)
    hash(apart)


def test_objectives_that_differ_in_a_number_share_a_form():
    one, two = (_Distillation(sr.MODEL, RECIPE, *weights) for weights in ((1, 2, 3), (4, 5, 6)))
    assert form(one) == form(two)
    assert split_numbers(one)[1] == [1, 2, 3]
    assert split_numbers(two)[1] == [4, 5, 6]
    assert form(CrossEntropy(sr.MODEL, RECIPE)) == form(CrossEntropy(sr.MODEL, OTHER))
    nested = [_Sparse(CrossEntropy(sr.MODEL, recipe)) for recipe in (RECIPE, OTHER)]
    assert form(nested[0]) == form(nested[1])


def test_objectives_that_differ_in_a_term_do_not():
    pairs = [
        (_Difference(sr.MODEL, RECIPE, 0.9, 0.1, 5), _Difference(sr.MODEL, RECIPE, 1.0, 0.0, 5)),
        (_Difference(sr.MODEL, RECIPE, 0.9, 0.1, 5), _Difference(sr.MODEL, RECIPE, 0.9, 0.1, 6)),
        (CrossEntropy(sr.MODEL, RECIPE), CrossEntropy(sr.MODEL, SMOOTH)),
        (CrossEntropy(sr.MODEL, RECIPE), CrossEntropy(sr.MODEL, RECIPE, -1.0)),
        (_Sparse(CrossEntropy(sr.MODEL, RECIPE)), _Sparse(CrossEntropy(sr.MODEL, SMOOTH))),
        (_Sparse(CrossEntropy(sr.MODEL, RECIPE)), _Masked(CrossEntropy(sr.MODEL, RECIPE))),
    ]
    for one, two in pairs:
        assert form(one) != form(two)


@dataclasses.dataclass(frozen=True)
class Inner:
    NUMBERS: ClassVar[tuple[str, ...]] = ("strength",)

    strength: Any


@dataclasses.dataclass(frozen=True)
class Outer:
    NUMBERS: ClassVar[tuple[str, ...]] = ("first", "last")

    first: Any
    inner: Inner
    last: Any


def test_numbers_of_nested_objectives_come_in_the_order_of_their_fields():
    apart, numbers = split_numbers(Outer(1.5, Inner(2.5), 3.5))
    assert numbers == [1.5, 2.5, 3.5]
    assert join_numbers(apart, [7.0, 8.0, 9.0]) == Outer(7.0, Inner(8.0), 9.0)
    apart, numbers = split_numbers(Outer(0.0, Inner(2.5), 0.0))
    assert numbers == [2.5]
    assert join_numbers(apart, [8.0]) == Outer(0.0, Inner(8.0), 0.0)


@dataclasses.dataclass(frozen=True)
class Own:
    """A user's objective, which says nothing of numbers."""

    weight: float
    offset: float = 0.0
    recipe: Recipe = RECIPE

    def __call__(self, params, state, batch, key, context=None):
        assert isinstance(self.weight, float)  # not traced
        assert self.recipe.learning_rate in (0.1, 0.3)
        loss = self.weight * sum(jnp.sum(w**2) for w in jax.tree.leaves(params)) + self.offset
        return loss, (state, {"loss": loss, "accuracy": loss})


def test_an_objective_that_names_no_numbers_keeps_them():
    objective = Own(0.25)
    apart, numbers = split_numbers(objective)
    assert apart is objective
    assert numbers == []
    assert join_numbers(apart, []) is objective
    assert split_numbers(_Masked(objective))[0] == _Masked(objective)


def test_an_objective_of_one_s_own_descends_by_its_numbers():
    recipe = dataclasses.replace(RECIPE, epochs=1, momentum=0.0)
    start, key = sr.weights(), jax.random.key(0)
    for weight in (0.25, 0.5):
        ended = descend(key, Own(weight), recipe, sr.TASK.retain, start).variables
        factor = (1 - 2 * 0.1 * weight) ** 3
        jax.tree.map(
            lambda a, b, f=factor: np.testing.assert_allclose(a, f * b, rtol=1e-5), ended, start
        )


def test_numbers_of_an_objective_compile_nothing():
    ends, key = [], jax.random.key(0)
    for weights in ((0.9, 0.1), (0.5, 0.5), (0.2, 0.9)):
        objective = _Difference(sr.MODEL, RECIPE, *weights, 5)
        trained = descend(key, objective, RECIPE, sr.TASK.retain, sr.weights())
        ends.append(np.asarray(jax.tree.leaves(trained.variables)[0]).tobytes())
        if len(ends) == 1:
            before = unit._unit._cache_size()
    assert unit._unit._cache_size() == before
    assert len(set(ends)) == 3
