"""An audit of outputs alone: no network, no framework, no training."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from math import nan
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from unlearnkit.auditing.evaluate import (
    DEFAULT_OPTML,
    HEADLINE_ATTACK,
    Reference,
    audit_logits,
    compare_logits,
    compare_with_reference,
)
from unlearnkit.auditing.intervals import mean_and_error
from unlearnkit.auditing.membership import MembershipInference
from unlearnkit.auditing.optml import OPTML_METRICS, OptmlScores, optml_gap
from unlearnkit.base import Audited
from unlearnkit.validation import check_labels

SETS = ("forget", "test", "retain")
_LOGITS, _PROBABILITIES = ("logits", "outputs"), ("probabilities", "probs", "softmax")
_LABELS = ("labels", "label", "y", "targets")
_UNREADABLE = (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error)
_Z_95 = 1.959964


class Outputs(NamedTuple):
    """What one network answers, in evaluation mode, by the set of examples.

    Attributes:
      logits: `forget` [m, c] and `test` [k, c], examples that no network was trained on; maybe
        `retain` [r, c].
      labels: of the same sets, [m], [k] and [r].
    """

    logits: Mapping[str, Float[np.ndarray, "n c"]]
    labels: Mapping[str, Int[np.ndarray, " n"]]


def audit_outputs(
    key: Key[Array, ""],
    after: Outputs,
    *,
    before: Outputs | None = None,
    reference: Outputs | None = None,
    attacks: Sequence[MembershipInference] = (HEADLINE_ATTACK,),
    optml: OptmlScores | None = DEFAULT_OPTML,
) -> Audited:
    """Returns the audit of a network of which only the outputs are known.

    The metrics are those of `evaluate`, from the same code. Without the outputs on the retain set
    those that need them are missing: `accuracy_retain`, the OPTML scores and the gaps. With
    `reference`, `reference_mia_loss_logistic_auc` is how well the attack does on it.

    Metrics with before:
      before_{metric}: its own accuracies and those of the attacks on it
      change_loss_{set}, `_low`, `_high`: the mean change of the loss, in nats, with its 95 %
        interval over the examples, which are the same before and after; NaN of a single example
      activation_distance_before_{set}: between the networks before and after, in [0, 2]

    Args:
      key: of the attacks' subsamples and folds.
      after: the outputs that are judged.
      before: of the same examples, by the network that was to forget.
      reference: of the same examples, by one that was retrained without the forget set.
      attacks: membership attacks to run, the loss attack among them where there is a reference.
      optml: the scores that published tables hold; None leaves them out.

    Raises:
      ValueError: no forget or no test set; logits and labels that do not fit, or that are not
        finite; rows that are probabilities; other examples before, or in the reference.

    Example:
      after = auditing.Outputs({"forget": z_f, "test": z_t}, {"forget": y_f, "test": y_t})
      metrics, curves = auditing.audit_outputs(jax.random.key(0), after)
      print(metrics["mia_loss_logistic_auc"], metrics["mia_loss_logistic_auc_low"])
    """
    if reference is not None and HEADLINE_ATTACK not in attacks:
        raise ValueError(f"the distance to a reference needs {HEADLINE_ATTACK} among the attacks")
    given = {"after": after, "before": before, "reference": reference}
    for name, outputs in given.items():
        if outputs is not None:
            _check(outputs, after, name=name)
    logits, labels = _arrays(after)
    kept = optml if "retain" in logits else None
    metrics, curves = audit_logits(key, logits, labels, attacks, kept)
    if before is not None:
        earlier, _ = _arrays(before)
        found, old = audit_logits(key, earlier, labels, attacks, kept)
        metrics |= {f"before_{name}": value for name, value in found.items()}
        for name in ("forget", "test"):
            change = curves[f"loss_{name}"] - old[f"loss_{name}"]
            # The spread of one example is not known.
            mean, error = mean_and_error(change) if len(change) > 1 else (float(change[0]), nan)
            metrics[f"change_loss_{name}"] = mean
            metrics[f"change_loss_{name}_low"] = mean - _Z_95 * error
            metrics[f"change_loss_{name}_high"] = mean + _Z_95 * error
        shared = [name for name in logits if name in earlier]
        distances = compare_logits({n: logits[n] for n in shared}, earlier)
        metrics |= {
            name.replace("distance_", "distance_before_"): value
            for name, value in distances.items()
            if name.startswith("activation_distance")
        }
    if reference is not None:
        metrics |= _against(key, Audited(metrics, curves), logits, reference, optml)
    return Audited(metrics, curves)


def read_outputs(path: Path | str, *, probabilities: bool = False) -> Outputs:
    """Returns the outputs of an `.npz` file.

    It holds `logits_forget`, `labels_forget`, `logits_test`, `labels_test`, and maybe those of
    `retain`; `outputs_…`, `y_…` and the like are as good, and `probabilities_…` become their
    logarithms. Outputs are [n, c], or [n, 1, q, c] of q queries (augmentations), whose
    probabilities are averaged. Labels are [n], [n, 1] or one-hot.

    Args:
      path: of the file.
      probabilities: the arrays are probabilities, whatever they are called.

    Raises:
      FileNotFoundError: no such file.
      ValueError: a damaged file, or one that lacks an array; another shape; rows that sum to 1 and
        are not said to be probabilities.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file}
    except _UNREADABLE as error:
        raise ValueError(
            f"cannot read {path} as a .npz file ({error}); save it again with numpy.savez"
        ) from error
    logits: dict[str, np.ndarray] = {}
    labels: dict[str, np.ndarray] = {}
    for name, values in arrays.items():
        kind, _, part = name.lower().rpartition("_")
        if part in SETS and kind in (*_LOGITS, *_PROBABILITIES):
            sure = probabilities or kind in _PROBABILITIES
            logits[part] = _as_logits(values, sure, name=f"{name} in {path}")
        elif part in SETS and kind in _LABELS:
            labels[part] = _as_labels(values, name=f"{name} in {path}")
    missing = [
        f"{kind}_{part}"
        for part in SETS
        for kind, there in (("logits", logits), ("labels", labels))
        if part not in there and (part != "retain" or part in {**logits, **labels})
    ]
    if missing:
        raise ValueError(
            f"{path} must hold logits_forget, labels_forget, logits_test and labels_test; it lacks "
            f"{', '.join(missing)} and holds {', '.join(arrays) or 'nothing'}"
        )
    return Outputs(logits, labels)


