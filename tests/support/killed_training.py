"""A study whose process kills itself in a training: python killed_training.py STAGE EPOCH FOLDER.

STAGE begins what the study says of the training.
"""

import os
import signal
import sys

from tiny_study import KEY, draw, study

from unlearnkit.data import RandomForget
from unlearnkit.poisoning import Budget, LabelFlip
from unlearnkit.studies import Pair, run, stage_cache
from unlearnkit.training import Recipe

PARTS = {
    "data": Pair(draw(0, 60), draw(1, 40)),
    "recipes": Recipe(epochs=6, batch_size=20, learning_rate=0.3, gradient_noise=0.01),
    "forget": {"some": RandomForget(count=20)},
    "attacks": {"flip": LabelFlip(budget=Budget(0.2), placement="perturb")},
    "methods": {},
    "seeds": 1,
}


def records(folder, on_stage=None):
    stage_cache.CHECKPOINT_SECONDS = 1e-9
    return list(run(study(**PARTS), KEY, store=folder, on_stage=on_stage))


def main(stage, epoch, folder):
    def kill(said, done, total):
        if said.startswith(stage) and done == int(epoch):
            os.kill(os.getpid(), signal.SIGKILL)

    records(folder, kill)


if __name__ == "__main__":
    main(*sys.argv[1:])
