"""The first screen of a report, in plain words: asked, found, how sure, and what is not shown."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from unlearnkit.records import Cell, Record
from unlearnkit.reporting.overview import Place, difference, level, measured
from unlearnkit.studies import ORIGINAL, RETRAIN

NOT_SHOWN = (
    "It is no certificate and no legal finding: it says what these audits measured on these data.",
    "That an attack finds nothing does not show that nothing is left; a stronger one may find it.",
    "It says nothing of copies: backups, logs, caches, other networks trained on the data.",
    "Means over a set hide single examples: one record may be known while the mean is not.",
)
_AUC = "mia_loss_logistic_auc"
_FEW = 3
"""Up to so many questions are told one by one."""


class Findings(NamedTuple):
    """Sentences, by what they answer.

    Attributes:
      asked: what was to be forgotten, and by what.
      found: what came of it.
      sure: how much evidence there is.
      not_shown: what the audit cannot show.
    """

    asked: list[str]
    found: list[str]
    sure: list[str]
    not_shown: list[str]


def find(
    records: Sequence[Record],
    questions: Sequence[Place],
    study: str,
    *,
    cells: Sequence[Cell] = (),
    primary: str | None = None,
    correction: str = "holm",
) -> Findings:
    """Returns the sentences of a report.

    Args:
      records: of the study.
      questions: the same, by question.
      study: the text of its TOML file; "" where there is none.
      cells: its verdicts.
      primary: the metric that they are about.
      correction: of their p-values.
    """
    found = _verdicts(cells, primary) if cells else []
    found += [line for place in questions[:_FEW] for line in _membership(place, questions)]
    if not any(RETRAIN in place.finished for place in questions):
        found.append(
            "No network was retrained without the forget set, so how far from Retrain these "
            "networks are is not known."
        )
    if not found:
        found = ["The measures of each network stand below, with those of Retrain."]
    return Findings(
        _asked(records, questions, study),
        found,
        _sure(records, questions, cells, correction),
        [*NOT_SHOWN],
    )


def request_in_words(request: str) -> str:
    """Returns a forget request of the command line in words.

    Example:
      request_in_words("class:3")  # "all training examples of class 3"
    """
    kind, *values = str(request).split(":")
    if kind == "class" and values:
        return f"all training examples of class {values[0]}"
    if kind == "random" and values:
        return f"{_amount(values[0])} of the training examples, drawn at random"
    if kind == "within" and len(values) == 2:
        return f"{_amount(values[1])} of the training examples of class {values[0]}, at random"
    if kind == "file":
        return "the training examples that a file lists"
    return str(request)


def listed(names: Sequence[str]) -> str:
    """Returns names as a part of a sentence: a, b and c."""
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _amount(text: str) -> str:
    try:
        value = float(text)
    except ValueError:
        return text
    return f"{100 * value:g} %" if value < 1 else f"{value:g}"


def _asked(records: Sequence[Record], questions: Sequence[Place], study: str) -> list[str]:
    requests = table_of(study, "forget")
    names = list(dict.fromkeys(r.question for r in records if r.question))
    attacks = [name for name in names if name not in requests]
    asked = [request_in_words(str(requests[name])) for name in names if name in requests]
    lines = []
    if asked:
        lines.append(f"To forget {listed(asked)}.")
    if attacks:
        lines.append(f"To forget the poisons that these attacks had put in: {listed(attacks)}.")
    methods = list(dict.fromkeys(name for place in questions for name in place.methods))
    where = {n: sorted({getattr(r, n) for r in records} - {""}) for n in ("network", "dataset")}
    data = f" on {listed(where['dataset'])}" if where["dataset"] else ""
    nets = f" Networks: {listed(where['network'])}, trained{data}." if where["network"] else ""
    if methods:
        count = f"{len(methods)} methods: " if len(methods) > 1 else "One method: "
        shown = methods if len(methods) <= 8 else [*methods[:7], f"{len(methods) - 7} more"]
        lines.append(f"{count}{listed(shown)}.{nets}")
    sizes = {max(place.forgotten, default=0) for place in questions} - {0}
    if len(sizes) == 1:
        lines.append(f"The forget set holds {sizes.pop():,} examples.".replace(",", "\u2009"))
    return lines or ["What was asked is not recorded."]


def _verdicts(cells: Sequence[Cell], primary: str | None) -> list[str]:
    questions = {cell.where[:5] for cell in cells}
    by_verdict: dict[str, list[Cell]] = {}
    for cell in cells:
        by_verdict.setdefault(cell.verdict, []).append(cell)
    nearer = sorted(by_verdict.get("nearer", []), key=lambda cell: cell.distance)
    counts = {
        "nearer": "came nearer to Retrain than the untouched network is",
        "undecided": "could not be told from doing nothing",
        "farther": "went farther from Retrain",
        "no result": "have no result",
    }
    if len(questions) > 1:
        told = [
            f"{len(by_verdict[verdict])} {words}"
            for verdict, words in counts.items()
            if verdict in by_verdict
        ]
        return [f"Of {len(cells)} answers of methods to {len(questions)} questions {listed(told)}."]
    lines = []
    if nearer:
        shown = listed([f"{cell.method} ({cell.distance:.3f})" for cell in nearer])
        untouched = nearer[0].distance - nearer[0].to_original.mean
        before = f"; the untouched network is {untouched:.3f} away" if untouched > 0 else ""
        lines.append(f"Nearer to Retrain than doing nothing: {shown}{before}.")
    else:
        lines.append("No method was shown to be nearer to Retrain than doing nothing.")
    for verdict, words in (
        ("farther", "Farther from Retrain than doing nothing"),
        ("undecided", "Not told from doing nothing by these repetitions"),
        ("no result", "Without a result"),
    ):
        if verdict in by_verdict:
            lines.append(f"{words}: {listed([c.method for c in by_verdict[verdict]])}.")
    if primary is not None:
        name = "mean difference of accuracies and attack" if primary == "average_gap" else primary
        lines.append(f"Distances are the {name} to Retrain's.")
    return lines


def _membership(place: Place, questions: Sequence[Place]) -> list[str]:
    rows = place.finished
    columns = measured(place)
    if _AUC not in columns or ORIGINAL not in rows:
        return []
    methods = {n: mine for n, mine in rows.items() if n in place.methods}
    if not methods:
        return []
    full = np.mean([r.cost.example_gradients for r in rows[RETRAIN]])
    cheaper = {n: mine for n, mine in methods.items()
               if np.mean([r.cost.example_gradients for r in mine]) < full}  # fmt: skip
    gaps = {n: difference(mine, rows[RETRAIN], _AUC) for n, mine in (cheaper or methods).items()}
    closest = min(gaps, key=lambda n: _or_inf(abs(gaps[n].mean)))
    before, goal, after = (
        level(mine, _AUC).mean for mine in (rows[ORIGINAL], rows[RETRAIN], methods[closest])
    )
    where = f" ({place.name})" if len(questions) > 1 and place.name else ""
    return [
        "A membership attack on the losses ranks a forgotten above an unseen example with "
        f"probability {before:.2f} before and {goal:.2f} for Retrain; of the methods that cost "
        f"less than Retrain, {closest} is closest with {after:.2f}{where}. Chance is 0.50."
    ]


def _sure(
    records: Sequence[Record], questions: Sequence[Place], cells: Sequence[Cell], correction: str
) -> list[str]:
    seeds = len({record.seed for record in records})
    lines = [
        f"{seeds} repetitions, each with networks of its own; intervals are 95\u00a0% over these."
        if seeds > 1
        else "One repetition: there are no intervals, and any difference may be chance."
    ]
    if 1 < seeds < 5:
        lines.append(f"With {seeds} repetitions only large differences can be told from chance.")
    if cells:
        how = {"holm": "Holm's correction", "none": "no correction"}.get(correction, correction)
        lines.append(f"Verdicts are paired by repetition, with {how} for {len(cells)} comparisons.")
    sizes = [size for place in questions for size in place.forgotten]
    if sizes and min(sizes) < 30:
        lines.append(f"With {min(sizes)} forgotten examples only gross differences could be seen.")
    lost = sum(not record.finished for record in records)
    if lost:
        lines.append(f"{lost} of {len(records)} runs have no result; they are listed below.")
    return lines


def table_of(study: str, name: str) -> Mapping[str, object]:
    """Returns a table of a study's TOML file; an empty one where there is none.

    Args:
      study: the text of the file.
      name: of the table.
    """
    try:
        found = tomllib.loads(study).get(name)
    except tomllib.TOMLDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def _or_inf(value: float) -> float:
    return value if np.isfinite(value) else np.inf
