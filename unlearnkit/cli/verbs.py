"""What `train`, `unlearn` and `recommend` do: the engine's calls, and what is told of them."""

from __future__ import annotations

import dataclasses
import shlex
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import numpy as np

from unlearnkit.auditing import Evaluation, FromOriginal, accuracy, needs
from unlearnkit.auditing.evaluate import HEADLINE_ATTACK
from unlearnkit.base import Cost, Dataset, Unlearner, Variables
from unlearnkit.cli.answering import (
    Network,
    claimed,
    describe_normalisation,
    make_method,
    open_network,
    print_json,
    read_rows,
    write_record,
)
from unlearnkit.cli.interruption import Interruption
from unlearnkit.cli.study import DONE, NOT_FINISHED, SOME_FAILED
from unlearnkit.cli.train import WEIGHTS
from unlearnkit.data import IndexForget
from unlearnkit.host.random import host_key
from unlearnkit.io.files import sha256_of_file
from unlearnkit.io.text import escaped
from unlearnkit.records import Record
from unlearnkit.reporting import StageProgress
from unlearnkit.studies import (
    ORIGINAL,
    RETRAIN,
    Candidate,
    Pair,
    Recommendation,
    RetrainLike,
    Study,
    declared_set,
    run,
)
from unlearnkit.studies import recommend as choose_method
from unlearnkit.studies import train as train_once
from unlearnkit.studies.running import check_minutes
from unlearnkit.training import fit, save_variables
from unlearnkit.weights import WeightFile, write_weights

if TYPE_CHECKING:
    from unlearnkit.cli.asking import OnWeights
    from unlearnkit.cli.train import Train
    from unlearnkit.cli.unlearn import Recommend, Unlearn

_WIDTH, _LABEL = 79, 24
_SETS = ("retain", "forget", "test")
_AUC = f"mia_{HEADLINE_ATTACK.feature}_{HEADLINE_ATTACK.attacker}_auc"


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
    print(f"cost       {_cost(done.info.cost)}")
    print(f"weights    {out / WEIGHTS}")
    if options.log is not None:
        verify = shlex.join(["unlearnkit", "verify", str(options.log), "--data"])
        print(f"log        {options.log}; {verify} {shlex.quote(options.data.partition(':')[0])}")
    return DONE


def unlearn(options: Unlearn, interruption: Interruption) -> int:
    """Makes weights forget, and writes the new ones and a record; returns the exit code."""
    name, method = make_method(options.method, options.set)
    network = open_network(options, options.recipe, options.weights)
    rows = _rows(options, network)
    study = _study(network, rows, {name: method}, reference=options.reference)
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
        file = _write(out, options.weights, network.weights, kept[name])
        said: dict[str, object] = {
            **network.described(),
            "rows": {"count": len(rows)},
            "method": _settings(name, method),
            "new_weights": {"file": file.name, "sha256": _digest(file)},
            "before": _metrics(records[ORIGINAL]),
            "after": _metrics(done),
            "retrained": _metrics(records[RETRAIN]) if options.reference else None,
            "cost": done.cost._asdict(),
            "share_of_retrain": _share(done, network, rows),
        }
        write_record(out, options, interruption, "unlearn", said)
    if options.json:
        print_json({"out": str(out), **{n: said[n] for n in ("before", "after", "retrained")}})
        return DONE
    print("\n".join(_before_and_after(records, done, len(rows))))
    print(f"{'cost':<{_LABEL}}{_cost(done.cost)}{_of_retrain(done, network, rows)}")
    print(f"{'weights':<{_LABEL}}{file}")
    if not options.reference:
        print(_folded(_WITHOUT))
    return DONE


_WITHOUT = (
    "Nothing was retrained, so that nothing is said of the distance to a network that never saw "
    "the rows; --reference trains one."
)


