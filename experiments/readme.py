"""Writes the README's figures from committed results, so that none is ever typed.

Command:   python -m experiments.readme          (writes)
           python -m experiments.readme --check  (fails where the README is not what it would write)
"""

from __future__ import annotations

import dataclasses
import re
import sys
from pathlib import Path

import tyro

from experiments.frame import load_result
from unlearnkit.io.files import write_text
from unlearnkit.reporting import to_markdown

ROOT = Path(__file__).parents[1]
_BLOCK = re.compile(r"(<!-- generated: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Readme:
    """Writes the README's figures from committed results."""

    check: bool = False
    """Only compare; exit with 1 where the README differs."""
    path: Path = ROOT / "README.md"
    """The file with `<!-- generated: PATH -->` blocks; PATH is of a result, from the root."""


def main(config: Readme) -> int:
    """Writes or checks; returns the exit code."""
    written = config.path.read_text(encoding="utf-8")
    wanted = regenerate(written)
    if wanted == written:
        return 0
    if config.check:
        print(f"{config.path.name} differs from the results; run python -m experiments.readme")
        return 1
    write_text(config.path, wanted)
    return 0


def regenerate(text: str) -> str:
    """Returns `text` with every generated block made anew.

    Raises:
      FileNotFoundError: a block names a result that is not there.
      ValueError: a block names a file of a kind that no block is made from.
    """
    return _BLOCK.sub(lambda match: f"{match[1]}{_block(ROOT / match[2])}{match[3]}", text)


def _block(path: Path) -> str:
    if not path.match("results/quickstart/*.json"):
        raise ValueError(f"no block is made from {path}; known: results/quickstart/*.json")
    run, records = load_result(path)
    settings, origin = run["settings"], run["provenance"]
    versions = origin["versions"]
    return (
        f"\n{to_markdown(records)}\n"
        f"{settings['model']} on {settings['dataset']}, forgetting `{settings['forget']}`, "
        f"{settings['seeds']} seeds, mean±std; the whole run took {run['seconds']:.0f} s on "
        f"{origin['cores']} cores ({origin['device']}, jax {versions['jax']}, "
        f"{origin['date'][:10]}, commit {origin['commit']}).\n\n"
    )


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Readme)))
