"""Scrubbing by the network's linearisation, the neural tangent kernel."""

from unlearnkit.unlearning.ntk_scrub.method import (
    NtkScrub,
)

__all__ = [
    "NtkScrub",
]
