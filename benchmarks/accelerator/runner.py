"""Goes through jobs within a budget, each in a process that a watchdog can end.

A job that fails, takes too long or brings its process down is an outcome and not an end: the next
one gets a fresh process. Compiled programs stay in a cache on disk, and data decoded, so that a
fresh process costs seconds.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from benchmarks.accelerator.job import REHEARSAL_SLACK, SLACK, Job, Outcome
from benchmarks.accelerator.store import Store

ROOT = Path(__file__).resolve().parents[2]
START = 30.0
"""Seconds that the start of a process may add to a job before the watchdog ends it."""
RESERVE = 3.0
"""Seconds of the budget that are kept for ending a process and for the table."""
Tell = Callable[[str], None]


class NoAnswerError(Exception):
    """The process ended, or said nothing in time."""


class Worker:
    """One process that runs jobs; see `worker.py` for what it says.

    Args:
      work: the folder with the data and the cache of compiled programs.
      flags: XLA flags to start it with.
      environment: further variables.
    """

    def __init__(self, work: Path, flags: tuple[str, ...], environment: Mapping[str, str]):
        self.flags = flags
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed by `end`)
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.accelerator.worker", str(work)],
            cwd=ROOT,
            env={**child_environment(work, flags), **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            start_new_session=True,  # so that what it starts ends with it
        )
        stdout = self._process.stdout
        self._reader = threading.Thread(target=self._read, args=(stdout,), daemon=True)
        self._reader.start()

    def _read(self, stdout: IO[str]) -> None:
        with stdout:
            for line in stdout:
                self._lines.put(line)
        self._lines.put(None)

    def ask(self, **request: Any) -> None:
        """Sends a request.

        Raises:
          NoAnswerError: the process has ended.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except OSError:
            raise NoAnswerError(self._ended()) from None

    def hear(self, until: float) -> dict[str, Any]:
        """Returns the next event.

        Raises:
          NoAnswerError: the process ended.
          TimeoutError: it said nothing until then, by `time.monotonic`.
        """
        try:
            line = self._lines.get(timeout=max(0.0, until - time.monotonic()))
        except queue.Empty:
            raise TimeoutError from None
        if line is None:
            raise NoAnswerError(self._ended())
        return json.loads(line)

    def _ended(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        code = self._process.returncode
        how = "stopped answering" if code is None else f"ended with code {code}"
        if code is not None and code < 0:
            how = f"was killed by {signal.Signals(-code).name}"
        return f"the process {how}; it last said: {self.last_words()}"

    def last_words(self) -> str:
        """Returns the end of what the process wrote to standard error."""
        self._log.seek(0)
        lines = [line.strip() for line in self._log.read().splitlines() if line.strip()]
        return (lines[-1] if lines else "nothing")[-300:]

    def end(self) -> None:
        """Ends the process and all that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join()
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # what was not sent yet
            self._process.stdin.close()
        self._log.close()


def child_environment(work: Path, flags: tuple[str, ...]) -> dict[str, str]:
    """Returns the environment of a worker.

    JAX takes three quarters of the card, so that PyTorch has the rest; what the user has set stays.
    The CPU is a platform too, for what is compared with it.
    """
    platforms = os.environ.get("JAX_PLATFORMS", "")
    if platforms and "cpu" not in platforms.split(","):
        platforms += ",cpu"
    flags_there = os.environ.get("XLA_FLAGS", "").split()
    return {
        "JAX_COMPILATION_CACHE_DIR": str(work / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.3",
        "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.75",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        **os.environ,
        "JAX_PLATFORMS": platforms,
        "XLA_FLAGS": " ".join([*flags_there, *(f for f in flags if f not in flags_there)]),
        "PYTHONUNBUFFERED": "1",
    }


class Runner:
    """Runs jobs in order within a budget.

    Args:
      store: where outcomes go, each at once.
      work: the folder with the data and the cache of compiled programs.
      seconds: the budget, from now.
      rehearse: whether sizes are tiny.
      tell: prints a line.
      environment: variables of the workers, besides what they inherit.
    """

    def __init__(
        self,
        store: Store,
        work: Path,
        *,
        seconds: float,
        rehearse: bool = False,
        tell: Tell = print,
        environment: Mapping[str, str] | None = None,
    ):
        self._store, self._work, self._rehearse, self._tell = store, work, rehearse, tell
        self._environment = dict(environment or {})
        self._started = time.monotonic()
        self._ends = self._started + seconds - RESERVE
        self._worker: Worker | None = None

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *_: object) -> None:
        self._end_worker()

    def left(self) -> float:
        """Returns the seconds that are left of the budget."""
        return self._ends - time.monotonic()

    def open_device(self, flags: tuple[str, ...] = ()) -> None:
        """Starts a worker that opens its device; `describe_device` waits for it."""
        with contextlib.suppress(NoAnswerError):  # `describe_device` says so
            self._worker_with(flags).ask(do="describe")

    def describe_device(self) -> dict[str, Any]:
        """Returns what the worker that was started says of its device; it stays for jobs.

        Raises:
          RuntimeError: the worker cannot say.
        """
        assert self._worker is not None, "open_device comes first"
        try:
            event = self._worker.hear(min(self._ends, time.monotonic() + 4 * START))
        except (NoAnswerError, TimeoutError) as error:
            self._end_worker()
            raise RuntimeError(f"no device could be opened: {error or 'no answer'}") from None
        if event["event"] == "failed":
            raise RuntimeError(f"no device could be opened: {event['note']}")
        return event

    def run(self, jobs: Sequence[Job]) -> list[Outcome]:
        """Returns the outcomes of all jobs that are not done, in order; each is kept at once."""
        outcomes = []
        for job in jobs:
            if self._store.has(job):
                self._say(job, "done before")
                continue
            needed = job.estimate(self._rehearse)
            if needed > self.left():
                note = f"needs {needed:.0f} s, {max(self.left(), 0):.0f} s are left"
                outcome = Outcome(job.name, "not started", note=note, rehearsal=self._rehearse)
                self._say(job, outcome.note)
            else:
                outcome = self._run(job)
                self._store.put(outcome)
                message = f"{outcome.state} after {outcome.seconds:.0f} s"
                self._say(job, f"{message}: {outcome.note}" if outcome.note else message)
            outcomes.append(outcome)
        return outcomes

    def _run(self, job: Job) -> Outcome:
        begun = time.monotonic()
        outcome = Outcome(job.name, "cut off", rehearsal=self._rehearse)
        fresh = self._worker is None or self._worker.flags != job.flags
        slack = REHEARSAL_SLACK if self._rehearse else SLACK
        allowed = slack * job.estimate(self._rehearse) + (START if fresh else 0.0)
        deadline = min(begun + allowed, self._ends)
        try:
            worker = self._worker_with(job.flags)
            worker.ask(
                do="run",
                run=job.run,
                rehearse=self._rehearse,
                gigabytes=job.gigabytes,
                seconds=deadline - begun,
            )
            self._hear(worker, job, outcome, deadline)
        except TimeoutError:
            outcome.note = f"over its {deadline - begun:.0f} s (estimated {job.seconds:.0f} s)"
            if self._rehearse:
                outcome.note = f"over its {deadline - begun:.0f} s"
            self._end_worker()
        except NoAnswerError as error:
            outcome.state, outcome.note = "failed", str(error)
            self._end_worker()
        outcome.seconds = round(time.monotonic() - begun, 1)
        return outcome

    def _hear(self, worker: Worker, job: Job, outcome: Outcome, deadline: float) -> None:
        while True:
            event = worker.hear(deadline)
            if event["event"] == "row":
                outcome.rows.append(event["row"])
            elif event["event"] == "stage":
                self._say(job, event["what"])
            elif event["event"] == "failed":
                outcome.state, outcome.note = "failed", event["note"]
                if event["kind"] == "unavailable":
                    outcome.state = "unavailable"
                if event["kind"] == "memory":
                    outcome.note = f"too little memory on the card: {event['note']}"
                    self._end_worker()  # what the job held may live on in its traceback
                return
            elif event["event"] == "done":
                outcome.state, outcome.provenance = "done", event["provenance"]
                return

    def _worker_with(self, flags: tuple[str, ...]) -> Worker:
        if self._worker is not None and self._worker.flags != flags:
            self._end_worker()  # two of them do not fit a card whose memory each takes at its start
        if self._worker is None:
            self._worker = Worker(self._work, flags, self._environment)
        return self._worker

    def _end_worker(self) -> None:
        if self._worker is not None:
            self._worker.end()
            self._worker = None

    def _say(self, job: Job, what: str) -> None:
        self._tell(f"[{time.monotonic() - self._started:5.0f} s] {job.name}: {what}")
