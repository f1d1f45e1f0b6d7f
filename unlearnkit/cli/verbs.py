"""What `train` and `unlearn` do: the engine's calls, and what is told of them."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING

import jax
import numpy as np

from unlearnkit.auditing import accuracy
from unlearnkit.base import Variables
from unlearnkit.cli.answering import (
    Network,
    claimed,
    digest_of,
    make_method,
    open_network,
    print_json,
    write_record,
)
from unlearnkit.cli.interruption import Interruption
from unlearnkit.cli.study import DONE
from unlearnkit.cli.telling import (
    AUC,
    LABEL,
    SETS,
    cell,
    folded,
    forget_rows,
    metrics_of,
    settings_of,
    share_of_retrain,
    study_of,
    tell_cost,
    write_new,
)
from unlearnkit.cli.train import WEIGHTS
from unlearnkit.data.normalising import describe_normalisation
from unlearnkit.io.files import sha256_of_file
from unlearnkit.records import Record
from unlearnkit.reporting import StageProgress
from unlearnkit.studies import (
    ORIGINAL,
    RETRAIN,
    run,
)
from unlearnkit.studies import train as train_once
from unlearnkit.training import fit, save_variables

if TYPE_CHECKING:
    from unlearnkit.cli.train import Train
    from unlearnkit.cli.unlearn import Unlearn


def train(options: Train, interruption: Interruption) -> int:
    """Trains, and writes weights and record; returns the exit code."""
    network = open_network(options, options.recipe, options.start, name="start")
    model, recipe, (data, test, _) = network.model, network.recipe, network.pair
    start = None if network.weights is None else network.weights.variables
    key = jax.random.key(options.seed)
    recipe.steps_per_epoch(data.size)
    with claimed(options, interruption, "train") as out, StageProgress() as progress:
        if options.log is None:
            done = train_once(
                key, model, data, recipe, store=options.store, start=start, on_stage=progress
            )
        else:
            done = fit(
                *(key, model, data, recipe),
                variables=start,
                trajectory=options.log,
                every=options.every or recipe.steps_per_epoch(data.size),
                on_epoch=lambda epoch, _: progress("training", epoch, recipe.epochs),
            )
        told = {
            "network": options.model,
            "data": options.data,
            "normalisation": describe_normalisation(data.normalisation),
            "classes": list(network.classes),
            "recipe": dataclasses.asdict(recipe),
            "command": interruption.command,
        }
        save_variables(out / WEIGHTS, done.variables, told)
        found = {
            "accuracy_train": accuracy(model, done.variables, data),
            "accuracy_test": accuracy(model, done.variables, test),
        }
        said: dict[str, object] = {
            **network.described(),
            "weights": {"file": WEIGHTS, "sha256": sha256_of_file(out / WEIGHTS)},
            "started_from": None if options.start is None else str(options.start),
            "log": None if options.log is None else str(options.log),
            "metrics": found,
            "cost": done.info.cost._asdict(),
        }
        write_record(out, options, interruption, "train", said)
    if options.json:
        print_json({"out": str(out), **found})
        return DONE
    print(f"accuracy   train {found['accuracy_train']:.3f}, test {found['accuracy_test']:.3f}")
    print(f"cost       {tell_cost(done.info.cost)}")
    print(f"weights    {out / WEIGHTS}")
    if options.log is not None:
        verify = shlex.join(["unlearnkit", "verify", str(options.log), "--data"])
        print(f"log        {options.log}; {verify} {shlex.quote(options.data.partition(':')[0])}")
    return DONE


def unlearn(options: Unlearn, interruption: Interruption) -> int:
    """Makes weights forget, and writes the new ones and a record; returns the exit code."""
    name, method = make_method(options.method, options.set)
    network = open_network(options, options.recipe, options.weights, matching=options.matching)
    rows = forget_rows(options, network)
    study = study_of(network, rows, {name: method}, reference=options.reference)
    kept: dict[str, Variables] = {}

    def keep(record: Record, variables: Variables) -> None:
        kept[record.method] = variables

    with claimed(options, interruption, "unlearn") as out, StageProgress() as progress:
        records = {
            record.method: record
            for record in run(
                study,
                jax.random.key(options.seed),
                store=options.store,
                on_stage=progress,
                on_network=keep,
            )
        }
        done = records[name] if name in records else records[ORIGINAL]
        if done.problem is not None:
            raise RuntimeError(f"{name}: {done.problem}")
        file = write_new(out, options.weights, network.weights, kept[name])
        said: dict[str, object] = {
            **network.described(),
            "rows": {"count": len(rows)},
            "method": settings_of(name, method),
            "new_weights": {"file": file.name, "sha256": digest_of(file)},
            "before": metrics_of(records[ORIGINAL]),
            "after": metrics_of(done),
            "retrained": metrics_of(records[RETRAIN]) if options.reference else None,
            "cost": done.cost._asdict(),
            "share_of_retrain": share_of_retrain(done, network, rows),
        }
        write_record(out, options, interruption, "unlearn", said)
    if options.json:
        print_json({"out": str(out), **{n: said[n] for n in ("before", "after", "retrained")}})
        return DONE
    print("\n".join(_before_and_after(records, done, len(rows))))
    print(f"{'cost':<{LABEL}}{tell_cost(done.cost)}{_of_retrain(done, network, rows)}")
    print(f"{'weights':<{LABEL}}{file}")
    if not options.reference:
        print(folded(_WITHOUT))
    return DONE


_WITHOUT = (
    "Nothing was retrained, so that nothing is said of the distance to a network that never saw "
    "the rows; --reference trains one."
)


def _of_retrain(record: Record, network: Network, rows: np.ndarray) -> str:
    percent = f"{100 * share_of_retrain(record, network, rows):.3g} % of Retrain"
    share = f"\n{'':<{LABEL}}{percent}"
    assumed = f" if that takes {network.recipe.epochs} epochs"
    return share if network.recipe_known else share + assumed


def _before_and_after(records: Mapping[str, Record], done: Record, forgotten: int) -> list[str]:
    """Returns a table of networks by measures."""
    shown = {"before": records[ORIGINAL], "after": done}
    if RETRAIN in records:
        shown["retrained"] = records[RETRAIN]
    lines = [" " * LABEL + "".join(f"{name:>11}" for name in shown)]
    rows = {f"accuracy, {name}": f"accuracy_{name}" for name in SETS}
    rows |= {
        "attack's AUC": AUC,
        "L1 moved, retain": "moved_activation_distance_retain",
        "L1 moved, forget": "moved_activation_distance_forget",
        "L1 moved, test": "moved_activation_distance_test",
        "L1 to Retrain, forget": "activation_distance_forget",
        "average gap to Retrain": "average_gap",
    }
    for said, metric in rows.items():
        values = [record.metrics.get(metric) for record in shown.values()]
        if any(value is not None for value in values):
            lines.append(f"{said:<{LABEL}}" + "".join(map(cell, values)))
    low, high = done.metrics[f"{AUC}_low"], done.metrics[f"{AUC}_high"]
    lines.append(f"attack's AUC after: 95 % interval [{low:.3f}, {high:.3f}]; rows: {forgotten}")
    return lines
