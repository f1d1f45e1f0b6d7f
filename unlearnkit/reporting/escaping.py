"""Names that come from outside, as text of a line, of each format, and of a file's name.

A name is whatever a user calls a method. It must neither end a table's row, nor run in a page, nor
move a terminal's cursor, nor lead out of a folder.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Sequence

MISSING = "\N{EN DASH}"
"""What tables show for a value that is not there, or is not finite."""

_LONGEST_SLUG = 80
_LONGEST_LABEL = 40
_PLAIN = re.compile(r"[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?")
_STRUCTURE = str.maketrans({c: f"\\{c}" for c in "\\|<"})
_MARKS = str.maketrans({c: f"\\{c}" for c in "\\|<>`*~[]&$"})
_EDGE_UNDERSCORE = re.compile(r"(?<![^\W_])_|_(?![^\W_])")
_LATEX = str.maketrans(
    {
        **{c: f"\\{c}" for c in "%&_#$"},
        "{": r"\{",
        "}": r"\}",
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "±": r"$\pm$",
        "₁": r"$_1$",
        MISSING: "--",
        "\N{THIN SPACE}": r"\,",
    }
)


def one_line(text: str) -> str:
    """Returns `text` on one line: breaks are spaces, other control characters are spelled out."""
    return "".join(map(_printable, re.sub(r"\r\n|[\t\n\v\f\r\x85\u2028\u2029]", " ", text)))


def markdown_name(text: str) -> str:
    r"""Returns a name as a cell of a Markdown table; `a_b` stays as it is, `_a_` is `\_a\_`."""
    return _EDGE_UNDERSCORE.sub(r"\\_", one_line(text).translate(_MARKS))


def markdown_cell(text: str) -> str:
    """Returns text of our own as a cell of a Markdown table."""
    return one_line(text).translate(_STRUCTURE)


def markdown_table(lines: Iterable[Sequence[str]]) -> str:
    """Returns a Markdown table of cells as they are: the head, the rule below it, and the rows."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def latex_cell(text: str) -> str:
    r"""Returns text as a cell of a LaTeX `tabular`.

    A row that begins with a bracket or a star would be an argument of the `\\` before it.
    """
    line = one_line(text)
    first = f"{{{line[0]}}}" if line[:1] in ("[", "*") else line[:1].translate(_LATEX)
    return first + line[1:].translate(_LATEX)


def figure_label(text: str) -> str:
    """Returns a name as a chart shows it: on one line, and no longer than leaves room for axes."""
    line = one_line(text)
    return line if len(line) <= _LONGEST_LABEL else f"{line[: _LONGEST_LABEL - 1]}…"


def slug(name: str) -> str:
    """Returns a file's name for `name`; different names have different ones on every disk.

    A short name of lower-case letters, digits and `._-` is its own; of any other, what can be kept
    of it and its digest: upper and lower case are one on some disks.
    """
    if len(name) <= _LONGEST_SLUG and _PLAIN.fullmatch(name):
        return name
    kept = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[: _LONGEST_SLUG // 2].strip("-")
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return f"{kept or 'name'}~{digest}"


def _printable(character: str) -> str:
    if unicodedata.category(character) in ("Cc", "Cf", "Cs"):
        return character.encode("unicode_escape").decode("ascii")
    return character
