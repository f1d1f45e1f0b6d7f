"""Unlearning methods: `(key, model, variables, task) -> Unlearned(variables, info)`."""

from typing import Any

from unlearnkit.base import Unlearner
from unlearnkit.unlearning.auditors import (
    AUDITORS,
    LinearAuditor,
    MlpAuditor,
    QuantileAuditor,
)
from unlearnkit.unlearning.boundary_expand import BoundaryExpand
from unlearnkit.unlearning.boundary_shrink import BoundaryShrink
from unlearnkit.unlearning.catastrophic_last_layers import CatastrophicLastLayers
from unlearnkit.unlearning.exact_last_layers import ExactLastLayers
from unlearnkit.unlearning.fine_tune import FineTune
from unlearnkit.unlearning.gradient_ascent import GradientAscent
from unlearnkit.unlearning.l1_sparse import L1Sparse
from unlearnkit.unlearning.neg_grad_plus import NegGradPlus
from unlearnkit.unlearning.noisy_descent import NoisyDescent
from unlearnkit.unlearning.random_label import RandomLabel
from unlearnkit.unlearning.retrain import Retrain
from unlearnkit.unlearning.salun import SalUn
from unlearnkit.unlearning.scrub import Scrub
from unlearnkit.unlearning.stackelberg import AuditorWarning, StackelbergUnlearn

UNLEARNERS: dict[str, type[Unlearner]] = {
    "retrain": Retrain,
    "fine_tune": FineTune,
    "noisy_descent": NoisyDescent,
    "gradient_ascent": GradientAscent,
    "neg_grad_plus": NegGradPlus,
    "random_label": RandomLabel,
    "salun": SalUn,
    "l1_sparse": L1Sparse,
    "boundary_shrink": BoundaryShrink,
    "boundary_expand": BoundaryExpand,
    "scrub": Scrub,
    "exact_last_layers": ExactLastLayers,
    "catastrophic_last_layers": CatastrophicLastLayers,
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
    "BoundaryExpand",
    "BoundaryShrink",
    "CatastrophicLastLayers",
    "ExactLastLayers",
    "FineTune",
    "GradientAscent",
    "L1Sparse",
    "LinearAuditor",
    "MlpAuditor",
    "NegGradPlus",
    "NoisyDescent",
    "QuantileAuditor",
    "RandomLabel",
    "Retrain",
    "SalUn",
    "Scrub",
    "StackelbergUnlearn",
    "create",
]
