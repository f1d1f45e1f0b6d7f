"""Studies of one question, by one call: forgetting, and forgetting poisons."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence

from jaxtyping import Array, Key

from unlearnkit.auditing import DEFAULT_ATTACKS, CaseAudit, Evaluation, MembershipInference
from unlearnkit.base import Attack, Audit, Dataset, Model, Unlearner, Variables
from unlearnkit.data import ForgetRequest
from unlearnkit.poisoning import SameNormControl
from unlearnkit.records import Record
from unlearnkit.studies.announcing import OnPoisoned, OnRecord, OnStage
from unlearnkit.studies.engine import run
from unlearnkit.studies.store import Store
from unlearnkit.studies.study import RETRAIN, Pair, Study
from unlearnkit.training import Batching, Recipe

CONTROL = " control"
"""Ends the name of an attack by random poisons, see `poison_and_unlearn`."""
BUDGETS = (0.02, 0.04, 0.06, 0.08, 0.1)
"""Shares of Retrain's example-gradients: Pawelczyk et al. 2024, Table 2, 2 … 10 of 100 epochs."""


def compare(
    key: Key[Array, ""],
    model: Model,
    train: Dataset,
    test: Dataset,
    *,
    forget: ForgetRequest,
    recipe: Recipe,
    methods: Mapping[str, Unlearner],
    seeds: int = 5,
    attacks: Sequence[MembershipInference] = DEFAULT_ATTACKS,
    on_stage: OnStage | None = None,
    on_record: OnRecord | None = None,
    compile_at_once: int = 1,
    batching: Batching | None = None,
    store: Store | str | os.PathLike[str] | None = None,
) -> Iterator[Record]:
    """Returns the records of a `Study` of one forget request, seed by seed; it raises what fails.

    `Retrain` among the methods is a second, independent retraining, and its distance to the
    reference is the floor below which no distance means anything. The reference has no row.

    Args:
      key: decides everything.
      model: the network.
      train: [n] training examples.
      test: held-out examples; half of them become the validation set of each task.
      forget: chooses each seed's forget set.
      recipe: how the originals and the references are trained.
      methods: unlearners by the name of their row.
      seeds: repetitions.
      attacks: membership attacks of the audit.
      on_stage: see `run`.
      on_record: see `run`.
      compile_at_once: see `run`.
      batching: see `run`.
      store: see `run`.

    Raises:
      TypeError: see `run`.
      ValueError: see `run`.
      DivergedError: an original or a reference diverged.

    Example:
      records = studies.compare(
          key,
          model,
          train,
          test,
          forget=data.RandomForget(fraction=0.1),
          recipe=training.Recipe(epochs=10),
          methods={"fine_tune": unlearning.FineTune(epochs=2)},
          seeds=3,
      )
      print(reporting.to_markdown(list(records)))
    """
    study = Study(
        data=Pair(train, test),
        networks=model,
        recipes=recipe,
        forget=forget,
        methods=methods,
        audits={"": Evaluation(tuple(attacks))},
        seeds=seeds,
    )
    records = run(
        study,
        key,
        on_stage=on_stage,
        on_record=on_record,
        compile_at_once=compile_at_once,
        batching=batching,
        store=store,
        strict=True,
    )
    return (record for record in records if record.method != RETRAIN)


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
    audits: Mapping[str, Audit | CaseAudit] | None = None,
    identified: Sequence[float] = (1.0,),
    start: Variables | None = None,
    paired: bool = False,
    controls: bool = False,
    seeds: int = 1,
    on_stage: OnStage | None = None,
    on_poisoned: OnPoisoned | None = None,
    on_record: OnRecord | None = None,
    store: Store | str | os.PathLike[str] | None = None,
) -> Iterator[Record]:
    """Returns the records of a `Study` of attacks, whose poisons are forgotten within budgets.

    It raises what fails, but for a method or an attack that diverges.

    Args:
      key: decides everything.
      model: the network.
      train: [n] clean training examples.
      test: held-out examples; half of them become the validation set, of which a targeted attack
        takes its targets.
      attacks: by the name of their rows.
      recipe: how every network is trained.
      methods: unlearners by the name of their rows.
      budgets: shares of Retrain's example-gradients, in (0, 1].
      audits: more of them than `PoisonEffects`.
      identified: shares of the poisons that methods are told of, see `Study`.
      start: weights from which every training begins, see `Study`.
      paired: whether all trainings of a seed share one key, see `Study`.
      controls: whether each attack's `SameNormControl` is run as well, under its name and
        `CONTROL`, beside the clean network and without methods; it shares the attack's keys where
        `paired`.
      seeds: repetitions, each with its own split, poisons and networks.
      on_stage: see `run`.
      on_poisoned: see `run`.
      on_record: see `run`.
      store: see `run`.

    Raises:
      TypeError: see `run`.
      ValueError: see `run`, or what an attack or a method refuses.
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
          budgets=(0.5,),
      )
      for record in records:
          print(record.method, record.metrics["gaussian_gus"])

    Source: Pawelczyk et al. 2024, §4.4 (after Sommer et al. 2022) and 5.1.
    """
    study = Study(
        data=Pair(train, test),
        networks=model,
        recipes=recipe,
        attacks=attacks,
        methods=methods,
        budgets=budgets,
        audits=audits or {},
        identified=identified,
        start=start,
        paired=paired,
        seeds=seeds,
    )
    studies = [study]
    if controls:
        random = {f"{name}{CONTROL}": SameNormControl(a) for name, a in attacks.items()}
        alone = dataclasses.replace(study, methods={}, identified=(1.0,), reference="clean")
        studies.append(dataclasses.replace(alone, attacks=random))
    runs = [
        run(
            *(each, key),
            store=store,
            strict=True,
            on_stage=on_stage,
            on_poisoned=on_poisoned,
            on_record=on_record,
        )
        for each in studies
    ]
    return itertools.chain(*runs)
