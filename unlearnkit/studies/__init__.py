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
from unlearnkit.studies.store import (
    Environment,
    Stage,
    StageKey,
    Store,
    StoreError,
    StoreWarning,
    content_hash,
    stage_key,
)

__all__ = [
    "BUDGETS",
    "ORIGINAL",
    "RETRAIN",
    "Environment",
    "OnPoisoned",
    "OnStage",
    "PoisonRecord",
    "PoisonedTraining",
    "Price",
    "Record",
    "Selection",
    "Stage",
    "StageKey",
    "Store",
    "StoreError",
    "StoreWarning",
    "Trial",
    "choosing_task",
    "compare",
    "content_hash",
    "grid",
    "has_epochs",
    "poison_and_train",
    "poison_and_unlearn",
    "poison_effects",
    "poisoned_task",
    "price",
    "stage_key",
    "sweep",
    "with_epochs",
]
