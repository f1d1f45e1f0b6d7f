"""Logs of runs that never were: checkpoints on a line, and batches made to lead along it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from unlearnkit.base import Dataset, Forger, Model, Variables
from unlearnkit.forging.noise import spoof_trajectory
from unlearnkit.io.files import write_bytes
from unlearnkit.io.provenance import environment
from unlearnkit.training import Recipe, TrajectoryWriter, init_train_state, manifest
from unlearnkit.training.claim import StartClaim, claim_run, example_digests, variables_sha256
from unlearnkit.training.logged_run import npy_content
from unlearnkit.training.trajectory import METRICS, Logged


class SpoofedLog(NamedTuple):
    """A log that was spoofed.

    Attributes:
      folder: where it is.
      dataset: [T b] the fabricated examples that it is about.
      errors: [T] η ‖∇L(B_t) - (θ_t - θ_{t+1}) / η‖₂ of each step.
    """

    folder: Path
    dataset: Dataset
    errors: Float[np.ndarray, " T"]


def write_spoofed(
    key: Key[Array, ""],
    model: Model,
    start: Variables,
    end: Variables,
    allowed: Dataset,
    *,
    forger: Forger,
    steps: int,
    batch_size: int,
    learning_rate: float,
    folder: str | os.PathLike[str],
) -> SpoofedLog:
    """Writes the log of a fabricated run of one epoch from `start` to `end`, for `verify`.

    The checkpoints are those of `spoof_trajectory`, the data are its batches one after another.
    `verify(made.folder, made.dataset)` measures the errors; the verdict is INVALID even where it
    accepts all steps, for the log's key draws another order.

    Args:
      key: split over the steps; the log claims it as its own.
      model: the network.
      start: θ_0.
      end: θ_T.
      allowed: examples of the owner of the log.
      forger: makes the batch of each step, of examples with classes.
      steps: T.
      batch_size: b.
      learning_rate: η.
      folder: a new one, for the log.

    Raises:
      ValueError: see `spoof_trajectory`; a forger whose labels are no classes, or a folder that is
        there already.

    Source: Zhang et al. 2022, as told in Suliman et al. 2024, §2.
    """
    target = Path(folder)
    if target.exists():
        raise ValueError(f"{target} is there already; name a new folder")
    forged = spoof_trajectory(
        key, model, start, end, allowed,
        forger=forger, steps=steps, batch_size=batch_size, learning_rate=learning_rate,
    )  # fmt: skip
    made = [one.batch for one in forged if isinstance(one.batch, Dataset)]
    if len(made) < steps:
        raise ValueError(
            f"a log holds examples with classes, but {type(forger).__name__} makes soft labels; "
            "take NoiseForger, or OptimiseForger(domain='range')"
        )
    dataset = allowed._replace(
        x=jnp.concatenate([batch.x for batch in made]),
        y=jnp.concatenate([batch.y for batch in made]),
    )
    recipe = Recipe(1, batch_size, learning_rate=learning_rate, momentum=0.0, weight_decay=0.0)
    batches = npy_content(np.arange(steps * batch_size).reshape(steps, batch_size), "<i4")
    examples = npy_content(example_digests(dataset), "<u8")
    claim = claim_run(
        key,
        model,
        dataset,
        recipe,
        start=StartClaim(False, variables_sha256(start)),
        every=1,
        environment=environment(),
        batches_sha256=hashlib.sha256(batches).hexdigest(),
        examples_sha256=hashlib.sha256(examples).hexdigest(),
    )
    target.mkdir(parents=True)
    write_bytes(target / manifest.BATCHES, batches)
    write_bytes(target / manifest.EXAMPLES, examples)
    writer = TrajectoryWriter(target, claim)
    for step in range(steps + 1):
        params = jax.tree.map(
            lambda a, b, share=step / steps: a + share * (b - a), start.params, end.params
        )
        state = init_train_state(recipe, steps, Variables(params))._replace(step=jnp.int32(step))
        writer.append(Logged(state, {name: np.zeros(min(step, 1), np.float32) for name in METRICS}))
    return SpoofedLog(target, dataset, np.array([float(one.error) for one in forged]))