def recommend(options: Recommend, interruption: Interruption) -> int:
    """Chooses a method, and writes its weights and a record; returns the exit code."""
    check_minutes(options.minutes)
    network = open_network(options, options.recipe, options.weights)
    rows = _rows(options, network)
    candidates = _candidates(options, network)
    pair, reporting = _divide(network.pair, options.seed)
    study = dataclasses.replace(
        _study(network, rows, candidates, reference=options.reference),
        data=pair,
        seeds=options.seeds,
    )
    kept: list[Variables] = []

    def keep(record: Record, variables: Variables) -> None:
        if record.method not in (ORIGINAL, RETRAIN) and record.seed == 0:
            kept.append(variables)

    total = options.seeds * (len(candidates) + 3 + 2 * options.reference)
    with (
        claimed(options, interruption, "recommend") as out,
        StageProgress(total=total, unit="runs") as progress,
    ):
        found = choose_method(
            study,
            jax.random.key(options.seed),
            reporting,
            budget=options.budget,
            rule=RetrainLike(options.tolerance),
            minutes=options.minutes,
            store=options.store,
            on_stage=progress,
            on_record=lambda _: progress.advance(),
            on_network=keep,
        )
        file = None
        if kept:
            file = _write(out, options.weights, network.weights, kept[0])
        said = _said(options, network, found, rows, (pair.test.size, reporting.size), file)
        write_record(out, options, interruption, "recommend", said)
    if options.json:
        print_json({"out": str(out), "recommended": said["recommended"]})
    else:
        print("\n".join(_told(options, network, found, rows, reporting, file)))
    if found.chosen is not None:
        return DONE
    return SOME_FAILED if found.finished else NOT_FINISHED


def _rows(options: OnWeights, network: Network) -> np.ndarray:
    key = jax.random.fold_in(jax.random.key(options.seed), 1)
    return read_rows(options.forget, network.pair.train, key)


def _study(
    network: Network, rows: np.ndarray, methods: Mapping[str, Unlearner], *, reference: bool
) -> Study:
    """Returns the study of forgetting rows by trained weights."""
    assert network.weights is not None
    return Study(
        data=network.pair,
        networks=network.model,
        recipes=network.recipe,
        forget=IndexForget(rows),
        methods=methods,
        audits={"": Evaluation((HEADLINE_ATTACK,)), "moved": FromOriginal()},
        original=network.weights.variables,
        reference="retrained" if reference else "none",
    )


def _candidates(options: Recommend, network: Network) -> dict[str, Unlearner]:
    if not options.methods:
        return declared_set(network.recipe)
    found: dict[str, Unlearner] = {}
    for text in options.methods:
        name, method = make_method(text)
        label = text if name in found else name
        if label in found:
            raise ValueError(f"--methods has {text!r} twice")
        found[label] = method
    return found


def _divide(pair: Pair, seed: int) -> tuple[Pair, Dataset]:
    """Returns the data with a validation and a choosing set, and what is reported on.

    A quarter is what methods may validate on, a quarter chooses, half is reported on.

    Raises:
      ValueError: too few unseen examples.
    """
    n = pair.test.size
    if n < 8:
        raise ValueError(
            f"choosing, validating and reporting need at least 8 unseen examples, got {n}; give "
            "data with a larger test set, or reading options such as --test-fraction"
        )
    order = host_key(jax.random.fold_in(jax.random.key(seed), 2)).permutation(n)
    ends = n // 4, n // 2
    own, choosing, rest = (np.sort(part) for part in np.split(order, ends))
    test = pair.test
    return Pair(pair.train, test.take(choosing), test.take(own)), test.take(rest)


def _write(out: Path, old: Path, like: WeightFile | None, variables: Variables) -> Path:
    assert like is not None
    file = out / old.name
    if file.resolve() == old.resolve():
        raise ValueError(f"--out {out} is where the old weights are; choose another folder")
    write_weights(file, variables, like)
    return file


def _digest(file: Path) -> str | None:
    return sha256_of_file(file) if file.is_file() else None


def _settings(name: str, method: Unlearner) -> dict[str, object]:
    names: Iterable[str] = getattr(method, "__dataclass_fields__", {})
    settings: dict[str, object] = {n: getattr(method, n) for n in names}
    plain = {n: v for n, v in settings.items() if isinstance(v, int | float | str | bool)}
    return {"name": name, "settings": plain}


def _metrics(record: Record) -> dict[str, float]:
    return dict(record.metrics)


