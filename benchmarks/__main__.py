"""Runs the benchmarks: `python -m benchmarks [module ...]`.

Each module's rows go to `results/<module>.json` with their provenance; the table in `README.md` is
then made from all of these files. A module whose peer is not installed says so in its rows.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
from pathlib import Path

import benchmarks
from benchmarks import frame

README = Path(__file__).parent / "README.md"
BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"


def modules() -> list[str]:
    """Returns the names of the benchmark modules: those with a `run`."""
    names = [info.name for info in pkgutil.iter_modules(benchmarks.__path__) if not info.ispkg]
    names = [name for name in names if name not in ("frame", "__main__")]
    return [name for name in names if hasattr(importlib.import_module(f"benchmarks.{name}"), "run")]


def tables(folder: Path = frame.RESULTS) -> str:
    """Returns one section a results file: its provenance in a line, and its table."""
    sections = []
    for path in sorted(folder.glob("*.json")):
        where, rows = frame.read_json(path)
        versions = ", ".join(f"{name} {version}" for name, version in where["versions"].items())
        sections.append(
            f"### {path.stem}\n\n{where['date']}, commit {where['commit']}, {where['device']}, "
            f"{where['cores']} cores, {where['dtype']}; {versions}.\n\n{frame.markdown(rows)}\n"
        )
    return "\n".join(sections)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("modules", nargs="*", help=f"which to run; all: {', '.join(modules())}")
    parser.add_argument("--tables-only", action="store_true", help="rewrite README.md, run nothing")
    arguments = parser.parse_args()
    unknown = set(arguments.modules) - set(modules())
    if unknown:
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}; one of {modules()}")
    for name in [] if arguments.tables_only else arguments.modules or modules():
        rows = importlib.import_module(f"benchmarks.{name}").run()
        frame.write_json(name, rows)
        print(f"\n{name}\n{frame.markdown(rows)}", flush=True)
    head, rest = README.read_text().split(BEGIN)
    README.write_text(f"{head}{BEGIN}\n\n{tables()}\n{END}{rest.split(END)[1]}")


if __name__ == "__main__":
    main()
