"""The command line `unlearnkit`, or `python -m unlearnkit`: every verb, and studies of them.

Exit codes. All commands: 2 where nothing could be done (the message says why), 130 after Ctrl-C.
run, resume, quickstart, report: 0 done, 1 a cell of the study failed or not all could be written, 3
stopped before the end. status: 0 finished, 1 finished and a cell failed, 3 not finished. inspect: 0
the file fits the network, 1 it does not. train, unlearn, poison: 0 done. recommend: 0 a method is
recommended, 1 none will do, 3 the time was over before there was a choice. audit: 0 the forget set
is not told apart from unseen examples, 1 it is. forge: 0 done, 1 there was nothing to forge. purge:
0 nothing holds the rows, 1 what does is listed. verify and calibrate: 0 VALID, 1 INVALID, 2 the log
cannot be verified (unreadable, tampered with, about other data, arguments that make no sense, or
any failure of the program), 3 INCOMPLETE: right as far as it goes, 4 UNPROVEN: right, but what was
checked is no proof; the summary says why.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence

import tyro

from unlearnkit.cli.auditing import Audit
from unlearnkit.cli.folding import folded_output
from unlearnkit.cli.inspecting import Inspect
from unlearnkit.cli.interruption import Interruption
from unlearnkit.cli.listing import List, Show
from unlearnkit.cli.poisons import Forge, Poison, Purge
from unlearnkit.cli.quickstart import Quickstart
from unlearnkit.cli.study import Report, Resume, Run, Status
from unlearnkit.cli.train import Train
from unlearnkit.cli.unlearn import Recommend, Unlearn
from unlearnkit.cli.verification import EXIT_CODES, Calibrate, Verify
from unlearnkit.io.text import escaped

__all__ = [
    "COMMANDS",
    "EXIT_CODES",
    "Audit",
    "Calibrate",
    "Forge",
    "Inspect",
    "List",
    "Poison",
    "Purge",
    "Quickstart",
    "Recommend",
    "Report",
    "Resume",
    "Run",
    "Show",
    "Status",
    "Train",
    "Unlearn",
    "Verify",
    "run",
]

_NOT_DONE, _BROKEN_PIPE = 2, 141
_DESCRIPTION = "Poison, train, forget, forge and audit: networks, studies, logs of training."
COMMANDS: Mapping[str, Callable[..., Callable[[Interruption], int]]] = {
    "quickstart": Quickstart,
    "run": Run,
    "resume": Resume,
    "status": Status,
    "report": Report,
    "list": List,
    "show": Show,
    "inspect": Inspect,
    "train": Train,
    "unlearn": Unlearn,
    "recommend": Recommend,
    "audit": Audit,
    "poison": Poison,
    "forge": Forge,
    "purge": Purge,
    "verify": Verify,
    "calibrate": Calibrate,
}
"""Every command by name."""


def run(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code of a command line."""
    with Interruption() as interruption:
        try:
            return _run(arguments, interruption)
        except KeyboardInterrupt:
            return interruption.say()
        except BrokenPipeError:  # whoever reads the output has seen enough, as `head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return _BROKEN_PIPE
        except Exception:  # whatever fails, exit code 1 says that a log is INVALID
            if interruption.happened:  # something made another error of it
                return interruption.say()
            raise


def _run(arguments: Sequence[str] | None, interruption: Interruption) -> int:
    given = sys.argv[1:] if arguments is None else list(arguments)
    # A script for completion, which is printed too, is not to be folded.
    interruption.command = shlex.join(["unlearnkit", *given])
    helps = not {"-h", "--help"}.isdisjoint(given)
    with folded_output() if helps else contextlib.nullcontext():
        command = tyro.extras.subcommand_cli_from_dict(
            {**COMMANDS}, prog="unlearnkit", description=_DESCRIPTION, args=given
        )
    try:
        if getattr(command, "cache", False):
            from unlearnkit.io.programs import keep_programs

            keep_programs()
        found: int = command(interruption)
        return found
    except Exception as error:
        if interruption.happened or isinstance(error, BrokenPipeError):
            raise
        ours = type(error).__module__.startswith("unlearnkit.")
        known = ours or isinstance(error, ValueError | TypeError | OSError | ImportError)
        message = str(error) if known else f"{type(error).__name__}: {error}"
        logs = isinstance(command, Verify | Calibrate)
        what = "cannot be verified" if logs else "error"
        print(f"{what}: {escaped(message, 2000)}", file=sys.stderr)
        return _NOT_DONE
