"""Audits: what an unlearned model still knows, and how far it is from a retrained one."""

from typing import Any

from unlearnkit.auditing.accuracy_drop import AccuracyDrop
from unlearnkit.auditing.attack_effect import lacks_effect
from unlearnkit.auditing.case import (
    Case,
    CaseAudit,
    InMemory,
    NotApplicable,
    Share,
    Subject,
    extras_of,
    judge,
)
from unlearnkit.auditing.challenge import challenge_epsilons, challenge_forgetting_quality
from unlearnkit.auditing.crafted_queries import CraftedQueries, craft_queries
from unlearnkit.auditing.easydub_folder import (
    MarginFolder,
    audit_margins,
    read_easydub_folder,
)
from unlearnkit.auditing.ensemble_audits import ForgettingQuality, Klom
from unlearnkit.auditing.ensembles import Ensemble, retrained_ensemble, unlearned_ensemble
from unlearnkit.auditing.entropy_svm import EntropySvm
from unlearnkit.auditing.evaluate import (
    DEFAULT_ATTACKS,
    DEFAULT_OPTML,
    GAP_METRICS,
    Reference,
    accuracy,
    activation_distance,
    audit_reference,
    average_gap,
    evaluate,
    loss_divergence,
    prediction_agreement,
)
from unlearnkit.auditing.evaluation import Evaluation
from unlearnkit.auditing.evidence import (
    Need,
    least_p_value,
    least_visible_auc,
    needs,
    rank_p_value,
)
from unlearnkit.auditing.extraction_likelihood import ExtractionLikelihood
from unlearnkit.auditing.forged_forgetting import ForgedForgetting
from unlearnkit.auditing.forgetting_quality import (
    challenge_score,
    example_epsilons,
    forgetting_quality,
)
from unlearnkit.auditing.from_original import FromOriginal
from unlearnkit.auditing.gaussian_kl import gaussian_kl
from unlearnkit.auditing.gaussian_unlearning import (
    GaussianPoisons,
    GaussianUnlearningScore,
    audit_gradients,
    gaussian_poisons,
)
from unlearnkit.auditing.information import (
    GaussianWeights,
    query_information,
    query_set_information,
    white_box_information,
)
from unlearnkit.auditing.information_curves import (
    information_bounds,
    information_tradeoff,
    sample_leakage,
)
from unlearnkit.auditing.intervals import (
    Interval,
    bounded_interval,
    bounded_mean,
    clopper_pearson,
    gap_and_reach,
    mean_and_error,
    mean_and_reach,
)
from unlearnkit.auditing.klom import klom
from unlearnkit.auditing.lira import Lira, lira_scores
from unlearnkit.auditing.lira_folder import query_margins, read_lira_folder
from unlearnkit.auditing.membership import MembershipInference
from unlearnkit.auditing.memorisation_accuracy import MemorisationAccuracy
from unlearnkit.auditing.min_k import MinKProbability
from unlearnkit.auditing.model_shift import ModelShift, model_shift, update_cosines
from unlearnkit.auditing.null_space import NullSpace, null_space_share
from unlearnkit.auditing.optml import OPTML_METRICS, OptmlScores, optml_gap
from unlearnkit.auditing.outputs import Outputs, audit_outputs, read_outputs
from unlearnkit.auditing.perplexity import Perplexity
from unlearnkit.auditing.poison_effects import PoisonEffects
from unlearnkit.auditing.poison_reports import FilterScore, PoisonSize, PoisonTransfer
from unlearnkit.auditing.population import PopulationAttack, p_values
from unlearnkit.auditing.quantile import QuantileAttack
from unlearnkit.auditing.queries import Queries
from unlearnkit.auditing.relearn import RelearnTime, forget_loss
from unlearnkit.auditing.representation import Representation, layer_moves, linear_cka
from unlearnkit.auditing.scores import auc, score_attack, tpr_at_fpr
from unlearnkit.auditing.scrubbing_path import scrubbing_path
from unlearnkit.auditing.shadows import Shadows, train_shadows
from unlearnkit.auditing.targeted_success import (
    PoisonTargets,
    TargetedSuccess,
    poison_targets,
)
from unlearnkit.auditing.threshold import ThresholdAttack
from unlearnkit.auditing.trigger_success import Trigger, TriggerSuccess, poison_trigger
from unlearnkit.auditing.weight_paths import PathPlane, principal_paths
from unlearnkit.base import Audit
from unlearnkit.kernels import (
    FEATURES,
    cross_entropy_losses,
    margins,
    membership_features,
)
from unlearnkit.registry import Registry

