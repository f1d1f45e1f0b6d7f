"""What `recommend` does: the engine's call, and what is told of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import numpy as np

from unlearnkit.auditing import needs
from unlearnkit.base import Dataset, Unlearner, Variables
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
from unlearnkit.cli.study import DONE, NOT_FINISHED, SOME_FAILED
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
    write_new,
)
from unlearnkit.host.random import host_key
from unlearnkit.io.text import escaped
from unlearnkit.records import Record
from unlearnkit.reporting import StageProgress
from unlearnkit.studies import (
    ORIGINAL,
    RETRAIN,
    Candidate,
    Measured,
    Pair,
    Recommendation,
    RetrainLike,
    declared_set,
)
from unlearnkit.studies import recommend as choose_method
from unlearnkit.studies.running import check_minutes

if TYPE_CHECKING:
    from unlearnkit.cli.unlearn import Recommend


def recommend(options: Recommend, interruption: Interruption) -> int:
    """Chooses a method, and writes its weights and a record; returns the exit code."""
    check_minutes(options.minutes)
    network = open_network(options, options.recipe, options.weights, matching=options.matching)
    rows = forget_rows(options, network)
    candidates = _candidates(options, network)
    pair, reporting = _divide(network.pair, options.seed)
    study = dataclasses.replace(
        study_of(network, rows, candidates, reference=options.reference),
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
            file = write_new(out, options.weights, network.weights, kept[0])
        said = _said(options, network, found, rows, (pair.test.size, reporting.size), file)
        write_record(out, options, interruption, "recommend", said)
    if options.json:
        print_json({"out": str(out), "recommended": said["recommended"]})
    else:
        print("\n".join(_told(options, network, found, rows, reporting, file)))
    if found.chosen is not None:
        return DONE
    return SOME_FAILED if found.finished else NOT_FINISHED


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
            **settings_of(chosen.name, chosen.method),
            "share_of_retrain": chosen.share,
            "reported": [{"seed": r.seed, **metrics_of(r)} for r in reported],
            "weights": None if file is None else {"file": file.name, "sha256": digest_of(file)},
        }
    return {
        **network.described(),
        "recommended": recommended,
        "nearer_than_untouched": found.helps,
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
                **settings_of(one.name, one.method),
                "measured": None if one.measured is None else one.measured._asdict(),
                "score": one.score,
                "share_of_retrain": one.share,
                "refused": one.refused,
            }
            for one in found.candidates
        ],
        "records": [
            {"method": r.method, "seed": r.seed, "metrics": metrics_of(r), "problem": r.problem}
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
    width = max(len(name) for name in ("(untouched)", *(one.name for one in found.candidates)))
    lines = [_answer(found), ""]
    lines += [f"{'candidate':<{width}}  distance  retain  unseen  % of Retrain"]
    best_first = sorted(found.candidates, key=lambda one: -one.score)
    lines += [_line(one, width) for one in best_first]
    if found.original is not None:
        lines.append(_figures("(untouched)", found.original, f"{-found.untouched:.3f}", 0.0, width))
    if not found.finished:
        lines += ["the time was over before all were run; the same command goes on"]
    if found.chosen is None:
        return lines
    lines.append("")
    lines += _judged(found, network, rows, options, reporting)
    lines += ["", *_caveats(found, network, options, len(rows), reporting.size)]
    if file is not None:
        lines.append(f"weights: {file}")
    return lines


def _answer(found: Recommendation) -> str:
    """Returns what stands first: what is recommended, and whether doing nothing is as good."""
    if found.chosen is None:
        return folded(f"None is recommended: {found.unmet}.")
    name = found.chosen.name
    if found.helps:
        return f"Recommended: {name}"
    goal = "the goal" if found.reference is None else "a retrained one"
    return folded(
        f"Doing nothing is as good: the untouched network is at least as near to {goal} as {name}, "
        "the best candidate, which is recommended if something must be done."
    )


def _line(one: Candidate, width: int) -> str:
    if one.measured is None:
        return f"{one.name:<{width}}  {escaped(one.refused or '', 100)}"
    score = "refused" if one.refused is not None else f"{-one.score:.3f}"
    return _figures(one.name, one.measured, score, one.share, width)


def _figures(name: str, found: Measured, score: str, share: float, width: int) -> str:
    figures = f"{score:>8}  {found.accuracy_retain:>6.3f}  {found.accuracy:>6.3f}"
    return f"{name:<{width}}  {figures}  {100 * share:>12.3g}"


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
        f"in {'another run' if len(done) == 1 else f'{len(done)} other runs'}, on "
        f"{reporting.size} unseen examples that did not choose it:",
        " " * LABEL + "".join(f"{name:>11}" for name in shown),
    ]
    measures = {f"accuracy, {name}": f"accuracy_{name}" for name in SETS}
    measures |= {"attack's AUC": AUC}
    if RETRAIN in by_name:
        measures |= {
            "L1 to Retrain, forget": "activation_distance_forget",
            "average gap to Retrain": "average_gap",
        }
    for said, metric in measures.items():
        values = [_mean(records, metric) for records in shown.values()]
        lines.append(f"{said:<{LABEL}}" + "".join(map(cell, values)))
    share = np.mean([share_of_retrain(record, network, rows) for record in done])
    assumed = "" if network.recipe_known else f", if that takes {network.recipe.epochs} epochs"
    seconds = np.mean([record.cost.seconds for record in done])
    lines.append(f"{'cost':<{LABEL}}{100 * share:>10.3g} % of Retrain{assumed}; {seconds:.1f} s")
    return lines


def _caveats(
    found: Recommendation, network: Network, options: Recommend, forgotten: int, unseen: int
) -> list[str]:
    """Returns what the figures rest on, and what they cannot say."""
    unmet = [need.statement for need in needs(forgotten, unseen) if not need.met]
    said = [
        f"Evidence: {forgotten} forgotten and {unseen} unseen examples, {options.seeds} run"
        + ("." if options.seeds == 1 else "s.")
        + "".join(f" Too few to show that {statement}." for statement in unmet)
    ]
    if not found.helps:
        said.append(
            "On the choosing data it is no nearer to the goal than the untouched network is: these "
            "rows are answered like unseen ones already, or there are too few of them to tell."
        )
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
    return [folded(text) for text in said]


def _mean(records: Sequence[Record], metric: str) -> float | None:
    values = [record.metrics[metric] for record in records if metric in record.metrics]
    return float(np.mean(values)) if values else None
