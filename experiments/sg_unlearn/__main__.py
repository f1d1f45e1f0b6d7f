"""SG-Unlearn against every method of Di et al. 2024: its Tables 1, 2, 4, 6 and Figures 1 to 5.

Command:   python -m experiments.sg_unlearn --scale cpu --data-dir DIR
           python -m experiments.sg_unlearn --scale cpu --part page     (the page from results)
Time:      smoke: about two minutes, of compilation. cpu: MNIST's class-wise tables take 8 minutes
           on one core; CIFAR-10's, on the speed-run network, are slower. paper: an accelerator.
Expected:  SG lowers MIA accuracy, KS and Wasserstein distance toward Retrain against FT, at some
           cost of test accuracy; the page says of each claim whether it holds.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from experiments import frame, pages
from experiments.frame import Data, PaperCommand
from experiments.pages import Section, Table, column, details, read_columns
from experiments.sg_unlearn import claims, figures
from experiments.sg_unlearn.paper import METRICS, MISPRINTED, NAMES, PaperTable
from experiments.sg_unlearn.runs import Ablation, Choice, Kind, ablate, choose, compare_methods
from experiments.sg_unlearn.settings import Setting, settings
from unlearnkit.reporting import html_table, loss_histograms, rows, to_markdown
from unlearnkit.studies import OnStage, Record

Part = Literal["all", "random", "class", "ablation", "page"]
HELD_BACK = 4
"""Where there is something to choose, one of so many test examples is for that alone."""
CHOOSING = 1_000_000
"""Folded into a part's key, apart from the seeds 0, 1, ... of its tables."""
DESCRIBED = ("dataset", "model", "options", "forget", "train", "label")
JUDGES = {"random": claims.random_claims, "class": claims.class_claims}
KINDS = {"random": "random forgetting", "class": "class-wise forgetting"}
COLUMNS = (
    *(
        column(name, title=label, decimals=4, explanation="")
        for name, label in claims.LABELS.items()
    ),
    *read_columns("costs"),
)


class Examples(NamedTuple):
    """Network and examples of the tables, and others that hyperparameters are chosen on."""

    tables: Data
    choosing: Data


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

    def load(self, setting: Setting) -> Examples:
        """Returns the examples; a quarter of the test set is held back if there is a choice."""
        model, train, test = frame.load_data(
            setting.dataset, setting.model, self.data_dir, normalisation="standard",
            **setting.options,
        )  # fmt: skip
        n = setting.train or train.size
        others = train.take(frame.draw_order(train)[n : 2 * n])
        choosing = Data(model, others, test.take(np.arange(0, test.size, HELD_BACK)))
        if setting.grids:
            test = test.take(np.flatnonzero(np.arange(test.size) % HELD_BACK > 0))
        return Examples(Data(model, frame.subset(train, n), test), choosing)

    def run_setting(self, name: str, setting: Setting, data: Examples, on_stage: OnStage) -> None:
        for index, part in enumerate((*KINDS, "ablation")):
            if self.part in ("all", part):
                key = jax.random.fold_in(jax.random.key(self.seed), index)
                self._run_part(f"{name}-{part}", part, key, setting, data, on_stage)

    def _run_part(
        self, name: str, part: str, key: Any, setting: Setting, data: Examples, on_stage: OnStage
    ) -> None:
        started, choices, records = time.perf_counter(), dict[str, list[Choice]](), None
        kind: Kind = "class" if part == "class" else "random"
        if part == "ablation":
            grids = {name: grid for name, grid in setting.grids.items() if name == "stackelberg"}
            setting = dataclasses.replace(setting, grids=grids)
        if setting.grids:
            own_key = jax.random.fold_in(key, CHOOSING)
            setting, choices = choose(own_key, setting, kind, data.choosing, on_stage)
        run = self._describe(setting, part, choices)
        if part == "ablation":
            run["ablation"] = ablate(key, setting, data.tables, on_stage)._asdict()
        else:
            records, run["retrain_losses"] = compare_methods(
                key, setting, kind, data.tables, on_stage, self.store
            )
            finished = [record for record in records if record.diverged is None]
            pages.draw(self.path(name), "losses", loss_histograms(finished))
        frame.save_result(self.path(name), run, records, started=started)

    def _describe(
        self, setting: Setting, part: str, choices: Mapping[str, list[Choice]]
    ) -> dict[str, Any]:
        told = {name: getattr(setting, name) for name in DESCRIBED}
        seeds = setting.traces if part == "ablation" else setting.seeds
        return self.describe(
            {"part": part, **told, "seeds": seeds},
            recipe=dataclasses.asdict(setting.recipe),
            choices={
                name: {
                    "hyperparameter": setting.grids[name][0],
                    "tried": [choice._asdict() for choice in tried],
                }
                for name, tried in choices.items()
            },
            methods={name: repr(method) for name, method in setting.methods().items()},
        )

    def names(self) -> list[str]:
        return [f"{name}-{part}" for name in self.settings() for part in (*KINDS, "ablation")]

    def section(self, name: str, run: dict[str, Any], records: list[Record]) -> Section:
        dataset, _, kind = name.rpartition("-")
        more = _choices(run)
        if kind == "ablation":
            ablation = Ablation(**run["ablation"])
            drawn = {"epochs": figures.ablation_figure(ablation)}
            drawn["alpha"] = figures.sweep_figure(ablation)
            judged = claims.ablation_claims(ablation)
            return Section(f"{dataset}: the auditor", claims=judged, pictures=drawn, more=more)
        head = ["Method", *(column.title for column in COLUMNS)]
        table = Table(to_markdown(records, COLUMNS), html_table(head, rows(records, COLUMNS)))
        losses = figures.retrain_figure(run["retrain_losses"])
        return Section(
            f"{dataset}: {KINDS[kind]}",
            [table],
            JUDGES[kind](records),
            pictures={"losses": None, "retrain": losses},
            more=[*map(_paper, claims.tables_of(kind)), *more],
        )


def _choices(run: Mapping[str, Any]) -> list[str]:
    body = []
    for name, choice in run["choices"].items():
        tried = [
            f"{trial['value']:g}: {trial['accuracy'] - trial['mia_accuracy']:.4f}"
            + (f" ({trial['diverged']} diverged)" if trial["diverged"] else "")
            for trial in choice["tried"]
        ]
        body.append([NAMES[name], choice["hyperparameter"], "; ".join(tried)])
    head = ["Method", "hyperparameter", "value: validation accuracy less MIA accuracy"]
    caption = "Values that were tried on other examples; the largest mean difference was taken"
    return [details(caption, head, body)] if body else []


def _paper(table: PaperTable) -> str:
    labels = {**claims.LABELS, "mia_loss_logistic_f1": "MIA F1"}
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
