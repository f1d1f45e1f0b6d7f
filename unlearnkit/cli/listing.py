"""`unlearnkit list` and `show`: what a study can name."""

from __future__ import annotations

import dataclasses
import difflib
import json
import shutil
import textwrap
from typing import Annotated

import tyro

from unlearnkit.cli.catalogue import KINDS, SINGULAR, Catalogue, Entry, Kind
from unlearnkit.cli.interruption import Interruption

_WIDEST = 100


@dataclasses.dataclass(frozen=True)
class List:
    """Lists what a study can name: each with a line, its paper and its cost.

    Attributes:
      kind: one kind only.
      json: print it as JSON.
    """

    kind: Annotated[Kind | None, tyro.conf.Positional] = None
    json: bool = False

    def __call__(self, interruption: Interruption) -> int:
        """Returns the exit code."""
        catalogue = Catalogue()
        kinds = KINDS if self.kind is None else (self.kind,)
        entries = {kind: catalogue.entries(kind) for kind in kinds}
        if self.json:
            print(json.dumps([_as_json(entry) for kind in kinds for entry in entries[kind]]))
            return 0
        for kind in kinds:
            print(f"{kind}:")
            indent = max(len(entry.name) for entry in entries[kind]) + 4
            for entry in entries[kind]:
                paper = f"{entry.paper}." if entry.paper else ""
                cost = f"Cost: {entry.cost}" if entry.cost else ""
                said = " ".join(part for part in (entry.line, paper, cost) if part)
                _print_hanging(f"  {entry.name}".ljust(indent), said)
            print()
        print("unlearnkit show NAME tells the settings of one")
        return 0


@dataclasses.dataclass(frozen=True)
class Show:
    """Shows what stands behind a name: its settings with their defaults, its source and its cost.

    Attributes:
      name: as `unlearnkit list` has it; all kinds that have the name are shown.
      kind: one kind only.
      json: print it as JSON.
    """

    name: Annotated[str, tyro.conf.Positional]
    kind: Kind | None = None
    json: bool = False

    def __call__(self, interruption: Interruption) -> int:
        """Returns the exit code.

        Raises:
          ValueError: a name that nobody knows.
        """
        catalogue = Catalogue()
        kinds = KINDS if self.kind is None else (self.kind,)
        found = [entry for entry in catalogue.find(self.name) if entry.kind in kinds]
        if not found:
            known = {name for kind in kinds for name in catalogue.names(kind)}
            near = difflib.get_close_matches(self.name, sorted(known), n=3)
            meant = f"did you mean {' or '.join(near)}? " if near else ""
            raise ValueError(f"unknown name {self.name!r}; {meant}`unlearnkit list` has all names")
        if self.json:
            print(json.dumps([_as_json(entry) for entry in found]))
            return 0
        for number, entry in enumerate(found):
            if number:
                print()
            _print_entry(entry)
        return 0


def _print_entry(entry: Entry) -> None:
    print(f"{entry.name} ({SINGULAR[entry.kind]}), {entry.target}")
    print()
    _print_text(entry.text or entry.line)
    if entry.settings is None:
        print("\nits settings are known to its package alone, which is imported by a study")
        return
    print("\nsettings:" if entry.settings else "\nno settings")
    for setting in entry.settings:
        default = "must be given" if setting.default is None else f"= {setting.default}"
        _print_hanging("  ", f"{setting.name}: {setting.kind} {default}", more=6)
        if setting.says:
            _print_hanging("      ", setting.says)
    for title, text in (("cost", entry.cost), ("source", entry.source)):
        if text:
            print()
            _print_hanging(f"{title}: ", text)


def _as_json(entry: Entry) -> dict[str, object]:
    said: dict[str, object] = entry._asdict()
    settings = entry.settings
    said["settings"] = None if settings is None else [setting._asdict() for setting in settings]
    return {**said, "paper": entry.paper}


def _print_text(text: str) -> None:
    """Prints paragraphs; those with a line that is too long are wrapped, equations line by line."""
    width = _width()
    for number, paragraph in enumerate(text.split("\n\n")):
        if number:
            print()
        lines = paragraph.splitlines()
        if max(map(len, lines)) <= width:
            print(paragraph)
            continue
        if not any("  " in line for line in lines):
            lines = [" ".join(lines)]
        for line in lines:
            print(textwrap.fill(line, width, drop_whitespace=True, break_on_hyphens=False))


def _width() -> int:
    return min(shutil.get_terminal_size().columns, _WIDEST)


def _print_hanging(first: str, text: str, *, more: int | None = None) -> None:
    indent = " " * (len(first) if more is None else more)
    print(
        textwrap.fill(
            text,
            _width(),
            initial_indent=first,
            subsequent_indent=indent,
            break_on_hyphens=False,
        )
    )
