"""Audits: what an unlearned model still knows, and how far it is from a retrained one."""

from unlearnkit.auditing.entropy_svm import EntropySvm
from unlearnkit.auditing.evaluate import (
    DEFAULT_ATTACKS,
    GAP_METRICS,
    accuracy,
    activation_distance,
    average_gap,
    evaluate,
    loss_divergence,
    prediction_agreement,
)
from unlearnkit.auditing.gaussian_kl import gaussian_kl
from unlearnkit.auditing.information import (
    GaussianWeights,
    query_information,
    query_set_information,
    white_box_information,
)
from unlearnkit.auditing.information_curves import (
    information_bounds,
    information_tradeoff,
    sample_leakage,
)
from unlearnkit.auditing.intervals import Interval, clopper_pearson, mean_and_error
from unlearnkit.auditing.membership import MembershipInference
from unlearnkit.auditing.relearn import RelearnTime, forget_loss
from unlearnkit.auditing.scrubbing_path import scrubbing_path
from unlearnkit.auditing.weight_paths import PathPlane, principal_paths
from unlearnkit.kernels import (
    FEATURES,
    cross_entropy_losses,
    margins,
    membership_features,
)

__all__ = [
    "DEFAULT_ATTACKS",
    "FEATURES",
    "GAP_METRICS",
    "EntropySvm",
    "GaussianWeights",
    "Interval",
    "MembershipInference",
    "PathPlane",
    "RelearnTime",
    "accuracy",
    "activation_distance",
    "average_gap",
    "clopper_pearson",
    "cross_entropy_losses",
    "evaluate",
    "forget_loss",
    "gaussian_kl",
    "information_bounds",
    "information_tradeoff",
    "loss_divergence",
    "margins",
    "mean_and_error",
    "membership_features",
    "prediction_agreement",
    "principal_paths",
    "query_information",
    "query_set_information",
    "sample_leakage",
    "scrubbing_path",
    "white_box_information",
]
