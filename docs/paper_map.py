"""Writes the tables of docs/from_paper_to_code/ from its map.toml, so that none is ever typed.

Command:   python -m docs.paper_map          (writes)
           python -m docs.paper_map --check  (fails where a page is not what it would write)

A page has the blocks `items`, `figures` and `claims`. What the fields of the map mean stands at its
head; where claims are judged, and how, is read from the pages in results/.
"""

from __future__ import annotations

import dataclasses
import html
import re
import sys
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import tyro

from docs.blocks import ROOT, write_or_check
from experiments.claims import Statement, statements
from unlearnkit.reporting.escaping import markdown_cell

FOLDER = Path(__file__).parent / "from_paper_to_code"
MADE = ("Figure", "Table")
"""What stands in the table of figures and tables."""
_NUMBERED = re.compile(r"(?P<kind>[A-Za-z.]+) (?P<number>\d+)(?: \(\w\))?")
_BREAKS = re.compile(r"(?:::|[/_]|\.(?!py\b|json\b))(?=\w)")
_JUDGED = re.compile(r"\| (?P<text>.*?) \| .* \| \*\*(?P<verdict>[a-z ]+)\*\* \|")


@dataclasses.dataclass(frozen=True)
class PaperMap:
    """Writes the tables that lead from the papers to symbols, tests and results."""

    check: bool = False
    """Only compare; exit with 1 where a page differs."""
    folder: Path = FOLDER
    """Where the pages and map.toml are."""


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of the map; see there."""

    items: tuple[str, ...] = ()
    claims: tuple[str, ...] = ()
    says: str = ""
    symbols: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()
    results: tuple[str, ...] = ()
    command: str = ""
    note: str = ""

    @property
    def numbered(self) -> list[tuple[str, int]]:
        """Kind and number of the items that the paper numbers, as (eq., 4)."""
        found = [_NUMBERED.fullmatch(item) for item in self.items]
        return [(match["kind"], int(match["number"])) for match in found if match]


@dataclasses.dataclass(frozen=True)
class Mapped:
    """A paper: how it is cited, how many of each kind it numbers, and its rows in order."""

    cited: str
    numbered: Mapping[str, int]
    rows: tuple[Row, ...]


def main(config: PaperMap) -> int:
    """Writes or checks; returns the exit code."""
    codes = [
        write_or_check(
            config.folder / f"{name}.md", partial(make_block, name, paper), check=config.check,
            command="python -m docs.paper_map",
        )
        for name, paper in read_map(config.folder / "map.toml").items()
    ]  # fmt: skip
    return max(codes)


def read_map(path: Path = FOLDER / "map.toml") -> dict[str, Mapped]:
    """Returns the papers of a map by their names.

    Raises:
      TypeError: a row has a field that no row has.
    """
    said = tomllib.loads(path.read_text(encoding="utf-8"))
    return {
        name: Mapped(paper["cited"], paper["numbered"], tuple(map(_row, said[name])))
        for name, paper in said["papers"].items()
    }


def _row(fields: Mapping[str, Any]) -> Row:
    found: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
    return Row(**found)


def make_block(name: str, paper: Mapped, block: str) -> str:
    """Returns one of the tables of a page.

    Raises:
      ValueError: no table has that name.
    """
    made = [row for row in paper.rows if row.items and row.items[0].startswith(MADE)]
    if block == "figures":
        return _figures(made)
    if block == "items":
        return _items(row for row in paper.rows if row.items and row not in made)
    if block == "claims":
        return _claims(name, [row for row in paper.rows if row.claims])
    raise ValueError(f"no table is called {block!r}; known: items, figures, claims")


def _items(rows: Iterable[Row]) -> str:
    body = [[_name(row), _words(row), _code([*row.symbols, *row.tests])] for row in rows]
    return _table(
        ["In the paper", "What it says; what is wrong or missing", "Code and tests"], body
    )


def _figures(rows: Iterable[Row]) -> str:
    body = [
        [_name(row), _words(row), _made(row), _code([*row.symbols, *row.tests])] for row in rows
    ]
    head = ["In the paper", "What it shows; what is wrong or missing", "Result, and its command"]
    return _table([*head, "Code and tests"], body)


def _made(row: Row) -> str:
    # A command is a code span: in raw HTML MyST would make a dash of two hyphens.
    return _code(row.results) + (f"<br>`{row.command}`" if row.command else "")


def _claims(name: str, rows: Iterable[Row]) -> str:
    known, judged, rows = statements(name), judged_on(name), list(rows)
    body = [
        [_code([claim]), *map(_open_names, (known[claim].text, known[claim].where)),
         _verdicts(judged[claim])]
        for row in rows for claim in row.claims
    ]  # fmt: skip
    judges = [
        [_code(row.claims), _code(row.symbols), _code(row.tests), markdown_cell(row.note)]
        for row in rows
    ]
    return _table(["Claim", "Text", "Where", "Judged on the page"], body) + _table(
        ["Claims", "Judged by", "Tests", "Note"], judges
    )


def judged_on(name: str) -> dict[str, dict[str, Counter[str]]]:
    """Returns how often each claim of a paper has each verdict, by claim and page of results.

    Raises:
      ValueError: a page judges what is no claim of the paper, or what could be two.
    """
    known = {claim: _pattern(said) for claim, said in statements(name).items()}
    found: dict[str, dict[str, Counter[str]]] = {claim: {} for claim in known}
    for page in sorted((ROOT / "results" / name).glob("*.md")):
        for text, verdict in _JUDGED.findall(page.read_text(encoding="utf-8")):
            fitting = [claim for claim, pattern in known.items() if pattern.fullmatch(text)]
            if len(fitting) != 1:
                raise ValueError(f"{page.name} judges {text!r}, which fits {fitting or 'no claim'}")
            found[fitting[0]].setdefault(page.stem, Counter())[verdict] += 1
    return found


def _pattern(said: Statement) -> re.Pattern[str]:
    """Returns what fits a claim's text with its names filled in."""
    return re.compile(".+".join(map(re.escape, re.split(r"\{[^}]*\}", said.text))))


def _verdicts(pages: Mapping[str, Counter[str]]) -> str:
    told = []
    for page, verdicts in pages.items():
        several = verdicts.total() > 1
        words = [f"{v} {n}" if several else v for v, n in sorted(verdicts.items())]
        told.append(f"{page}: {', '.join(words)}")
    return "<br>".join(told) or "nowhere"


def _open_names(text: str) -> str:
    return markdown_cell(re.sub(r"\{(\w+)[^}]*\}", r"⟨\1⟩", text))


def _name(row: Row) -> str:
    return "<br>".join(map(markdown_cell, row.items))


def _words(row: Row) -> str:
    says = f"{row.says}." if row.note else row.says
    return markdown_cell(f"{says} {row.note}".strip())


def _code(names: Iterable[str]) -> str:
    """Returns names as lines of a cell, which a narrow column may break after any part of them."""
    parts = (_BREAKS.sub(r"\g<0><wbr>", html.escape(name, quote=False)) for name in names)
    return "<br>".join(f"<code>{name}</code>" for name in parts) or "none"


def _table(head: list[str], body: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *body]
    return "\n" + "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n\n"


if __name__ == "__main__":
    sys.exit(main(tyro.cli(PaperMap)))
