"""Hyperparameters of many methods, chosen by one study on data that are for that alone."""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
import statistics
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from jaxtyping import Array, Key

from unlearnkit.auditing import Evaluation
from unlearnkit.auditing.evaluate import HEADLINE_ATTACK
from unlearnkit.base import Attack, Dataset, Model, Unlearner, Variables
from unlearnkit.records import Record
from unlearnkit.studies.announcing import OnRecord, OnStage
from unlearnkit.studies.compare import poison_and_unlearn
from unlearnkit.studies.engine import run
from unlearnkit.studies.rules import (
    LOST,
    Measured,
    Rule,
    RuleName,
    ToleranceError,
    choose_on_networks,
    mean_of,
    measured_of,
    rule_of,
)
from unlearnkit.studies.selection import grid
from unlearnkit.studies.store import Store
from unlearnkit.studies.study import ORIGINAL, RETRAIN, Study
from unlearnkit.training import Recipe
from unlearnkit.validation import check_known

Values = Mapping[str, object]
Columns = Mapping[str, Sequence[object]]


class Tried(NamedTuple):
    """Some values of a method's hyperparameters, and how they did.

    Attributes:
      values: by the hyperparameters' names.
      measured: on average over the seeds; one that diverged counts as a ruined network.
      worst: the least retain accuracy of any seed.
      diverged: on how many seeds there was no result.
    """

    values: Values
    measured: Measured
    worst: float
    diverged: int


class Tuned(NamedTuple):
    """What was chosen for a method, and the front of what it can do.

    Attributes:
      method: with the best values; None where no value kept what the rule asks for.
      taken: the place of these values; None likewise.
      trials: all that were tried.
      unmet: why no value will do, or None.
    """

    method: Unlearner | None
    taken: int | None
    trials: tuple[Tried, ...]
    unmet: str | None


class Tuning(NamedTuple):
    """What was chosen for all methods.

    Attributes:
      original: the network before anything was forgotten, on average over the seeds.
      reference: the retrained one, likewise.
      methods: by name.
    """

    original: Measured
    reference: Measured
    methods: dict[str, Tuned]

    def as_json(self) -> dict[str, object]:
        """Returns all measures and what was taken, as JSON values."""
        return {
            "original": self.original._asdict(),
            "reference": self.reference._asdict(),
            "methods": {
                name: {
                    "taken": tuned.taken,
                    "tried": [
                        {
                            "values": dict(t.values),
                            **t.measured._asdict(),
                            "worst": t.worst,
                            "diverged": t.diverged,
                        }
                        for t in tuned.trials
                    ],
                }
                for name, tuned in self.methods.items()
            },
        }


class _Candidates:
    """Every trial of every method, as the methods of one study."""

    def __init__(
        self,
        methods: Mapping[str, Unlearner],
        trials: Mapping[str, Sequence[Values]],
        label: Callable[[str, int], str],
    ) -> None:
        """Makes them.

        Args:
          methods: by name.
          trials: by name, the values of each trial.
          label: of a method's trial, which the rows of the study and their keys are called by.
        """
        self._labels = {
            name: [label(name, place) for place in range(len(rows))]
            for name, rows in trials.items()
        }
        self.methods: dict[str, Unlearner] = {
            self._labels[name][place]: grid(methods[name], **{n: [v] for n, v in values.items()})[0]
            for name, rows in trials.items()
            for place, values in enumerate(rows)
        }

    def of(self, name: str) -> list[Unlearner]:
        """Returns the trials of a method."""
        return [self.methods[label] for label in self._labels[name]]

    def sorted(self, records: Iterable[Record]) -> dict[str, list[list[Record]]]:
        """Returns the records of each method's trials, one per seed, in the order of the trials."""
        found: dict[str, list[Record]] = {}
        for record in records:
            found.setdefault(record.method, []).append(record)
        return {n: [found.get(one, []) for one in labels] for n, labels in self._labels.items()}


