"""Drops the examples of the largest loss."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np
from jaxtyping import Array, Key

from unlearnkit.base import Cost, Dataset, Defended, Model, Variables
from unlearnkit.costs import FORWARD, Stopwatch
from unlearnkit.defences._dropping import DropSettings, check_input, finish
from unlearnkit.kernels import cross_entropy_losses
from unlearnkit.training import predict
from unlearnkit.trials import DefenceTrial


@dataclasses.dataclass(frozen=True)
class LossFilter(DropSettings):
    """Drops the examples that the trained network fits worst.

    s_i = -log p(y_i | x_i; w)

    Attributes:
      fraction, per_class: see `DropSettings`.

    Example:
      defend = defences.LossFilter(fraction=0.03)
      keep, scores, info = defend(key, model, variables, train)

    Cost: a look at each example, a third of an example-gradient.

    Source: Koh, Steinhardt and Liang 2022, the loss defence, as Lu et al. 2022, §5.6 (a) and
    Table 10 runs it: the 3 % of the largest loss over all classes.
    """

    trial: ClassVar[DefenceTrial] = DefenceTrial(deterministic=True, across_classes=True)

    def __call__(
        self, key: Key[Array, ""], model: Model, variables: Variables, dataset: Dataset
    ) -> Defended:
        """Returns which examples to keep; the key is not used.

        Raises:
          ValueError: data or variables that do not fit the model, or a class that would vanish.
          DivergedError: a loss is not finite.
        """
        check_input(model, variables, dataset)
        with Stopwatch() as watch:
            losses = cross_entropy_losses(predict(model, variables, dataset.x), dataset.y)
            scores = np.asarray(losses)
        cost = Cost(dataset.size * FORWARD, watch.seconds, watch.compile_seconds)
        return finish(self.drop(scores, np.asarray(dataset.y)), scores, dataset, cost)