def _share(record: Record, network: Network, rows: np.ndarray) -> float:
    retain = network.pair.train.size - len(rows)
    return record.cost.example_gradients / network.recipe.example_gradients(retain)


def _of_retrain(record: Record, network: Network, rows: np.ndarray) -> str:
    share = f", {100 * _share(record, network, rows):.3g} % of Retrain"
    assumed = f" if that takes {network.recipe.epochs} epochs"
    return share if network.recipe_known else share + assumed


def _cost(cost: Cost) -> str:
    compiled = f" + {cost.compile_seconds:.1f} s of compilation" if cost.compile_seconds else ""
    return f"{cost.example_gradients:,.0f} example-gradients, {cost.seconds:.1f} s{compiled}"


def _before_and_after(records: Mapping[str, Record], done: Record, forgotten: int) -> list[str]:
    """Returns a table of networks by measures."""
    shown = {"before": records[ORIGINAL], "after": done}
    if RETRAIN in records:
        shown["retrained"] = records[RETRAIN]
    lines = [" " * _LABEL + "".join(f"{name:>11}" for name in shown)]
    rows = {f"accuracy, {name}": f"accuracy_{name}" for name in _SETS}
    rows |= {
        "attack's AUC": _AUC,
        "L1 moved, retain": "moved_activation_distance_retain",
        "L1 moved, forget": "moved_activation_distance_forget",
        "L1 moved, test": "moved_activation_distance_test",
        "L1 to Retrain, forget": "activation_distance_forget",
        "average gap to Retrain": "average_gap",
    }
    for said, metric in rows.items():
        values = [record.metrics.get(metric) for record in shown.values()]
        if any(value is not None for value in values):
            lines.append(f"{said:<{_LABEL}}" + "".join(map(_cell, values)))
    low, high = done.metrics[f"{_AUC}_low"], done.metrics[f"{_AUC}_high"]
    lines.append(f"attack's AUC after: 95 % interval [{low:.3f}, {high:.3f}]; rows: {forgotten}")
    return lines


def _cell(value: float | None) -> str:
    return f"{'-' if value is None else f'{value:.3f}':>11}"


def _said(
    options: Recommend,
    network: Network,
    found: Recommendation,
    rows: np.ndarray,
    sizes: tuple[int, int],
    file: Path | None,
) -> dict[str, object]:
    """Returns what a record says of a recommendation."""
    chosen = found.chosen
    recommended = None
    if chosen is not None:
        reported = [r for r in found.records if r.method == chosen.name]
        recommended = {
            **_settings(chosen.name, chosen.method),
            "share_of_retrain": chosen.share,
            "reported": [{"seed": r.seed, **_metrics(r)} for r in reported],
            "weights": None if file is None else {"file": file.name, "sha256": _digest(file)},
        }
    return {
        **network.described(),
        "recommended": recommended,
        "unmet": found.unmet,
        "finished": found.finished,
        "evidence": {
            "forgotten": len(rows),
            "choosing": sizes[0],
            "reporting": sizes[1],
            "runs": options.seeds,
            "labels_alike_p_value": found.alike,
        },
        "original": None if found.original is None else found.original._asdict(),
        "reference": None if found.reference is None else found.reference._asdict(),
        "candidates": [
            {
                **_settings(one.name, one.method),
                "measured": None if one.measured is None else one.measured._asdict(),
                "score": one.score,
                "share_of_retrain": one.share,
                "refused": one.refused,
            }
            for one in found.candidates
        ],
        "records": [
            {"method": r.method, "seed": r.seed, "metrics": _metrics(r), "problem": r.problem}
            for r in found.records
        ],
    }


def _told(
    options: Recommend,
    network: Network,
    found: Recommendation,
    rows: np.ndarray,
    reporting: Dataset,
    file: Path | None,
) -> list[str]:
    """Returns the lines that are printed."""
    width = max(len(one.name) for one in found.candidates)
    lines = [f"{'candidate':<{width}}  distance  retain  unseen  % of Retrain"]
    best_first = sorted(found.candidates, key=lambda one: -one.score)
    lines += [_line(one, width) for one in best_first]
    if not found.finished:
        lines += ["the time was over before all were run; the same command goes on"]
    lines.append("")
    if found.chosen is None:
        return [*lines, _folded(f"None is recommended: {found.unmet}.")]
    lines += [f"Recommended: {found.chosen.name}", ""]
    lines += _judged(found, network, rows, options, reporting)
    lines += ["", *_caveats(found, network, options, len(rows), reporting.size)]
    if file is not None:
        lines.append(f"weights: {file}")
    return lines


