"""How well a filter finds poisons."""

from __future__ import annotations

import numpy as np
from jaxtyping import Array, Bool, Float
from sklearn.metrics import roc_auc_score

from unlearnkit.base import Defended


def score_defence(
    defended: Defended, is_poison: Bool[Array | np.ndarray, " n"]
) -> dict[str, float]:
    """Returns how well a filter finds the poisons.

    Metrics: `precision`, the share of poisons among what is dropped, NaN where nothing is;
    `recall`, the share of the poisons that is dropped; `dropped`, the number of examples; `auc`,
    P(score of a poison > score of another) + ½ P(equal), NaN where all are poisons.

    Args:
      defended: what the filter decided.
      is_poison: [n] which are poisons.

    Raises:
      ValueError: no poison, or another number of examples.
    """
    poison = check_poisons(is_poison, defended.keep.shape[0])
    dropped = ~np.asarray(defended.keep)
    hits = float(np.sum(dropped & poison))
    return {
        "precision": hits / dropped.sum() if dropped.any() else float("nan"),
        "recall": hits / poison.sum(),
        "dropped": float(dropped.sum()),
        "auc": float("nan") if poison.all() else _auc(defended.scores, poison),
    }


def _auc(scores: Float[Array, " n"], poison: Bool[np.ndarray, " n"]) -> float:
    return float(roc_auc_score(poison, np.asarray(scores)))


def check_poisons(is_poison: Bool[Array | np.ndarray, " n"], n: int) -> Bool[np.ndarray, " n"]:
    """Returns which of n examples are poisons, on the host.

    Raises:
      ValueError: no poison, or another number of examples.
    """
    poison = np.asarray(is_poison)
    if poison.shape != (n,) or poison.dtype != bool:
        raise ValueError(
            f"is_poison must hold one boolean for each of the {n} examples, "
            f"got {poison.dtype} {list(poison.shape)}"
        )
    if not poison.any():
        raise ValueError("is_poison marks no example, and recall is undefined; leave it out")
    return poison
