"""The total gradient attack with several keys at once: other networks, other poisons."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from unlearnkit.base import Model, Poisoned, Task, Variables
from unlearnkit.costs import Stopwatch
from unlearnkit.poisoning.total_gradient.attack import TotalGradientAttack, refuse_divergence
from unlearnkit.poisoning.total_gradient.game import Game, GameData, play_epoch
from unlearnkit.validation import check_continuous, check_task, check_variables


def attack_in_lanes(
    attack: TotalGradientAttack,
    keys: Key[Array, " lanes"],
    model: Model,
    variables: Variables,
    task: Task,
) -> list[Poisoned]:
    """Returns `attack(keys[i], model, variables[i], task)` of every lane, up to rounding.

    Generators are pretrained one after another, and then all games are played in one batched
    program, which accelerators run faster than one game after another. The wall time of each is the
    whole run's, divided by the number of lanes.

    Args:
      attack: the game.
      keys: [lanes] typed keys.
      model: the network.
      variables: trained weights, each array with a leading axis of lanes.
      task: the question, the same for all lanes.

    Raises:
      ValueError: no keys, not as many networks as keys, or what the attack refuses.
      DivergedError: a loss of a lane is no longer finite.
    """
    check_task(task, model)
    check_continuous(task.retain, method="TotalGradientAttack")
    lanes = keys.shape[0]
    found = {leaf.shape[0] for leaf in jax.tree.leaves(variables) if leaf.ndim > 0}
    if lanes == 0 or found != {lanes}:
        raise ValueError(
            f"variables must have a leading axis of as many lanes as keys ({lanes}, at least 1), "
            f"got {sorted(found)}; stack the networks, as fit_many does"
        )
    networks = [jax.tree.map(lambda leaf, i=i: leaf[i], variables) for i in range(lanes)]
    check_variables(networks[0], model)
    clean = task.train
    histories: list[dict[str, list[float]]] = [{} for _ in range(lanes)]
    with Stopwatch() as watch:
        starts = [
            attack.begin(key, model, network, task)
            for key, network in zip(keys, networks, strict=True)
        ]
        theta, data, order_keys = jax.tree.map(
            lambda *leaves: jnp.stack(leaves),
            *((start.theta, start.setup.data, start.keys) for start in starts),
        )
        w = variables.params
        game, sizes = starts[0].game, starts[0].setup.sizes
        for epoch in range(attack.epochs):
            theta, w, metrics = _play_epochs(
                theta, w, data, order_keys, jnp.int32(epoch), game=game, sizes=sizes
            )
            for name, values in metrics.items():
                for history, value in zip(histories, np.asarray(values), strict=True):
                    history.setdefault(name, []).append(float(value))
            for history in histories:
                refuse_divergence(history, epoch)
        poisons = [
            start.generate(jax.tree.map(lambda leaf, i=i: leaf[i], theta), clean)
            for i, start in enumerate(starts)
        ]
    watch.seconds, watch.compile_seconds = watch.seconds / lanes, watch.compile_seconds / lanes
    return [
        attack.finish(start, clean, x, history, watch)
        for start, x, history in zip(starts, poisons, histories, strict=True)
    ]


@partial(jax.jit, static_argnames=("game", "sizes"))
def _play_epochs(
    theta: Any,
    w: Any,
    data: GameData,
    keys: Any,
    epoch: Any,
    *,
    game: Game,
    sizes: tuple[int, int, int],
) -> Any:
    play = partial(play_epoch, game=game, sizes=sizes)
    return jax.vmap(play, in_axes=(0, 0, 0, 0, None))(theta, w, data, keys, epoch)
