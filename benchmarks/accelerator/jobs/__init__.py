"""The jobs, in order of what they tell for each minute."""

from __future__ import annotations

from benchmarks.accelerator.job import Job

JOBS: tuple[Job, ...] = ()
