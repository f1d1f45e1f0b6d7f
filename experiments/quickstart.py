"""Train, forget, audit: unlearning methods against retraining, over seeds.

Command:   python -m experiments.quickstart, which is `unlearnkit quickstart`
           python -m experiments.quickstart --dataset mnist --data-dir DIR
           python -m experiments.quickstart --methods all
Time:      under a minute on two cores (digits), about 20 minutes (MNIST).
Expected:  random labels forget the digit and stay near to Retrain; fine-tuning forgets nothing.
"""

import sys

from unlearnkit.cli import run

if __name__ == "__main__":
    sys.exit(run(["quickstart", *sys.argv[1:]]))
