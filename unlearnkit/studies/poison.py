"""Poisons as the test of unlearning: poison, train, unlearn the poisons, measure what is left."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeAlias

from jaxtyping import Array, Key

from unlearnkit.base import (
    Attack,
    Audit,
    Cost,
    Dataset,
    Model,
    Poisoned,
    Task,
    Unlearned,
    Unlearner,
    UnlearnInfo,
)
from unlearnkit.data import IndexForget, choose_split
from unlearnkit.host.random import host_key
from unlearnkit.records import PoisonRecord
from unlearnkit.studies.budget import has_epochs, price, with_epochs
from unlearnkit.studies.compare import ORIGINAL, OnStage, announce
from unlearnkit.studies.effects import (
    OWN_AUDITS,
    PoisonedTraining,
    poison_and_train,
    poison_effects,
)
from unlearnkit.training import DivergedError, Recipe, fit, train_like
from unlearnkit.validation import check_compatible

RETRAIN = "retrained"
"""The row of the network that was trained on everything but the poisons, at full cost."""
BUDGETS = (0.02, 0.04, 0.06, 0.08, 0.1)
"""Shares of Retrain's example-gradients: Pawelczyk et al. 2024, Table 2, 2 … 10 of 100 epochs."""


OnPoisoned: TypeAlias = Callable[[str, int, Poisoned], None]
"""Called with an attack's name, the seed, and what the attack made."""


class _NoResult(NamedTuple):
    """Why there is no result: the two fields of `PoisonRecord`."""

    diverged: str | None = None
    over_budget: str | None = None


def poison_and_unlearn(
    key: Key[Array, ""],
    model: Model,
    train: Dataset,
    test: Dataset,
    *,
    attacks: Mapping[str, Attack],
    recipe: Recipe,
    methods: Mapping[str, Unlearner],
    budgets: Sequence[float] = BUDGETS,
    audits: Mapping[str, Audit] | None = None,
    seeds: int = 1,
    on_stage: OnStage | None = None,
    on_poisoned: OnPoisoned | None = None,
) -> Iterator[PoisonRecord]:
    """Yields what each method leaves of each attack's effects at each compute budget.

    1. The attack poisons `train`, with a network trained on the clean data as its surrogate.
    2. A fresh network trains on the poisoned set.
    3. Each method unlearns U = the poisons, with as many epochs as cost no more than the budget:
       a share of the example-gradients of retraining. `Retrain` among the methods is thus
       retraining for a few epochs. A method without epochs is run once, and its result
       stands under every budget that covers its cost. Where one epoch, or such a method, costs more
       than the budget, there is no result, and the record says so.
    4. The effects are measured (`poison_effects`), as they are for the network of step 2 (no
       unlearning) and for one that is retrained in full.

    Args:
      key: decides everything.
      model: the network.
      train: [n] clean training examples.
      test: held-out examples; half of them become the validation set, of which a targeted attack
        takes its targets.
      attacks: by the name of their rows.
      recipe: how every network is trained.
      methods: unlearners by the name of their rows; those without the recipe of the original
        training (`train_like`, or `recipe` of Retrain, is None) are given `recipe`.
      budgets: shares of Retrain's example-gradients, in (0, 1].
      audits: more of them; their metrics are named `<audit>_<metric>`.
      seeds: repetitions, each with its own split, poisons and networks.
      on_stage: called as the work goes on.
      on_poisoned: called with each poisoned set, to keep or to draw it.

    Raises:
      ValueError: data that do not fit the model, a budget outside its range, a name that is taken,
        or what an attack or a method refuses.
      DivergedError: the clean network diverged.

    Example:
      records = studies.poison_and_unlearn(
          key,
          model,
          train,
          test,
          attacks={"gaussian": poisoning.GaussianPoison(noise_std=0.5)},
          recipe=training.Recipe(epochs=10),
          methods={"scrub": unlearning.Scrub(epochs=5)},
          budgets=(0.1,),
      )
      for record in records:
          print(record.method, record.metrics["gaussian_gus"])

    Source: Pawelczyk et al. 2024, §4.4 (after Sommer et al. 2022) and 5.1.
    """
    _check(model, train, test, attacks, methods, audits or {}, budgets, seeds)
    methods = {name: train_like(method, recipe) for name, method in methods.items()}
    for seed in range(seeds):
        keys = host_key(key).fold_in(seed).split(3)
        split_key, clean_key, attacks_key = (part.typed() for part in keys)
        clean_task = _clean_task(split_key, train, test)
        stage = f"training on clean data, seed {seed + 1} of {seeds}"
        on_epoch = announce(on_stage, stage, recipe.epochs)
        clean = fit(clean_key, model, train, recipe, on_epoch=on_epoch).variables
        for index, (name, attack) in enumerate(attacks.items()):
            halves = host_key(attacks_key).fold_in(index).split()
            steps_key, method_key = (half.typed() for half in halves)
            announce(on_stage, f"{name}: poisoning and training, seed {seed + 1} of {seeds}", 1)
            try:
                poisoned_training = poison_and_train(
                    steps_key, model, clean, clean_task, attack, recipe, audits=audits
                )
            except DivergedError as error:
                nothing = Cost(0.0, 0.0)
                yield PoisonRecord(name, ORIGINAL, None, seed, {}, nothing, diverged=str(error))
                continue
            if on_poisoned is not None:
                on_poisoned(name, seed, poisoned_training.poisoned)
            yield from _unlearn(
                method_key,
                model,
                poisoned_training,
                methods,
                budgets,
                (name, seed, seeds),
                on_stage,
            )


