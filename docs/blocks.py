"""Pages with blocks that are made by a program: `<!-- generated: NAME -->` … `<!-- end -->`."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from unlearnkit.io.files import write_text

ROOT = Path(__file__).parents[1]
_BLOCK = re.compile(r"(<!-- generated: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def fill(text: str, make: Callable[[str], str]) -> str:
    """Returns `text` with every generated block made anew, by its name."""
    return _BLOCK.sub(lambda match: f"{match[1]}{make(match[2])}{match[3]}", text)


def write_or_check(path: Path, make: Callable[[str], str], *, check: bool, command: str) -> int:
    """Writes a page with its blocks made anew, or only compares; returns the exit code.

    Args:
      path: of the page.
      make: a block's text, by its name.
      check: only compare; 1 where the page differs.
      command: what writes it, which is told then.
    """
    written = path.read_text(encoding="utf-8")
    wanted = fill(written, make)
    if wanted == written:
        return 0
    if check:
        print(f"{path.name} differs from what it is made of; run {command}")
        return 1
    write_text(path, wanted)
    return 0
