"""Writes the README's figures from committed results, so that none is ever typed.

Command:   python -m docs.readme          (writes)
           python -m docs.readme --check  (fails where the README is not what it would write)
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path

import tyro

from docs.blocks import ROOT, fill, write_or_check
from experiments.frame import load_result
from unlearnkit.reporting import to_markdown, verdicts_to_markdown
from unlearnkit.studies import cell_from_json


@dataclasses.dataclass(frozen=True)
class Readme:
    """Writes the README's figures from committed results."""

    check: bool = False
    """Only compare; exit with 1 where the README differs."""
    path: Path = ROOT / "README.md"
    """The file with `<!-- generated: PATH -->` blocks; PATH is of a result, from the root."""


def main(config: Readme) -> int:
    """Writes or checks; returns the exit code."""
    command = "python -m docs.readme"
    return write_or_check(config.path, _named, check=config.check, command=command)


def regenerate(text: str) -> str:
    """Returns `text` with every generated block made anew.

    Raises:
      FileNotFoundError: a block names a result that is not there.
      ValueError: a block names a file of a kind that no block is made from.
    """
    return fill(text, _named)


def _named(name: str) -> str:
    path = ROOT / name
    for pattern, make in _MAKERS.items():
        if path.match(pattern):
            return make(path)
    raise ValueError(f"no block is made from {path}; known: {', '.join(_MAKERS)}")


def _quickstart(path: Path) -> str:
    run, records = load_result(path)
    settings, origin = run["settings"], run["provenance"]
    versions = origin["versions"]
    cells = [cell_from_json(cell) for cell in run.get("cells", ())]
    verdicts = f"{verdicts_to_markdown(cells)}\n" if cells else ""
    return (
        f"\n{to_markdown(records)}\n{verdicts}"
        f"{settings['model']} on {settings['dataset']}, forgetting `{settings['forget']}`, "
        f"{settings['seeds']} seeds, mean±std; the whole run took {run['seconds']:.0f} s on "
        f"{origin['cores']} cores ({origin['device']}, jax {versions['jax']}, "
        f"{origin['date'][:10]}, commit {origin['commit']}).\n\n"
    )


def _grid(path: Path) -> str:
    said = json.loads(path.read_text(encoding="utf-8"))
    origin = said["provenance"]
    return (
        f"\n{verdicts_to_markdown([cell_from_json(cell) for cell in said['cells']])}\n"
        f"The run took {said['seconds'] / 60:.0f} minutes on {origin['cores']} cores "
        f"({origin['device']}, jax {origin['versions']['jax']}, {origin['date'][:10]}, commit "
        f"{origin['commit']}).\n\n"
    )


_MAKERS: dict[str, Callable[[Path], str]] = {
    "results/quickstart/*.json": _quickstart,
    "results/digits_grid/*.json": _grid,
}


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Readme)))
