"""Runs a study: expands it into stages, computes those that are missing, yields its records."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Key

from unlearnkit.auditing import Case
from unlearnkit.base import (
    Attack,
    Dataset,
    Defence,
    Defended,
    Model,
    Poisoned,
    RobustTrainer,
    Task,
    Trained,
    TrainInfo,
    Unlearned,
    UnlearnInfo,
    Variables,
)
from unlearnkit.data import ForgetRequest
from unlearnkit.host.random import AnyKey, host_key
from unlearnkit.records import NO_DEFENCE, Record
from unlearnkit.studies.announcing import OnNetwork, OnPoisoned, OnRecord, OnStage, announce
from unlearnkit.studies.cells import answer
from unlearnkit.studies.checks import check
from unlearnkit.studies.executors import Dask, Processes, parse_executor
from unlearnkit.studies.fitting import fit_in, fit_once
from unlearnkit.studies.lanes import train_together
from unlearnkit.studies.parts import Wanted, cells, shard_of
from unlearnkit.studies.poisoned import ask, clean_task, poisoned_task
from unlearnkit.studies.running import FREE, Failure, Running, Unfinished, branch, check_minutes
from unlearnkit.studies.stage_cache import StageCache, start_input
from unlearnkit.studies.store import Store
from unlearnkit.studies.study import Pair, Study
from unlearnkit.training import Batching, DivergedError, Recipe

Networks = list[Trained | DivergedError]
References = Sequence[Trained | DivergedError | None]
_DATA, _NETWORKS, _RECIPES, _FORGET = range(4)


def run(
    study: Study,
    key: Key[Array, ""],
    *,
    store: Store | str | os.PathLike[str] | None = None,
    on_stage: OnStage | None = None,
    on_poisoned: OnPoisoned | None = None,
    on_record: OnRecord | None = None,
    on_network: OnNetwork | None = None,
    batching: Batching | None = None,
    lanes: int | None = None,
    compile_at_once: int = 1,
    strict: bool = False,
    executor: Executor | Processes | Dask | str | None = None,
    shard: tuple[int, int] | None = None,
    minutes: float | None = None,
    checked: bool = False,
) -> Iterator[Record]:
    """Checks a study, and returns an iterator that computes its records one by one.

    A stage (training, attack, defence, unlearning, audit) that the store holds is not computed
    again; one that was interrupted is computed again, to the same bits. Several processes may run
    one study on one store: they share the work, and each yields all records. A stage that fails is
    a record that says why, and the study goes on.

    Args:
      study: what meets what.
      key: decides everything.
      store: keeps the results of stages, by what they depend on; a folder, or None for none.
      on_stage: called as the work goes on.
      on_poisoned: called with each poisoned set, to keep or to draw it.
      on_record: called with each record just before it is yielded, as by an experiment tracker.
      on_network: called with each record that has a result, and the weights that it judges, to keep
        them; not with an executor, whose workers keep theirs.
      batching: of the originals and the references: `map` trains them in turn, `vmap` in lanes of
        one program; None takes `map` on a CPU and `vmap` elsewhere.
      lanes: how many trainings one program makes side by side; unused lanes repeat the first, so
        that further seeds within them change neither program nor bits. None takes as many as there
        are seeds.
      compile_at_once: methods of the first seed that run side by side, in threads, so that their
        programs compile at the same time; the times of that seed then hold waiting for one
        another. Records do not depend on it otherwise, and come in the same order.
      strict: raise what fails, in the place of a record that says so; a method or an attack that
        diverges is a record all the same.
      executor: computes the parts of the study that do not depend on one another: what
        `parse_executor` returns or takes, as `processes:4`, or any executor of
        `concurrent.futures`. It needs a store, in a folder that all workers see. Records and their
        order are those of a run without, but for times; `on_stage` is told of each part that is
        done. None computes here.
      shard: (which, of how many), counted from 1, to compute only these cells; other shards may run
        at the same time, on the same store. All shards together yield each record once.
      minutes: after which no further stage begins; one that was begun is finished. What the store
        holds, which it needs, is still yielded, and then `Unfinished` raised where more is missing.
      checked: whether `check` was called already, with this study and key.

    Raises:
      TypeError: see `check`; with a store, a part of the study that cannot be described.
      ValueError: see `check`; an executor and `on_network`; `lanes` or `compile_at_once` below 1,
        no such shard, minutes that are not positive, an unknown executor, an executor or minutes
        without a store.
      StoreError: the store's folder cannot be used.
      ExecutorError: the executor cannot be reached, or its workers have another program, other
        libraries or settings, or do not see the store; by the iterator, when workers are lost.
      Unfinished: by the iterator, see `minutes`.

    Example:
      for record in studies.run(study, jax.random.key(0), store="runs/store"):
          print(record.question, record.method, record.seed, record.metrics)
    """
    for name, value in (("lanes", lanes), ("compile_at_once", compile_at_once)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be >= 1, got {value}")
    if isinstance(executor, str):
        executor = parse_executor(executor)
    check_minutes(minutes)
    if store is None and (executor is not None or minutes is not None):
        asked = "minutes" if executor is None else "executor"
        raise ValueError(f"{asked} needs a store, the folder where results are kept; give store=")
    if on_network is not None and executor is not None:
        raise ValueError("on_network needs executor=None: the weights stay with the workers")
    chosen = cells(study) if shard is None else shard_of(cells(study), shard)
    until = None if minutes is None else time.time() + 60 * minutes
    if not checked:
        check(study, key)
    kept = Store(Path(store)) if isinstance(store, str | os.PathLike) else store
    batching_here = batching or ("map" if jax.default_backend() == "cpu" else "vmap")
    width = (lanes or study.seeds) if batching_here == "vmap" else None
    cache = StageCache(kept, lane_width=width, until=until)
    # A part that a store cannot describe is met here, before anything is computed.
    cache.digest([study.methods, study.attacks, study.defences, study.audits, study.recipes])
    wanted = Wanted(chosen)
    running = Running(
        *(study, cache, on_stage, on_poisoned, width, compile_at_once, strict, wanted),
        on_network=on_network,
    )
    if executor is None or kept is None:
        return _counted(running, records_of(running, host_key(key)), on_record)
    from unlearnkit.studies.distribute import distribute

    records = distribute(
        running, key, kept, records_of, executor, chosen,
        batching=batching, lanes=lanes, until=until,
    )  # fmt: skip
    return _counted(running, records, on_record)


class _Place(NamedTuple):
    """One dataset, one network and one recipe, with their key."""

    names: Mapping[str, str]
    data: Pair
    model: Model
    recipe: Recipe
    start: Variables | None
    original: Variables | None
    key: AnyKey
    digest: str


class _AttackKeys(NamedTuple):
    """The keys of one attack on one seed."""

    attack: AnyKey
    train: AnyKey
    retrain: AnyKey
    methods: AnyKey
    defences: AnyKey


def _counted(
    running: Running, records: Iterator[Record], on_record: OnRecord | None
) -> Iterator[Record]:
    """Yields the records, and raises where some are missing as the time was over."""
    count = 0
    for record in records:
        count += 1
        if on_record is not None:
            on_record(record)
        yield record
    if running.out_of_time:
        raise Unfinished(count)


def records_of(running: Running, key: AnyKey) -> Iterator[Record]:
    """Yields the records of the cells that are wanted; those that must wait come last.

    Args:
      running: the study.
      key: decides everything.
    """
    study, wanted = running.study, running.wanted
    for place in _places(running, key):
        where = tuple(place.names.values())
        for index, (name, request) in enumerate(study.named.forget.items()):
            if wanted(*where, name):
                mine = branch(place.key, _FORGET, index)
                yield from _forget(running, place, mine, name, request)
        for seed in range(study.seeds if study.attacks else 0):
            if any(wanted(*where, name, seed) for name in (None, *study.named.attacks)):
                yield from _poison(running, place, seed)
    running.cache.patient = True
    while running.postponed:
        waiting, running.postponed = running.postponed, []
        for work in waiting:
            yield from work()


def _places(running: Running, key: AnyKey) -> Iterator[_Place]:
    study = running.study
    for d, (dataset, pair) in enumerate(study.named.data.items()):
        for n, (network, model) in enumerate(study.named.networks.items()):
            for r, (named, recipe) in enumerate(study.named.recipes.items()):
                mine = branch(branch(branch(key, _DATA, d), _NETWORKS, n), _RECIPES, r)
                names = {"dataset": dataset, "network": network, "recipe": named}
                where = dataset, network, named
                if not running.wanted(*where):
                    continue
                start = study.named.start.get(network)
                if where not in running.digests:
                    # What most studies do not have leaves their digest as it was.
                    more = [part for part in (pair.validation, start) if part is not None]
                    parts = [pair.train, model, recipe, *more]
                    running.digests[where] = running.cache.digest(parts)
                digest = running.digests[where]
                original = study.named.original.get(network)
                yield _Place(names, pair, model, recipe, start, original, mine, digest)


def forgotten_of(
    study: Study, key: Key[Array, ""], *, seed: int = 0
) -> Iterator[tuple[str, Dataset]]:
    """Yields what each forget request of a study takes from its data; nothing is trained.

    Args:
      study: with its data.
      key: the one that it was run with.
      seed: which repetition.

    Example:
      for name, dataset in studies.forgotten_of(study, jax.random.key(0)):
          print(name, dataset.size)
    """
    everything = Running(study, StageCache(None), None, None, None, 1, True, Wanted(cells(study)))
    named = study.named
    several = [len(part) > 1 for part in (named.data, named.networks, named.recipes)]
    for place in _places(everything, host_key(key)):
        told = [n for n, more in zip(place.names.values(), several, strict=True) if more]
        for index, (name, request) in enumerate(named.forget.items()):
            mine = branch(place.key, _FORGET, index).fold_in(seed).split(5)[0]
            yield ", ".join([*told, name]), ask(mine.typed(), place.data, request)[1].forget


def _forget(
    running: Running, place: _Place, key: AnyKey, name: str, request: ForgetRequest
) -> Iterator[Record]:
    """Yields the records of a forget request; networks of all seeds are trained together."""
    keys = [key.fold_in(seed).split(5) for seed in range(running.study.seeds)]
    asked = [ask(k[0].typed(), place.data, request) for k in keys]
    splits = [split for split, _ in asked]
    whole = [np.concatenate([split.retain, split.forget]) for split in splits]
    kept = [split.retain for split in splits]
    seeds = _wanted_seeds(running, (*place.names.values(), name))

    def prepare() -> tuple[Networks, References]:
        if place.original is not None:
            originals: Networks = [Trained(place.original, TrainInfo({}, FREE)) for _ in seeds]
        else:
            originals = _train(running, place, "original", [k[1] for k in keys], whole, seeds)
        if running.study.reference == "none":
            return originals, [None for _ in seeds]
        own = 1 if running.study.paired else 2
        return originals, _train(running, place, "reference", [k[own] for k in keys], kept, seeds)

    def go_on(networks: tuple[Networks, References]) -> Iterator[Record]:
        for seed, original, reference in zip(seeds, *networks, strict=True):
            where = {**place.names, "question": name, "seed": seed}
            if not running.wanted(*place.names.values(), name, seed):
                continue
            if isinstance(original, DivergedError) or isinstance(reference, DivergedError):
                lost = [n for n in (original, reference) if isinstance(n, DivergedError)]
                if running.strict:
                    raise lost[0]
                yield from running.without_result(Failure(diverged=str(lost[0])), where)
                continue
            case = Case(
                key=keys[seed][3].typed(),
                model=place.model,
                recipe=place.recipe,
                task=asked[seed][1],
                original=original.variables,
                reference=None
                if reference is None
                else Unlearned(reference.variables, UnlearnInfo(*reference.info)),
                start=place.start,
                train_key=None if place.original is not None else keys[seed][1].typed(),
            )
            yield from answer(running, where, case, case.task, keys[seed][4])

    yield from running.when_ready(prepare, go_on)


def _wanted_seeds(running: Running, where: tuple[str, ...]) -> list[int]:
    """Returns the seeds of a question that are asked for, and those that train in their lanes."""
    asked = [seed for seed in range(running.study.seeds) if running.wanted(*where, seed)]
    if running.width is None:
        return asked
    groups = {seed // running.width for seed in asked}
    return [seed for seed in range(running.study.seeds) if seed // running.width in groups]


def _train(
    running: Running,
    place: _Place,
    kind: str,
    keys: Sequence[AnyKey],
    rows: Sequence[np.ndarray],
    seeds: Sequence[int],
) -> Networks:
    """Returns the networks of some seeds, each trained on its rows of the training set."""
    many = f" ({len(seeds)} seeds)" if len(seeds) > 1 else ""

    def compute(
        missing: list[int], folders: Sequence[Path | None]
    ) -> Iterator[tuple[int, Trained | DivergedError]]:
        epochs = place.recipe.epochs
        on_epoch = announce(running.on_stage, f"training the {kind}s{many}", epochs)
        typed = [key.typed() for key in keys]
        trained = train_together(
            *(typed, place.model, place.data.train, place.recipe, rows),
            [seeds[i] for i in missing],
            width=running.width,
            start=place.start,
            on_epoch=on_epoch,
            folders=dict(zip(seeds, folders, strict=True)),
        )
        return ((seeds.index(seed), network) for seed, network in trained)

    inputs = [
        {"place": place.digest, "key": keys[seed].typed(), "rows": rows[seed]} for seed in seeds
    ]
    says = [f"{kind}, seed {seed}" for seed in seeds]
    return running.cache.obtain_many(kind, None, inputs, compute, say=says)


def _poison(running: Running, place: _Place, seed: int) -> Iterator[Record]:
    """Yields the records of all attacks on one seed, which share a clean network."""
    split_key, clean_key, attacks_key = place.key.fold_in(seed).split(3)
    if running.study.paired:
        clean_key, attacks_key, split_key = split_key, clean_key, attacks_key
    task = clean_task(split_key.typed(), place.data)
    said = f"training on clean data, {running.seed(seed)}"

    def train() -> Trained:
        return _fit(running, place, "clean", clean_key, place.data.train, said)

    def prepare() -> Trained | Failure:
        clean = running.attempt(train)
        if isinstance(clean, Failure) and running.strict:
            raise DivergedError(clean.diverged)
        return clean

    def go_on(clean: Trained | Failure) -> Iterator[Record]:
        for index, (name, attack) in enumerate(running.study.named.attacks.items()):
            where = {**place.names, "question": name, "seed": seed}
            if not running.wanted(*place.names.values(), name, seed):
                continue
            if isinstance(clean, Failure):
                yield from running.without_result(clean, where)
                continue
            if running.study.paired:
                # The split takes what 0 and 1 would give.
                drawn = split_key.fold_in(2), split_key.fold_in(3)
                keys = _AttackKeys(attacks_key, clean_key, clean_key, *drawn)
            else:
                steps_key, methods_key = attacks_key.fold_in(index).split()
                poison_key, train_key, again_key = steps_key.split(3)
                keys = _AttackKeys(poison_key, train_key, again_key, methods_key, steps_key)
            yield from _attack(running, place, where, attack, (clean, task), keys)

    yield from running.when_ready(prepare, go_on)


def _attack(
    running: Running,
    place: _Place,
    where: Mapping[str, Any],
    attack: Attack,
    before: tuple[Trained, Task],
    keys: _AttackKeys,
) -> Iterator[Record]:
    """Yields the records of one attack on one seed, behind no defence and behind each.

    1. The attack poisons the training set, with the clean network as its surrogate.
    2. A fresh network trains on the poisoned set, and another on it without the poisons.
    3. Methods unlearn U = the poisons.

    Source: Pawelczyk et al. 2024, §4.4 (after Sommer et al. 2022) and §5.1.
    """
    study, (trained, task) = running.study, before
    clean = trained.variables
    name, seed = where["question"], where["seed"]

    def poison() -> tuple[Poisoned, Case]:
        announce(running.on_stage, f"{name}: poisoning and training, {running.seed(seed)}", 1)
        poisoned: Poisoned = running.cache.obtain(
            "attack",
            attack,
            {"key": keys.attack.typed(), "place": place.digest, "clean": clean, "task": task},
            lambda: attack(keys.attack.typed(), place.model, clean, task),
            say=f"attack {name}, seed {seed}",
        )
        question = poisoned_task(
            poisoned, task.validation, task.test, may_be_all=study.reference == "clean"
        )
        victim = _fit(running, place, "victim", keys.train, poisoned.dataset, None).variables
        if study.reference == "clean":
            reference = Unlearned(clean, UnlearnInfo(*trained.info))
        else:
            inputs = {"model": place.model, "data": question.retain, **start_input(place.start)}

            def retrain(folder: Path | None) -> Unlearned:
                fitted = fit_in(
                    *(folder, keys.retrain, place.model, question.retain, place.recipe),
                    start=place.start,
                )
                return Unlearned(fitted.variables, UnlearnInfo(*fitted.info))

            reference = running.cache.obtain_resumable(
                "retrained",
                place.recipe,
                {"key": keys.retrain.typed(), **inputs},
                retrain,
                say=f"retrained without {name}, seed {seed}",
            )
        return poisoned, Case(
            keys.methods.split()[0].typed(),
            place.model,
            place.recipe,
            question,
            original=victim,
            reference=reference,
            clean=clean,
            poisoned=poisoned,
            start=place.start,
            train_key=keys.train.typed(),
            clean_data=place.data.train,
        )

    def go_on(prepared: tuple[Poisoned, Case] | Failure) -> Iterator[Record]:
        if isinstance(prepared, Failure):
            yield from running.without_result(prepared, where)
            return
        poisoned, case = prepared
        if running.on_poisoned is not None:
            running.on_poisoned(name, seed, poisoned)
        if running.wanted(*where.values(), NO_DEFENCE):
            yield from answer(running, where, case, case.task, keys.methods.split()[1])
        for index, (named, defence) in enumerate(study.defences.items()):
            if not running.wanted(*where.values(), named):
                continue
            # 3 and 2 keys of each come from splits, which fold in 0, 1, and 2.
            own: Sequence[AnyKey] = keys.attack.fold_in(index), keys.train
            if not study.paired:
                own = keys.defences.fold_in(3 + index).split()
            there = {**where, "defence": named}
            methods_key = keys.methods.fold_in(2 + index)
            yield from _defend(running, place, there, defence, case, own, methods_key)

    yield from running.when_ready(lambda: running.attempt(poison), go_on)


def _defend(
    running: Running,
    place: _Place,
    where: Mapping[str, Any],
    defence: Defence | RobustTrainer,
    undefended: Case,
    keys: Sequence[AnyKey],
    methods_key: AnyKey,
) -> Iterator[Record]:
    """Yields the records of the methods on a network that was trained behind a defence."""
    defence_key, train_key = keys
    poisoned, task = undefended.poisoned, undefended.task
    assert poisoned is not None
    dataset, is_poison = poisoned.dataset, np.asarray(poisoned.is_poison)
    said = f"{where['question']}: {where['defence']}, {running.seed(where['seed'])}"

    def train() -> tuple[Task | None, Variables, Defended | None]:
        announce(running.on_stage, said, 1)
        inputs = {"model": place.model, "data": dataset}
        if isinstance(defence, RobustTrainer):
            trained: Trained = running.cache.obtain(
                "robust_training",
                [defence, place.recipe],
                {"key": train_key.typed(), **inputs, **start_input(place.start)},
                lambda: _fit_robustly(defence, train_key, place, dataset),
                say=said,
            )
            return task, trained.variables, None
        victim = undefended.original
        defended: Defended = running.cache.obtain(
            "defence",
            defence,
            {"key": defence_key.typed(), **inputs, "victim": victim},
            lambda: defence(defence_key.typed(), place.model, victim, dataset),
            say=said,
        )
        keep = np.asarray(defended.keep)
        kept = dataset.take(np.flatnonzero(keep))
        variables = _fit(running, place, "defended", train_key, kept, None).variables
        left = keep & is_poison
        if not left.any():
            return None, variables, defended
        retain, forget = (dataset.take(np.flatnonzero(r)) for r in (keep & ~is_poison, left))
        return task._replace(retain=retain, forget=forget), variables, defended

    def go_on(
        prepared: tuple[Task | None, Variables, Defended | None] | Failure,
    ) -> Iterator[Record]:
        if isinstance(prepared, Failure):
            yield from running.without_result(prepared, where)
            return
        left, variables, defended = prepared
        case = dataclasses.replace(
            undefended,
            original=variables,
            train_key=train_key.typed(),
            defence=defence,
            defended=defended,
        )
        yield from answer(running, where, case, left, methods_key)

    yield from running.when_ready(partial(running.attempt, train), go_on)


def _fit(
    running: Running,
    place: _Place,
    kind: str,
    key: AnyKey,
    dataset: Dataset,
    said: str | None,
) -> Trained:
    """Returns a network that trained on a dataset, and announces it by these words."""
    on_stage = None if said is None else running.on_stage
    return fit_once(
        *(running.cache, key, place.model, dataset, place.recipe),
        kind=kind, say=said or kind, start=place.start, on_stage=on_stage,
    )  # fmt: skip


def _fit_robustly(trainer: RobustTrainer, key: AnyKey, place: _Place, dataset: Dataset) -> Trained:
    """Returns what a defence trains; only a study with a start tells it where to begin."""
    if place.start is None:
        return trainer.fit(key.typed(), place.model, dataset, place.recipe)
    return trainer.fit(key.typed(), place.model, dataset, place.recipe, variables=place.start)
