"""Runs the benchmarks: `python -m benchmarks [module ...]`.

Each module's rows go to `results/<module>.json` with their provenance; the tables in `README.md`
are then made from all of these files. A module whose peer is not installed says so in its rows.
`python -m benchmarks accelerator --help` tells of the run on an accelerator.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import sys
from pathlib import Path

from benchmarks import frame
from benchmarks.accelerator import cli as accelerator

README = Path(__file__).parent / "README.md"
SECTIONS = ("jobs", "tables")
"""The parts of the README that are made, each between `<!-- NAME: begin -->` and its end."""


def modules() -> list[str]:
    """Returns the names of the benchmark modules: those that define `run`.

    They are read, not imported: a peer that one of them needs may not be installed.
    """
    return sorted(path.stem for path in README.parent.glob("*.py") if _defines_run(path))


def _defines_run(path: Path) -> bool:
    tree = ast.parse(path.read_text())
    return any(isinstance(node, ast.FunctionDef) and node.name == "run" for node in tree.body)


def tables(folder: Path = frame.RESULTS) -> str:
    """Returns one section per results file: its provenance in a line, and its table."""
    sections = []
    for path in sorted(folder.glob("*.json")):
        where, rows = frame.read_json(path)
        versions = ", ".join(f"{name} {version}" for name, version in where["versions"].items())
        sections.append(
            f"### {path.stem}\n\n{where['date']}, commit {where['commit']}, {where['device']}, "
            f"{where['cores']} cores, {where['dtype']}; {versions}.\n\n{frame.markdown(rows)}\n"
        )
    return "\n".join(sections)


def make_readme(text: str) -> str:
    """Returns the README with its made parts anew."""
    made = {
        "jobs": accelerator.list_jobs(),
        "tables": "\n".join(filter(None, [tables(), accelerator.tables()])),
    }
    for name in SECTIONS:
        begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        head, rest = text.split(begin)
        text = f"{head}{begin}\n\n{made[name]}\n{end}{rest.split(end)[1]}"
    return text


def main(argv: list[str]) -> int:
    """Runs what is asked for; returns the exit code."""
    if argv[:1] == ["accelerator"]:
        return accelerator.main(argv[1:])
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("modules", nargs="*", help=f"which to run; all: {', '.join(modules())}")
    parser.add_argument("--tables-only", action="store_true", help="rewrite README.md, run nothing")
    arguments = parser.parse_args(argv)
    unknown = set(arguments.modules) - set(modules())
    if unknown:
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}; one of {modules()}")
    for name in [] if arguments.tables_only else arguments.modules or modules():
        rows = importlib.import_module(f"benchmarks.{name}").run()
        frame.write_json(name, rows)
        print(f"\n{name}\n{frame.markdown(rows)}", flush=True)
    README.write_text(make_readme(README.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
