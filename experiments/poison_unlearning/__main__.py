"""Runs the experiment; see `experiments.poison_unlearning`."""

import sys

import tyro

from experiments.poison_unlearning.run import PoisonUnlearning, main

if __name__ == "__main__":
    sys.exit(main(tyro.cli(PoisonUnlearning)))