def _line(one: Candidate, width: int) -> str:
    if one.measured is None:
        return f"{one.name:<{width}}  {escaped(one.refused or '', 100)}"
    score = "refused" if one.refused is not None else f"{-one.score:.3f}"
    retain, unseen = one.measured.accuracy_retain, one.measured.accuracy
    figures = f"{score:>8}  {retain:>6.3f}  {unseen:>6.3f}  {100 * one.share:>12.3g}"
    return f"{one.name:<{width}}  {figures}"


def _judged(
    found: Recommendation,
    network: Network,
    rows: np.ndarray,
    options: Recommend,
    reporting: Dataset,
) -> list[str]:
    """Returns how the chosen method does in other runs, on data that did not choose it."""
    assert found.chosen is not None
    by_name: dict[str, list[Record]] = {}
    for record in found.records:
        by_name.setdefault(record.method, []).append(record)
    done = [record for record in by_name[found.chosen.name] if record.finished]
    if not done:
        problem = by_name[found.chosen.name][0].problem
        return [f"In the runs that were to report on it, it failed: {problem}"]
    shown = {"before": by_name[ORIGINAL], "after": done}
    if RETRAIN in by_name:
        shown["retrained"] = by_name[RETRAIN]
    lines = [
        f"in {len(done)} other runs, on {reporting.size} unseen examples that did not choose it:",
        " " * _LABEL + "".join(f"{name:>11}" for name in shown),
    ]
    measures = {f"accuracy, {name}": f"accuracy_{name}" for name in _SETS}
    measures |= {"attack's AUC": _AUC}
    if RETRAIN in by_name:
        measures |= {
            "L1 to Retrain, forget": "activation_distance_forget",
            "average gap to Retrain": "average_gap",
        }
    for said, metric in measures.items():
        values = [_mean(records, metric) for records in shown.values()]
        lines.append(f"{said:<{_LABEL}}" + "".join(map(_cell, values)))
    share = np.mean([_share(record, network, rows) for record in done])
    assumed = "" if network.recipe_known else f", if that takes {network.recipe.epochs} epochs"
    seconds = np.mean([record.cost.seconds for record in done])
    lines.append(f"{'cost':<{_LABEL}}{100 * share:>10.3g} % of Retrain{assumed}; {seconds:.1f} s")
    return lines


def _caveats(
    found: Recommendation, network: Network, options: Recommend, forgotten: int, unseen: int
) -> list[str]:
    """Returns what the figures rest on, and what they cannot say."""
    unmet = [need.statement for need in needs(forgotten, unseen) if not need.met]
    said = [
        f"Evidence: {forgotten} forgotten and {unseen} unseen examples, {options.seeds} runs."
        + "".join(f" Too few to show that {statement}." for statement in unmet)
    ]
    if found.reference is None:
        said.append(
            "Without a reference the choice takes for the goal that an attack finds nothing, which "
            "is what retraining shows where forgotten examples are like unseen ones; how far the "
            "weights are from retrained ones is not said."
        )
        if not found.forget_is_alike:
            said.append(
                "Here they are not: their labels are drawn otherwise than those of the unseen "
                f"examples (p = {found.alike:.2g}). Retraining would answer otherwise too: give "
                "--reference."
            )
    if not network.recipe_known:
        said.append(
            "How the network was trained is not known: Retrain's cost and the reference are those "
            f"of {network.recipe.epochs} epochs at a rate of {network.recipe.learning_rate:g}; "
            "--recipe says it."
        )
    return [_folded(text) for text in said]


def _mean(records: Sequence[Record], metric: str) -> float | None:
    values = [record.metrics[metric] for record in records if metric in record.metrics]
    return float(np.mean(values)) if values else None


def _folded(text: str) -> str:
    return textwrap.fill(text, _WIDTH)
