"""Data forging: Tables 1 to 3, Figures 2 to 4 of Suliman et al. 2024, and audits of a forged log.

Command:   python -m experiments.forging --scale cpu --data-dir DIR
           python -m experiments.forging --scale cpu --part page     (the page from results)
Two devices (Tables 1 and 3):
           python -m experiments.forging --part logs --logs DIR       (on the one)
           python -m experiments.forging --part reproduce --logs DIR  (on the other)
Time:      smoke: two minutes. cpu: an hour on one core, half of it LeNet's; a setting alone by
           --setting. paper: an accelerator, and 12 GB of disk for one log.
Expected:  honest replays differ by 1e-8 to 1e-6; greedy search and Adam err by 1e-3 to 1e-2, which
           a calibrated verifier rejects; logistic regression is forged to rounding, by batches that
           are no images; a log forged to forget is rejected.
"""

from __future__ import annotations

import dataclasses
import itertools
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from experiments import frame, pages
from experiments.forging import claims, figures, measure
from experiments.forging.figures import LABELS
from experiments.forging.settings import Setting, settings
from experiments.frame import Data, PaperCommand, Result
from unlearnkit.forging import convert_error, verify
from unlearnkit.io.provenance import environment
from unlearnkit.studies import ORIGINAL, RETRAIN, OnStage, Record
from unlearnkit.studies import run as run_study
from unlearnkit.training import read_trajectory

Part = Literal["all", "logs", "reproduce", "page"]


@dataclasses.dataclass(frozen=True)
class Forging(PaperCommand):
    """Forges batches and logs, verifies and audits them, and judges the claims of the paper."""

    paper, chosen_by, large = "forging", "setting", ("reproduction", "forged")
    part: Part = "all"
    """all; logs (only write them), reproduce (verify logs of another device), page (from results
    that are there)."""
    setting: str | None = None
    """One setting of the scale, as lenet-mnist-100; by default all whose data are present."""
    logs: Path | None = None
    """Where logs are kept; by default they are thrown away. A log that is there is kept."""

    def settings(self) -> Mapping[str, Setting]:
        return settings(self.scale)

    def load(self, setting: Setting) -> Data:
        data = frame.load_data(setting.dataset, setting.model, self.data_dir)
        return data._replace(train=frame.subset(data.train, setting.train))

    def run_all(self, on_stage: OnStage) -> None:
        if self.part in ("logs", "reproduce") and self.logs is None:
            raise ValueError(f"part {self.part} needs a folder for logs; give --logs DIR")
        super().run_all(on_stage)

    def make_page(self) -> Path | None:
        """Returns the page, which the part that only writes logs does not make."""
        return None if self.part == "logs" else super().make_page()

    def run_setting(self, name: str, setting: Setting, data: Data, on_stage: OnStage) -> None:
        with tempfile.TemporaryDirectory() as folder:
            log = (self.logs or Path(folder)) / f"{name}-{self.scale}"
            if self.part == "reproduce":
                on_stage("verifying the log of another device", 0, 1)
                _add_device(self.path(name), data, log)
                return
            started, index = time.perf_counter(), list(self.settings()).index(name)
            key = jax.random.fold_in(jax.random.key(self.seed), index)
            log_key, *keys, study_key = jax.random.split(key, 4)
            on_stage("training, logged", 0, 1)
            measure.write_log(log_key, setting, data, log)
            if self.part == "logs":
                return
            run = self.describe(setting.described())
            on_stage("replaying honestly", 0, 1)
            run["reproduction"] = measure.reproduce(keys[0], setting, data, log)
            run["forged"], batches = measure.forge_triples(keys[1], setting, data, log, on_stage)
            pages.draw(self.path(name), "pictures", figures.pictures_figure(batches))
            records = None
            if setting.forgetting is not None:
                study: Any = setting.forgetting.study(data), study_key
                with measure.highest_precision():
                    told = run_study(*study, store=self.store, on_stage=on_stage, strict=True)
                    records = list(told)
            frame.save_result(self.path(name), run, records, started=started)

    def section(self, name: str, run: dict[str, Any], records: list[Record]) -> pages.Section:
        attacks, honest = run["forged"]["attacks"], run["reproduction"]
        tables = [_reproduction(run), _attacks(run)]
        if "elsewhere" in run:
            tables.append(pages.formatted_table("forging_devices", run["elsewhere"]))
        if records:
            audits = pages.records_table(records, pages.read_columns("forging_audits"))
            tables += [_logs(records), _acceptance(records), audits]
        curves = {name: attack["curves"] for name, attack in attacks.items() if "curves" in attack}
        bands = {band["name"]: band["errors"] for band in honest["bands"]}
        shuffled = bands.get("batch order")
        pictures = {
            "errors": figures.errors_figure(run),
            "curves": figures.curves_figure(curves, honest["tolerance"]) if curves else "",
            "pictures": None,
            "shuffles": figures.shuffles_figure(shuffled) if shuffled else "",
            "log": figures.acceptance_figure(records) if records else "",
        }
        judged = claims.judge(run, records)
        return pages.Section(run["settings"]["title"], tables, judged, pictures=pictures)

    def overview(self, found: Mapping[str, Result]) -> frame.Overview:
        results = [_told(run) for run, _ in found.values()]
        printed = [{"setup": name, **row} for name, row in claims.PAPER["setups"].items()]
        tables = {"Table 1": results, "Table 2": results, "Table 3, the paper's": printed}
        more = [
            f"<h2>{title}</h2>{pages.formatted_table(f'forging_table_{number}', rows).html}"
            for number, (title, rows) in enumerate(tables.items(), start=1)
        ]
        return frame.Overview(more=more)


