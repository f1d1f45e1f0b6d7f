"""Ctrl-C at any moment."""

import subprocess
import sys
import textwrap

import pytest

SWALLOWS = textwrap.dedent(
    """
    import os, signal, sys, threading, time
    from unlearnkit.cli import interruption
    interruption._GRACE_SECONDS = 0.2
    with interruption.Interruption("go on with: this") as one:
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
        {work}
    print("never")
    """
)


@pytest.mark.parametrize(
    "work",
    [
        # A callback that takes every error for its own.
        "try: time.sleep(5)\n    except BaseException: time.sleep(5)",
        # A destructor, whose errors Python prints and forgets.
        "x = type('X', (), {'__del__': lambda self: time.sleep(5)})(); del x; time.sleep(5)",
        # A call that holds the main thread: no handler of Python runs until it is over.
        "import hashlib; hashlib.pbkdf2_hmac('sha256', b'', b'', 9_000_000)",
    ],
)
def test_it_ends_in_one_line_even_where_the_interrupt_is_lost(work):
    found = subprocess.run(
        [sys.executable, "-c", SWALLOWS.format(work=work)], capture_output=True, text=True
    )
    assert (found.returncode, found.stdout) == (130, "")
    assert found.stderr == "interrupted; go on with: this\n"


def test_the_handlers_are_those_of_before():
    code = textwrap.dedent(
        """
        import signal, sys
        from unlearnkit.cli.interruption import Interruption
        before = signal.getsignal(signal.SIGINT), sys.unraisablehook
        with Interruption():
            assert signal.getsignal(signal.SIGINT) is not before[0]
        assert (signal.getsignal(signal.SIGINT), sys.unraisablehook) == before
        """
    )
    subprocess.run([sys.executable, "-c", code], check=True)