def tune(
    study: Study,
    key: Key[Array, ""],
    grids: Mapping[str, Columns],
    *,
    rule: RuleName | Rule = "retrain_like",
    store: Store | str | os.PathLike[str] | None = None,
    on_stage: OnStage | None = None,
    on_record: OnRecord | None = None,
) -> Tuning:
    """Returns the best values of each method's hyperparameters by a rule, after as many trials.

    On each seed of the study a network is trained and another one retrained, and every value of
    every method meets the first. The best is the best on average, and a value that the rule refuses
    on any of the networks is refused: one that ruins every third network shows on the worst of
    several, neither on one nor on their average. Give data that are not reported on later, of
    which the test set is what the choice is made on.

    Args:
      study: one question on one dataset, network and recipe; its audits are not asked.
      key: decides everything.
      grids: by method of the study: hyperparameters and their values, which are tried together: the
        first of each, then the second, and so on; as many for each method.
      rule: a name in `RULES`, or a rule with settings of its own.
      store: keeps the stages, so that an interrupted choice goes on where it was.
      on_stage: called as the work goes on.
      on_record: see `run`.

    Raises:
      ValueError: an unknown method or rule, grids of unequal length, or a study of more.
      TypeError: a hyperparameter that the method does not have.

    Example:
      tuning = studies.tune(study, key, {"fine_tune": {"learning_rate": [0.01, 0.1]}})
      best = tuning.methods["fine_tune"].method
    """
    rule_of(rule)
    lengths = {len(column) for columns in grids.values() for column in columns.values()}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(f"every method needs as many trials as the others, got {sorted(lengths)}")
    for name in grids:
        check_known("method", name, study.methods)
    named = study.named
    several = [part for part in (named.data, named.networks, named.recipes) if len(part) != 1]
    if several or len(named.forget) != 1 or study.attacks or study.budgets:
        raise ValueError(
            "a choice is made for one forget request on one dataset, network and recipe, without "
            "budgets; tune each of them by itself"
        )
    trials = {name: _rows(columns) for name, columns in grids.items()}
    candidates = _Candidates(study.methods, trials, lambda name, i: f"{name}, trial {i + 1}")
    asked = dataclasses.replace(
        study, methods=candidates.methods, audits={"": Evaluation((HEADLINE_ATTACK,), optml=None)}
    )
    records = list(
        run(asked, key, store=store, on_stage=on_stage, on_record=on_record, strict=True)
    )
    originals, references = (
        _measured([record for record in records if record.method == network])
        for network in (ORIGINAL, RETRAIN)
    )
    methods = {}
    for name, found in candidates.sorted(records).items():
        measured = [_measured(of_trial) for of_trial in found]
        tried = tuple(
            Tried(values, mean_of(on), min(one.accuracy_retain for one in on), on.count(LOST))
            for values, on in zip(trials[name], measured, strict=True)
        )
        taken, unmet = None, None
        try:
            taken = choose_on_networks(rule, measured, originals=originals, references=references)
        except ToleranceError as error:
            unmet = str(error)
        best = None if taken is None else candidates.of(name)[taken]
        methods[name] = Tuned(best, taken, tried, unmet)
    return Tuning(mean_of(originals), mean_of(references), methods)


class RateSearch(NamedTuple):
    """Methods with the learning rate that was chosen for each, and what decided.

    Attributes:
      methods: by name; one without a learning rate is as it was, and one that is unmet is left out.
      scores: by name, of each factor, the mean over attacks and seeds; -inf where one has no
        result.
      unmet: by name, why no rate of a method will do: none keeps the retain accuracy.
      losses: by name, of each factor, the largest loss of retain accuracy of any network.
      factors: by name, the one that was chosen, of each method that has a learning rate to choose.
    """

    methods: Mapping[str, Unlearner]
    scores: Mapping[str, Mapping[float, float]]
    unmet: Mapping[str, str] = types.MappingProxyType({})
    losses: Mapping[str, Mapping[float, float]] = types.MappingProxyType({})
    factors: Mapping[str, float] = types.MappingProxyType({})


