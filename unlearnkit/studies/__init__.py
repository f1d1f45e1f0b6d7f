"""Studies: any unlearners and attacks, defences and audits over seeds, and their search."""

from unlearnkit.records import (
    NO_DEFENCE,
    Cell,
    Difference,
    Record,
)
from unlearnkit.studies.announcing import (
    OnNetwork,
    OnPoisoned,
    OnRecord,
    OnStage,
)
from unlearnkit.studies.budget import (
    Price,
    has_epochs,
    price,
    with_epochs,
)
from unlearnkit.studies.checks import (
    check,
)
from unlearnkit.studies.compare import (
    BUDGETS,
    CONTROL,
    compare,
    poison_and_unlearn,
)
from unlearnkit.studies.declared import Declared, StudyFileError, parse_study, read_study
from unlearnkit.studies.engine import (
    forgotten_of,
    run,
)
from unlearnkit.studies.executors import (
    Dask,
    ExecutorError,
    Processes,
    parse_executor,
)
from unlearnkit.studies.fitting import train
from unlearnkit.studies.followed import (
    Course,
    Followed,
)
from unlearnkit.studies.paired import Runs
from unlearnkit.studies.parts import (
    count_records,
    parse_shard,
)
from unlearnkit.studies.poisoned import (
    partial_task,
    poisoned_task,
)
from unlearnkit.studies.purging import Held, Purged, purge
from unlearnkit.studies.recommending import (
    Candidate,
    Recommendation,
    declared_set,
    recommend,
)
from unlearnkit.studies.rules import (
    RULES,
    AccuracyLessMia,
    Measured,
    RetrainLike,
    Rule,
    ToleranceError,
    choose,
    measured_of,
)
from unlearnkit.studies.running import (
    Unfinished,
)
from unlearnkit.studies.selection import (
    Selection,
    Trial,
    choosing_task,
    grid,
    sweep,
)
from unlearnkit.studies.significance import (
    benjamini_hochberg,
    cell_from_json,
    cell_to_json,
    holm,
    significance,
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
from unlearnkit.studies.study import (
    ORIGINAL,
    RETRAIN,
    Pair,
    Study,
)
from unlearnkit.studies.tuning import (
    RateSearch,
    Tried,
    Tuned,
    Tuning,
    search_rates,
    tune,
)

__all__ = [
    "BUDGETS",
    "CONTROL",
    "NO_DEFENCE",
    "ORIGINAL",
    "RETRAIN",
    "RULES",
    "AccuracyLessMia",
    "Candidate",
    "Cell",
    "Course",
    "Dask",
    "Declared",
    "Difference",
    "Environment",
    "ExecutorError",
    "Followed",
    "Held",
    "Measured",
    "OnNetwork",
    "OnPoisoned",
    "OnRecord",
    "OnStage",
    "Pair",
    "Price",
    "Processes",
    "Purged",
    "RateSearch",
    "Recommendation",
    "Record",
    "RetrainLike",
    "Rule",
    "Runs",
    "Selection",
    "Stage",
    "StageKey",
    "Store",
    "StoreError",
    "StoreWarning",
    "Study",
    "StudyFileError",
    "ToleranceError",
    "Trial",
    "Tried",
    "Tuned",
    "Tuning",
    "Unfinished",
    "benjamini_hochberg",
    "cell_from_json",
    "cell_to_json",
    "check",
    "choose",
    "choosing_task",
    "compare",
    "content_hash",
    "count_records",
    "declared_set",
    "forgotten_of",
    "grid",
    "has_epochs",
    "holm",
    "measured_of",
    "parse_executor",
    "parse_shard",
    "parse_study",
    "partial_task",
    "poison_and_unlearn",
    "poisoned_task",
    "price",
    "purge",
    "read_study",
    "recommend",
    "run",
    "search_rates",
    "significance",
    "stage_key",
    "sweep",
    "train",
    "tune",
    "with_epochs",
]
