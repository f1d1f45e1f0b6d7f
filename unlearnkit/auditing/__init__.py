"""Audits: what an unlearned model still knows, and how far it is from a retrained one."""

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
from unlearnkit.auditing.membership import MembershipInference
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
    "MembershipInference",
    "accuracy",
    "activation_distance",
    "average_gap",
    "cross_entropy_losses",
    "evaluate",
    "loss_divergence",
    "margins",
    "membership_features",
    "prediction_agreement",
]
