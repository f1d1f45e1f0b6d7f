"""The page and the Markdown tables: our errors beside the paper's, claims, figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.charts import Picture
from experiments.forging import figures, paper
from experiments.forging.claims import (
    Result,
    by_question,
    forgers_of,
    judge,
    judge_logs,
    late_shares,
    setup,
)
from experiments.forging.figures import LABELS
from experiments.frame import PaperCommand, load_result
from experiments.pages import Section, Table, plain_table, records_table, write_page
from unlearnkit.forging import convert_error
from unlearnkit.reporting import Column, html_table
from unlearnkit.studies import ORIGINAL, RETRAIN, Record

LEAD = (
    "All errors are ‖θ' - θ̂'‖₂ of one step. Honest errors are between replays of the same step "
    "with one thing changed; the tolerance is twice the largest of them. Every example of a batch "
    "counts as to be forgotten: forgers may use all others."
)


def make_page(command: PaperCommand, names: Sequence[str]) -> Path:
    """Writes the page of all results of a scale that are there; returns its path."""
    read = {name: load_result(path) for name, path in command.present(names).items()}
    results = {name: result for name, (result, _) in read.items()}
    sections = {name: _section(*found) for name, found in read.items()}
    shown = ("settings", "provenance", "seconds")
    runs = {name: {part: made[part] for part in shown} for name, made in results.items()}
    tables = {
        "Table 1": _overview(results.values()),
        "Table 2": _measures(results.values()),
        "Table 3, the paper's": _paper_devices(),
    }
    more = [f"<h2>{title}</h2>{html_table(*table)}" for title, table in tables.items()]
    title = "Data forging (Suliman et al. 2024)"
    return write_page(command, sections, runs, title=title, lead=LEAD, more=more)


def _section(result: Result, records: Sequence[Record]) -> Section:
    attacks = result["forged"]["attacks"]
    tables = [_reproduction(result), _attacks(result)]
    if "elsewhere" in result:
        tables.append(_devices(result))
    if records:
        tables += [_logs(records), _audits(records)]
    curves = {name: attack["curves"] for name, attack in attacks.items() if "curves" in attack}
    bands = {band["name"]: band["errors"] for band in result["reproduction"]["bands"]}
    tolerance, shuffled = result["reproduction"]["tolerance"], bands.get("batch order")
    pictures = {
        "errors": figures.errors_figure(result),
        "curves": figures.curves_figure(curves, tolerance) if curves else None,
        "pictures": Picture(None, figures.IMAGES),
        "shuffles": figures.shuffles_figure(shuffled) if shuffled else None,
        "log": figures.acceptance_figure(records) if records else None,
    }
    claims = judge(result) + judge_logs(records)
    return Section(result["settings"]["title"], tables, claims, pictures=pictures)


def _overview(results: Any) -> tuple[list[str], list[list[str]]]:
    """Returns Table 1: ours, and the paper's in brackets."""
    body = []
    for result in results:
        attacks, reproduction = result["forged"]["attacks"], result["reproduction"]
        row = paper.TABLE_1.get(setup(result))
        quoted = ("", "") if row is None else (f" ({row.reproduction:g})", f" ({row.forged:g})")
        greedy, swap = (
            f"{np.mean(attacks[name]['errors']):.2g}" if name in attacks else "not run"
            for name in ("greedy", "swap")
        )
        honest = [f"{reproduction['largest']:.2g}{quoted[0]}", f"{reproduction['tolerance']:.2g}"]
        body.append([result["settings"]["title"], *honest, f"{greedy}{quoted[1]}", swap])
    head = ["Setup", "largest honest error", "tolerance", "greedy, mean", "exchanges, mean"]
    return head, body


def _measures(results: Any) -> tuple[list[str], list[list[str]]]:
    """Returns Table 2: the greedy attack's mean error in each work's measure."""
    body = []
    for result in results:
        greedy = result["forged"]["attacks"].get("greedy")
        if greedy is not None:
            error, dimension = np.mean(greedy["errors"]), result["reproduction"]["n_parameters"]
            cells = [
                f"{convert_error(float(error), 'l2', norm, dimension):.2g}"
                for norm in paper.TABLE_2.values()
            ]
            body.append([result["settings"]["title"], *cells])
    return ["Setup", *(f"{work}: {norm}" for work, norm in paper.TABLE_2.items())], body


