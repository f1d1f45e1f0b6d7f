"""Runs the experiment; see `experiments.ntk_scrubbing`."""

import sys

import tyro

from experiments.ntk_scrubbing.run import NtkScrubbing, main

if __name__ == "__main__":
    sys.exit(main(tyro.cli(NtkScrubbing)))
