"""A terminal of 80 x 24: runs a command in it, and keeps what stands on its screen."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time

WIDTH, HEIGHT = 80, 24
_TOKEN = re.compile(r"\x1b\[(\??[\d;]*)([A-Za-z])|(\r)|(\n)|([^\x1b\r\n])")


class Screen:
    """The lines that a terminal of this width has shown; text beyond its edge begins a new line."""

    def __init__(self):
        self.lines, self.row, self.column = [""], 0, 0

    def feed(self, text):
        for code, letter, start, end, one in _TOKEN.findall(text):
            if letter == "A":
                self.row = max(0, self.row - int(code or 1))
            elif letter == "K":
                self.lines[self.row] = ""
            elif start:
                self.column = 0
            elif end or (one and self.column == WIDTH):
                self.row, self.column = self.row + 1, 0
                self.lines += [""] * (self.row + 1 - len(self.lines))
            if one:
                line = self.lines[self.row].ljust(self.column)
                self.lines[self.row] = line[: self.column] + one + line[self.column + 1 :]
                self.column += 1

    def text(self):
        return "\n".join(line.rstrip() for line in self.lines).rstrip()


def run_in_terminal(command, *, press=None, environment=None, seconds=120):
    """Runs a command in the terminal.

    Args:
      command: with its arguments.
      press: Ctrl-C is pressed once as soon as this text stands on the screen.
      environment: more of it.
      seconds: until it is killed.

    Returns:
      The exit code, the last screen, and the screens after each piece of output.
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", HEIGHT, WIDTH, 0, 0))
    unset = ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR")
    inherited = {name: value for name, value in os.environ.items() if name not in unset}
    process = subprocess.Popen(
        command,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        env={**inherited, "TERM": "xterm", **(environment or {})},
    )
    os.close(theirs)
    screen, screens, rest, deadline = Screen(), [], b"", time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not select.select([ours], [], [], 1)[0]:
            continue
        try:
            piece = rest + os.read(ours, 65536)
        except OSError:  # the other side is closed
            break
        if not piece:
            break
        text = piece.decode(errors="ignore")
        cut = max(text.rfind("\x1b"), 0) if "\x1b" in text[-8:] else len(text)
        rest = text[cut:].encode()
        screen.feed(text[:cut])
        screens.append(screen.text())
        if press is not None and press in screens[-1]:
            os.killpg(process.pid, signal.SIGINT)
            press = None
    os.close(ours)
    if process.poll() is None and time.monotonic() >= deadline:
        process.kill()
    screen.feed(rest.decode())
    return process.wait(), screen.text(), screens
