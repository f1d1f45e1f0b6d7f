"""What an answer changed inside of a network: its layers, and what its last layer sees."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import ClassVar

import jax
import numpy as np
from jaxtyping import Array, Float, Key

from unlearnkit.auditing.case import Case, Subject
from unlearnkit.base import Audited, Model, Params, Task, Variables
from unlearnkit.training import penultimate
from unlearnkit.trials import AuditTrial
from unlearnkit.validation import check_task, check_variables

SETS = ("retain", "forget", "test")


@dataclasses.dataclass(frozen=True)
class Representation:
    """Compares the features and the layers of a network with those of the original.

    With H, H₀ [n, d] the penultimate features of a set under the network and under the original,
    less their means over the set, the similarity is linear CKA,

    CKA = ‖HᵀH₀‖_F² / (‖HᵀH‖_F ‖H₀ᵀH₀‖_F),

    1 where the features are the same up to rotation and scale. A layer's move is ‖W - W₀‖ / ‖W₀‖
    over all of its weights. For the eye the features are projected on the two principal directions
    of the original's features of the retain and the test set; forgotten examples do not take part
    in choosing them.

    Attributes:
      examples: of each set, at most; the first ones.

    Example:
      study = studies.Study(
          data=studies.Pair(train, test),
          networks=model,
          recipes=training.Recipe(),
          forget=data.RandomForget(fraction=0.1),
          methods={"fine_tune": unlearning.FineTune()},
          audits={"": auditing.Evaluation(), "inside": auditing.Representation()},
      )

    Source: Kornblith et al. 2019, equation 4 (linear CKA).
    """

    examples: int = 200

    trial: ClassVar[AuditTrial] = AuditTrial(tells=("cka_forget", 1), key_may_not_matter=True)

    def __post_init__(self) -> None:
        if self.examples < 3:
            raise ValueError(f"examples must be >= 3, got {self.examples}")

    def judge(self, key: Key[Array, ""], case: Case, subject: Subject) -> Audited:
        """Returns similarities to the original, and what is drawn of it.

        Metrics: `cka_{set}` for retain, forget and test, in [0, 1]; where there is a reference,
        `cka_retrained_{set}`, the similarity to it; `layer_moved_first` and `layer_moved_last`.
        Curves: `layer_moved` [layers], from input to output; `plane_{set}` [n, 2], the projected
        features, and `plane_class_{set}` [n], the labels.

        Raises:
          ValueError: a task or variables that do not fit the model; features that are not finite.
        """
        check_task(case.task, case.model)
        check_variables(subject.variables, case.model)
        before = self._kept(case, case.original)
        after = self._of(case, subject.variables)
        metrics = {f"cka_{name}": linear_cka(after[name], before[name]) for name in SETS}
        if case.reference is not None:
            goal = self._kept(case, case.reference.variables)
            metrics |= {f"cka_retrained_{n}": linear_cka(after[n], goal[n]) for n in SETS}
        moved = layer_moves(case.model, subject.variables.params, case.original.params)
        metrics |= {"layer_moved_first": float(moved[0]), "layer_moved_last": float(moved[-1])}
        plane = _plane(np.concatenate([before["retain"], before["test"]]))
        curves: dict[str, np.ndarray] = {"layer_moved": moved}
        for name in SETS:
            curves[f"plane_{name}"] = plane(after[name])
            curves[f"plane_class_{name}"] = np.asarray(
                _first(case.task, name, self.examples)[1], np.int32
            )
        return Audited(metrics, curves)

    def _kept(self, case: Case, variables: Variables) -> dict[str, np.ndarray]:
        """Returns the features of a network that all subjects are compared with; no store has them.

        They tell of single examples.
        """
        said = {"examples": self.examples, "network": variables}
        return case.scratch("features", said, lambda: self._of(case, variables))

    def _of(self, case: Case, variables: Variables) -> dict[str, np.ndarray]:
        """Returns the features of each set."""
        found = {}
        for name in SETS:
            x = _first(case.task, name, self.examples)[0]
            found[name] = np.asarray(penultimate(case.model, variables, x), np.float64)
            if not np.all(np.isfinite(found[name])):
                raise ValueError(f"features of {name} must be finite; the network has diverged")
        return found


def linear_cka(one: Float[np.ndarray, "n d"], other: Float[np.ndarray, "n e"]) -> float:
    """Returns the linear CKA of two sets of features of the same examples, in [0, 1].

    It is 1 for the same features up to rotation, scale and shift, and NaN-free: features that do
    not vary at all are like others that do not, 1, and unlike all others, 0.

    Source: Kornblith et al. 2019, equation 4.
    """
    a, b = (h - h.mean(0) for h in (one, other))
    # Of the n x n Gram matrices, which are the smaller ones where features are many.
    grams = [h @ h.T for h in (a, b)]
    norms = [float(np.linalg.norm(gram)) for gram in grams]
    if min(norms) == 0:
        return float(norms[0] == norms[1])
    return float(min(np.sum(grams[0] * grams[1]) / (norms[0] * norms[1]), 1.0))


def layer_moves(model: Model, params: Params, before: Params) -> Float[np.ndarray, " layers"]:
    """Returns ‖W - W₀‖ / ‖W₀‖ of every layer of a network, from input to output.

    Where W₀ is zero it is ‖W - W₀‖ itself.

    Args:
      model: the network, whose layers they are.
      params: W.
      before: W₀.
    """
    found = []
    for group in model.layers:
        moved = total = 0.0
        for path in group:
            new, old = params, before
            for part in path:
                new, old = new[part], old[part]
            for a, b in zip(jax.tree.leaves(new), jax.tree.leaves(old), strict=True):
                moved += float(np.sum((np.asarray(a, np.float64) - np.asarray(b, np.float64)) ** 2))
                total += float(np.sum(np.asarray(b, np.float64) ** 2))
        found.append(np.sqrt(moved / total if total > 0 else moved))
    return np.asarray(found)


def _first(task: Task, name: str, count: int) -> tuple[Array, Array]:
    dataset = getattr(task, name)
    return dataset.x[:count], dataset.y[:count]


def _plane(features: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Returns the projection on the two principal directions of some features."""
    mean = features.mean(0)
    directions = np.linalg.svd(features - mean, full_matrices=False)[2][:2]
    # The sign is free: the largest component is made positive.
    largest = np.abs(directions).argmax(axis=1)
    directions = directions * np.sign(directions[np.arange(len(directions)), largest])[:, None]

    def project(others: np.ndarray) -> np.ndarray:
        found = np.zeros((len(others), 2))
        found[:, : len(directions)] = (others - mean) @ directions.T
        return found

    return project
