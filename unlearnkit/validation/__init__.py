"""Checks of input, before anything is traced."""

from unlearnkit.validation.inputs import (
    InputWarning,
    all_finite,
    check_above,
    check_at_least,
    check_choice,
    check_compatible,
    check_continuous,
    check_dataset,
    check_embedding,
    check_finite,
    check_held_out,
    check_known,
    check_labels,
    check_task,
    check_tokens,
    check_variables,
    named_leaves,
)
from unlearnkit.validation.separability import (
    check_logits,
    check_mean_of_examples,
    check_rows_alone,
)

__all__ = [
    "InputWarning",
    "all_finite",
    "check_above",
    "check_at_least",
    "check_choice",
    "check_compatible",
    "check_continuous",
    "check_dataset",
    "check_embedding",
    "check_finite",
    "check_held_out",
    "check_known",
    "check_labels",
    "check_logits",
    "check_mean_of_examples",
    "check_rows_alone",
    "check_task",
    "check_tokens",
    "check_variables",
    "named_leaves",
]
