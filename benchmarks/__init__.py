"""Benchmarks: every module here with a `run() -> list[Row]` is run by `python -m benchmarks`."""
