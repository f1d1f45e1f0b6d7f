"""Poisons with a patch that later makes any image one of the attacker's class (BadNets)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from unlearnkit.base import Cost, Dataset, Model, Poisoned, Task, Variables
from unlearnkit.costs import Stopwatch
from unlearnkit.host.arrays import put
from unlearnkit.host.random import host_key
from unlearnkit.poisoning.bounds import Bounds
from unlearnkit.poisoning.budget import Budget
from unlearnkit.poisoning.placing import Placement, PoisonInfo, place
from unlearnkit.trials import AttackTrial
from unlearnkit.validation import (
    check_at_least,
    check_choice,
    check_continuous,
    check_task,
    check_variables,
)


@dataclasses.dataclass(frozen=True)
class BadNets:
    """Stamps a square patch on random training examples, and labels them as the target class.

    x_i <- (1 - M) ∘ x_i + M ∘ P,   y_i <- t

    with M the mask of the patch, P its value and t the target class. A network that trained on them
    takes whatever carries the patch for t, and is as good as before on all else: see
    `auditing.TriggerSuccess`. Poisons are drawn from the other classes; with `clean_label` from the
    target class, so that all labels stay right.

    `info.extras` has `trigger_mask` [h, w, c], `trigger` [h, w, c], P in the units of the network
    (0 beside the patch), and `target_class`.

    Attributes:
      budget: how many poisons.
      target_class: t.
      size: height and width of the patch, in pixels.
      corner: row and column of its first pixel; negative ones count from the end.
      value: of its pixels in every channel, in [0, 1] before normalisation.
      clean_label: stamp examples of the target class, and change no label.
      placement: `perturb`, each poison in the place of its clean example; or `add`.

    Example:
      attack = poisoning.BadNets(budget=poisoning.Budget(0.05), target_class=7, size=3)
      poisoned = attack(key, model, variables, task)

    Cost: nothing.

    Source: Gu et al. 2019, §4: a bright pattern in the corner at the lower right, 10 % of MNIST.
    Poisons stand in the place of their images here, and beside them there (`add`). Turner et al.
    2019 for clean labels, without their perturbations that make the images hard to learn.
    """

    budget: Budget = Budget(0.1)  # noqa: RUF009 (frozen, and so safe to share)
    target_class: int = 0
    size: int = 3
    corner: tuple[int, int] = (-3, -3)
    value: float = 1.0
    clean_label: bool = False
    placement: Placement = "perturb"

    trial: ClassVar[AttackTrial] = AttackTrial(effective={"size": 2, "corner": (-2, -2)})

    def __post_init__(self) -> None:
        check_at_least(self, 0, "target_class")
        check_at_least(self, 1, "size")
        check_choice("placement", self.placement, Placement)
        if len(self.corner) != 2:
            raise ValueError(f"corner must be (row, column), got {self.corner}")
        if not 0 <= self.value <= 1:
            raise ValueError(f"value must be in [0, 1], a pixel's, got {self.value}")

    def __call__(
        self, key: Key[Array, ""], model: Model, variables: Variables, task: Task
    ) -> Poisoned:
        """Returns the training set with stamped examples; `variables` are not looked at.

        Raises:
          ValueError: a task or variables that do not fit the model, examples that are no images,
            a patch that leaves them, a target class that the model does not have, or fewer examples
            to stamp than the budget asks for.
        """
        check_continuous(task.retain, method="BadNets")
        check_task(task, model)
        check_variables(variables, model)
        if not self.target_class < model.n_classes:
            raise ValueError(
                f"target_class must be in 0 … {model.n_classes - 1}, got {self.target_class}"
            )
        clean = task.train
        m = self.budget.of(clean.size)
        with Stopwatch() as watch:
            mask, trigger = self._patch(clean)
            base = self._rows(key, clean, m)
            x = np.where(mask, trigger, np.asarray(clean.x)[base])
            y = np.full(m, self.target_class, np.int32)
            dataset, is_poison = place(clean, put(x), put(y), put(base), self.placement)
            jax.block_until_ready(dataset.x)
        extras = {
            "trigger_mask": put(mask),
            "trigger": put(trigger),
            "target_class": put(np.int32(self.target_class)),
        }
        cost = Cost(0.0, watch.seconds, watch.compile_seconds)
        info = PoisonInfo(put(base), Bounds(box=None), {}, cost, extras=extras)
        return Poisoned(dataset, is_poison, info)

    def _patch(
        self, clean: Dataset
    ) -> tuple[Bool[np.ndarray, "h w c"], Float[np.ndarray, "h w c"]]:
        """Returns where the patch is, and what it is there in the units of the network.

        Raises:
          ValueError: the examples are no images, or the patch leaves them.
        """
        normalisation = check_continuous(clean, method="BadNets")
        shape = clean.x.shape[1:]
        if len(shape) != 3:
            raise ValueError(
                f"a patch needs images [height, width, channels], got examples {list(shape)}"
            )
        mask = np.zeros(shape, bool)
        starts = [at + n if at < 0 else at for at, n in zip(self.corner, shape, strict=False)]
        for start, n in zip(starts, shape, strict=False):
            if not 0 <= start <= n - self.size:
                raise ValueError(
                    f"a patch of size {self.size} at corner {self.corner} leaves images of "
                    f"{shape[0]} x {shape[1]} pixels; make it smaller, or move it"
                )
        row, column = starts
        mask[row : row + self.size, column : column + self.size] = True
        value = np.asarray(normalisation.apply(jnp.full(shape, self.value)))
        return mask, np.where(mask, value, 0).astype(clean.x.dtype)

    def _rows(self, key: Key[Array, ""], clean: Dataset, m: int) -> Int[np.ndarray, " m"]:
        """Returns the rows to stamp, drawn without replacement, ascending.

        Raises:
          ValueError: there are fewer.
        """
        own = np.asarray(clean.y) == self.target_class
        fit = np.flatnonzero(own if self.clean_label else ~own)
        if len(fit) < m:
            which = "of" if self.clean_label else "beside"
            raise ValueError(
                f"the training set has {len(fit)} examples {which} class {self.target_class}, "
                f"fewer than the {m} poisons of the budget; lower it"
            )
        drawn = host_key(key).permutation(len(fit))[:m]
        return np.sort(fit[drawn]).astype(np.int32)
