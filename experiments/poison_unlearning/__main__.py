"""Unlearning poisons, and why it fails: Figures 2 to 10 of Pawelczyk et al. 2024.

Command:   python -m experiments.poison_unlearning --scale cpu --data-dir DIR
           python -m experiments.poison_unlearning --part imdb --scale smoke   (no data needed)
           python -m experiments.poison_unlearning --scale cpu --part page   (the page from results)
Time:      smoke: of compilation. cpu, on one core: 10 to 15 minutes a part. paper: a GPU.
Expected:  all poisons show in the network that trained on them and not after Retrain; no method
           removes all at a tenth of its cost. The page says of each claim whether it holds.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from experiments import frame, pages
from experiments.frame import Data, PaperCommand, Result
from experiments.pages import Section, plain_table, read_columns, records_table
from experiments.poison_unlearning import claims, figures
from experiments.poison_unlearning.least_squares import study_updates
from experiments.poison_unlearning.settings import POISONS, Poison, Setting, choose_settings
from experiments.poison_unlearning.shift import study_shift
from unlearnkit import reporting
from unlearnkit.auditing import PoisonSize
from unlearnkit.base import Attack, Cost, Dataset, Poisoned
from unlearnkit.poisoning import PoisonWarning
from unlearnkit.records import Record, row_name
from unlearnkit.studies import ORIGINAL, OnStage, RateSearch, poison_and_unlearn, search_rates
from unlearnkit.studies import reviews as texts
from unlearnkit.training import fit

Part = Literal["all", "gaussian", "targeted", "indiscriminate", "imdb", "shift", "updates", "page"]
KEPT = "gaussian_statistic"
"""The curve that is kept of the networks before unlearning and after Retrain, which are drawn."""
SYNTHETIC = "synthetic"
"""Stands for the dataset of Figure 5, which is drawn."""
PARTS = {
    "gaussian": "Gaussian poisons",
    "targeted": "Targeted poisons",
    "indiscriminate": "Indiscriminate poisons",
    "shift": "Hypothesis 1: poisons shift the model far",
    "updates": "Hypothesis 2: clean gradients do not lead back",
}

HYPOTHESES: dict[str, tuple[Any, Any]] = {
    "shift": (figures.shifts, claims.shift_claims),
    "updates": (figures.updates, claims.update_claims),
}


@dataclasses.dataclass(frozen=True)
class PoisonUnlearning(PaperCommand):
    """Poisons a training set three ways, unlearns the poisons, and measures what is left."""

    paper, large = "poison_unlearning", ("figure",)
    part: Part = "all"
    """One kind of poisons; imdb: those of texts; shift (Figure 4); updates (5); page; or all."""
    dataset: str | None = None
    """One dataset of the scale; by default all whose data are present."""
    seeds: int | None = None
    """Repetitions; by default the scale's."""
    weights: Path | None = None
    """A pretrained language network for the part imdb, as `models.load_pretrained` reads it."""

    def settings(self) -> Mapping[str, Setting]:
        return frame.with_seeds(choose_settings(self.scale), self.seeds)

    def chosen(self) -> dict[str, Setting]:
        found = super().chosen()
        of_texts = {n: s for n, s in found.items() if s.reviews is not None}
        if not of_texts and (self.weights or self.part == "imdb"):
            raise ValueError("weights and imdb are of texts; no dataset that is asked for is")
        return of_texts if self.part == "imdb" else found

    def runs_nothing(self) -> bool:
        return self.part in ("page", "updates")  # which needs no data

    def load(self, setting: Setting) -> Data | texts.Texts:
        if setting.reviews is not None:
            return texts.load_reviews(setting.reviews, self.data_dir, self.weights)
        data = frame.load_data(
            setting.dataset, setting.model, self.data_dir, normalisation="standard",
            classes=setting.classes or None, **setting.options,
        )  # fmt: skip
        return data._replace(test=frame.subset(data.test, setting.test))

    def run_all(self, on_stage: OnStage) -> None:
        super().run_all(on_stage)
        if self.part in ("all", "updates"):
            setting = next(iter(self.chosen().values()))
            on_stage("updates: gradient descent on the synthetic regression", 0, 1)
            self._run_part(SYNTHETIC, setting, "updates", None, on_stage)

    def run_setting(self, name: str, setting: Setting, data: Any, on_stage: OnStage) -> None:
        images = setting.reviews is None
        for part in (*setting.kinds, *(("shift",) if images and setting.feature_poisons else ())):
            if self.part in ("all", part) or (not images and self.part == "imdb"):
                own_stage = frame.prefix_stage(part, on_stage)
                self._run_part(name, setting, part, data, own_stage)

    def _run_part(
        self, name: str, setting: Setting, part: str, data: Any, on_stage: OnStage
    ) -> None:
        """Runs one part and writes its numbers."""
        started, notes, records = time.perf_counter(), list[str](), None
        key = jax.random.fold_in(jax.random.key(self.seed), list(PARTS).index(part))
        path = self.path(f"{name}-{part}")
        run = self.describe(dataclasses.asdict(setting), part=part, notes=notes)
        with frame.collect_warnings(notes, PoisonWarning):
            if data is None:
                run["figure"] = study_updates(key, setting.least_squares)
            elif part == "shift":
                run["figure"] = _shift(key, setting, data, on_stage)
            else:
                poison = next(kind for kind in POISONS if kind == part)
                given = None
                if setting.reviews is not None and poison != "indiscriminate":
                    given = texts.prepare(setting.reviews, poison, data, getattr(setting, poison))
                    data, notes[:] = Data(*given[:3]), given.told
                attacks = setting.attacks(poison) if given is None else given.attacks
                run["attacks"] = {name: repr(attack) for name, attack in attacks.items()}
                run["chance"] = 1 / len(np.unique(data.train.y))
                found = _grid(key, setting, poison, data, attacks, given, on_stage, self.store)
                records, shown, searched = found
                run["methods"] = {name: repr(m) for name, m in searched.methods.items()}
                run["notes"] += [f"{name}: {why}" for name, why in searched.unmet.items()]
                for what, of in (("searched", searched.scores), ("lost", searched.losses)):
                    figured = {n: {f"{f:g}": v for f, v in by.items()} for n, by in of.items()}
                    run[what] = frame.rounded(figured)
                run["chosen"] = dict(searched.factors)
                if shown:
                    pages.draw(path, "poisons", figures.poisons_figure(part, shown))
        frame.save_result(path, run, records, started=started, curves=True)

    def names(self) -> list[str]:
        grids = [f"{name}-{part}" for name in self.settings() for part in (*POISONS, "shift")]
        return [*grids, f"{SYNTHETIC}-updates"]

    def section(self, name: str, run: dict[str, Any], records: list[Record]) -> Section:
        dataset, _, part = name.rpartition("-")
        title, notes = f"{dataset}: {PARTS[part]}", run["notes"]
        if run.get("lost"):
            rules = {"tolerance": run["settings"]["tolerance"], "seeds": run["settings"]["tries"]}
            notes = [reporting.rates_told(run["chosen"], run["lost"], **rules), *notes]
        if part in POISONS:
            as_texts = run["settings"].get("reviews") is not None
            return _grid_section(part, title, notes, records, run.get("chance", 0.1), as_texts)
        draw, judge = HYPOTHESES[part]
        return Section(title, (), judge(run["figure"]), notes, {draw.__name__: draw(run["figure"])})

    def overview(self, found: Mapping[str, Result]) -> frame.Overview:
        summaries = {}
        for dataset in self.settings():
            names: dict[str, str] = {kind: f"{dataset}-{kind}" for kind in POISONS}
            grids = {kind: found[name][1] for kind, name in names.items() if name in found}
            if summary := claims.no_silver_bullet(grids):
                summaries[dataset] = Section(dataset, claims=summary)
        return frame.Overview(before=summaries)


