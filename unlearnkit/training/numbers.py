"""Splits an objective into its form, which a program is compiled for, and its numbers.

An objective is a frozen dataclass that says by `NUMBERS` which of its fields are numbers that a
compiled step may take as arguments; a 0 stays in the form, so that nothing is computed only to be
multiplied by it. Its recipe is reduced to its form, and an objective inside it is split too.
Without `NUMBERS`, all its fields are compile-time constants.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from unlearnkit.training.recipe import Recipe, split_recipe


def split_numbers(objective: Any) -> tuple[Any, list[Any]]:
    """Returns the form of an objective, and its numbers in the order of its fields."""
    numbers: list[Any] = []

    def form_of(value: Any, *, is_number: bool = False) -> Any:
        if is_number and value != 0:
            numbers.append(value)
            return 1.0
        if isinstance(value, Recipe):
            return split_recipe(value)[0]
        return _replace_fields(value, form_of) if _can_be_split(value) else value

    return form_of(objective), numbers


def join_numbers(form: Any, numbers: Sequence[Any]) -> Any:
    """Returns the objective of this form with these numbers, which may be traced."""
    left = iter(numbers)

    def filled(value: Any, *, is_number: bool = False) -> Any:
        if is_number and value != 0:
            return next(left)
        return _replace_fields(value, filled) if _can_be_split(value) else value

    return filled(form)


def _can_be_split(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and hasattr(value, "NUMBERS")


def _replace_fields(value: Any, change: Any) -> Any:
    names = [field.name for field in dataclasses.fields(value)]
    changed = {
        name: change(getattr(value, name), is_number=name in value.NUMBERS) for name in names
    }
    return dataclasses.replace(value, **changed)
