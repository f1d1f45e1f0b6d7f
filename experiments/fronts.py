"""What a choice of hyperparameters had to choose from, on a page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from experiments.pages import Table, plain_table

TRIED = {
    "accuracy_retain": "retain accuracy",
    "accuracy": "validation accuracy",
    "mia_accuracy": "MIA accuracy",
    "ks_statistic": "KS statistic",
}


def front(choices: Mapping[str, Any], names: Mapping[str, str]) -> tuple[list[Table], list[str]]:
    """Returns the table of all values that were tried, and what is to be said of them.

    Args:
      choices: `studies.Tuning.as_json`, with the `rule`, the number of `tries` and perhaps a
        `note`; may be empty.
      names: of the methods, as the page calls them.
    """
    if not choices:
        return [], []
    networks = {"the original": choices["original"], "Retrain": choices["reference"]}
    body = [[name, "", *_measures(measured), ""] for name, measured in networks.items()]
    notes = [
        f"Values were chosen on other examples, by {choices['rule']}, on average over "
        f"{choices['tries']} networks; every method had as many trials."
    ]
    notes += [choices["note"]] if "note" in choices else []
    for name, method in choices["methods"].items():
        for place, trial in enumerate(method["tried"]):
            values = ", ".join(f"{key} {value:g}" for key, value in trial["values"].items())
            lost = f" ({trial['diverged']} diverged)" if trial["diverged"] else ""
            taken = "taken" if place == method["taken"] else ""
            body.append([names[name], values + lost, *_measures(trial), taken])
        if method["taken"] is None:
            notes.append(f"{names[name]} is in no table: the rule refuses all of its values.")
    head = ["For choosing", "values", *TRIED.values(), "taken"]
    return [plain_table(head, body)], notes


def _measures(measured: Mapping[str, Any]) -> list[str]:
    return [f"{measured[name]:.4f}" if name in measured else "" for name in TRIED]
