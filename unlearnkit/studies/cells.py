"""The cells of one question on one seed: every method at every budget, judged by every audit."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from unlearnkit.auditing import (
    Case,
    CaseAudit,
    InMemory,
    NotApplicable,
    PoisonEffects,
    Subject,
    extras_of,
    judge,
    lacks_effect,
)
from unlearnkit.base import Audit, Audited, Task, Unlearned, Unlearner
from unlearnkit.host.random import AnyKey, host_key
from unlearnkit.records import NO_DEFENCE, Record
from unlearnkit.studies.announcing import announce
from unlearnkit.studies.budget import Price, epochs_of, has_epochs, price, with_epochs
from unlearnkit.studies.parts import networks_of, shares_of
from unlearnkit.studies.poisoned import partial_task
from unlearnkit.studies.running import Failure, Running
from unlearnkit.studies.snapshots import PrefixStable, is_prefix_stable, unlearn_for
from unlearnkit.studies.stage_cache import start_input
from unlearnkit.studies.study import RETRAIN
from unlearnkit.training import DivergedError, train_from, train_like
from unlearnkit.unlearning import Retrain

T = TypeVar("T")
_IDENTIFIED, _RETRAINED = 1 << 29, 1 << 30
"""Fold into keys what chooses the identified poisons, and what retrains without them."""
_NOTHING_LEFT = Failure(failed="the defence left no poison that could be forgotten")


def answer(
    running: Running, where: Mapping[str, Any], case: Case, task: Task | None, key: AnyKey
) -> Iterator[Record]:
    """Yields the records of one question on one seed: untouched, retrained, each method.

    Args:
      running: the study.
      where: the coordinates of the records.
      case: what audits compare with.
      task: what methods are given; None where nothing is left to be forgotten.
      key: of the methods; each folds its place into it.
    """
    question = _Question(running, where, case, task, key)
    shares = shares_of(running.study, where["question"])
    networks = networks_of(running.study, where.get("defence", NO_DEFENCE))
    first: list[Callable[[], list[Record]]] = [
        partial(question.judge_network, name) for name in networks if running.wants(where, name)
    ]
    if RETRAIN in networks and running.wants(where, RETRAIN):
        first += [partial(question.retrain_partly, share) for share in shares if share < 1]

    def run_method(name: str, method: Unlearner, key: AnyKey) -> list[Record]:
        told = (question.with_share(share) for share in shares)
        return [record for one in told for record in one.run_method(name, method, key)]

    methods = [
        partial(run_method, name, train_like(method, case.recipe), key.fold_in(index))
        for index, (name, method) in enumerate(running.study.methods.items())
        if running.wants(where, name)
    ]
    for cell in first:
        yield from running.when_ready(cell, iter)
    if where["seed"] == 0 and running.compile_at_once > 1:
        with ThreadPoolExecutor(running.compile_at_once) as pool:
            for records in pool.map(lambda cell: [*running.when_ready(cell, iter)], methods):
                yield from records
    else:
        for cell in methods:
            yield from running.when_ready(cell, iter)


class _Question:
    """One question on one seed, ready to be answered."""

    def __init__(
        self,
        running: Running,
        where: Mapping[str, Any],
        case: Case,
        task: Task | None,
        key: AnyKey,
    ) -> None:
        cache, poisoned = running.cache, case.poisoned
        self._running, self._where, self._key = running, where, key
        self._task: Task | Failure = _NOTHING_LEFT if task is None else task
        self._effects = InMemory()
        self._digest = cache.digest([case.model, case.original, task])
        self._case_digest = cache.digest(
            [
                self._digest,
                *(case.key, case.recipe, case.task),
                None if case.reference is None else case.reference.variables,
                None if case.reference is None else case.full_gradients,
                case.clean,
                # Not what the attack cost: its seconds differ from run to run.
                None if poisoned is None else [*poisoned[:2], extras_of(poisoned)],
                # What most cases do not have leaves their digest as it was.
                *(part for part in (case.start, case.clean_data, case.defence) if part is not None),
                *([] if case.defended is None else case.defended[:2]),
            ]
        )
        at_hand = InMemory()

        def share(kind: str, settings: Mapping[str, Any], compute: Callable[[], T]) -> T:
            inputs = {"case": self._case_digest}
            return at_hand(
                kind,
                settings,
                lambda: cache.obtain(kind, dict(settings), inputs, compute, say=kind),
            )

        self._case = dataclasses.replace(case, share=share)

    def with_share(self, share: float) -> _Question:
        """Returns the same question where only a share of the poisons is known."""
        if share == 1:
            return self
        told = copy.copy(self)
        told._where = {**self._where, "identified": share}
        whole, key = self._task, host_key(self._case.key).fold_in(_IDENTIFIED)
        if isinstance(whole, Task):
            told._task = self._running.attempt(lambda: partial_task(key.typed(), whole, share))
        if isinstance(told._task, Task):
            told._digest = self._running.cache.digest(
                [self._case.model, self._case.original, told._task]
            )
        return told

    def retrain_partly(self, share: float) -> list[Record]:
        """Returns the record of a network that was retrained without the identified poisons."""
        told, method = self.with_share(share), Retrain(self._case.recipe)
        if isinstance(told._task, Failure):
            return [told._task.record(told._where, RETRAIN)]
        result = told._unlearn(RETRAIN, method, self._key.fold_in(_RETRAINED), None)
        return [told._record(RETRAIN, method, None, result)]

    def judge_network(self, name: str) -> list[Record]:
        """Returns the record of the untouched network, or of the reference."""
        subject = self._reference() if name == RETRAIN else Subject(self._case.original)
        return [self._judge(name, subject, None)]

    def run_method(self, name: str, method: Unlearner, key: AnyKey) -> list[Record]:
        """Returns the records of a method: one, or one a budget.

        Where a share of the poisons is known that is smaller than a batch, the batch is they.
        """
        fitting = getattr(method, "fitting", None)
        if not isinstance(self._task, Task) or "identified" not in self._where or not fitting:
            return self._run_method(name, method, key)
        smaller = fitting(self._task)
        adapted: dict[str, int | str] = {
            field: getattr(smaller, field)
            for field in ("batch_size", "forget_batch_size")
            if getattr(smaller, field, None) != getattr(method, field, None)
        }
        records = self._run_method(name, smaller, key)
        return [record._replace(adapted={**record.adapted, **adapted}) for record in records]

    def _run_method(self, name: str, method: Unlearner, key: AnyKey) -> list[Record]:
        budgets = self._running.study.budgets
        if isinstance(self._task, Failure):
            allowed: Sequence[float | None] = budgets or [None]
            return [self._task.record(self._where, name, budget) for budget in allowed]
        if not budgets:
            return [self._record(name, method, None, self._unlearn(name, method, key, None))]
        price_key, run_key = key.split()
        full = self._case.full_gradients
        if not has_epochs(method):
            result = self._unlearn(name, method, run_key.fold_in(1), 1)
            return [self._record(name, method, b, _within(result, b, full)) for b in budgets]
        known = self._running.attempt(lambda: self._price(name, method, price_key))
        if isinstance(known, Failure):
            return [known.record(self._where, name, budget) for budget in budgets]
        allowed_epochs = sorted({known.epochs_within(budget * full) for budget in budgets} - {0})
        if one_run := bool(allowed_epochs) and is_prefix_stable(method):
            done = self._unlearn_for(name, method, run_key.fold_in(0), allowed_epochs)
        else:
            done = {
                epochs: self._unlearn(
                    name, with_epochs(method, epochs), run_key.fold_in(epochs), epochs
                )
                for epochs in allowed_epochs
            }
        records = []
        for budget in budgets:
            epochs = known.epochs_within(budget * full)
            if epochs == 0:
                dear = _too_dear("one epoch costs", known.first / full, budget)
                records.append(dear.record(self._where, name, budget))
                continue
            result = _within(done[epochs], budget, full)
            record = self._record(name, with_epochs(method, epochs), budget, result)
            records.append(record._replace(one_run=one_run))
        return records

    def _price(self, name: str, method: Unlearner, key: AnyKey) -> Price:
        case, task = self._case, self._task
        assert isinstance(task, Task)
        return self._running.cache.obtain(
            "price",
            method,
            {"key": key.typed(), "question": self._digest, **start_input(case.start)},
            lambda: price(key.typed(), case.model, case.original, task, method, initial=case.start),
            say=f"price of {name}",
        )

    def _unlearn(
        self, name: str, method: Unlearner, key: AnyKey, epochs: int | None
    ) -> Unlearned | Failure:
        """Returns what a method made of the question, or why it made nothing."""
        running, case, task = self._running, self._case, self._task
        assert isinstance(task, Task)
        said = self._said(name, epochs)

        def compute() -> Unlearned:
            on_epoch = announce(running.on_stage, said, epochs or epochs_of(method))
            run = train_from(method, case.start)
            result = run(key.typed(), case.model, case.original, task, on_epoch=on_epoch)
            if not isinstance(result, Unlearned):
                raise TypeError(
                    f"{name} must return Unlearned(variables, info), got {type(result).__name__}"
                )
            return result

        inputs = {"key": key.typed(), "question": self._digest, **start_input(case.start)}
        return running.attempt(
            lambda: running.cache.obtain("unlearn", method, inputs, compute, say=said)
        )

    def _unlearn_for(
        self, name: str, method: PrefixStable, key: AnyKey, epochs: Sequence[int]
    ) -> dict[int, Unlearned | Failure]:
        """Returns what a method made of the question after each of these numbers of epochs."""
        running, case, task = self._running, self._case, self._task
        assert isinstance(task, Task)
        said = [self._said(name, each) for each in epochs]

        def compute(
            missing: list[int], _: Sequence[Path | None]
        ) -> Iterator[tuple[int, Unlearned | DivergedError]]:
            wanted = {epochs[i]: i for i in missing}
            on_epoch = announce(running.on_stage, said[max(missing)], max(wanted))
            found = unlearn_for(
                *(key.typed(), case.model, case.original, task, method, list(wanted)),
                initial=case.start,
                on_epoch=on_epoch,
            )
            for each, result in found:
                yield wanted[each], result

        inputs = [
            {"method": with_epochs(method, each), "key": key.typed(), "question": self._digest}
            | start_input(case.start)
            for each in epochs
        ]
        found = running.attempt(
            lambda: running.cache.obtain_many("unlearn", None, inputs, compute, say=said)
        )
        if isinstance(found, Failure):
            return dict.fromkeys(epochs, found)
        failures = (
            Failure(diverged=str(one)) if isinstance(one, DivergedError) else one for one in found
        )
        return dict(zip(epochs, failures, strict=True))

    def _said(self, name: str, epochs: int | None) -> str:
        """Returns a run of a method in words."""
        said = f"{name}, {self._running.seed(self._where['seed'])}"
        if self._case.poisoned is not None:
            said = f"{self._where['question']}: {said}"
        return said if epochs is None else f"{said}, {epochs} epochs"

    def _record(
        self, name: str, method: Unlearner, budget: float | None, result: Unlearned | Failure
    ) -> Record:
        if isinstance(result, Failure):
            return result.record(self._where, name, budget)
        told = result.info
        subject = Subject(result.variables, told.cost, method, history=told.history)
        return self._judge(name, subject, budget)._replace(adapted=dict(told.adapted))

    def _judge(self, name: str, subject: Subject, budget: float | None) -> Record:
        """Returns the record of a network that every audit judged."""
        metrics: dict[str, float] = {}
        curves: dict[str, Any] = {}
        left_out: dict[str, str] = {}
        for asked, audit in self._running.study.audits_of(self._where["question"]).items():
            said = f"{asked or 'audit'} of {name}"
            found = self._running.attempt(partial(self._audit, audit, subject, said))
            if isinstance(found, NotApplicable):
                left_out[asked] = str(found)
                continue
            if isinstance(found, Failure):
                return found.record(self._where, name, budget)._replace(cost=subject.cost)
            prefix = f"{asked}_" if asked else ""
            metrics |= {f"{prefix}{metric}": value for metric, value in found.metrics.items()}
            curves |= {f"{prefix}{curve}": value for curve, value in found.curves.items()}
        record = Record(
            name,
            metrics=metrics,
            cost=subject.cost,
            curves=curves,
            budget=budget,
            left_out=left_out,
            reused=tuple(self._running.cache.reused),
            no_effect=self._no_effect(),
            **self._where,
        )
        if self._running.on_network is not None:
            self._running.on_network(record, subject.variables)
        return record

    def _no_effect(self) -> str | None:
        """Returns why the attack counts as without effect on its own victim, or None.

        Where all examples are poisons nothing is to be unlearned, and nothing is said of it.
        """
        if self._case.poisoned is None or self._case.task.retain.size == 0:
            return None
        victim = self._running.attempt(
            lambda: self._audit(PoisonEffects(), Subject(self._case.original), "effect of poisons")
        )
        reference = self._running.attempt(
            lambda: self._audit(PoisonEffects(), self._reference(), "effect of no poisons")
        )
        if not (isinstance(victim, Audited) and isinstance(reference, Audited)):
            return None
        return lacks_effect(victim.metrics, reference.metrics)

    def _reference(self) -> Subject:
        reference = self._case.retrained
        return Subject(reference.variables, reference.info.cost, is_reference=True)

    def _audit(
        self, audit: Audit | CaseAudit, subject: Subject, said: str
    ) -> Audited | NotApplicable:
        inputs: dict[str, Any] = {"case": self._case_digest, "variables": subject.variables}
        if isinstance(audit, CaseAudit):
            inputs |= {
                "unlearner": subject.unlearner,
                "gradients": subject.cost.example_gradients,
                "is_reference": subject.is_reference,
            }

        def ask() -> Audited:
            return self._running.cache.obtain(
                "audit", audit, inputs, lambda: judge(audit, self._case, subject), say=said
            )

        try:
            if audit == PoisonEffects() and subject.unlearner is None:
                # Every record of the question asks for these two.
                return self._effects("effects", {"is_reference": subject.is_reference}, ask)
            return ask()
        except NotApplicable as error:
            return error


def _within(result: Unlearned | Failure, budget: float, full: float) -> Unlearned | Failure:
    """Returns the result, or why it may not stand under this budget."""
    if isinstance(result, Failure):
        return result
    share = result.info.cost.example_gradients / full
    return result if share <= budget * (1 + 1e-9) else _too_dear("it costs", share, budget)


def _too_dear(what: str, share: float, budget: float) -> Failure:
    reason = f"{what} {100 * share:.3g} % of Retrain, more than the budget of {100 * budget:g} %"
    return Failure(over_budget=reason)
