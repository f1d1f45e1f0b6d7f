"""Machine unlearning, data poisoning, data forging and auditing as pure, compiled JAX functions."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unlearnkit.base import Dataset, Model, Normalisation, Task, Tokens, Unlearned, Variables

__version__ = "0.2.0"
__all__ = ["Dataset", "Model", "Normalisation", "Task", "Tokens", "Unlearned", "Variables"]


def __getattr__(name: str) -> object:
    """Returns a public name; JAX is imported when the first of them is asked for."""
    if name not in (*__all__, "base"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    base = importlib.import_module("unlearnkit.base")
    return base if name == "base" else getattr(base, name)
