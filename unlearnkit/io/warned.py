"""Warnings that are told elsewhere than on the terminal."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import TextIO


@contextlib.contextmanager
def collect_warnings(messages: list[str], *kinds: type[Warning]) -> Iterator[None]:
    """Adds the text of each warning of these kinds to `messages`, once; others warn as ever."""
    with warnings.catch_warnings():
        for kind in kinds:
            warnings.simplefilter("always", kind)
        show = warnings.showwarning

        def note(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if not issubclass(category, kinds):
                show(message, category, filename, lineno, file, line)
            elif str(message) not in messages:
                messages.append(str(message))

        warnings.showwarning = note
        yield