def _as_logits(values: np.ndarray, probabilities: bool, *, name: str) -> np.ndarray:
    if values.dtype.kind != "f":
        raise ValueError(f"{name} must be floating point, got {values.dtype}")
    if not np.isfinite(values).all():
        raise ValueError(f"{name} must be finite, got NaN or infinity")
    if values.ndim == 4 and values.shape[1] == 1:
        shares = values[:, 0] if probabilities else _softmax(values[:, 0])
        values, probabilities = shares.mean(axis=1), True
    if values.ndim != 2:
        raise ValueError(
            f"{name} must be [n, c], or [n, 1, queries, c], got the shape {list(values.shape)}"
        )
    if not probabilities:
        return values
    if values.min() < 0 or abs(values.sum(axis=1) - 1).max() > 1e-3:
        raise ValueError(f"{name} must be probabilities, which are >= 0 and sum to 1 in each row")
    found: np.ndarray = np.log(np.maximum(values, np.finfo(np.float32).tiny))
    return found


def _softmax(logits: np.ndarray) -> np.ndarray:
    shares = np.exp(logits - logits.max(axis=-1, keepdims=True))
    found: np.ndarray = shares / shares.sum(axis=-1, keepdims=True)
    return found


def _as_labels(values: np.ndarray, *, name: str) -> np.ndarray:
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    elif values.ndim == 2 and np.all((values != 0).sum(axis=1) == 1):
        values = values.argmax(axis=1)
    if values.dtype.kind == "f" and np.all(values == np.round(values)):
        values = values.astype(np.int64)
    check_labels(values, name=name)
    return values


def _arrays(outputs: Outputs) -> tuple[dict[str, Array], dict[str, Array]]:
    logits = {name: jnp.asarray(values, jnp.float32) for name, values in outputs.logits.items()}
    return logits, {name: jnp.asarray(y, jnp.int32) for name, y in outputs.labels.items()}


def _check(outputs: Outputs, after: Outputs, *, name: str) -> None:
    """Raises ValueError unless outputs can be audited, beside those that are judged."""
    for part in ("forget", "test"):
        if part not in outputs.logits or part not in outputs.labels:
            raise ValueError(
                f"the outputs {name} need logits and labels of the {part} set"
                + (", examples that the network never saw" if part == "test" else "")
            )
    for part, values in outputs.logits.items():
        where = f"{part} {name}"
        y = outputs.labels.get(part)
        if part not in SETS or y is None:
            raise ValueError(
                f"outputs are of {', '.join(SETS)}, each with labels, got {part!r} {name}"
            )
        if values.ndim != 2 or len(values) == 0 or y.shape != (len(values),):
            raise ValueError(
                f"logits of {where} must be [n, c] and labels [n], got {list(values.shape)} and "
                f"{list(y.shape)}"
            )
        check_labels(y, name=where, n_classes=values.shape[1])
        if not np.isfinite(values).all():
            raise ValueError(f"logits of {where} must be finite, got NaN or infinity")
        rows = np.asarray(values)
        if rows.shape[1] > 1 and rows.min() >= 0 and abs(rows.sum(axis=1) - 1).max() < 1e-3:
            raise ValueError(
                f"logits of {where} are probabilities: they are >= 0 and sum to 1 in each row; "
                "give their logarithms, or say --probabilities of a file"
            )
        mine = after.labels.get(part)
        if mine is not None and not np.array_equal(mine, y):
            raise ValueError(
                f"the outputs {name} are of other examples than those after: the labels of {part} "
                "differ"
            )
        if part in after.logits and after.logits[part].shape != values.shape:
            raise ValueError(
                f"logits of {where} must have the shape of those after, "
                f"{list(after.logits[part].shape)}, got {list(values.shape)}"
            )


def _against(
    key: Key[Array, ""],
    found: Audited,
    logits: Mapping[str, Array],
    reference: Outputs,
    optml: OptmlScores | None,
) -> dict[str, float]:
    """Returns the distances to a reference, on the sets that both have."""
    other, labels = _arrays(reference)
    shared = {name: values for name, values in logits.items() if name in other}
    kept = optml if "retain" in shared else None
    metrics, curves = audit_logits(key, other, labels, [HEADLINE_ATTACK], kept)
    made = Reference(other, metrics, curves["loss_forget"])
    distances = compare_with_reference(found.metrics, found.curves, shared, made)
    if set(OPTML_METRICS) <= found.metrics.keys() & metrics.keys():
        distances["optml_gap"] = optml_gap(found.metrics, metrics)
    name = f"mia_{HEADLINE_ATTACK.feature}_{HEADLINE_ATTACK.attacker}_auc"
    return {**distances, f"reference_{name}": metrics[name]}
