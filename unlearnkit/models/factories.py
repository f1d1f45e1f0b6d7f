"""A network by the name of the function that makes it, `package.module:factory`."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

from unlearnkit.base import Model
from unlearnkit.models.adopting import Adopted


def import_factory(name: str) -> Callable[..., Any]:
    """Returns the function `package.module:factory`; importing it runs the module's code.

    Modules of the current folder are found too.

    Raises:
      ImportError: no such module, or one that cannot be imported.
      ValueError: another form of name, or no such function.
    """
    module, _, function = name.partition(":")
    if not module or not function:
        raise ValueError(f"a network must be a name or package.module:factory, got {name!r}")
    here = os.getcwd()
    added = here not in sys.path and "" not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        found = getattr(importlib.import_module(module), function, None)
    except ImportError as error:
        raise ImportError(
            f"{name}: {error}; name a module that is installed or stands in the current folder"
        ) from error
    finally:
        if added:
            sys.path.remove(here)
    if not callable(found):
        raise ValueError(f"{module} has no function {function}")
    made: Callable[..., Any] = found
    return made


def check_made(name: str, made: object) -> Model:
    """Returns the network that a factory made.

    Raises:
      TypeError: it made something else.
    """
    if isinstance(made, Adopted):
        return made.model
    if isinstance(made, Model):
        return made
    raise TypeError(
        f"{name} must return a Model, as models.from_linen makes it, or models.adopt(…), got "
        f"{type(made).__name__}"
    )