def _paper_devices() -> tuple[list[str], list[list[str]]]:
    body = [
        [f"{model} on {dataset}, b = {b}", made, verified, f"{error:g}"]
        for (model, dataset, b), cells in paper.TABLE_3.items()
        for (made, verified), error in cells.items()
    ]
    return ["Setup", "log made on", "verified on", "error"], body


def _reproduction(result: Result) -> Table:
    """Returns the honest errors by what was changed."""
    verified = result["reproduction"]["verified"]
    same = ["nothing: the log verified on its own device", str(verified["segments"])]
    body = [[*same, f"{verified['median']:.2g}", f"{verified['largest']:.2g}", "no"]]
    for band in result["reproduction"]["bands"]:
        errors = np.asarray(band["errors"], float)
        cells = [band["name"], str(len(errors)), f"{np.median(errors):.2g}", f"{errors.max():.2g}"]
        body.append([*cells, "yes" if band["benign"] else "no"])
    head = ["Changed", "replays", "median error", "largest", "counts for the tolerance"]
    return plain_table(head, body)


def _attacks(result: Result) -> Table:
    """Returns the errors of the attacks, and what detectors see of the first batch."""
    tolerance, honest = result["reproduction"]["tolerance"], result["forged"]["honest"]
    body = [["none: other examples", "", "", "", "", *_traces(honest), "", ""]]
    for name, attack in result["forged"]["attacks"].items():
        errors = np.asarray(attack["errors"], float)
        cells = [LABELS[name], str(len(errors)), f"{errors.mean():.2g}", f"{errors.min():.2g}"]
        cells += [f"{np.mean(errors <= tolerance):.0%}", *_traces(attack)]
        body.append([*cells, f"{attack['example_gradients']:,.0f}", f"{attack['seconds']:.2f}"])
    head = [
        "Attack", "batches", "mean error", "best", "accepted", "outside of the domain",
        "near-duplicates", "not superposition", "gradients", "seconds",
    ]  # fmt: skip
    return plain_table(head, body)


def _traces(found: Mapping[str, Any]) -> list[str]:
    outside, traces = found["out_of_domain"], found["traces"]
    left = f"{traces['left_of_superposition']:.1%}"
    return [f"{outside:.0%}", f"{traces['near_duplicates']:.0%}", left]


def _devices(result: Result) -> Table:
    """Returns Table 3: the log's device, the verifier's, and the errors."""
    body = [
        [one["made_on"], one["verified_on"], f"{one['median']:.2g}", f"{one['largest']:.2g}"]
        for one in result["elsewhere"]
    ]
    return plain_table(["log made on", "verified on", "median error", "largest"], body)


def _logs(records: Sequence[Record]) -> Table:
    """Returns how honest and forged logs fare, by what is to be forgotten and forger."""
    head = [
        "Forgotten", "Log", "valid", "steps accepted", "in the last quarter of the epochs",
        "median error", "largest", "tolerance",
    ]  # fmt: skip
    body = []
    for question, runs in by_question(records).items():
        for name in forgers_of(records):
            for method, words in ((ORIGINAL, f"forged by {name}"), (RETRAIN, "honest, without")):
                valid, accepted, error, largest, tolerance = (
                    runs.values(method, f"{name}_{metric}")
                    for metric in ("valid", "accepted", "error", "error_largest", "tolerance")
                )
                if not accepted:
                    continue
                late = np.mean(late_shares(records, question, name, method))
                cells = [question, words, f"{sum(valid):.0f} of {len(valid)}" if valid else ""]
                cells += [f"{np.mean(accepted):.0%}", f"{late:.0%}", f"{np.median(error):.2g}"]
                body.append([*cells, f"{max(largest):.2g}", f"{max(tolerance):.2g}"])
    return plain_table(head, body)


AUDITED = {
    "accuracy_retain": "retain accuracy",
    "accuracy_forget": "forget accuracy",
    "accuracy_test": "test accuracy",
    "mia_loss_logistic_accuracy": "MIA accuracy",
    "mia_loss_logistic_auc": "MIA AUC",
    "gaussian_gus": "GUS",
    "gaussian_z": "GUS, z",
}


def _audits(records: Sequence[Record]) -> Table:
    """Returns the audits of the model that a forged log claims, and of a retrained one."""

    def column(name: str, title: str) -> Column:
        return Column(title, lambda record: record.metrics.get(name, np.nan), 3, "")

    return records_table(records, [column(*named) for named in AUDITED.items()])
