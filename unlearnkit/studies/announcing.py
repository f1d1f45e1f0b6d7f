"""Telling whoever waits what a study does now."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from unlearnkit.base import OnEpoch, Poisoned, Variables
from unlearnkit.records import Record

OnStage: TypeAlias = Callable[[str, int, int], None]
"""Called with what is being done, and how many epochs of how many are done."""
OnPoisoned: TypeAlias = Callable[[str, int, Poisoned], None]
"""Called with an attack's name, the seed, and what the attack made."""
OnRecord: TypeAlias = Callable[[Record], None]
"""Called with each record as it comes, as by an experiment tracker."""
OnNetwork: TypeAlias = Callable[[Record, Variables], None]
"""Called with each record that has a result, and the weights that it judges."""


def announce(on_stage: OnStage | None, what: str, epochs: int) -> OnEpoch | None:
    """Announces a stage, and returns a callback that reports its finished epochs.

    Args:
      on_stage: called with (what, epochs done, epochs); None for nobody.
      what: begins.
      epochs: that it will take.
    """
    if on_stage is None:
        return None
    on_stage(what, 0, epochs)
    return lambda epoch, _: on_stage(what, epoch, epochs)
