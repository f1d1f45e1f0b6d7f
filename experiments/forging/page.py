"""The page and the Markdown tables: our errors beside the paper's, claims, figures."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.claims import claims_markdown, claims_table
from experiments.forging import figures, paper
from experiments.forging.claims import Result, judge
from experiments.forging.figures import LABELS
from experiments.forging.forgetting import LITERATURE, MODELS
from experiments.forging.settings import settings
from experiments.frame import Scale
from unlearnkit.forging import convert_error
from unlearnkit.io.files import write_text
from unlearnkit.reporting import compose_page, figure_section, html_table, settings_section

Table = tuple[list[str], list[list[str]]]
LEAD = (
    "All errors are ‖θ' - θ̂'‖₂ of one step. Honest errors are between replays of the same step "
    "with one thing changed; the tolerance is twice the largest of them. Every example of a batch "
    "counts as to be forgotten: forgers may use all others."
)
CAPTIONS = {
    "errors": "Every replay and every forged batch (Tables 1 and 3).",
    "curves": "Errors of optimisation, a line per run (Figure 2).",
    "pictures": "A real batch and what stands in for it (Figure 3); its first examples.",
    "shuffles": "Errors of shuffling the batches, a dot a shuffle (Figure 4).",
    "log": "The forged log under the verifier: its errors against the calibrated tolerance.",
}


def result_path(folder: Path, name: str, scale: Scale) -> Path:
    """Returns where the result of a setting is kept."""
    return folder / "forging" / f"{name}-{scale}.json"


def present(folder: Path, scale: Scale) -> Iterator[tuple[Path, Result]]:
    """Yields the results of a scale that are there."""
    for name in settings(scale):
        path = result_path(folder, name, scale)
        if path.exists():
            yield path, json.loads(path.read_text(encoding="utf-8"))


def write_pages(folder: Path, scale: Scale) -> Path:
    """Writes table and figures beside each result, and the page of all; returns its path.

    Raises:
      FileNotFoundError: there are no results.
    """
    results = list(present(folder, scale))
    if not results:
        raise FileNotFoundError(f"no result of scale {scale} in {folder / 'forging'}")
    sections = [f"<h2>Table 1</h2>{html_table(*overview(results))}"]
    sections.append(f"<h2>Table 2</h2>{html_table(*measures(results))}")
    sections.append(f"<h2>Table 3, the paper's</h2>{html_table(*paper_devices())}")
    for path, result in results:
        write_figures(path, result)
        write_text(path.with_suffix(".md"), markdown(result))
        sections += section(path, result)
    sections.append(settings_section({path.stem: _brief(result) for path, result in results}))
    page = folder / "forging" / f"{scale}.html"
    title = f"Data forging (Suliman et al. 2024), scale {scale}"
    write_text(page, compose_page(sections, title=title, lead=LEAD))
    return page


def write_figures(path: Path, result: Result) -> None:
    """Writes the figures that are made of numbers; pictures are made while batches are there."""
    attacks, reproduction = result["forged"]["attacks"], result["reproduction"]
    drawn = {"errors": figures.errors_figure(result)}
    if any("curves" in attack for attack in attacks.values()):
        drawn["curves"] = figures.curves_figure(attacks, reproduction["tolerance"])
    for band in reproduction["bands"]:
        if band["name"] == "batch order":
            drawn["shuffles"] = figures.shuffles_figure(band["errors"])
    for seed in result.get("forgetting") or ():
        if "logs" in seed:
            last = list(seed["logs"])[-1]
            drawn["log"] = figures.log_figure(seed, last)
    for name, svg in drawn.items():
        write_text(figure_path(path, name), svg)


def figure_path(path: Path, name: str) -> Path:
    """Returns where a figure of a result is kept."""
    return path.with_name(f"{path.stem}-{name}.svg")


def section(path: Path, result: Result) -> list[str]:
    """Returns the HTML of one setting."""
    title = result["settings"]["title"]
    parts = [f"<h2>{title}</h2>"]
    parts += [html_table(*table) for table in tables(result)]
    parts.append(claims_table(judge(result)))
    for name, caption in CAPTIONS.items():
        figure = figure_path(path, name)
        if figure.exists():
            svg = figure.read_text(encoding="utf-8")
            parts.append(figure_section(f"{title}: {name}", svg, caption))
    return parts


def markdown(result: Result) -> str:
    """Returns the tables and the judged claims of one setting in Markdown."""
    parts = [_markdown_table(*table) for table in tables(result)]
    return "\n".join([*parts, claims_markdown(judge(result))])


def tables(result: Result) -> list[Table]:
    """Returns the tables of one setting."""
    made = [reproduction_table(result), attack_table(result)]
    if "elsewhere" in result:
        made.append(device_table(result))
    if result.get("forgetting"):
        made += [log_table(result["forgetting"]), audit_table(result["forgetting"])]
    return made


def overview(results: Sequence[tuple[Path, Result]]) -> Table:
    """Returns Table 1: ours, and the paper's in brackets."""
    head = ["Setup", "largest honest error", "tolerance", "greedy, mean", "exchanges, mean"]
    body = []
    for _, result in results:
        settings_of, attacks = result["settings"], result["forged"]["attacks"]
        key = (settings_of["model"], settings_of["dataset"], settings_of["batch_size"])
        row = paper.TABLE_1.get(key)
        quoted = ("", "") if row is None else (f" ({row.reproduction:g})", f" ({row.forged:g})")
        body.append(
            [
                settings_of["title"],
                f"{result['reproduction']['largest']:.2g}{quoted[0]}",
                f"{result['reproduction']['tolerance']:.2g}",
                f"{_mean(attacks.get('greedy'))}{quoted[1]}",
                _mean(attacks.get("swap")),
            ]
        )
    return head, body


