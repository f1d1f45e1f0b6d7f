"""The total gradient descent ascent attack (TGDA), alone and with several keys at once."""

from unlearnkit.poisoning.total_gradient.attack import (
    TotalGradientAttack,
)
from unlearnkit.poisoning.total_gradient.lanes import (
    attack_in_lanes,
)

__all__ = [
    "TotalGradientAttack",
    "attack_in_lanes",
]
