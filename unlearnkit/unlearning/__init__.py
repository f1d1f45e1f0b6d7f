"""Unlearning methods: `(key, model, variables, task) -> Unlearned(variables, info)`."""

from typing import Any

from unlearnkit.base import Unlearner
from unlearnkit.registry import Registry
from unlearnkit.unlearning._one_shot import SolveWarning
from unlearnkit.unlearning.boundary_expand import BoundaryExpand
from unlearnkit.unlearning.boundary_shrink import BoundaryShrink
from unlearnkit.unlearning.catastrophic_last_layers import CatastrophicLastLayers
from unlearnkit.unlearning.exact_last_layers import ExactLastLayers
from unlearnkit.unlearning.fine_tune import FineTune
from unlearnkit.unlearning.fisher_forgetting import FisherForgetting
from unlearnkit.unlearning.gradient_ascent import GradientAscent
from unlearnkit.unlearning.gradient_difference import GradientDifference
from unlearnkit.unlearning.influence import Influence
from unlearnkit.unlearning.l1_sparse import L1Sparse
from unlearnkit.unlearning.neg_grad_plus import NegGradPlus
from unlearnkit.unlearning.newton_scrub import NewtonScrub
from unlearnkit.unlearning.noisy_descent import NoisyDescent
from unlearnkit.unlearning.npo import NegativePreference
from unlearnkit.unlearning.ntk_scrub import NtkScrub
from unlearnkit.unlearning.random_label import RandomLabel
from unlearnkit.unlearning.retrain import Retrain
from unlearnkit.unlearning.salun import SalUn
from unlearnkit.unlearning.scrub import SCRUB_REFERENCES, Scrub
from unlearnkit.unlearning.selective_synaptic_dampening import SelectiveSynapticDampening
from unlearnkit.unlearning.stackelberg import (
    AUDITORS,
    AuditorWarning,
    LinearAuditor,
    MlpAuditor,
    QuantileAuditor,
    StackelbergUnlearn,
    WeakAnswerWarning,
)

UNLEARNERS: Registry[Unlearner] = Registry(
    "unlearner",
    {
        "retrain": Retrain,
        "fine_tune": FineTune,
        "noisy_descent": NoisyDescent,
        "gradient_ascent": GradientAscent,
        "neg_grad_plus": NegGradPlus,
        "gradient_difference": GradientDifference,
        "npo": NegativePreference,
        "random_label": RandomLabel,
        "salun": SalUn,
        "l1_sparse": L1Sparse,
        "boundary_shrink": BoundaryShrink,
        "boundary_expand": BoundaryExpand,
        "scrub": Scrub,
        "exact_last_layers": ExactLastLayers,
        "catastrophic_last_layers": CatastrophicLastLayers,
        "stackelberg": StackelbergUnlearn,
        "influence": Influence,
        "newton_scrub": NewtonScrub,
        "fisher_forgetting": FisherForgetting,
        "ntk_scrub": NtkScrub,
        "selective_synaptic_dampening": SelectiveSynapticDampening,
    },
)
"""Every method by name; the command line, the grid and the shared tests read it."""


def create(name: str, **hyperparameters: Any) -> Unlearner:
    """Returns the named unlearner with these hyperparameters.

    Raises:
      ValueError: an unknown name, or a hyperparameter outside its range.
      TypeError: a hyperparameter that the method does not have.

    Example:
      unlearn = unlearning.create("scrub", epochs=5, temperature=2.0)
      forgotten, info = unlearn(key, model, variables, task)
    """
    return UNLEARNERS.create(name, **hyperparameters)


__all__ = [
    "AUDITORS",
    "SCRUB_REFERENCES",
    "UNLEARNERS",
    "AuditorWarning",
    "BoundaryExpand",
    "BoundaryShrink",
    "CatastrophicLastLayers",
    "ExactLastLayers",
    "FineTune",
    "FisherForgetting",
    "GradientAscent",
    "GradientDifference",
    "Influence",
    "L1Sparse",
    "LinearAuditor",
    "MlpAuditor",
    "NegGradPlus",
    "NegativePreference",
    "NewtonScrub",
    "NoisyDescent",
    "NtkScrub",
    "QuantileAuditor",
    "RandomLabel",
    "Retrain",
    "SalUn",
    "Scrub",
    "SelectiveSynapticDampening",
    "SolveWarning",
    "StackelbergUnlearn",
    "WeakAnswerWarning",
    "create",
]
