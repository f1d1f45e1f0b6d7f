"""Refuses options that attacks have in common."""

from __future__ import annotations

from typing import Any, get_args

from unlearnkit.base import Model


def check_choice(name: str, value: Any, alternatives: Any) -> None:
    """Refuses a `value` that is none of the `alternatives`, a `Literal`."""
    known = get_args(alternatives)
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")


def check_flippable(model: Model) -> None:
    """Refuses a network with one class."""
    if model.n_classes < 2:
        raise ValueError("a label can be flipped only where there are two classes or more")