def _add_device(path: Path, data: Data, log: Path) -> None:
    """Adds a row of Table 3 to the setting's result."""
    if not path.exists():
        raise FileNotFoundError(f"there is no {path}; run --part all first, on either device")
    result, records = frame.load_result(path)
    tolerance = result["reproduction"]["tolerance"]
    with measure.highest_precision():
        report = verify(log, data.train, tolerance=tolerance, model=data.model)
    places = (read_trajectory(log).claim.environment, environment())
    made_on, verified_on = (f"{one['device']} {one['processor']}".strip() for one in places)
    row = {"made_on": made_on, "verified_on": verified_on, **measure.verdict(report)}
    own = (made_on, verified_on)
    others = [o for o in result.get("elsewhere", []) if (o["made_on"], o["verified_on"]) != own]
    frame.save_result(path, {**result, "elsewhere": [*others, row]}, records or None)


def _told(result: claims.RunResult) -> dict[str, Any]:
    """Returns what Tables 1 and 2 say of a setting; the greedy attack's in each work's measure."""
    attacks, honest = result["forged"]["attacks"], result["reproduction"]
    means = {name: float(np.mean(attack["errors"])) for name, attack in attacks.items()}
    row = {**result, **honest, **means, "printed": claims.setup(result) or {}}
    if "greedy" in means:
        for norm in ("l2_squared", "l2_squared_per_parameter", "l2"):
            row[norm] = convert_error(means["greedy"], "l2", norm, honest["n_parameters"])
    return row


def _reproduction(result: claims.RunResult) -> pages.Table:
    """Returns the honest errors by what was changed."""
    honest = result["reproduction"]
    same = {"name": "nothing: the log verified on its own device", "counts": "no"}
    rows = [{**honest["verified"], **same}]
    for band in honest["bands"]:
        errors = np.asarray(band["errors"], float)
        told = {"segments": len(errors), "median": np.median(errors), "largest": errors.max()}
        rows.append({**band, **told, "counts": "yes" if band["benign"] else "no"})
    return pages.formatted_table("forging_reproduction", rows)


def _attacks(result: claims.RunResult) -> pages.Table:
    """Returns the errors of the attacks, and what detectors see of the first batch."""
    tolerance = result["reproduction"]["tolerance"]
    rows = [{**result["forged"]["honest"], "label": "none: other examples"}]
    for name, attack in result["forged"]["attacks"].items():
        errors = np.asarray(attack["errors"], float)
        told = {"batches": len(errors), "mean": errors.mean(), "best": errors.min()}
        accepted = np.mean(errors <= tolerance)
        rows.append({**attack, **told, "accepted": accepted, "label": LABELS[name]})
    return pages.formatted_table("forging_attacks", rows)


def _logs(records: Sequence[Record]) -> pages.Table:
    """Returns how honest and forged logs fare, by what is to be forgotten and forger."""
    asked = itertools.product(claims.by_question(records).items(), claims.forgers_of(records))
    rows = []
    for (question, runs), name in asked:
        for method, words in ((ORIGINAL, f"forged by {name}"), (RETRAIN, "honest, without")):
            valid, accepted, error, largest, tolerance = (
                runs.values(method, f"{name}_{metric}")
                for metric in ("valid", "accepted", "error", "error_largest", "tolerance")
            )
            if accepted:
                told = {"question": question, "log": words, "accepted": np.mean(accepted)}
                told |= {"valid": f"{sum(valid):.0f} of {len(valid)}"} if valid else {}
                told["late"] = np.mean(claims.late_shares(records, question, name, method))
                told |= {"error": np.median(error), "largest": max(largest)}
                rows.append({**told, "tolerance": max(tolerance)})
    return pages.formatted_table("forging_logs", rows)


def _acceptance(records: Sequence[Record]) -> pages.Table:
    """Returns the share of the forged steps that the verifier accepts, by epoch."""
    lines = claims.forged_by_epoch(records)
    epochs = sorted(set[int]().union(*lines.values()))
    body = [
        [f"{question}, {name}", *(f"{line[e]:.0%}" if e in line else "" for e in epochs)]
        for (question, name), line in lines.items()
    ]
    return pages.plain_table(["Forgotten, and forger: accepted in epoch", *map(str, epochs)], body)


if __name__ == "__main__":
    frame.run_command(Forging)