def _unlearn(
    key: Key[Array, ""],
    model: Model,
    poisoned_training: PoisonedTraining,
    methods: Mapping[str, Unlearner],
    budgets: Sequence[float],
    where: tuple[str, int, int],
    on_stage: OnStage | None,
) -> Iterator[PoisonRecord]:
    """Yields the rows of one attack on one seed."""
    attack, seed, seeds = where
    audit_key, methods_key = (half.typed() for half in host_key(key).split())
    untouched = Unlearned(poisoned_training.trained, UnlearnInfo({}, Cost(0.0, 0.0)))
    for name, unlearned in ((ORIGINAL, untouched), (RETRAIN, poisoned_training.retrained)):
        yield _judge(audit_key, model, poisoned_training, unlearned, (attack, name, None, seed))
    for index, (name, method) in enumerate(methods.items()):
        method_key = host_key(methods_key).fold_in(index).typed()
        stage = f"{attack}: {name}, seed {seed + 1} of {seeds}"
        for budget, result in _runs(
            method_key, model, poisoned_training, method, budgets, stage, on_stage
        ):
            row = (attack, name, budget, seed)
            if isinstance(result, Unlearned):
                yield _judge(audit_key, model, poisoned_training, result, row)
            else:
                yield PoisonRecord(*row, {}, Cost(0.0, 0.0), *result)


def _runs(
    key: Key[Array, ""],
    model: Model,
    poisoned_training: PoisonedTraining,
    method: Unlearner,
    budgets: Sequence[float],
    stage: str,
    on_stage: OnStage | None,
) -> Iterator[tuple[float, Unlearned | _NoResult]]:
    """Yields each budget with what the method made of it, or why it made nothing."""
    price_key, run_key = (half.typed() for half in host_key(key).split())
    task, trained, full = (
        poisoned_training.task,
        poisoned_training.trained,
        poisoned_training.full_gradients,
    )

    def attempt(method: Unlearner, epochs: int) -> Unlearned | _NoResult:
        on_epoch = announce(on_stage, f"{stage}, {epochs} epochs", epochs)
        try:
            return method(
                host_key(run_key).fold_in(epochs).typed(), model, trained, task, on_epoch=on_epoch
            )
        except DivergedError as error:
            return _NoResult(diverged=str(error))

    if not has_epochs(method):
        result = attempt(method, 1)
        yield from ((budget, _within(result, budget, full)) for budget in budgets)
        return
    try:
        known = price(price_key, model, trained, task, method)
    except DivergedError as error:
        lost = _NoResult(diverged=str(error))
        yield from ((budget, lost) for budget in budgets)
        return
    done: dict[int, Unlearned | _NoResult] = {}
    for budget in budgets:
        epochs = known.epochs_within(budget * full)
        if epochs == 0:
            yield budget, _too_dear("one epoch costs", known.first / full, budget)
            continue
        if epochs not in done:
            done[epochs] = attempt(with_epochs(method, epochs), epochs)
        yield budget, _within(done[epochs], budget, full)


def _within(result: Unlearned | _NoResult, budget: float, full: float) -> Unlearned | _NoResult:
    """Returns the result, or why it may not stand under this budget."""
    if isinstance(result, _NoResult):
        return result
    share = result.info.cost.example_gradients / full
    return result if share <= budget * (1 + 1e-9) else _too_dear("it costs", share, budget)


def _judge(
    key: Key[Array, ""],
    model: Model,
    poisoned_training: PoisonedTraining,
    unlearned: Unlearned,
    row: tuple[str, str, float | None, int],
) -> PoisonRecord:
    cost = unlearned.info.cost
    try:
        metrics, curves = poison_effects(key, model, unlearned.variables, poisoned_training, cost)
    except DivergedError as error:
        return PoisonRecord(*row, {}, cost, diverged=str(error))
    return PoisonRecord(*row, metrics, cost, curves=curves)


def _too_dear(what: str, share: float, budget: float) -> _NoResult:
    reason = f"{what} {100 * share:.3g} % of Retrain, more than the budget of {100 * budget:g} %"
    return _NoResult(over_budget=reason)


def _clean_task(key: Key[Array, ""], train: Dataset, test: Dataset) -> Task:
    """Returns a task with `task.train` as `train` is, row by row: nothing is forgotten yet."""
    return choose_split(key, train, test, IndexForget((train.size - 1,))).task(train, test)


def _check(
    model: Model,
    train: Dataset,
    test: Dataset,
    attacks: Mapping[str, Attack],
    methods: Mapping[str, Unlearner],
    audits: Mapping[str, Audit],
    budgets: Sequence[float],
    seeds: int,
) -> None:
    check_compatible(train, model, name="train")
    check_compatible(test, model, name="test")
    if not attacks:
        raise ValueError("attacks must name at least one attack, got none")
    taken = {ORIGINAL, RETRAIN} & methods.keys()
    if taken:
        raise ValueError(f"{sorted(taken)} are rows of this study; rename these methods")
    if OWN_AUDITS & audits.keys():
        raise ValueError(f"{sorted(OWN_AUDITS)} name audits of this study; rename these audits")
    if not budgets or not all(0 < budget <= 1 for budget in budgets):
        raise ValueError(f"budgets must be shares of Retrain in (0, 1], got {tuple(budgets)}")
    if seeds < 1:
        raise ValueError(f"seeds must be >= 1, got {seeds}")
