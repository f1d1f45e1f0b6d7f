"""Surrogate networks of several ages, which go on training on the poisons as these are made."""

from __future__ import annotations

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Key

from unlearnkit.base import Dataset, Model, Variables
from unlearnkit.costs import available_bytes
from unlearnkit.host.order import several_epochs
from unlearnkit.host.random import AnyKey, host_key
from unlearnkit.host.reserve import reserve
from unlearnkit.training import DivergedError, Recipe, rate_table, take_steps
from unlearnkit.training.recipe import split_recipe
from unlearnkit.training.step import CrossEntropy, TrainState, start_state

_COPIES = 4
"""Of the weights of a surrogate: they, their momentum, their gradient, and the target's."""


def check_room(count: int, variables: Variables) -> None:
    """Raises ValueError if there is no memory for so many surrogates.

    Args:
      count: how many.
      variables: the weights of one.

    Raises:
      ValueError: they do not fit.
    """
    there = available_bytes()
    needed = _COPIES * count * sum(leaf.nbytes for leaf in jax.tree.leaves(variables))
    if there is not None and needed > there:
        raise ValueError(
            f"ensemble={count} needs about {needed / 1e9:.1f} GB ({_COPIES} times the weights of "
            f"each surrogate), and {there / 1e9:.1f} GB are free; take fewer"
        )


class _Member(NamedTuple):
    """A surrogate: its training, how many epochs it had, and how often it began anew."""

    state: TrainState
    age: int
    generation: int


class Surrogates:
    """Networks from fresh initialisations that are E/k, 2E/k, ..., (k-1)E/k epochs old.

    E are the epochs of the recipe, and the k-th is another network, which is trained already. After
    E epochs one begins anew.
    """

    def __init__(
        self, key: Key[Array, ""], model: Model, recipe: Recipe, ensemble: int, clean: Dataset
    ) -> None:
        """Trains them on clean examples.

        Args:
          key: of initialisations and trainings.
          model: the network.
          recipe: how they are trained.
          ensemble: k.
          clean: what they are trained on at first.

        Raises:
          DivergedError: a loss is not finite.
        """
        self._key, self._model, self._recipe = host_key(key), model, recipe
        self.example_gradients = 0.0
        ages = [max(1, recipe.epochs * place // ensemble) for place in range(1, ensemble)]
        self._members = [
            self._train(place, self._begin(place, 0), clean, age) for place, age in enumerate(ages)
        ]

    @property
    def variables(self) -> list[Variables]:
        """The weights of each."""
        return [member.state.variables for member in self._members]

    def go_on(self, dataset: Dataset) -> None:
        """Trains each for an epoch more; earlier weights are gone.

        Args:
          dataset: with the poisons as they are now.

        Raises:
          DivergedError: a loss is not finite.
        """
        for place, member in enumerate(self._members):
            if member.age >= self._recipe.epochs:
                member = self._begin(place, member.generation + 1)
            self._members[place] = self._train(place, member, dataset, 1)

    def _keys(self, place: int, generation: int) -> tuple[AnyKey, AnyKey, AnyKey]:
        init_key, order_key, step_key = self._key.fold_in(place).fold_in(generation).split(3)
        return init_key, order_key, step_key

    def _begin(self, place: int, generation: int) -> _Member:
        init_key, _, _ = self._keys(place, generation)
        variables = jax.jit(self._model.init)(init_key.typed())
        return _Member(start_state(variables, recipe=split_recipe(self._recipe)[0]), 0, generation)

    def _train(self, place: int, member: _Member, dataset: Dataset, epochs: int) -> _Member:
        recipe = self._recipe
        _, order_key, step_key = self._keys(place, member.generation)
        steps = recipe.steps_per_epoch(dataset.size)
        now = range(member.age, member.age + epochs)
        rates = rate_table(recipe, steps, recipe.epochs * steps)
        state, metrics = take_steps(
            member.state,
            reserve(dataset),
            several_epochs(order_key, now, dataset.size, recipe.batch_size),
            rates[now.start * steps : now.stop * steps],
            step_key.typed(),
            objective=CrossEntropy(self._model, recipe),
            recipe=recipe,
        )
        if not np.all(np.isfinite(metrics["loss"])):
            raise DivergedError(
                f"surrogate {place + 2} diverged; lower the learning rate of the attack's recipe"
            )
        self.example_gradients += float(epochs * dataset.size)
        return member._replace(state=state, age=now.stop)
