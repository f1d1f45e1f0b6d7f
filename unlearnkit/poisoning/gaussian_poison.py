"""Poisons by Gaussian noise that an audit later tests for (Gaussian data poisoning)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import numpy as np
from jaxtyping import Array, Float, Key

from unlearnkit.base import Cost, Model, Poisoned, Task, Variables
from unlearnkit.costs import Stopwatch
from unlearnkit.host import choose_rows
from unlearnkit.host.arrays import put
from unlearnkit.models.embedding_noise import (
    EmbeddingNoise,
    embedding_noise,
    width_of,
    write_noise,
)
from unlearnkit.poisoning.bounds import Bounds, Region
from unlearnkit.poisoning.budget import Budget
from unlearnkit.poisoning.placing import Placement, PoisonInfo, place
from unlearnkit.trials import AttackTrial
from unlearnkit.validation import (
    check_choice,
    check_continuous,
    check_embedding,
    check_task,
    check_variables,
)


@dataclasses.dataclass(frozen=True)
class GaussianPoison:
    """Adds independent Gaussian noise to random training examples, and keeps the noise.

    x_corr = Π(x_base + ξ),   ξ ~ N(0, noise_std² I)

    A network that trained on x_corr depends on ξ, and one that never saw it does not: see
    `auditing.GaussianUnlearningScore`. `info.extras` has `noise` [m, ...], ξ as drawn, `noise_std`
    and `base_x` [m, ...], the clean images, all in the units of the network.

    Of texts the vectors of the tokens get the noise, d = length x width numbers of each, padding
    left out: the network is one of `models.with_embedding_noise`, which adds the noise whose number
    a row ends in, and x_base is the row of a clean text.

    Attributes:
      budget: how many poisons.
      bounds: within which they lie; none by default. They change the poison, never the kept ξ.
      placement: `perturb`, each poison in the place of its clean example; or `add`.
      noise_std: ε_p, in the units of the network, the same in every channel; of texts, in those of
        the embedding, and that of the network.

    Example:
      attack = poisoning.GaussianPoison(budget=poisoning.Budget(0.015), noise_std=0.5)
      poisoned = attack(key, model, variables, task)

    Cost: nothing.

    Source: Pawelczyk et al. 2024, §4.3 and Algorithm 4 (ε_p² = 0.32 on CIFAR-10, 0.1 on the
    embeddings of IMDb, 1.5 % of the training set). Line 7 prints S_clean ∩ S_poison for the union.
    """

    budget: Budget = Budget(0.015)  # noqa: RUF009 (frozen, and so safe to share)
    bounds: Bounds = Bounds(box=None)  # noqa: RUF009
    placement: Placement = "perturb"
    noise_std: float = 0.32**0.5

    trial: ClassVar[AttackTrial] = AttackTrial(effective={"budget": Budget(0.5), "noise_std": 0.5})

    def __post_init__(self) -> None:
        check_choice("placement", self.placement, Placement)
        if not 0 < self.noise_std < float("inf"):
            raise ValueError(f"noise_std must be finite and > 0, got {self.noise_std}")

    def __call__(
        self, key: Key[Array, ""], model: Model, variables: Variables, task: Task
    ) -> Poisoned:
        """Returns the training set with noisy examples; `variables` are not looked at.

        Raises:
          ValueError: a task or variables that do not fit the model, bounds that exclude a training
            image, or texts for a network that adds no noise, or another, to their vectors.
        """
        check_task(task, model)
        in_embedding = self._noise_of(model) if model.takes_tokens else None
        check_variables(variables, model)
        clean = task.train
        row_key, noise_key = jax.random.split(key)
        with Stopwatch() as watch:
            base = choose_rows(row_key, clean.size, self.budget.of(clean.size))
            chosen = clean.take(base)
            if in_embedding is None:
                normalisation = check_continuous(clean, method="GaussianPoison")
                region = self.bounds.region(chosen.x, normalisation)
                noise, x = _add_noise(noise_key, region, self.noise_std)
            else:
                x = write_noise(noise_key, clean, chosen.x)
                noise = in_embedding(x, width_of(model, variables, chosen.x))
            dataset, is_poison = place(clean, x, chosen.y, base, self.placement)
            jax.block_until_ready(dataset.x)
        extras = {
            "noise": noise,
            "noise_std": put(np.asarray(self.noise_std, noise.dtype)),
            "base_x": chosen.x,
        }
        cost = Cost(0.0, watch.seconds, watch.compile_seconds)
        return Poisoned(dataset, is_poison, PoisonInfo(base, self.bounds, {}, cost, extras=extras))

    def _noise_of(self, model: Model) -> EmbeddingNoise:
        """Returns the noise that a network of texts adds.

        Raises:
          ValueError: it adds none, another, or there are bounds.
        """
        check_embedding(model, method="GaussianPoison")
        found = embedding_noise(model)
        if found is None or found.noise_std != self.noise_std:
            has = "adds none" if found is None else f"adds one of {found.noise_std:g}"
            raise ValueError(
                f"noise on texts of noise_std={self.noise_std:g} is added by the network, but this "
                f"one {has}; build it by models.with_embedding_noise(model, "
                f"noise_std={self.noise_std:g}), and its data by models.with_noise_columns(data)"
            )
        if self.bounds.box is not None or self.bounds.radius is not None:
            raise ValueError(f"the vectors of tokens have no bounds, got {self.bounds}")
        return found


@jax.jit
def _add_noise(
    key: Key[Array, ""], region: Region, noise_std: float | Float[Array, ""]
) -> tuple[Float[Array, "m ..."], Float[Array, "m ..."]]:
    """Returns Gaussian noise, and the images with it, moved into their region."""
    noise = noise_std * jax.random.normal(key, region.base.shape, region.base.dtype)
    return noise, region.project(region.base + noise)