def _grid(
    key: Any,
    setting: Setting,
    poison: Poison,
    data: Data,
    attacks: Mapping[str, Attack],
    reviews: texts.Prepared | None,
    on_stage: OnStage,
    store: Path | None,
) -> tuple[list[Record], Mapping[str, np.ndarray], RateSearch]:
    """Returns the records of one kind of poisons, some of the first attack's, and the methods."""
    train = frame.subset(data.train, setting.trains.get(poison, setting.train))
    first, shown, most = next(iter(attacks)), list[Mapping[str, np.ndarray]](), max(setting.budgets)
    choosing, test = _quarter(data.test)
    start_key, search_key = (jax.random.fold_in(key, 1 + i) for i in range(2))
    recipe, searched = setting.recipe_of(poison), RateSearch(setting.methods(poison), {})
    given: dict[str, Any] = {"recipe": recipe, "on_stage": on_stage, "store": store}
    if reviews is not None:
        given["start"] = reviews.start
    elif recipe is not setting.recipe:
        on_stage("training the network that all others continue", 0, 1)
        given["start"] = fit(start_key, data.model, train, setting.recipe).variables
    if setting.factors:
        effect, sign = claims.EFFECTS[poison]
        searched = search_rates(
            search_key, data.model, train, choosing, attacks=attacks, budgets=setting.budgets,
            methods=searched.methods, factors=setting.factors, seeds=setting.tries,
            identified=setting.identified or (1.0,), effect=effect if sign > 0 else None,
            tolerance=setting.tolerance, **given,
        )  # fmt: skip

    def keep(name: str, seed: int, poisoned: Poisoned) -> None:
        if (name, seed) == (first, 0) and reviews is None:
            shown.append(figures.show(poisoned, train))

    def ask(attacks: Mapping[str, Attack], seeds: int, **more: Any) -> list[Record]:
        found = poison_and_unlearn(
            key, data.model, train, test, attacks=attacks, methods=searched.methods, paired=True,
            audits={} if reviews else {"size": PoisonSize()}, seeds=seeds, on_poisoned=keep,
            **given, **more,
        )  # fmt: skip
        return [record._replace(curves=_kept(record)) for record in found]

    seeds, controls = setting.seeds_of(poison), poison == "indiscriminate"
    records = ask(attacks, seeds, budgets=setting.budgets, controls=controls)
    if partial := tuple(share for share in setting.identified if share < 1):
        few = min(seeds, setting.partial_seeds)
        found = ask({first: attacks[first]}, few, budgets=(most,), identified=partial)
        records += [record for record in found if record.identified < 1]
    records += [
        Record(name, 0, {}, Cost(0.0, 0.0), question=attack, budget=most, failed=why)
        for name, why in searched.unmet.items()
        for attack in attacks
    ]
    if not shown and reviews is None:
        raise ValueError(f"{poison} poisons of the first seed: {records[0].diverged}")
    return records, shown[0] if shown else {}, searched


