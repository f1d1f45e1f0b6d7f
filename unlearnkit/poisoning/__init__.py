"""Poisoning attacks: `(key, model, variables, task) -> Poisoned(dataset, is_poison, info)`."""

from typing import Any

from unlearnkit.base import FROM_SCRATCH, Attack
from unlearnkit.poisoning.back_gradient import BackGradient
from unlearnkit.poisoning.bad_nets import BadNets
from unlearnkit.poisoning.bounds import Bounds, Region
from unlearnkit.poisoning.budget import Budget
from unlearnkit.poisoning.error_minimizing import ErrorMinimizing
from unlearnkit.poisoning.gaussian_poison import GaussianPoison
from unlearnkit.poisoning.grad_pc import GradPC
from unlearnkit.poisoning.gradient_canceling import GradientCanceling
from unlearnkit.poisoning.gradient_matching import GradientMatching
from unlearnkit.poisoning.improved_min_max import ImprovedMinMax
from unlearnkit.poisoning.influence import InfluenceAttack
from unlearnkit.poisoning.kkt import KktAttack
from unlearnkit.poisoning.label_flip import LabelFlip
from unlearnkit.poisoning.lookalikes import Lookalikes
from unlearnkit.poisoning.meta_poison import MetaPoison
from unlearnkit.poisoning.metagradient import MetagradientAttack, Surrogate
from unlearnkit.poisoning.min_max import MinMax
from unlearnkit.poisoning.model_targeted import ModelTargeted
from unlearnkit.poisoning.pgan import PoisoningGan
from unlearnkit.poisoning.placing import (
    Placement,
    PoisonInfo,
    PoisonWarning,
    perturbation,
)
from unlearnkit.poisoning.poison_svm import PoisonSvm
from unlearnkit.poisoning.same_norm import SameNormControl, same_norm
from unlearnkit.poisoning.saved import PoisonFileError, load_poisoned, save_poisoned
from unlearnkit.poisoning.subpopulation import Subpopulation
from unlearnkit.poisoning.text_trigger import (
    PoisonedTexts,
    TextTrigger,
    TriggerCounts,
    count_trigger,
    poison_texts,
)
from unlearnkit.poisoning.total_gradient import TotalGradientAttack, attack_in_lanes
from unlearnkit.registry import Registry

ATTACKS: Registry[Attack] = Registry(
    "attack",
    {
        "total_gradient": TotalGradientAttack,
        "label_flip": LabelFlip,
        "lookalikes": Lookalikes,
        "subpopulation": Subpopulation,
        "min_max": MinMax,
        "improved_min_max": ImprovedMinMax,
        "model_targeted": ModelTargeted,
        "back_gradient": BackGradient,
        "influence": InfluenceAttack,
        "kkt": KktAttack,
        "poison_svm": PoisonSvm,
        "pgan": PoisoningGan,
        "meta_poison": MetaPoison,
        "metagradient": MetagradientAttack,
        "error_minimizing": ErrorMinimizing,
        "gaussian": GaussianPoison,
        "gradient_matching": GradientMatching,
        "gradient_canceling": GradientCanceling,
        "bad_nets": BadNets,
        "text_trigger": TextTrigger,
    },
)
"""Every attack by name; the command line, the grid and the shared tests read it."""


def create(name: str, **hyperparameters: Any) -> Attack:
    """Returns the named attack with these hyperparameters.

    Raises:
      ValueError: an unknown name, or a hyperparameter outside its range.
      TypeError: a hyperparameter that the attack does not have.

    Example:
      attack = poisoning.create("label_flip", budget=poisoning.Budget(0.1))
      poisoned = attack(key, model, variables, task)
    """
    return ATTACKS.create(name, **hyperparameters)


__all__ = [
    "ATTACKS",
    "FROM_SCRATCH",
    "BackGradient",
    "BadNets",
    "Bounds",
    "Budget",
    "ErrorMinimizing",
    "GaussianPoison",
    "GradPC",
    "GradientCanceling",
    "GradientMatching",
    "ImprovedMinMax",
    "InfluenceAttack",
    "KktAttack",
    "LabelFlip",
    "Lookalikes",
    "MetaPoison",
    "MetagradientAttack",
    "MinMax",
    "ModelTargeted",
    "Placement",
    "PoisonFileError",
    "PoisonInfo",
    "PoisonSvm",
    "PoisonWarning",
    "PoisonedTexts",
    "PoisoningGan",
    "Region",
    "SameNormControl",
    "Subpopulation",
    "Surrogate",
    "TextTrigger",
    "TotalGradientAttack",
    "TriggerCounts",
    "attack_in_lanes",
    "count_trigger",
    "create",
    "load_poisoned",
    "perturbation",
    "poison_texts",
    "same_norm",
    "save_poisoned",
]
