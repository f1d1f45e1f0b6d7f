"""Writes what the commands of docs/command_line.md print, so that none of it is ever typed.

Command:   python -m docs.transcripts          (runs them, and writes)
           python -m docs.transcripts --check  (fails where they print something else)
Time:      half a minute on two cores.

The page has blocks `<!-- run: COMMAND -->` … `<!-- end -->`, which are run one after another in
an empty folder, and blocks `<!-- file: NAME -->` before a listing that is put there as a file.
A check lets numbers, hashes, and the spaces about them, differ: times do, last digits of results,
and the names of stages, which tell the sources.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import io
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import tyro

from docs.readme import ROOT
from unlearnkit import cli
from unlearnkit.io.files import write_text

_BLOCK = re.compile(
    r"<!-- file: (?P<file>\S+) -->\n```\w*\n(?P<content>.*?)```\n"
    r"|(?P<head><!-- run: (?P<command>.+?) -->\n).*?(?P<end><!-- end -->)",
    re.DOTALL,
)
_HASH = re.compile(r"\b[0-9a-f]{2}/[0-9a-f]{8,}|\b[0-9a-f]{40,}\b")
_NUMBER = re.compile(r"[-+]?\d+(?:[.:]\d+)*(?:e-?\d+)?")


@dataclasses.dataclass(frozen=True)
class Transcripts:
    """Runs the commands of a page, and writes what they print."""

    check: bool = False
    """Only compare; exit with 1 where they print something else, but for numbers."""
    path: Path = ROOT / "docs" / "command_line.md"
    """The page."""


def main(config: Transcripts) -> int:
    """Writes or checks; returns the exit code."""
    written = config.path.read_text(encoding="utf-8")
    wanted = regenerate(written)
    if config.check:
        differing = compare(written, wanted)
        print("\n".join(differing))
        return int(bool(differing))
    write_text(config.path, wanted)
    return 0


def compare(written: str, wanted: str) -> list[str]:
    """Returns the lines in which two pages differ, but for numbers and the spaces about them."""
    before, now = ([_masked(line) for line in text.splitlines()] for text in (written, wanted))
    return list(difflib.unified_diff(before, now, "written", "printed", n=0, lineterm=""))


def regenerate(text: str) -> str:
    """Returns a page with every command's output made anew."""
    with _empty_folder() as folder:
        return _BLOCK.sub(lambda match: _make(match, folder), text)


def _make(match: re.Match[str], folder: Path) -> str:
    if match["file"]:
        (folder / match["file"]).write_text(match["content"], encoding="utf-8")
        return match[0]
    program, *arguments = shlex.split(match["command"])
    if program != "unlearnkit":
        raise ValueError(f"a transcript is of the command unlearnkit, not of {program}")
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            code = cli.run(arguments)
        except SystemExit as ended:  # --help and usage errors
            code = int(ended.code or 0)
    lines = [line.rstrip() for line in said.getvalue().strip().splitlines()]
    ended_with = [f"(exit code {code})"] if code else []
    shown = "\n".join([f"$ {match['command']}", *lines, *ended_with])
    return f"{match['head']}\n```console\n{shown}\n```\n\n{match['end']}"


def _masked(line: str) -> str:
    numbered = _NUMBER.sub("#", _HASH.sub("#", line))
    return re.sub(r"[─\s]+", " ", numbered).strip()


@contextlib.contextmanager
def _empty_folder() -> Iterator[Path]:
    """Yields an empty folder, which is the current one within an 80-column terminal's settings."""
    plain = {"COLUMNS": "80", "LINES": "24", "NO_COLOR": "1", "TERM": "dumb"}
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.chdir(folder),
        mock.patch.dict(os.environ, plain),
    ):
        yield Path(folder)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Transcripts)))
