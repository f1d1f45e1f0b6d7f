"""Poisons that keep their labels and turn one region of the data, by images of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import partial
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key
from sklearn.cluster import KMeans

from unlearnkit.base import Dataset, Model, Poisoned, Task, Variables
from unlearnkit.host.random import host_key
from unlearnkit.poisoning._shown import show_others
from unlearnkit.poisoning.bounds import Bounds
from unlearnkit.poisoning.budget import Budget
from unlearnkit.poisoning.placing import Placement
from unlearnkit.training import predict
from unlearnkit.trials import AttackTrial
from unlearnkit.validation import check_above, check_continuous, check_task, check_variables

_SEEDS = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class Subpopulation:
    """Shows the images of one region of the data, some of them twice, under another label.

    x_i <- Π(x_k),   k in S,   y_i = b ≠ y_k,   ratio = m / size of S

    S is a cell of k-means on the inputs of one class a, and (S, b) the pair whose mean log p_b(x)
    by the clean network is the highest: what lies nearest to another class is turned most easily.
    In S the poisons outnumber the clean examples, so that a network that fits the majority errs on
    all test examples of the region. The cells of a class are as many as make one of about m / ratio
    examples; poisons that one cell does not take go to the next pair, and of a cell that is not
    needed whole, or whose label has too few examples, what lies around its centre is shown.

    Poisons keep their labels: each stands for a training example of label b, whose image it
    replaces by another. So it needs as many examples of b as it shows images, and bounds that let
    one image become another.

    Attributes:
      budget: how many poisons.
      bounds: within which they lie; a small radius leaves nothing of the other image.
      ratio: poisons for each image of the region; above 1, they are the majority there.
      placement: `add`, or `perturb` to replace the examples of label b.

    Example:
      attack = poisoning.Subpopulation(budget=poisoning.Budget(0.03))
      poisoned = attack(key, model, variables, task)

    Cost: a look at the training set by the clean network, and k-means on each class.

    Source: Jagielski et al. 2021, §4 (ClusterMatch, with labels flipped), on the inputs, and with
    the region and its label chosen by the network; they draw the cluster and give it one label.
    """

    budget: Budget = Budget()  # noqa: RUF009 (frozen, and so safe to share)
    bounds: Bounds = Bounds()  # noqa: RUF009
    ratio: float = 1.35
    placement: Placement = "add"

    trial: ClassVar[AttackTrial] = AttackTrial(effective={"placement": "perturb", "ratio": 1.0})

    def __post_init__(self) -> None:
        check_above(self, 0, "ratio")

    def __call__(
        self, key: Key[Array, ""], model: Model, variables: Variables, task: Task
    ) -> Poisoned:
        """Returns the training set with the poisons; `variables` are the clean network's.

        Raises:
          ValueError: a task or variables that do not fit the model, bounds that exclude a training
            image, or more poisons than regions and labels can take.
        """
        check_task(task, model)
        normalisation = check_continuous(task.retain, method="Subpopulation")
        check_variables(variables, model)
        clean = task.train
        choose = partial(self._choose, key, model, variables, clean)
        return show_others(choose, clean, normalisation, self.bounds, self.placement)

    def _choose(
        self, key: Key[Array, ""], model: Model, variables: Variables, clean: Dataset
    ) -> tuple[Int[Array, " m"], Int[Array, " m"]]:
        """Returns the row that each poison stands for, ascending, and the row that it shows."""
        order_key, seed_key = host_key(key).split()
        order, classes = order_key.permutation(clean.size), np.asarray(clean.y)
        log_p = np.asarray(jax.nn.log_softmax(predict(model, variables, clean.x)))
        m = self.budget.of(clean.size)
        left, taken = m, set[int]()
        unused = {b: order[classes[order] == b] for b in range(log_p.shape[1])}
        bases, rows = list[np.ndarray](), list[np.ndarray]()
        (seed,) = seed_key.randint(1, _SEEDS)
        for cell in sorted(_cells(clean, log_p, m / self.ratio, int(seed))):
            wanted = max(round(self.ratio * len(cell.rows)), 1)
            wanted = min(wanted, left, len(unused[cell.label]))
            if wanted == 0 or cell.number in taken:
                continue
            nearest = cell.rows[: max(round(wanted / self.ratio), 1)]
            bases.append(unused[cell.label][:wanted])
            rows.append(np.resize(order[np.isin(order, nearest)], wanted))
            unused[cell.label] = unused[cell.label][wanted:]
            taken.add(cell.number)
            left -= wanted
        if left:
            raise ValueError(
                f"{left} of {m} poisons find no region: each stands for an example of its label, "
                "and shows an image of another class that no other label has; lower the budget"
            )
        base, shown = np.concatenate(bases), np.concatenate(rows)
        up = np.argsort(base)
        return jnp.asarray(base[up], jnp.int32), jnp.asarray(shown[up], jnp.int32)


class _Cell(NamedTuple):
    """A region and a label for it; what is turned most easily comes first.

    Attributes:
      loss: mean -log p_label of its examples.
      number: of the region, of all.
      label: that its poisons have.
      rows: its examples, from its centre outwards.
    """

    loss: float
    number: int
    label: int
    rows: np.ndarray


def _cells(clean: Dataset, log_p: np.ndarray, size: float, seed: int) -> Iterator[_Cell]:
    """Yields the regions of each class with each other label.

    Args:
      clean: n examples.
      log_p: [n, c] log-probabilities of the clean network.
      size: wanted of a region, in examples.
      seed: of k-means.
    """
    classes, number = np.asarray(clean.y), 0
    for own in np.unique(classes):
        mine = np.flatnonzero(classes == own)
        inputs = np.asarray(clean.x[mine]).reshape(len(mine), -1)
        k = min(max(round(len(mine) / size), 1), len(mine))
        found = KMeans(k, n_init=1, random_state=seed).fit(inputs)
        away = ((inputs - found.cluster_centers_[found.labels_]) ** 2).sum(1)
        for within in range(k):
            here = np.flatnonzero(found.labels_ == within)
            rows = mine[here[np.argsort(away[here], kind="stable")]]
            for label in range(log_p.shape[1]):
                if label != own and len(rows):
                    yield _Cell(float(-log_p[rows, label].mean()), number, label, rows)
            number += 1
