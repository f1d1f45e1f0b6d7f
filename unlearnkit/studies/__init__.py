"""Unlearners, attacks and audits over seeds, and the search for hyperparameters."""

from unlearnkit.records import (
    PoisonRecord,
    Record,
)
from unlearnkit.studies.budget import (
    Price,
    has_epochs,
    price,
    with_epochs,
)
from unlearnkit.studies.compare import (
    ORIGINAL,
    OnStage,
    compare,
)
from unlearnkit.studies.effects import (
    PoisonedTraining,
    poison_and_train,
    poison_effects,
    poisoned_task,
)
from unlearnkit.studies.poison import (
    BUDGETS,
    RETRAIN,
    OnPoisoned,
    poison_and_unlearn,
)
from unlearnkit.studies.selection import (
    Selection,
    Trial,
    choosing_task,
    grid,
    sweep,
)

__all__ = [
    "BUDGETS",
    "ORIGINAL",
    "RETRAIN",
    "OnPoisoned",
    "OnStage",
    "PoisonRecord",
    "PoisonedTraining",
    "Price",
    "Record",
    "Selection",
    "Trial",
    "choosing_task",
    "compare",
    "grid",
    "has_epochs",
    "poison_and_train",
    "poison_and_unlearn",
    "poison_effects",
    "poisoned_task",
    "price",
    "sweep",
    "with_epochs",
]