def search_rates(
    key: Key[Array, ""],
    model: Model,
    train: Dataset,
    choosing: Dataset,
    *,
    attacks: Mapping[str, Attack],
    recipe: Recipe,
    methods: Mapping[str, Unlearner],
    factors: Sequence[float],
    budgets: Sequence[float],
    identified: Sequence[float] = (1.0,),
    seeds: int = 1,
    effect: str | None = None,
    tolerance: float = 1.0,
    start: Variables | None = None,
    on_stage: OnStage | None = None,
    store: Store | str | os.PathLike[str] | None = None,
) -> RateSearch:
    """Returns each method with the best of several learning rates that ruin no network.

    argmax over safe factors of Acc(choosing) - effect,   the rate being factor times the method's

    on poisons and networks of a key of its own, as many tries for every method. A factor is safe
    where it and the next larger one lose at most `tolerance` of retain accuracy on every network:
    of every attack, seed, budget and share of the poisons that is identified. The next larger one
    is asked since a rate that ruins one network in ten is seldom seen on a few; so the largest of
    several factors is not taken, where there is a tolerance below 1. Of equally good ones the
    largest is taken.

    Args:
      key: of the choice; what is reported later needs another.
      model: the network.
      train: clean training examples.
      choosing: held-out examples that judge nothing else.
      attacks: by name, whose poisons are to be forgotten: all those that rates are used on later.
      recipe: how networks are trained.
      methods: by name.
      factors: of learning rates.
      budgets: shares of Retrain's example-gradients that each may take; the score is of the
        largest, with all poisons identified.
      identified: shares of the poisons that methods are told of; 1 among them.
      seeds: networks of each attack that each rate is tried on.
      effect: a metric of `PoisonEffects` that tells how much is left of the poisons, 0 … 1; None
        for poisons that are to lower the accuracy.
      tolerance: how far below the poisoned network's retain accuracy a rate may end, in [0, 1]. One
        that ends lower is not taken; where all do, `unmet` says so.
      start: weights from which every training begins.
      on_stage: see `run`.
      store: see `run`.

    Raises:
      ValueError: no factors, or one that is not positive; a tolerance outside its range; no 1
        among the shares that are identified; see `run`.
      DivergedError: the clean network diverged.

    Example:
      found = studies.search_rates(
          key,
          model,
          train,
          choosing,
          attacks={"noise": poisoning.GaussianPoison(noise_std=0.5)},
          recipe=training.Recipe(epochs=10),
          methods={"fine_tune": unlearning.FineTune(learning_rate=0.1)},
          factors=(0.1, 1.0, 10.0),
          budgets=(0.5,),
          tolerance=0.03,
      )
      print(found.methods, found.unmet)

    Source: Pawelczyk et al. 2024, Table 2: "a linear search for the learning rate".
    """
    if not factors or not all(0 < factor < math.inf for factor in factors):
        raise ValueError(f"factors must be positive, and at least one, got {tuple(factors)}")
    if not 0 <= tolerance <= 1:
        raise ValueError(f"tolerance must be in [0, 1], a loss of accuracy, got {tolerance}")
    if 1.0 not in identified:
        raise ValueError(
            f"rates are chosen by what they do with all poisons, got identified={tuple(identified)}"
            "; add 1.0"
        )
    trials = {
        name: [{"learning_rate": factor * method.learning_rate} for factor in factors]
        for name, method in methods.items()
        if hasattr(method, "learning_rate")
    }
    candidates = _Candidates(methods, trials, lambda name, i: f"{name} x {factors[i]:g}")
    records = list(
        poison_and_unlearn(
            key, model, train, choosing,
            attacks=attacks, recipe=recipe, budgets=budgets, identified=identified, start=start,
            paired=True, methods=candidates.methods, seeds=seeds, on_stage=on_stage, store=store,
        )
    )  # fmt: skip
    before = {(r.question, r.seed): _retained(r) for r in records if r.method == ORIGINAL}

    def score(trial: Sequence[Record]) -> float:
        judged = [r for r in trial if r.budget == max(budgets) and r.identified == 1]
        return statistics.fmean(_accuracy_less(effect, record) for record in judged)

    def loss(trial: Sequence[Record]) -> float:
        ended = [record for record in trial if record.over_budget is None]
        return max((before[r.question, r.seed] - _retained(r) for r in ended), default=0.0)

    chosen, unmet, taken = dict(methods), dict[str, str](), dict[str, float]()
    scores, losses = dict[str, dict[float, float]](), dict[str, dict[float, float]]()
    for name, found in candidates.sorted(records).items():
        if not all(found):  # the attack diverged
            continue
        scores[name] = dict(zip(factors, map(score, found), strict=True))
        losses[name] = dict(zip(factors, map(loss, found), strict=True))
        best = best_factor(scores[name], losses[name], tolerance)
        if best is not None:
            chosen[name], taken[name] = candidates.of(name)[factors.index(best)], best
            continue
        del chosen[name]
        unmet[name] = (
            f"none of {len(factors)} rates keeps, together with the next larger one, the retain "
            f"accuracy of every network within {tolerance:g}; the mildest loses "
            f"{min(losses[name].values()):.3f} of one"
        )
    return RateSearch(chosen, scores, unmet, losses, taken)


def best_factor(
    scores: Mapping[float, float], losses: Mapping[float, float], tolerance: float
) -> float | None:
    """Returns the safe factor with the best score, of equal ones the largest; None where none is.

    A rate that changes nothing would say of the method what holds of doing nothing.

    Args:
      scores: of each factor of the learning rate, the larger the better.
      losses: of each factor, how much accuracy on the retain set it loses.
      tolerance: the most that a safe factor loses; see `search_rates`.
    """
    safe = _safe_factors(losses, tolerance)
    return max(safe, key=lambda factor: (scores[factor], factor)) if safe else None


def _safe_factors(losses: Mapping[float, float], tolerance: float) -> list[float]:
    """Returns the factors that lose little, as does the next larger one; the last one has none."""
    if tolerance == 1 or len(losses) == 1:
        return [factor for factor, loss in losses.items() if loss <= tolerance]
    larger = dict(itertools.pairwise(sorted(losses)))
    return [
        factor
        for factor, loss in losses.items()
        if factor in larger and max(loss, losses[larger[factor]]) <= tolerance
    ]


def _retained(record: Record) -> float:
    return record.metrics.get("accuracy_retain", 0.0)


def _accuracy_less(effect: str | None, record: Record) -> float:
    """Returns the accuracy of a network, less what it still shows of the poisons."""
    left = 0.0 if effect is None else record.metrics.get(effect, 0.0)
    return record.metrics.get("accuracy_test", -math.inf) - left


def average(records: Sequence[Record]) -> Measured:
    """Returns what a rule looks at, on average; one without a result is a ruined network."""
    return mean_of(_measured(records))


def _measured(records: Sequence[Record]) -> list[Measured]:
    """Returns what a rule looks at, of each network; one without a result is a ruined one."""
    return [measured_of(record.metrics) if record.finished else LOST for record in records]


def _rows(columns: Columns) -> list[dict[str, object]]:
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
