"""Results of stages on disk, called by a hash of all that they depend on."""

from unlearnkit.studies.store.environment import Environment
from unlearnkit.studies.store.folder import Store, StoreError, StoreWarning
from unlearnkit.studies.store.keys import StageKey, content_hash, stage_key
from unlearnkit.studies.store.stages import Stage

__all__ = [
    "Environment",
    "Stage",
    "StageKey",
    "Store",
    "StoreError",
    "StoreWarning",
    "content_hash",
    "stage_key",
]
