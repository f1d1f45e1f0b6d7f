"""Words and metrics, explained to a reader who is no engineer."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple


class Meaning(NamedTuple):
    """What a metric is.

    Attributes:
      title: of its column.
      says: what it measures.
      share: whether it is a share, which is shown in %.
    """

    title: str
    says: str
    share: bool = False


@functools.cache
def terms() -> Mapping[str, str]:
    """Returns what each word of the report means."""
    return {str(word): str(says) for word, says in _read()["terms"].items()}


def meaning(metric: str) -> Meaning | None:
    """Returns what a metric is by the longest known end of its name, or None.

    Example:
      meaning("mia_loss_logistic_auc").title  # "Attack AUC, loss"
    """
    known = _read()["metrics"]
    ends = [n for n in known if metric == n or metric.endswith(f"_{n}")]
    if not ends:
        return None
    longest = max(ends, key=len)
    found = Meaning(**known[longest])
    before = metric.removesuffix(longest).strip("_").removeprefix("mia_").replace("_logistic", "")
    return found._replace(title=f"{found.title}, {before.replace('_', ' ')}") if before else found


@functools.cache
def _read() -> dict[str, Any]:
    text = Path(__file__).with_name("glossary.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)
