"""Membership of texts by their least likely tokens (Min-K%)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np
from jaxtyping import Array, Bool, Float, Key

from unlearnkit.auditing._next_tokens import check_texts_of, look_at
from unlearnkit.auditing.scores import score_attack
from unlearnkit.base import Audited, Model, Task, Variables
from unlearnkit.trials import AuditTrial
from unlearnkit.validation import check_held_out


@dataclasses.dataclass(frozen=True)
class MinKProbability:
    """Tells texts of the forget set from those of the test set by their least likely tokens.

    Min-K%(x) = 1/|E| Σ_{t in E} log p(x_t | x_<t),   E the ⌈K (T - 1)⌉ next tokens of the least p

    in evaluation mode, of a network with the head `tokens`. A text that was never seen has some
    token that surprises; K = 1 is the mean of all tokens, the loss attack.

    Attributes:
      share: K in (0, 1].

    Example:
      audit = auditing.MinKProbability(share=0.2)
      metrics, curves = audit(key, model, variables, task)

    Source: Shi et al. 2024 (Min-K% Prob), equation (1); K = 20 %, their best.
    """

    share: float = 0.2

    trial: ClassVar[AuditTrial] = AuditTrial(key_may_not_matter=True, texts=True)

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"share must be in (0, 1], a part of the tokens, got {self.share}")

    def __call__(
        self, key: Key[Array, ""], model: Model, variables: Variables, task: Task
    ) -> Audited:
        """Returns how well the score tells forget from test texts.

        Metrics: `auc` and what else `score_attack` gives; `score_forget` and `score_test`, the mean
        scores in nats.

        Curves: those of `score_attack`.

        Raises:
          ValueError: a network that does not tell every next token, or a task or variables that do
            not fit it.
        """
        pad = check_texts_of(model, variables, task, audit="MinKProbability")
        check_held_out((task.retain, task.forget), task.test)
        scores = {}
        for name in ("forget", "test"):
            found = look_at(model, variables, getattr(task, name), pad)
            scores[name] = min_k_scores(found.log_p, found.there, self.share)
        audited = score_attack(scores["forget"], scores["test"])
        means = {f"score_{name}": float(values.mean()) for name, values in scores.items()}
        return Audited({**audited.metrics, **means}, audited.curves)


def min_k_scores(
    log_p: Float[np.ndarray, "n next"], there: Bool[np.ndarray, "n next"], share: float
) -> Float[np.ndarray, " n"]:
    """Returns Min-K% of each text, larger for members.

    Args:
      log_p: [n, length - 1] of each next token, in nats.
      there: whether it is one, and no padding.
      share: K.
    """
    ordered = np.sort(np.where(there, log_p, np.inf).astype(np.float64), axis=1)
    kept = np.ceil(share * there.sum(1) * (1 - 1e-12)).astype(int)
    chosen = np.arange(ordered.shape[1]) < kept[:, None]
    found: np.ndarray = np.where(chosen, ordered, 0).sum(1) / kept
    return found
