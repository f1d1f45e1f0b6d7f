"""What papers report, and what else stands in TOML beside the code of the experiments."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any


def read_toml(code: str, name: str = "paper.toml") -> dict[str, Any]:
    """Returns what the TOML file of that name says which is beside a file of code (`__file__`)."""
    return tomllib.loads(Path(code).with_name(name).read_text(encoding="utf-8"))
