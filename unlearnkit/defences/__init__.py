"""Defences against poisons: filters `(key, model, variables, dataset) -> Defended`, and trainers.

A filter says which examples of a training set to keep; a trainer's `fit` keeps all and trains so
that they harm less. `defend_and_retrain` runs either.
"""

from typing import Any

from unlearnkit.base import Defence, RobustTrainer
from unlearnkit.defences._dropping import DefenceWarning
from unlearnkit.defences.activation_clustering import ActivationClustering
from unlearnkit.defences.deep_knn import DeepKnn
from unlearnkit.defences.evaluate import Retrained, defend_and_retrain
from unlearnkit.defences.influence_filter import InfluenceFilter
from unlearnkit.defences.loss_filter import LossFilter
from unlearnkit.defences.max_up import MaxUp
from unlearnkit.defences.sever import Sever
from unlearnkit.defences.spectral_signature import SpectralSignature
from unlearnkit.kernels.filter_score import score_defence
from unlearnkit.registry import Registry

DEFENCES: Registry[Defence | RobustTrainer] = Registry(
    "defence",
    {
        "loss": LossFilter,
        "influence": InfluenceFilter,
        "sever": Sever,
        "max_up": MaxUp,
        "spectral_signature": SpectralSignature,
        "activation_clustering": ActivationClustering,
        "deep_knn": DeepKnn,
    },
)
"""Every defence by name; the command line, the grid and the shared tests read it."""


def create(name: str, **hyperparameters: Any) -> Defence | RobustTrainer:
    """Returns the named defence with these hyperparameters.

    Raises:
      ValueError: an unknown name, or a hyperparameter outside its range.
      TypeError: a hyperparameter that the defence does not have.

    Example:
      defend = defences.create("sever", fraction=0.03)
      defended = defend(key, model, variables, train)
    """
    return DEFENCES.create(name, **hyperparameters)


__all__ = [
    "DEFENCES",
    "ActivationClustering",
    "DeepKnn",
    "DefenceWarning",
    "InfluenceFilter",
    "LossFilter",
    "MaxUp",
    "Retrained",
    "Sever",
    "SpectralSignature",
    "create",
    "defend_and_retrain",
    "score_defence",
]
