"""Unlearning methods: `(key, model, variables, task) -> Unlearned(variables, info)`."""

from typing import Any

from unlearnkit.base import Unlearner
from unlearnkit.unlearning.auditors import (
    AUDITORS,
    LinearAuditor,
    MlpAuditor,
    QuantileAuditor,
)
from unlearnkit.unlearning.fine_tune import FineTune
from unlearnkit.unlearning.gradient_ascent import GradientAscent
from unlearnkit.unlearning.noisy_descent import NoisyDescent
from unlearnkit.unlearning.retrain import Retrain
from unlearnkit.unlearning.stackelberg import AuditorWarning, StackelbergUnlearn

UNLEARNERS: dict[str, type[Unlearner]] = {
    "retrain": Retrain,
    "fine_tune": FineTune,
    "noisy_descent": NoisyDescent,
    "gradient_ascent": GradientAscent,
    "stackelberg": StackelbergUnlearn,
}
"""Every method by name; the command line, the grid and the shared tests read it."""


def create(name: str, **hyperparameters: Any) -> Unlearner:
    """Returns the named unlearner with these hyperparameters.

    Raises:
      ValueError: an unknown name, or a hyperparameter outside its range.
      TypeError: a hyperparameter that the method does not have.
    """
    if name not in UNLEARNERS:
        raise ValueError(f"unknown unlearner {name!r}; known: {', '.join(UNLEARNERS)}")
    return UNLEARNERS[name](**hyperparameters)


__all__ = [
    "AUDITORS",
    "UNLEARNERS",
    "AuditorWarning",
    "FineTune",
    "GradientAscent",
    "LinearAuditor",
    "MlpAuditor",
    "NoisyDescent",
    "QuantileAuditor",
    "Retrain",
    "StackelbergUnlearn",
    "create",
]
