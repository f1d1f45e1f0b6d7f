"""Comparisons: any unlearners, over seeds, judged against retraining."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from unlearnkit.auditing import (
    DEFAULT_ATTACKS,
    MembershipInference,
    Reference,
    audit_reference,
    evaluate,
)
from unlearnkit.base import (
    Cost,
    Dataset,
    Model,
    OnEpoch,
    Task,
    Unlearned,
    Unlearner,
    UnlearnInfo,
    Variables,
)
from unlearnkit.data import ForgetRequest, choose_split
from unlearnkit.records import Record
from unlearnkit.training import Batching, DivergedError, Recipe, fit_many, train_like
from unlearnkit.validation import check_compatible

ORIGINAL = "original"
"""The row of the network that nothing was done to."""

OnStage: TypeAlias = Callable[[str, int, int], None]
"""Called with what is being done, and how many epochs of how many are done."""


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
    compile_at_once: int = 1,
    batching: Batching | None = None,
) -> Iterator[Record]:
    """Yields the original network's record and each method's, seed by seed.

    Each seed has its own split, original network, and reference: a network retrained without the
    forget set that no method gets to see. `Retrain` among the methods is thus a second, independent
    retraining, and its distance to the reference is the floor below which no distance means
    anything. Originals of all seeds are trained together, references likewise.

    Args:
      key: decides everything.
      model: the network.
      train: [n] training examples.
      test: held-out examples; half of them become the validation set of each task.
      forget: chooses each seed's forget set.
      recipe: how the originals and the references are trained.
      methods: unlearners by the name of their row; those without the recipe of the original
        training (`train_like`, or `recipe` of Retrain, is None) are given `recipe`.
      seeds: repetitions.
      attacks: membership attacks of the audit.
      on_stage: called as the work goes on.
      compile_at_once: methods of the first seed that run side by side, in threads, so that their
        programs compile at the same time; the times of that seed then hold waiting for one another.
        Records do not depend on it otherwise, and come in the same order.
      batching: of the originals and the references, see `fit_many`; `map` for a network that keeps
        an accelerator busy alone.

    Raises:
      ValueError: data that do not fit the model, or a forget request that they cannot answer.
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
    if seeds < 1:
        raise ValueError(f"seeds must be >= 1, got {seeds}")
    if compile_at_once < 1:
        raise ValueError(f"compile_at_once must be >= 1, got {compile_at_once}")
    methods = {name: train_like(method, recipe) for name, method in methods.items()}
    if ORIGINAL in methods:
        raise ValueError(f"{ORIGINAL!r} is the row of the untouched network; rename the method")
    check_compatible(train, model, name="train")
    check_compatible(test, model, name="test")
    seed_keys = [jax.random.fold_in(key, seed) for seed in range(seeds)]
    split_keys, original_keys, reference_keys, audit_keys, method_keys = zip(
        *(jax.random.split(seed_key, 5) for seed_key in seed_keys), strict=True
    )
    splits = [choose_split(split_key, train, test, forget) for split_key in split_keys]
    kept = np.stack([split.retain for split in splits])
    whole = np.stack([np.concatenate([split.retain, split.forget]) for split in splits])
    many = f" ({seeds} seeds)" if seeds > 1 else ""
    originals = fit_many(
        jnp.stack(original_keys),
        model,
        train,
        recipe,
        subsets=whole,
        batching=batching,
        on_epoch=announce(on_stage, f"training the originals{many}", recipe.epochs),
    )
    references = fit_many(
        jnp.stack(reference_keys),
        model,
        train,
        recipe,
        subsets=kept,
        batching=batching,
        on_epoch=announce(on_stage, f"training the references{many}", recipe.epochs),
    )
    for seed, split in enumerate(splits):
        task = split.task(train, test)
        original, reference = (
            jax.tree.map(lambda leaf, seed=seed: leaf[seed], trained.variables)
            for trained in (originals, references)
        )
        untouched = Unlearned(original, UnlearnInfo({}, Cost(0.0, 0.0)))
        audit_key = audit_keys[seed]
        judged = audit_reference(audit_key, model, reference, task)
        yield _judge(ORIGINAL, seed, untouched, audit_key, model, task, judged, attacks)

        def run(
            numbered: tuple[int, tuple[str, Unlearner]],
            seed: int = seed,
            task: Task = task,
            original: Variables = original,
            judged: Reference = judged,
        ) -> Record:
            index, (name, method) = numbered
            on_epoch = announce(on_stage, f"{name}, seed {seed + 1} of {seeds}", _epochs(method))
            method_key = jax.random.fold_in(method_keys[seed], index)
            audit_key = jax.random.clone(audit_keys[seed])
            try:
                unlearned = method(method_key, model, original, task, on_epoch=on_epoch)
                return _judge(name, seed, unlearned, audit_key, model, task, judged, attacks)
            except DivergedError as error:
                return Record(name, seed, {}, Cost(0.0, 0.0), diverged=str(error))

        numbered = enumerate(methods.items())
        if seed == 0 and compile_at_once > 1:
            with ThreadPoolExecutor(compile_at_once) as pool:
                yield from pool.map(run, numbered)
        else:
            yield from map(run, numbered)


def _judge(
    name: str,
    seed: int,
    unlearned: Unlearned,
    key: Key[Array, ""],
    model: Model,
    task: Task,
    reference: Reference,
    attacks: Sequence[MembershipInference],
) -> Record:
    audited = evaluate(key, model, unlearned.variables, task, reference=reference, attacks=attacks)
    return Record(name, seed, audited.metrics, unlearned.info.cost, curves=audited.curves)


def _epochs(method: Unlearner) -> int:
    recipe = getattr(method, "recipe", None)
    return int(getattr(method, "epochs", getattr(recipe, "epochs", 1)))


def announce(on_stage: OnStage | None, what: str, epochs: int) -> OnEpoch | None:
    """Announces a stage, and returns a callback that reports its finished epochs.

    Args:
      on_stage: called with (what, epochs done, epochs); None for nobody.
      what: begins.
      epochs: that it will take.
    """
    if on_stage is None:
        return None
    on_stage(what, 0, epochs)
    return lambda epoch, _: on_stage(what, epoch, epochs)
