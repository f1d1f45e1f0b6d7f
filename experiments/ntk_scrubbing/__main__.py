"""Runs the experiment; see `experiments.ntk_scrubbing`."""

from experiments.frame import run_command
from experiments.ntk_scrubbing.run import NtkScrubbing, main

if __name__ == "__main__":
    run_command(main, NtkScrubbing)