def _mean(attack: Mapping[str, Any] | None) -> str:
    return "not run" if attack is None else f"{np.mean(attack['errors']):.2g}"


def measures(results: Sequence[tuple[Path, Result]]) -> Table:
    """Returns Table 2: the greedy attack's mean error in each work's measure."""
    head = ["Setup", *(f"{work}: {norm}" for work, norm in paper.TABLE_2.items())]
    body = []
    for _, result in results:
        greedy = result["forged"]["attacks"].get("greedy")
        if greedy is None:
            continue
        error, dimension = float(np.mean(greedy["errors"])), result["reproduction"]["n_parameters"]
        converted = [convert_error(error, "l2", norm, dimension) for norm in paper.TABLE_2.values()]
        body.append([result["settings"]["title"], *(f"{value:.2g}" for value in converted)])
    return head, body


def paper_devices() -> Table:
    """Returns the paper's Table 3."""
    head = ["Setup", "log made on", "verified on", "error"]
    body = [
        [f"{model} on {dataset}, b = {b}", made, verified, f"{error:g}"]
        for (model, dataset, b), cells in paper.TABLE_3.items()
        for (made, verified), error in cells.items()
    ]
    return head, body


def reproduction_table(result: Result) -> Table:
    """Returns the honest errors by what was changed."""
    head = ["Changed", "replays", "median error", "largest", "counts for the tolerance"]
    bands = result["reproduction"]["bands"]
    verified = result["reproduction"]["verified"]
    same = ["nothing: the log verified on its own device", str(verified["segments"])]
    body = [[*same, f"{verified['median']:.2g}", f"{verified['largest']:.2g}", "no"]]
    for band in bands:
        errors = np.asarray(band["errors"], float)
        cells = [band["name"], str(len(errors)), f"{np.median(errors):.2g}", f"{errors.max():.2g}"]
        body.append([*cells, "yes" if band["benign"] else "no"])
    return head, body


def attack_table(result: Result) -> Table:
    """Returns the errors of the attacks, and what detectors see of the first batch."""
    head = [
        "Attack", "batches", "mean error", "best", "accepted", "outside of the domain",
        "near-duplicates", "not superposition", "gradients", "seconds",
    ]  # fmt: skip
    tolerance, honest = result["reproduction"]["tolerance"], result["forged"]["honest"]
    body = [["none: other examples", "", "", "", "", *_traces(honest), "", ""]]
    for name, attack in result["forged"]["attacks"].items():
        errors = np.asarray(attack["errors"], float)
        body.append(
            [
                LABELS[name],
                str(len(errors)),
                f"{errors.mean():.2g}",
                f"{errors.min():.2g}",
                f"{np.mean(errors <= tolerance):.0%}",
                *_traces(attack),
                f"{attack['example_gradients']:,.0f}",
                f"{attack['seconds']:.2f}",
            ]
        )
    return head, body


def _traces(found: Mapping[str, Any]) -> list[str]:
    traces = found["traces"]
    return [
        f"{found['out_of_domain']:.0%}",
        f"{traces['near_duplicates']:.0%}",
        f"{traces['left_of_superposition']:.1%}",
    ]


def device_table(result: Result) -> Table:
    """Returns Table 3: the log's device, the verifier's, and the errors."""
    head = ["log made on", "verified on", "median error", "largest"]
    body = [
        [one["made_on"], one["verified_on"], f"{one['median']:.2g}", f"{one['largest']:.2g}"]
        for one in result["elsewhere"]
    ]
    return head, body


def log_table(seeds: Sequence[Mapping[str, Any]]) -> Table:
    """Returns the verdicts on the true and the forged logs."""
    head = [
        "Log", "verdict", "steps accepted", "largest error", "tolerance",
        f"steps accepted at {LITERATURE:g}", "batches not drawn by its key",
        "examples repeated in an epoch", "examples never used",
    ]  # fmt: skip
    body = []
    for seed in seeds:
        for name, log in seed.get("logs", {}).items():
            body.append(
                [
                    name,
                    "valid" if log["valid"] else "invalid",
                    f"{log['accepted']} of {log['segments']}",
                    f"{log['largest']:.2g}",
                    f"{log['tolerance']:.2g}",
                    str(log["lenient"]),
                    str(log["redrawn_steps"]),
                    str(log["repeated"]),
                    str(log["never"]),
                ]
            )
    return head, body


def audit_table(seeds: Sequence[Mapping[str, Any]]) -> Table:
    """Returns the audits: mean over the seeds of the claimed and the retrained model."""
    titles = {
        "accuracy_retain": "retain accuracy",
        "accuracy_forget": "forget accuracy",
        "accuracy_test": "test accuracy",
        "mia_accuracy": "MIA accuracy",
        "mia_auc": "MIA AUC",
        "gus": "GUS",
        "z": "GUS, z",
    }
    body = []
    for model in MODELS:
        values = {name: [seed["audits"][model][name] for seed in seeds] for name in titles}
        spread = [f"{np.mean(v):.3f}±{np.std(v):.3f}" for v in values.values()]
        body.append([model, *spread])
    return ["Model", *titles.values()], body


def _brief(result: Result) -> dict[str, Any]:
    """Returns the settings and the provenance, without the numbers."""
    return {name: result[name] for name in ("settings", "provenance", "seconds")}


def _markdown_table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"
