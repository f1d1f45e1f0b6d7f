"""Training as one program that draws and computes everything inside: what `take_steps` must equal.

Learning rates, strengths and numbers of steps are constants of these programs, and the batch orders
are drawn by `jax.random`.
"""

from functools import partial

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from unlearnkit.training.recipe import decay_toward_start, learning_rate_schedule
from unlearnkit.training.step import TrainState, epoch_batches


@partial(jax.jit, static_argnames=("objective", "recipe", "steps_per_epoch"))
def train_segment(
    state, dataset, batches, key, context=None, rates=None, *, objective, recipe, steps_per_epoch
):
    """Returns the state after a step on each batch, and the metrics of each step.

    `rates` [steps] take the place of the recipe's schedule.
    """
    schedule = learning_rate_schedule(recipe, steps_per_epoch)
    if rates is not None:
        schedule = rates.__getitem__
    optimizer = make_optimizer(recipe, schedule)

    def step(state, rows):
        objective_key, noise_key = jax.random.split(jax.random.fold_in(key, state.step))
        params = state.variables.params
        (_, (new_state, metrics)), gradient = jax.value_and_grad(objective, has_aux=True)(
            params, state.variables.state, dataset.take(rows), objective_key, context
        )
        if recipe.gradient_noise > 0:
            noise = optax.tree.random_like(noise_key, gradient)
            gradient = optax.tree.add_scale(gradient, recipe.gradient_noise, noise)
        updates, memory = optimizer.update(gradient, state.opt_state, params)
        variables = state.variables._replace(
            params=optax.apply_updates(params, updates), state=new_state
        )
        return TrainState(variables, memory, state.step + 1), metrics

    return jax.lax.scan(step, state, batches)


def make_optimizer(recipe, schedule):
    """Returns the optimiser of a recipe with its strengths as constants."""
    parts = []
    if recipe.clip_norm is not None:
        parts.append(optax.clip_by_global_norm(recipe.clip_norm))
    if recipe.weight_decay > 0 and recipe.decay_toward == "start":
        parts.append(decay_toward_start(recipe.weight_decay))
    elif recipe.weight_decay > 0 and recipe.optimizer != "adamw":
        parts.append(optax.add_decayed_weights(recipe.weight_decay))
    if recipe.optimizer == "sgd":
        parts.append(optax.sgd(schedule, recipe.momentum or None, nesterov=recipe.nesterov))
    elif recipe.optimizer == "muon":
        parts.append(_muon(recipe, schedule))
    elif recipe.optimizer == "adam":
        parts.append(optax.adam(schedule, nesterov=recipe.nesterov))
    else:
        parts.append(
            optax.adamw(schedule, weight_decay=recipe.weight_decay, nesterov=recipe.nesterov)
        )
    return optax.chain(*parts)


def _muon(recipe, schedule):
    ratio = recipe.other_learning_rate / recipe.learning_rate

    def rows_and_columns(params):
        axes = optax.contrib.MuonDimensionNumbers(reduction_axis=(0, 1, 2), output_axis=3)
        return jax.tree.map(lambda _: axes, params)

    kernels = optax.chain(
        optax.contrib.scale_by_muon(
            ns_steps=3, beta=recipe.momentum, weight_dimension_numbers=rows_and_columns
        ),
        optax.scale_by_learning_rate(schedule),
    )
    others = optax.sgd(lambda step: ratio * schedule(step), recipe.momentum or None, nesterov=True)
    return optax.partition(
        {"kernels": kernels, "others": others},
        lambda params: jax.tree.map(lambda w: "kernels" if w.ndim == 4 else "others", params),
    )


@partial(jax.jit, static_argnames=("epochs", "n", "batch_size"))
def all_batches(order_key, *, epochs, n, batch_size):
    """Returns the batches of every epoch of a run, one after another."""
    batches = jax.lax.map(
        lambda epoch: epoch_batches(order_key, epoch, n, batch_size), jnp.arange(epochs)
    )
    return batches.reshape(-1, batch_size)


def whole_batches(key, index, n, batch_size):
    """Returns the batches of a pass in which every one of range(n) is seen."""
    order = jax.random.permutation(jax.random.fold_in(key, index), n)
    steps = -(-n // batch_size)
    missing = steps * batch_size - n
    if missing:
        following = jax.random.permutation(jax.random.fold_in(key, index + 1), n)
        held = jnp.isin(following, order[(steps - 1) * batch_size :])
        fill = following[jnp.argsort(held, stable=True)[:missing]]
        order = jnp.concatenate([order, fill])
    return order.reshape(steps, batch_size).astype(jnp.int32)


def cycled_batches(key, first, n, batch_size, steps):
    """Returns `steps` batches of whole passes over range(n) that follow one another."""
    per_pass = -(-n // batch_size)
    begun = first // per_pass
    passes = -(-steps // per_pass) + 1
    batches = jnp.stack([whole_batches(key, begun + i, n, batch_size) for i in range(passes)])
    flat = batches.reshape(-1, batch_size)
    return flat[first - begun * per_pass :][:steps]
