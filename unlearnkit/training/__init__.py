"""Training: recipes, steps, runs, checkpoints."""

from unlearnkit.training.checkpoint import (
    CheckpointError,
    CheckpointWarning,
    fingerprint,
    load_variables,
    save_variables,
)
from unlearnkit.training.features import penultimate
from unlearnkit.training.fit import DivergedError, descend, fit, fit_many
from unlearnkit.training.predict import predict
from unlearnkit.training.recipe import Recipe, learning_rate_schedule, make_optimizer
from unlearnkit.training.step import (
    CrossEntropy,
    Objective,
    TrainState,
    cross_entropy,
    epoch_batches,
    init_train_state,
    run_epoch,
    train_epoch,
    train_step,
)

__all__ = [
    "CheckpointError",
    "CheckpointWarning",
    "CrossEntropy",
    "DivergedError",
    "Objective",
    "Recipe",
    "TrainState",
    "cross_entropy",
    "descend",
    "epoch_batches",
    "fingerprint",
    "fit",
    "fit_many",
    "init_train_state",
    "learning_rate_schedule",
    "load_variables",
    "make_optimizer",
    "penultimate",
    "predict",
    "run_epoch",
    "save_variables",
    "train_epoch",
    "train_step",
]
