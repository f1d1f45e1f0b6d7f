"""Poisons that show the images of other training examples."""

from __future__ import annotations

from collections.abc import Callable

import jax
from jaxtyping import Array, Int

from unlearnkit.base import Cost, Dataset, Normalisation, Poisoned
from unlearnkit.costs import FORWARD, Stopwatch
from unlearnkit.poisoning.bounds import Bounds
from unlearnkit.poisoning.placing import Placement, PoisonInfo, place


def show_others(
    choose: Callable[[], tuple[Int[Array, " m"], Int[Array, " m"]]],
    clean: Dataset,
    normalisation: Normalisation,
    bounds: Bounds,
    placement: Placement,
) -> Poisoned:
    """Returns the training set with poisons that keep their labels and show other images.

    Args:
      choose: returns the row that each poison stands for, ascending, and the row that it shows;
        by one look at the training set.
      clean: the training set.
      normalisation: of its images.
      bounds: within which the poisons lie.
      placement: how they enter.
    """
    with Stopwatch() as watch:
        base, shown = choose()
        region = bounds.region(clean.x[base], normalisation)
        x = region.project(clean.x[shown])
        dataset, is_poison = place(clean, x, clean.y[base], base, placement)
        jax.block_until_ready(dataset.x)
    cost = Cost(clean.size * FORWARD, watch.seconds, watch.compile_seconds)
    info = PoisonInfo(base, bounds, {}, cost, extras={"shown": shown})
    return Poisoned(dataset, is_poison, info)
