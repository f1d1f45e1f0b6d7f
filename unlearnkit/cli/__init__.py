"""The command line: `python -m unlearnkit verify | calibrate | run`.

Exit codes of verify and calibrate: 0 VALID, 1 INVALID, 2 the log cannot be verified (unreadable,
tampered with, about other data, arguments that make no sense, or any failure of the program), 3
INCOMPLETE: right as far as it goes, 4 UNPROVEN: right, but what was checked is no proof; the
summary says why. Of run: 0, 1 where a cell of the study failed, 2 where it could not be run.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import tyro

from unlearnkit.cli.study import RunStudy
from unlearnkit.cli.verification import EXIT_CODES, Calibrate, Verify
from unlearnkit.io.programs import keep_programs
from unlearnkit.io.text import escaped

__all__ = ["EXIT_CODES", "Calibrate", "RunStudy", "Verify", "run"]

_NOT_DONE = 2


def run(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code of a command line."""
    command = tyro.extras.subcommand_cli_from_dict(
        {"verify": Verify, "calibrate": Calibrate, "run": RunStudy},
        prog="python -m unlearnkit",
        description=__doc__,
        args=None if arguments is None else list(arguments),
    )
    try:
        if command.cache:
            keep_programs()
        found: int = command()
        return found
    except Exception as error:  # whatever fails, exit code 1 says that the log is INVALID
        known = isinstance(error, ValueError | TypeError | OSError | ImportError)
        message = str(error) if known else f"{type(error).__name__}: {error}"
        what = "the study cannot be run" if isinstance(command, RunStudy) else "cannot be verified"
        print(f"{what}: {escaped(message, 2000)}", file=sys.stderr)
        return _NOT_DONE
