"""Refuses unknown options."""

from __future__ import annotations

from typing import Any, get_args


def check_choice(name: str, value: Any, alternatives: Any) -> None:
    """Refuses a `value` that is none of the `alternatives`, a `Literal`."""
    known = get_args(alternatives)
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")
