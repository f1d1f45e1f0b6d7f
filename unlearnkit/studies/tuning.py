"""Hyperparameters of many methods, chosen by one study on data that are for that alone."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Key

from unlearnkit.auditing import Evaluation
from unlearnkit.auditing.evaluate import HEADLINE_ATTACK
from unlearnkit.base import Unlearner
from unlearnkit.records import Record
from unlearnkit.studies.announcing import OnRecord, OnStage
from unlearnkit.studies.engine import run
from unlearnkit.studies.rules import (
    LOST,
    Measured,
    Rule,
    RuleName,
    ToleranceError,
    choose,
    measured_of,
    rule_of,
)
from unlearnkit.studies.selection import grid
from unlearnkit.studies.store import Store
from unlearnkit.studies.study import ORIGINAL, RETRAIN, Study
from unlearnkit.validation import check_known

Values = Mapping[str, object]
Columns = Mapping[str, Sequence[object]]


class Tried(NamedTuple):
    """Some values of a method's hyperparameters, and how they did.

    Attributes:
      values: by the hyperparameters' names.
      measured: on average over the seeds; one that diverged counts as a ruined network.
      diverged: on how many seeds there was no result.
    """

    values: Values
    measured: Measured
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
                        {"values": dict(t.values), **t.measured._asdict(), "diverged": t.diverged}
                        for t in tuned.trials
                    ],
                }
                for name, tuned in self.methods.items()
            },
        }


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
    every method meets the first. The rule sees averages over the seeds: one network alone may take
    a value that ruins the network every third time. Give data that are not reported on later, of
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
    label = "{}, trial {}".format
    candidates: dict[str, Unlearner] = {
        label(name, number): grid(study.methods[name], **{n: [v] for n, v in values.items()})[0]
        for name, rows in trials.items()
        for number, values in enumerate(rows, 1)
    }
    asked = dataclasses.replace(
        study, methods=candidates, audits={"": Evaluation((HEADLINE_ATTACK,), optml=None)}
    )
    found: dict[str, list[Record]] = {}
    for record in run(asked, key, store=store, on_stage=on_stage, on_record=on_record, strict=True):
        found.setdefault(record.method, []).append(record)
    original, reference = average(found[ORIGINAL]), average(found[RETRAIN])
    methods = {}
    for name, rows in trials.items():
        labels = [label(name, number) for number in range(1, len(rows) + 1)]
        tried = tuple(
            Tried(values, average(found[label]), sum(not r.finished for r in found[label]))
            for values, label in zip(rows, labels, strict=True)
        )
        measured, taken, unmet = [one.measured for one in tried], None, None
        try:
            taken = choose(rule, measured, original=original, reference=reference)
        except ToleranceError as error:
            unmet = str(error)
        best = None if taken is None else candidates[labels[taken]]
        methods[name] = Tuned(best, taken, tried, unmet)
    return Tuning(original, reference, methods)


def average(records: Sequence[Record]) -> Measured:
    """Returns what a rule looks at, on average; one without a result is a ruined network."""
    rows = [measured_of(record.metrics) if record.finished else LOST for record in records]
    return Measured(*(float(mean) for mean in np.mean(rows, axis=0)))


def _rows(columns: Columns) -> list[dict[str, object]]:
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
