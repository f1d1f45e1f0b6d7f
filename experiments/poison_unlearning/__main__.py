"""Runs the experiment; see `experiments.poison_unlearning`."""

from experiments.frame import run_command
from experiments.poison_unlearning.run import PoisonUnlearning, main

if __name__ == "__main__":
    run_command(main, PoisonUnlearning)