def _quarter(dataset: Dataset) -> tuple[Dataset, Dataset]:
    """Returns a fixed random quarter of a dataset, and the rest."""
    first, rest = np.split(frame.draw_order(dataset), [dataset.size // 4])
    return dataset.take(np.sort(first)), dataset.take(np.sort(rest))


def _kept(record: Record) -> dict[str, list[float]]:
    """Returns the curve of a record that is drawn, with the digits that are seen."""
    if record.budget is not None or record.identified < 1 or KEPT not in record.curves:
        return {}
    return {KEPT: np.round(record.curves[KEPT], 4).tolist()}


def _shift(key: Any, setting: Setting, data: Data, on_stage: OnStage) -> list[dict[str, Any]]:
    body_key, key = jax.random.split(key)
    on_stage("training the network whose features are used", 0, 1)
    body = fit(body_key, data.model, frame.subset(data.train, setting.train), setting.recipe)
    features = data._replace(train=frame.subset(data.train, setting.features))
    found = []
    for seed in range(setting.seeds):
        on_stage(f"poisoning features, seed {seed + 1} of {setting.seeds}", 0, 1)
        seed_key = jax.random.fold_in(key, seed)
        found.append(study_shift(seed_key, body.variables, features, setting)._asdict())
    return found


def as_rows(records: Sequence[Record]) -> list[Record]:
    """Returns the records of a table, whose rows say that questions are shares of poisons.

    What no budget allowed has no row: see `over_budget`; nor have shares that are identified.
    """
    return [_of_poisons(r) for r in records if r.over_budget is None and r.identified == 1]


def told(records: Sequence[Record]) -> list[str]:
    """Returns what a budget did not allow, what was lost, and attacks without effect, in words."""
    kept = [r for r in records if r.method != "retrain"]
    beyond = [f"{row_name(_of_poisons(r))}: {r.over_budget}" for r in records if r.over_budget]
    for r, of in reporting.retain_losses(kept, tolerance=0.05):
        beyond.append(f"{row_name(_of_poisons(r))} loses {100 * of:.1f} points of retain accuracy")
    idle = [r for r in records if r.no_effect and r.method == ORIGINAL]
    beyond += [f"{r.question} poisons, seed {r.seed}, had no effect: {r.no_effect}" for r in idle]
    return list(dict.fromkeys(beyond))


def _of_poisons(record: Record) -> Record:
    return record._replace(question="", method=f"{record.question} poisons: {record.method}")


def _grid_section(
    kind: str, title: str, notes: Sequence[str], records: Sequence[Record], chance: float,
    as_texts: bool,
) -> Section:  # fmt: skip
    pictures: dict[str, str | None] = {
        "poisons": "" if as_texts else None,
        "methods": figures.methods_against_retrain(kind, records),
        "budgets": figures.budgets(kind, records),
    }
    if kind == "gaussian":
        pictures["statistics"] = figures.statistics(records)
    measured = any("size_largest" in record.metrics for record in records)
    columns = read_columns(f"poisons_{kind}", *["poisons_size"] * measured, "poisons_shared")
    tables = [records_table(as_rows(records), columns)]
    if shares := reporting.identified_shares(records):
        metric, most = claims.EFFECTS[kind][0], claims.largest_budget(records)
        shown = claims.guessing(records, chance) if kind == "indiscriminate" else records
        given: dict[str, Any] = {"question": records[0].question, "budget": most}
        curves = reporting.by_identified(shown, metric, **given)
        pictures["identified"] = figures.identified(kind, shares, curves)
        head = [f"{claims.WORDS[kind]}, identified:", *(f"{100 * share:g} %" for share in shares)]
        tables.append(plain_table(head, reporting.identified_rows(shown, metric, **given)))
    judged = claims.grid_claims(kind, records, chance, as_texts)
    return Section(title, tables, judged, [*notes, *told(records)], pictures)


if __name__ == "__main__":
    frame.run_command(PoisonUnlearning)
