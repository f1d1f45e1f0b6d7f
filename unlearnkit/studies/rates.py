"""The learning rates of methods that are to forget poisons, chosen on data that judge nothing."""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from jaxtyping import Array, Key

from unlearnkit.base import Attack, Dataset, Model, Unlearner, Variables
from unlearnkit.studies.announcing import OnStage
from unlearnkit.studies.compare import poison_and_unlearn
from unlearnkit.studies.selection import grid
from unlearnkit.studies.store import Store
from unlearnkit.studies.study import ORIGINAL
from unlearnkit.training import Recipe


class RateSearch(NamedTuple):
    """Methods with the learning rate that was chosen for each, and what decided.

    Attributes:
      methods: by name; one without a learning rate is as it was.
      scores: by name, of each factor, the mean over the seeds; -inf where one has no result.
      unmet: methods of which no rate keeps the retain accuracy that is asked for.
    """

    methods: Mapping[str, Unlearner]
    scores: Mapping[str, Mapping[float, float]]
    unmet: tuple[str, ...] = ()


def search_rates(
    key: Key[Array, ""],
    model: Model,
    train: Dataset,
    choosing: Dataset,
    *,
    attack: Attack,
    recipe: Recipe,
    methods: Mapping[str, Unlearner],
    factors: Sequence[float],
    budget: float,
    seeds: int = 1,
    effect: str | None = None,
    tolerance: float = 1.0,
    start: Variables | None = None,
    on_stage: OnStage | None = None,
    store: Store | str | os.PathLike[str] | None = None,
) -> RateSearch:
    """Returns each method with the best of several learning rates.

    argmax over factors of Acc(choosing) - effect,   the rate being factor times the method's own

    on poisons and networks of a key of its own, on average over the seeds, as many tries for every
    method. A rate that diverges on one of them is not taken: it would on every so-many-th network
    of what is reported. Of equally good ones the first is taken.

    Args:
      key: of the choice; what is reported later needs another.
      model: the network.
      train: clean training examples.
      choosing: held-out examples that judge nothing else.
      attack: whose poisons are to be forgotten.
      recipe: how networks are trained.
      methods: by name.
      factors: of learning rates.
      budget: the share of Retrain's example-gradients that each may take.
      seeds: networks that each rate is tried on.
      effect: a metric of `PoisonEffects` that tells how much is left of the poisons, 0 … 1; None
        for poisons that are to lower the accuracy.
      tolerance: how far below the poisoned networks' retain accuracy a rate may end, in [0, 1]. One
        that ends lower is taken only where all do, and `unmet` names the method.
      start: weights from which every training begins.
      on_stage: see `run`.
      store: see `run`.

    Raises:
      ValueError: no factors, or one that is not positive; a tolerance outside its range; see `run`.
      DivergedError: the clean network diverged.

    Source: Pawelczyk et al. 2024, Table 2: "a linear search for the learning rate".
    """
    if not factors or not all(0 < factor < math.inf for factor in factors):
        raise ValueError(f"factors must be positive, and at least one, got {tuple(factors)}")
    if not 0 <= tolerance <= 1:
        raise ValueError(f"tolerance must be in [0, 1], a loss of accuracy, got {tolerance}")
    tried: dict[str, tuple[str, float, Unlearner]] = {
        f"{name} x {factor:g}": (name, factor, _scaled(method, factor))
        for name, method in methods.items()
        for factor in (factors if hasattr(method, "learning_rate") else ())
    }
    records = poison_and_unlearn(
        key, model, train, choosing,
        attacks={"choosing": attack}, recipe=recipe, budgets=(budget,), start=start, paired=True,
        seeds=seeds,
        methods={label: method for label, (_, _, method) in tried.items()},
        on_stage=on_stage, store=store,
    )  # fmt: skip
    kept: dict[str, list[float]] = {label: [] for label in (ORIGINAL, *tried)}
    found: dict[str, list[float]] = {label: [] for label in tried}
    for record in records:
        if record.method in kept:
            kept[record.method].append(record.metrics.get("accuracy_retain", 0.0))
        if record.method in tried:
            left = 0.0 if effect is None else record.metrics.get(effect, 0.0)
            found[record.method].append(record.metrics.get("accuracy_test", -math.inf) - left)
    least = statistics.fmean(kept[ORIGINAL]) - tolerance
    scores: dict[str, dict[float, float]] = {}
    best, chosen = dict[str, tuple[bool, float]](), dict(methods)
    for label, (name, factor, method) in tried.items():
        score = statistics.fmean(found[label])
        scores.setdefault(name, {})[factor] = score
        rank = statistics.fmean(kept[label]) >= least, score
        if name not in best or rank > best[name]:
            best[name], chosen[name] = rank, method
    return RateSearch(chosen, scores, tuple(name for name, (keeps, _) in best.items() if not keeps))


def _scaled(method: Unlearner, factor: float) -> Unlearner:
    rate: float = getattr(method, "learning_rate")  # noqa: B009
    return grid(method, learning_rate=[factor * rate])[0]
