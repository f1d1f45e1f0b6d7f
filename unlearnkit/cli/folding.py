"""Help that fits the terminal."""

from __future__ import annotations

import contextlib
import io
import re
import shutil
import sys
import textwrap
from collections.abc import Iterator

_STYLE = re.compile(r"\x1b\[[0-9;]*m")
_FRAMES = "╭│╰"
"""Begin the lines of boxes, which are as wide as the terminal already."""


@contextlib.contextmanager
def folded_output() -> Iterator[None]:
    """Folds what is printed meanwhile into the width of the terminal, between words."""
    folding = _Folding()
    try:
        with contextlib.redirect_stdout(folding):
            yield
    finally:
        folding.end()


class _Folding(io.StringIO):
    """A stream that folds lines on their way to what is the output now."""

    encoding = ""

    def __init__(self) -> None:
        super().__init__()
        self._stream, self._begun = sys.stdout, ""
        self.encoding = sys.stdout.encoding

    def write(self, text: str) -> int:
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            self._stream.write(_fold(line) + "\n")
        return len(text)

    def end(self) -> None:
        """Writes what has no end of line."""
        self._stream.write(self._begun)
        self._begun = ""

    def flush(self) -> None:
        self._stream.flush()

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()


def _fold(line: str) -> str:
    width = shutil.get_terminal_size().columns
    if len(_STYLE.sub("", line)) <= width or line.startswith(tuple(_FRAMES)):
        return line
    usage = _STYLE.sub("", line).startswith(("usage:", "  {"))
    indent = "  " if usage else ""
    return textwrap.fill(
        line.replace(",", ", ") if usage else line,
        width,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
