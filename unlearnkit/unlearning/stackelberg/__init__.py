"""Unlearning as a Stackelberg game between the network and an auditor."""

from unlearnkit.unlearning.stackelberg.auditors import (
    AUDITORS,
    LinearAuditor,
    MlpAuditor,
    QuantileAuditor,
)
from unlearnkit.unlearning.stackelberg.method import (
    AuditorWarning,
    StackelbergUnlearn,
    WeakAnswerWarning,
)

__all__ = [
    "AUDITORS",
    "AuditorWarning",
    "LinearAuditor",
    "MlpAuditor",
    "QuantileAuditor",
    "StackelbergUnlearn",
    "WeakAnswerWarning",
]