AUDITS: Registry[Audit | CaseAudit] = Registry(
    "audit",
    {
        "membership_inference": MembershipInference,
        "threshold": ThresholdAttack,
        "population": PopulationAttack,
        "quantile": QuantileAttack,
        "entropy_svm": EntropySvm,
        "optml": OptmlScores,
        "lira": Lira,
        "relearn_time": RelearnTime,
        "evaluation": Evaluation,
        "klom": Klom,
        "forgetting_quality": ForgettingQuality,
        "poison_effects": PoisonEffects,
        "accuracy_drop": AccuracyDrop,
        "gaussian_unlearning": GaussianUnlearningScore,
        "targeted_success": TargetedSuccess,
        "trigger_success": TriggerSuccess,
        "forged_forgetting": ForgedForgetting,
        "representation": Representation,
        "perplexity": Perplexity,
        "memorisation_accuracy": MemorisationAccuracy,
        "extraction_likelihood": ExtractionLikelihood,
        "min_k": MinKProbability,
    },
)
"""Every audit by name; studies, the command line and the shared tests read it."""


def create(name: str, **hyperparameters: Any) -> Audit | CaseAudit:
    """Returns the named audit with these hyperparameters.

    An `Audit` is called with a network and a task. A `CaseAudit` needs the references, poisons or
    ensembles of a study, see `judge`.

    Raises:
      ValueError: an unknown name, or a hyperparameter outside its range.
      TypeError: a hyperparameter that the audit does not have, or lacks.

    Example:
      audit = auditing.create("threshold", feature="confidence")
      metrics, curves = audit(key, model, variables, task)
    """
    return AUDITS.create(name, **hyperparameters)


__all__ = [
    "AUDITS",
    "DEFAULT_ATTACKS",
    "DEFAULT_OPTML",
    "FEATURES",
    "GAP_METRICS",
    "OPTML_METRICS",
    "AccuracyDrop",
    "Case",
    "CaseAudit",
    "CraftedQueries",
    "Ensemble",
    "EntropySvm",
    "Evaluation",
    "ExtractionLikelihood",
    "FilterScore",
    "ForgedForgetting",
    "ForgettingQuality",
    "FromOriginal",
    "GaussianPoisons",
    "GaussianUnlearningScore",
    "GaussianWeights",
    "InMemory",
    "Interval",
    "Klom",
    "Lira",
    "MarginFolder",
    "MembershipInference",
    "MemorisationAccuracy",
    "MinKProbability",
    "ModelShift",
    "Need",
    "NotApplicable",
    "NullSpace",
    "OptmlScores",
    "Outputs",
    "PathPlane",
    "Perplexity",
    "PoisonEffects",
    "PoisonSize",
    "PoisonTargets",
    "PoisonTransfer",
    "PopulationAttack",
    "QuantileAttack",
    "Queries",
    "Reference",
    "RelearnTime",
    "Representation",
    "Shadows",
    "Share",
    "Subject",
    "TargetedSuccess",
    "ThresholdAttack",
    "Trigger",
    "TriggerSuccess",
    "accuracy",
    "activation_distance",
    "auc",
    "audit_gradients",
    "audit_margins",
    "audit_outputs",
    "audit_reference",
    "average_gap",
    "bounded_interval",
    "bounded_mean",
    "challenge_epsilons",
    "challenge_forgetting_quality",
    "challenge_score",
    "clopper_pearson",
    "craft_queries",
    "create",
    "cross_entropy_losses",
    "evaluate",
    "example_epsilons",
    "extras_of",
    "forget_loss",
    "forgetting_quality",
    "gap_and_reach",
    "gaussian_kl",
    "gaussian_poisons",
    "information_bounds",
    "information_tradeoff",
    "judge",
    "klom",
    "lacks_effect",
    "layer_moves",
    "least_p_value",
    "least_visible_auc",
    "linear_cka",
    "lira_scores",
    "loss_divergence",
    "margins",
    "mean_and_error",
    "mean_and_reach",
    "membership_features",
    "model_shift",
    "needs",
    "null_space_share",
    "optml_gap",
    "p_values",
    "poison_targets",
    "poison_trigger",
    "prediction_agreement",
    "principal_paths",
    "query_information",
    "query_margins",
    "query_set_information",
    "rank_p_value",
    "read_easydub_folder",
    "read_lira_folder",
    "read_outputs",
    "retrained_ensemble",
    "sample_leakage",
    "score_attack",
    "scrubbing_path",
    "tpr_at_fpr",
    "train_shadows",
    "unlearned_ensemble",
    "update_cosines",
    "white_box_information",
]
