"""Training: recipes, steps, runs, checkpoints."""

from unlearnkit.training.causal import CausalCrossEntropy
from unlearnkit.training.checkpoint import (
    CheckpointError,
    CheckpointWarning,
    fingerprint,
    load_variables,
    save_variables,
)
from unlearnkit.training.claim import Claim, TrajectoryError, variables_sha256
from unlearnkit.training.differentiate import FitGradient, differentiate_fit
from unlearnkit.training.divergence import DivergedError
from unlearnkit.training.features import penultimate
from unlearnkit.training.fit import Batching, descend, fit, fit_many
from unlearnkit.training.inheritance import inherited, train_from, train_like
from unlearnkit.training.logged_run import TrajectoryWriter
from unlearnkit.training.path import weight_path
from unlearnkit.training.predict import predict
from unlearnkit.training.recipe import (
    Recipe,
    learning_rate_schedule,
    make_optimizer,
    rate_table,
    speedrun_recipe,
)
from unlearnkit.training.resuming import keep_trainings
from unlearnkit.training.step import (
    CrossEntropy,
    Objective,
    TrainState,
    cross_entropy,
    epoch_batches,
    init_train_state,
    run_epoch,
    train_step,
)
from unlearnkit.training.trajectory import Logged, Trajectory, read_trajectory
from unlearnkit.training.unit import take_steps, take_steps_together

__all__ = [
    "Batching",
    "CausalCrossEntropy",
    "CheckpointError",
    "CheckpointWarning",
    "Claim",
    "CrossEntropy",
    "DivergedError",
    "FitGradient",
    "Logged",
    "Objective",
    "Recipe",
    "TrainState",
    "Trajectory",
    "TrajectoryError",
    "TrajectoryWriter",
    "cross_entropy",
    "descend",
    "differentiate_fit",
    "epoch_batches",
    "fingerprint",
    "fit",
    "fit_many",
    "inherited",
    "init_train_state",
    "keep_trainings",
    "learning_rate_schedule",
    "load_variables",
    "make_optimizer",
    "penultimate",
    "predict",
    "rate_table",
    "read_trajectory",
    "run_epoch",
    "save_variables",
    "speedrun_recipe",
    "take_steps",
    "take_steps_together",
    "train_from",
    "train_like",
    "train_step",
    "variables_sha256",
    "weight_path",
]
