"""All audits of an unlearned model in one record."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key
from scipy import stats

from unlearnkit.auditing.intervals import clopper_pearson
from unlearnkit.auditing.membership import MembershipInference
from unlearnkit.auditing.optml import OPTML_METRICS, OptmlScores, optml_gap
from unlearnkit.base import Audited, Dataset, Model, Task, Variables
from unlearnkit.host.random import host_key
from unlearnkit.kernels import cross_entropy_losses, membership_features
from unlearnkit.training import DivergedError, predict
from unlearnkit.validation import (
    InputWarning,
    check_held_out,
    check_task,
    check_variables,
)

HEADLINE_ATTACK = MembershipInference("loss", "logistic")
DEFAULT_ATTACKS = (
    HEADLINE_ATTACK,
    MembershipInference("confidence", "logistic"),
    MembershipInference("entropy", "logistic"),
    MembershipInference("modified_entropy", "logistic"),
    MembershipInference("margin", "logistic"),
    MembershipInference("logits", "logistic"),
    MembershipInference("logits", "svm"),
)

DEFAULT_OPTML = OptmlScores()

_MOST_CLASSES = 100
GAP_METRICS = ("accuracy_retain", "accuracy_forget", "accuracy_test", "mia_loss_logistic_accuracy")
"""The metrics whose absolute differences to Retrain make the average gap."""


class Reference(NamedTuple):
    """What `evaluate` compares with: a retrained network, audited once for all methods.

    Attributes:
      logits: by the set's name.
      metrics: at least `GAP_METRICS`; with `OPTML_METRICS` there is an `optml_gap` too.
      losses: of the forget set, [n].
    """

    logits: Mapping[str, Float[Array, "n c"]]
    metrics: Mapping[str, float]
    losses: Float[np.ndarray, " n"]


def evaluate(
    key: Key[Array, ""],
    model: Model,
    variables: Variables,
    task: Task,
    *,
    reference: Variables | Reference | None = None,
    attacks: Sequence[MembershipInference] = DEFAULT_ATTACKS,
    optml: OptmlScores | None = DEFAULT_OPTML,
) -> Audited:
    """Returns every audit of one model as one record.

    Metrics:
      accuracy_{retain,forget,test}: shares of right answers
      accuracy_gap: |Acc_f - Acc_te|
      accuracy_forget_{low,high}: the exact 95 % interval of Acc_f, which says how little a few
        forgotten examples can tell
      accuracy_test_{kept,forgotten}: on the test examples of the classes of the retain set, and of
        the others, where it lacks some, as in class-wise forgetting by `ClassForget(in_test=True)`
      mia_{feature}_{attacker}_{metric}: see `MembershipInference`
      ks_statistic, ks_pvalue, wasserstein: between the losses of the forget and the test set
      optml_{ua,ra,ta,mia_efficacy}: see `OptmlScores`

    Metrics with a reference:
      agreement_{set}: share of equal predictions, of retain, forget and test
      activation_distance_{set}: mean_i ‖softmax f(x_i) - softmax f_ref(x_i)‖₁, in [0, 2]
      wasserstein_reference: between the losses of the forget set, here and there
      average_gap: mean |difference to the reference| over the three accuracies and the accuracy of
        the loss attack, the headline distance to Retrain. It is ours: its attack tells the forget
        set from the test set, and is cross-validated
      optml_gap: that of the OPTML group's tables, to be put beside published ones: over UA, RA, TA
        and MIA-efficacy. Its attack tells retain from test, and then judges the forget set

    Curves: `loss_forget`, `loss_test`; `confusion_forget`, `confusion_test`, examples by true and
    predicted class [c, c], for up to 100 classes; `fpr` and `tpr` of each attack under its name.

    Args:
      key: of the attacks' subsamples and folds; audit the reference with the same.
      model: the network.
      variables: the weights that are judged.
      task: the question that they answer.
      reference: weights of a network retrained without the forget set, or, for several methods,
        what `audit_reference` made of them.
      attacks: membership attacks to run; the loss attack by logistic regression must be among
        them where a reference is given.
      optml: the scores that published tables hold; None leaves them out.

    Raises:
      ValueError: a task, variables or reference that does not fit the model.
      DivergedError: outputs that are not finite.

    Warns:
      InputWarning: a reference that answers as the model does, to the last bit; test examples that
        are training examples.

    Example:
      audited = auditing.evaluate(key, model, variables, task, reference=retrained)
      print(audited.metrics["mia_loss_logistic_accuracy"], audited.metrics["average_gap"])

    Source: Di et al. 2024, §6.2; Golatkar et al. 2020b, §5.5 (activation distance); average gap of
    Jia et al. 2023.
    """
    check_task(task, model)
    check_variables(variables, model)
    check_held_out((task.retain, task.forget), task.test)
    logits = _logits(model, variables, task)
    metrics, curves = audit_logits(key, logits, _labels(task), attacks, optml)
    if reference is None:
        return Audited(metrics, curves)
    if HEADLINE_ATTACK not in attacks:
        raise ValueError(f"the distance to a reference needs {HEADLINE_ATTACK} among the attacks")
    if isinstance(reference, Variables):
        reference = audit_reference(key, model, reference, task, optml=optml)
    metrics |= compare_with_reference(metrics, curves, logits, reference)
    if optml is not None:
        if not reference.metrics.keys() >= set(OPTML_METRICS):
            raise ValueError(
                "optml_gap needs the reference's optml_* metrics; call audit_reference with the "
                "same optml, or evaluate with optml=None"
            )
        metrics["optml_gap"] = optml_gap(metrics, reference.metrics)
    return Audited(metrics, curves)


def audit_reference(
    key: Key[Array, ""],
    model: Model,
    variables: Variables,
    task: Task,
    *,
    optml: OptmlScores | None = DEFAULT_OPTML,
) -> Reference:
    """Returns what `evaluate` needs of a retrained network, for use with several methods.

    Args:
      key: the one that `evaluate` is called with.
      model: the network.
      variables: weights retrained without the forget set.
      task: the question.
      optml: the one that `evaluate` is called with.

    Raises:
      ValueError: a task or variables that do not fit the model.
    """
    check_task(task, model)
    check_variables(variables, model)
    check_held_out((task.retain, task.forget), task.test)
    logits = _logits(model, variables, task)
    metrics, curves = audit_logits(key, logits, _labels(task), [HEADLINE_ATTACK], optml)
    return Reference(logits, metrics, curves["loss_forget"])


def compare_with_reference(
    metrics: Mapping[str, float],
    curves: Mapping[str, np.ndarray],
    logits: Mapping[str, Array],
    reference: Reference,
) -> dict[str, float]:
    """Returns the distances of an audited network to a reference; see `evaluate`.

    Args:
      metrics: of the network; without `GAP_METRICS` there is no `average_gap`.
      curves: of the network, with `loss_forget`.
      logits: of the network, by set.
      reference: what it is compared with.

    Raises:
      ValueError: a reference of another task.

    Warns:
      InputWarning: a reference that answers as the network does, to the last bit.
    """
    found = compare_logits(logits, reference.logits)
    if all(np.array_equal(mine, reference.logits[name]) for name, mine in logits.items()):
        warnings.warn(
            "the reference answers as the audited network does, to the last bit, on all sets: "
            "every distance to it is 0 and says nothing; give weights retrained without the "
            "forget set",
            InputWarning,
            stacklevel=3,
        )
    found["wasserstein_reference"] = float(
        stats.wasserstein_distance(curves["loss_forget"], reference.losses)
    )
    if set(GAP_METRICS) <= metrics.keys() & reference.metrics.keys():
        found["average_gap"] = average_gap(metrics, reference.metrics)
    return found


def compare_logits(
    mine: Mapping[str, Float[Array, "n c"]], other: Mapping[str, Float[Array, "n c"]]
) -> dict[str, float]:
    """Returns `agreement_{set}` and `activation_distance_{set}` of two networks.

    Args:
      mine: outputs by set.
      other: of the same examples, at least on these sets.

    Raises:
      ValueError: sets of another size.
    """
    found: dict[str, float] = {}
    for name, logits in mine.items():
        if other[name].shape != logits.shape:
            raise ValueError(
                f"the reference was audited on another task: {name} has {logits.shape[0]} "
                f"examples, there {other[name].shape[0]}; call audit_reference with this one"
            )
        found[f"agreement_{name}"] = prediction_agreement(logits, other[name])
        found[f"activation_distance_{name}"] = activation_distance(logits, other[name])
    return found


def average_gap(metrics: Mapping[str, float], reference: Mapping[str, float]) -> float:
    """Returns the mean absolute difference of `GAP_METRICS` to those of a reference.

    It is not the average gap of published tables, which is `optml_gap`.
    """
    return float(np.mean([abs(metrics[name] - reference[name]) for name in GAP_METRICS]))


def accuracy(model: Model, variables: Variables, dataset: Dataset) -> float:
    """Returns the share of examples that the network labels as they are labelled.

    Args:
      model: the network.
      variables: its weights and state.
      dataset: n examples, asked in evaluation mode.
    """
    logits = predict(model, variables, dataset.x)
    return float(np.mean(correct_predictions(logits, dataset.y)))


def prediction_agreement(one: Float[Array, "n c"], other: Float[Array, "n c"]) -> float:
    """Returns the share of examples on which two networks predict the same class."""
    return float(np.mean(correct_predictions(one, np.asarray(other).argmax(-1))))


def activation_distance(one: Float[Array, "n c"], other: Float[Array, "n c"]) -> float:
    """Returns mean_i ‖softmax(one_i) - softmax(other_i)‖₁, in [0, 2].

    Source: Golatkar et al. 2020b, §5.5 (mean L1 distance of the final activations).
    """
    difference = jax.nn.softmax(one) - jax.nn.softmax(other)
    return float(jnp.mean(jnp.sum(jnp.abs(difference), axis=-1)))


def loss_divergence(
    forget: Float[np.ndarray, " n"], test: Float[np.ndarray, " m"]
) -> dict[str, float]:
    """Returns how far two samples of losses are apart.

    Returns:
      `ks_statistic` and `ks_pvalue` of the two-sample Kolmogorov-Smirnov test, and `wasserstein`,
      the first Wasserstein distance, in units of the loss (nats).

    Source: Di et al. 2024, §6.2.
    """
    ks = stats.ks_2samp(forget, test)
    return {
        "ks_statistic": float(ks.statistic),
        "ks_pvalue": float(ks.pvalue),
        "wasserstein": float(stats.wasserstein_distance(forget, test)),
    }


def _logits(model: Model, variables: Variables, task: Task) -> dict[str, Array]:
    parts = {"retain": task.retain, "forget": task.forget, "test": task.test}
    logits = {name: predict(model, variables, part.x) for name, part in parts.items()}
    for name, values in logits.items():
        if not bool(jnp.isfinite(values).all()):
            raise DivergedError(f"the network's outputs on {name} are not finite: it has diverged")
    return logits


def _labels(task: Task) -> dict[str, Array]:
    return {name: getattr(task, name).y for name in ("retain", "forget", "test")}


def audit_logits(
    key: Key[Array, ""],
    logits: Mapping[str, Float[Array, "n c"]],
    labels: Mapping[str, Int[Array, " n"]],
    attacks: Sequence[MembershipInference],
    optml: OptmlScores | None,
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Returns metrics and curves of outputs, without a reference; see `evaluate`.

    Args:
      key: of the attacks' subsamples and folds.
      logits: by set, `forget` and `test` at least.
      labels: by set.
      attacks: membership attacks to run.
      optml: the scores of published tables, which need the retain set; None for none.
    """
    metrics = {
        f"accuracy_{name}": float(np.mean(correct_predictions(values, labels[name])))
        for name, values in logits.items()
    }
    size = len(labels["forget"])
    ends = clopper_pearson(round(metrics["accuracy_forget"] * size), size)
    metrics |= {"accuracy_forget_low": ends.low, "accuracy_forget_high": ends.high}
    metrics["accuracy_gap"] = abs(metrics["accuracy_forget"] - metrics["accuracy_test"])
    if "retain" in labels:
        metrics |= _accuracies_by_class(logits["test"], labels["test"], labels["retain"])
    seen = {name: labels[name] for name in ("forget", "test")}
    losses = {name: np.asarray(cross_entropy_losses(logits[name], y)) for name, y in seen.items()}
    metrics |= loss_divergence(losses["forget"], losses["test"])
    if optml is not None:
        metrics |= optml.score(logits, labels)
    curves = {f"loss_{name}": values for name, values in losses.items()}
    if logits["test"].shape[-1] <= _MOST_CLASSES:
        curves |= {f"confusion_{name}": confusion(logits[name], y) for name, y in seen.items()}
    same = host_key(key)  # all attacks see the same subsamples and folds
    for attack in attacks:
        members, others = (
            np.asarray(membership_features(attack.feature, logits[name], y))
            for name, y in seen.items()
        )
        audited = attack.attack(same.typed(), members, others)
        prefix = f"mia_{attack.feature}_{attack.attacker}"
        metrics |= {f"{prefix}_{name}": value for name, value in audited.metrics.items()}
        curves |= {f"{prefix}_{name}": values for name, values in audited.curves.items()}
    return metrics, curves


def confusion(logits: Float[Array, "n c"], labels: Array | np.ndarray) -> Int[np.ndarray, "c c"]:
    """Returns how many examples of each true class (rows) are taken for each class (columns)."""
    classes = logits.shape[-1]
    pairs = classes * np.asarray(labels) + np.asarray(logits).argmax(-1)
    found: np.ndarray = np.bincount(pairs, minlength=classes**2).reshape(classes, classes)
    return found


def correct_predictions(
    logits: Float[Array, "n c"], labels: Array | np.ndarray
) -> Bool[np.ndarray, " n"]:
    """Returns which examples are predicted as they are labelled; compiles nothing."""
    found: np.ndarray = np.asarray(logits).argmax(-1) == np.asarray(labels)
    return found


def _accuracies_by_class(
    logits: Array, labels: Int[Array, " k"], retained: Int[Array, " r"]
) -> dict[str, float]:
    """Returns the test accuracy on classes that are retained and on others, where both exist."""
    kept = np.isin(np.asarray(labels), np.asarray(retained))
    if kept.all() or not kept.any():
        return {}
    right = correct_predictions(logits, labels)
    return {
        "accuracy_test_kept": float(right[kept].mean()),
        "accuracy_test_forgotten": float(right[~kept].mean()),
    }
