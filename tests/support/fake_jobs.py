"""Jobs that do what jobs may do, for the tests of the runner."""

import os
import sys
import time

from benchmarks.accelerator.job import Unavailable
from benchmarks.frame import Row


def two_rows(context):
    context.say("at work")
    yield Row("first", "small", value=1.0)
    yield Row("second", context.pick("large", "small"), value=float("nan"))


def fails_after_a_row(context):
    yield Row("kept", "small", value=1.0)
    raise ValueError("no such thing")


def out_of_memory(context):
    raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 99 bytes")
    yield


def dies(context):
    print("the last words", file=sys.stderr, flush=True)
    os.abort()
    yield


def hangs_after_a_row(context):
    yield Row("kept", "small", value=1.0)
    time.sleep(600)


def tells_its_process(context):
    yield Row("process", str(os.getpid()), note=os.environ["XLA_FLAGS"])


def needs_what_is_not_here(context):
    raise Unavailable("no such data were given")
    yield


def prints(context):
    print("not JSON")
    os.write(1, b"neither\n")
    yield Row("printed", "small")
