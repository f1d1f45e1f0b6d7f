"""Ctrl-C, at any moment: one line that says how to go on, and nothing else."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType

EXIT_CODE = 130
"""128 and the number of the signal, as shells have it."""
_GRACE_SECONDS = 2.0
_SHOW_CURSOR = "\x1b[?25h"


class Interruption:
    """Ends a command at Ctrl-C.

    The first Ctrl-C raises KeyboardInterrupt, so that files and workers are closed. Where that is
    lost (in a callback that swallows it) or has to wait (for a long compiled call), the process
    ends all the same after two seconds: what is on the disk is whole at every moment.

    Attributes:
      how: what the line says of going on; a command sets it as soon as there is something to go on
        with.
      happened: whether Ctrl-C was pressed.
      command: the line that is run, for records.

    Example:
      with Interruption() as interruption:
          interruption.how = "go on with: unlearnkit resume runs/study"
          work()
    """

    def __init__(self, how: str = "run the same command again") -> None:
        self.how = how
        self.happened = False
        self.command = ""
        self._over = threading.Event()
        self._said = threading.Lock()
        self._handler, self._hook = signal.getsignal(signal.SIGINT), sys.unraisablehook
        self._pipe: tuple[int, int] | None = None

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            # A handler of Python waits for the call that is running; the pipe does not.
            self._pipe = read, write = os.pipe()
            os.set_blocking(write, False)
            signal.set_wakeup_fd(write, warn_on_full_buffer=False)
            signal.signal(signal.SIGINT, self._raise)
            sys.unraisablehook = self._on_unraisable
            threading.Thread(target=self._watch, args=(read,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        if self._pipe is not None:
            signal.set_wakeup_fd(-1)
            os.close(self._pipe[1])
            # What ends by Ctrl-C is not to be disturbed by another one.
            signal.signal(signal.SIGINT, signal.SIG_IGN if self.happened else self._handler)
            sys.unraisablehook = self._hook

    def say(self) -> int:
        """Prints the line, once; returns the exit code."""
        if self._said.acquire(blocking=False):
            shown = _SHOW_CURSOR if sys.stderr.isatty() else ""
            print(f"{shown}interrupted; {self.how}", file=sys.stderr, flush=True)
        return EXIT_CODE

    def _raise(self, number: int, frame: FrameType | None) -> None:
        if not self.happened:
            self.happened = True
            raise KeyboardInterrupt

    def _watch(self, read: int) -> None:
        pressed = False
        while not pressed and (number := os.read(read, 1)):
            pressed = number[0] == signal.SIGINT
        os.close(read)
        if pressed and not self._over.wait(_GRACE_SECONDS):
            # Live bars stand in the place of the stream, and would be drawn again below the line.
            sys.stderr = sys.__stderr__ or sys.stderr
            if sys.stderr.isatty():
                print(file=sys.stderr)
            self.say()
            os._exit(EXIT_CODE)

    def _on_unraisable(self, unraisable: sys.UnraisableHookArgs) -> None:
        if not self.happened:
            self._hook(unraisable)
