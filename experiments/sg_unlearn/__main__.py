"""SG-Unlearn against every method of Di et al. 2024: its Tables 1, 2, 4, 6 and Figures 1 to 5.

Command:   python -m experiments.sg_unlearn --scale cpu --data-dir DIR --store DIR
           python -m experiments.sg_unlearn --scale cpu --part page     (the page from results)
Expected:  SG lowers MIA accuracy, KS and Wasserstein distance toward Retrain against FT, at some
           cost of test accuracy; the page says of each claim whether it holds.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from typing import Any, Literal

import jax
import numpy as np

from experiments import frame, pages
from experiments.frame import Data, PaperCommand
from experiments.pages import Section, column, details, front, read_columns, records_table
from experiments.sg_unlearn import claims, figures, runs
from experiments.sg_unlearn.claims import SG
from experiments.sg_unlearn.paper import LABELS, METRICS, MISPRINTED, NAMES, PaperTable
from experiments.sg_unlearn.settings import Kind, Setting, settings
from unlearnkit.studies import OnStage, Record, run, tune

Part = Literal["all", "random", "class", "ablation", "page"]
HELD_BACK = 4
"""Where there is something to choose, one of so many test examples is for that alone."""
CHOOSING = 1_000_000
"""Folded into a part's key, apart from the seeds 0, 1, ... of its tables."""
DESCRIBED = ("dataset", "model", "options", "forget", "train", "label")
JUDGES = {"random": claims.random_claims, "class": claims.class_claims}
KINDS = {"random": "random forgetting", "class": "class-wise forgetting"}
COLUMNS = (
    *(column(name, title=label, decimals=4, explanation="") for name, label in LABELS.items()),
    *read_columns("costs"),
)


@dataclasses.dataclass(frozen=True)
class SgUnlearn(PaperCommand):
    """Compares SG-Unlearn with the methods of its paper, and judges the paper's claims."""

    paper, large = "sg_unlearn", ("ablation", "retrain_losses")
    part: Part = "all"
    """random (Tables 1 and 4), class (Tables 2 and 6), ablation (Figures 1 to 3), page (from
    results that are there), all."""
    dataset: str | None = None
    """One dataset of the scale; by default all whose data are present."""
    seeds: int | None = None
    """Repetitions; by default the scale's."""

    def settings(self) -> Mapping[str, Setting]:
        return frame.with_seeds(settings(self.scale), self.seeds, "seeds", "traces")

    def load(self, setting: Setting) -> tuple[Data, Data]:
        """Returns the examples of the tables, and others that hyperparameters are chosen on.

        A quarter of the test set is held back if there is a choice.

        Where the tables take all training examples, the choice takes them too, in other splits.
        """
        model, train, test = frame.load_data(
            setting.dataset, setting.model, self.data_dir, normalisation="standard",
            **setting.options,
        )  # fmt: skip
        n = setting.train or train.size
        order = frame.draw_order(train)
        others = train.take(order[n : 2 * n] if n < train.size else order)
        choosing = Data(model, others, test.take(np.arange(0, test.size, HELD_BACK)))
        if setting.grids:
            test = test.take(np.flatnonzero(np.arange(test.size) % HELD_BACK > 0))
        return Data(model, frame.subset(train, n), test), choosing

    def run_setting(
        self, name: str, setting: Setting, data: tuple[Data, Data], on_stage: OnStage
    ) -> None:
        for part in (*KINDS, "ablation"):
            if self.part in ("all", part):
                self._run_part(f"{name}-{part}", part, setting, data, on_stage)

    def _run_part(
        self, name: str, part: str, setting: Setting, data: tuple[Data, Data], on_stage: OnStage
    ) -> None:
        """Runs a part; with a store the ablation takes up networks and choice of random's."""
        started, choices, records = time.perf_counter(), {}, None
        tables, choosing = data
        kind: Kind = "class" if part == "class" else "random"
        key = jax.random.fold_in(jax.random.key(self.seed), [*KINDS].index(kind))
        setting = setting.of(kind)
        methods = setting.methods()
        order = sorted(setting.grids, key=lambda name: name != SG)
        if grids := {n: setting.grids[n] for n in order if n == SG or part != "ablation"}:
            tuning = tune(
                runs.tables_study(setting, kind, choosing, methods, setting.tries),
                jax.random.fold_in(key, CHOOSING), grids, rule=setting.judge(), store=self.store,
                on_stage=on_stage,
            )  # fmt: skip
            best = {**methods, **{name: tuned.method for name, tuned in tuning.methods.items()}}
            methods = {name: method for name, method in best.items() if method is not None}
            choices = {"rule": repr(setting.judge()), "tries": setting.tries, **tuning.as_json()}
        study = runs.tables_study(setting, kind, tables, methods, setting.seeds)
        if part == "ablation":
            if SG not in methods:
                raise ValueError(f"SG: {tuning.methods[SG].unmet}")
            study = runs.ablation_study(study, methods[SG], setting.traces)
        result = self.describe(
            {"part": part, **{field: getattr(setting, field) for field in DESCRIBED},
             "seeds": study.seeds},
            recipe=dataclasses.asdict(setting.recipe), choices=choices,
            methods={name: repr(method) for name, method in methods.items()},
        )  # fmt: skip
        found = list(run(study, key, store=self.store, on_stage=on_stage, strict=True))
        if part == "ablation":
            result["ablation"] = runs.ablation_of(found)._asdict()
        else:
            records, result["retrain_losses"] = runs.table_of(found)
            finished = [record for record in records if record.finished]
            pages.draw(self.path(name), "losses", figures.loss_histograms(finished))
        frame.save_result(self.path(name), result, records, started=started)

    def names(self) -> list[str]:
        return [f"{name}-{part}" for name in self.settings() for part in (*KINDS, "ablation")]

    def section(self, name: str, run: dict[str, Any], records: list[Record]) -> Section:
        dataset, _, kind = name.rpartition("-")
        tried, notes = front(run["choices"], NAMES)
        drawn: dict[str, str | None]
        if kind == "ablation":
            found = runs.Ablation(**run["ablation"])
            drawn = {"epochs": figures.ablation_figure(found), "alpha": figures.sweep_figure(found)}
            judged = claims.ablation_claims(found)
            return Section(f"{dataset}: the auditor", tried, judged, notes, drawn)
        title, tables = f"{dataset}: {KINDS[kind]}", [records_table(records, COLUMNS), *tried]
        drawn = {"losses": None, "retrain": figures.retrain_figure(run["retrain_losses"])}
        papers = [*map(_paper, claims.tables_of(kind))]
        return Section(title, tables, JUDGES[kind](records), notes, drawn, papers)


def _paper(table: PaperTable) -> str:
    labels = {**LABELS, "mia_loss_logistic_f1": "MIA F1"}
    body = []
    for name, values in table.mean.items():
        label = NAMES[name] + (" (misprinted)" if (table.number, name) in MISPRINTED else "")
        spread = table.std[name]
        cells = [
            f"{value:.4f}±{spread[metric]:.4f}" if metric in spread else f"{value:g}"
            for metric, value in values.items()
        ]
        body.append([label, *cells])
    head = ["Di et al. 2024", *(labels.get(name, name) for name in METRICS)]
    caption = f"The paper's Table {table.number}, {table.dataset}, {KINDS[table.kind]}"
    return details(caption, head, body)


if __name__ == "__main__":
    frame.run_command(SgUnlearn)
