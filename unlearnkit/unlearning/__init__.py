"""Unlearning methods: `(key, model, variables, task) -> Unlearned(variables, info)`."""

from typing import Any

from unlearnkit.base import Unlearner
from unlearnkit.unlearning._one_shot import SolveWarning
from unlearnkit.unlearning.fine_tune import FineTune
from unlearnkit.unlearning.fisher_forgetting import FisherForgetting
from unlearnkit.unlearning.gradient_ascent import GradientAscent
from unlearnkit.unlearning.influence import Influence
from unlearnkit.unlearning.newton_scrub import NewtonScrub
from unlearnkit.unlearning.noisy_descent import NoisyDescent
from unlearnkit.unlearning.ntk_scrub import NtkScrub
from unlearnkit.unlearning.retrain import Retrain

UNLEARNERS: dict[str, type[Unlearner]] = {
    "retrain": Retrain,
    "fine_tune": FineTune,
    "noisy_descent": NoisyDescent,
    "gradient_ascent": GradientAscent,
    "influence": Influence,
    "newton_scrub": NewtonScrub,
    "fisher_forgetting": FisherForgetting,
    "ntk_scrub": NtkScrub,
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
    "UNLEARNERS",
    "FineTune",
    "FisherForgetting",
    "GradientAscent",
    "Influence",
    "NewtonScrub",
    "NoisyDescent",
    "NtkScrub",
    "Retrain",
    "SolveWarning",
    "create",
]
