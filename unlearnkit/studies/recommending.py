"""Which method of a declared set to take: chosen on some data, and judged on others."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Key
from scipy import stats

from unlearnkit.auditing import Evaluation
from unlearnkit.auditing.evaluate import HEADLINE_ATTACK
from unlearnkit.base import Dataset, Model, Task, Unlearner, Variables
from unlearnkit.host.random import host_key
from unlearnkit.records import Record
from unlearnkit.studies.announcing import OnNetwork, OnRecord, OnStage
from unlearnkit.studies.budget import epochs_of, has_epochs, price, with_epochs
from unlearnkit.studies.checks import check
from unlearnkit.studies.engine import run
from unlearnkit.studies.poisoned import ask
from unlearnkit.studies.rules import Measured, Rule, RuleName, rule_of
from unlearnkit.studies.running import Unfinished
from unlearnkit.studies.store import Store
from unlearnkit.studies.study import ORIGINAL, RETRAIN, Pair, Study
from unlearnkit.studies.tuning import average
from unlearnkit.training import Recipe, train_like
from unlearnkit.unlearning import UNLEARNERS

_ALIKE = 0.01
"""Below this p-value of its labels a forget set is not like other data."""


class Candidate(NamedTuple):
    """A method of the declared set, and how it did on the choosing data.

    Attributes:
      name: in the set.
      method: as it was run; with fewer epochs than declared where the budget asks for it.
      measured: on average over the runs; one that diverged counts as a ruined network; None where
        it was not run, or not to the end.
      score: of the rule, the larger the better; -inf where the rule refuses it.
      share: of Retrain's example-gradients that it took, on average; NaN where it was not run.
      refused: why it was not run, or may not be chosen; None of one that may.
    """

    name: str
    method: Unlearner
    measured: Measured | None
    score: float
    share: float
    refused: str | None


class Recommendation(NamedTuple):
    """What was chosen, and how it does on data that did not choose it.

    Attributes:
      chosen: the candidate; None where none will do.
      candidates: all of them, in the order given.
      original: the network before anything was forgotten, on the choosing data.
      untouched: the rule's score of that network, to compare a candidate's with.
      reference: a retrained one, likewise; None where none was trained.
      records: of other runs on the reporting data: the original, the reference where there is one,
        and what was chosen; one of each a seed. Empty where nothing was chosen.
      alike: the p-value that the forget set's labels are drawn like those of the choosing data.
      unmet: why nothing was chosen, or None.
      finished: whether all candidates were run; not where the time was over before.
    """

    chosen: Candidate | None
    candidates: tuple[Candidate, ...]
    original: Measured | None
    untouched: float
    reference: Measured | None
    records: tuple[Record, ...]
    alike: float
    unmet: str | None
    finished: bool

    @property
    def helps(self) -> bool:
        """Whether the chosen one is nearer to the rule's goal than doing nothing."""
        return self.chosen is not None and self.chosen.score > self.untouched

    @property
    def forget_is_alike(self) -> bool:
        """Whether forgotten examples may pass for unseen ones by their labels.

        Where not, as for a whole class, Retrain itself answers otherwise on them, and only a
        reference says how.
        """
        return self.alike >= _ALIKE


def declared_set(recipe: Recipe) -> dict[str, Unlearner]:
    """Returns the methods that are tried where nobody names others: cheap ones, at a few rates.

    Args:
      recipe: of the original network; rates are multiples of its own.
    """
    rate, size = recipe.learning_rate, recipe.batch_size
    found: dict[str, Unlearner] = {}
    for factor in (1.0, 0.3):
        descent = {"batch_size": size, "learning_rate": factor * rate}
        settings: dict[str, dict[str, float]] = {
            "fine_tune": descent,
            "neg_grad_plus": descent,
            "random_label": descent,
            "noisy_descent": descent,
            "salun": {"learning_rate": factor * rate},
            "scrub": {"learning_rate": factor * rate / 3},
            "gradient_ascent": {"epochs": 3, "learning_rate": factor * rate / 10},
        }
        for name, chosen in settings.items():
            label = f"{name}, rate {chosen['learning_rate']:.2g}"
            found[label] = UNLEARNERS.create(name, **chosen)
    return found


def recommend(
    study: Study,
    key: Key[Array, ""],
    reporting: Dataset,
    *,
    budget: float | None = None,
    rule: RuleName | Rule = "retrain_like",
    minutes: float | None = None,
    store: Store | str | os.PathLike[str] | None = None,
    on_stage: OnStage | None = None,
    on_record: OnRecord | None = None,
    on_network: OnNetwork | None = None,
) -> Recommendation:
    """Returns which method of a study to take, and how it does on data that chose nothing.

    1. Every method meets the question on the study's data, of which the test set chooses; averages
       over the seeds are judged by a rule.
    2. The best one runs anew, with other keys and beside other retrained networks, and is judged
       on `reporting`.

    Args:
      study: one forget request on one dataset, network and recipe; the methods are the declared
        set. Its dataset has a validation set of its own, so that choosing data are the test set.
        With `original` no network is trained, with reference="none" none is retrained: the rule
        then takes what Retrain shows where the forget set is like other data.
      key: decides everything.
      reporting: held-out examples that are in none of the study's sets.
      budget: the most that a method may cost, a share of Retrain's example-gradients: epochs are
        lowered to it, and methods that cannot keep it are not run. None runs all as declared.
      rule: a name in `RULES`, or a rule with settings of its own.
      minutes: after which no further candidate is begun; the choice is then among the others.
      store: keeps the stages, so that an interrupted call goes on; `minutes` needs one.
      on_stage: called as the work goes on.
      on_record: called with the records of both steps.
      on_network: called with the records of the second step, and the weights.

    Raises:
      ValueError: an unknown rule, a study of more than one question, or without a validation set;
        a budget that is not positive; what `run` refuses.

    Example:
      study = studies.Study(
          data=studies.Pair(train, choosing, validation),
          networks=model,
          recipes=recipe,
          forget=data.IndexForget(rows),
          methods=studies.declared_set(recipe),
          original=weights,
      )
      found = studies.recommend(study, key, reporting, budget=0.1, store="runs/store")
      print(found.chosen.name, found.records[-1].metrics["average_gap"])
    """
    judge = rule_of(rule)
    pair = _only(study)
    if budget is not None and not budget > 0:
        raise ValueError(f"budget must be > 0, a share of Retrain's cost, got {budget}")
    choose_key, price_key, report_key = (part.typed() for part in host_key(key).split(3))
    check(study, choose_key)
    request = next(iter(study.named.forget.values()))
    task = ask(host_key(choose_key).fold_in(0).split(5)[0].typed(), pair, request)[1]
    trials = _Trials(study, judge, task, budget, *_within(study, task, price_key, budget))
    finished = True
    try:
        for record in run(
            trials.study(), choose_key,
            store=store, on_stage=on_stage, on_record=on_record, minutes=minutes,
        ):  # fmt: skip
            trials.records.setdefault(record.method, []).append(record)
    except Unfinished:
        finished = False
    candidates = tuple(trials.candidate(name) for name in study.methods)
    chosen, unmet = trials.choose(candidates, finished=finished)
    records: tuple[Record, ...] = ()
    if chosen is not None:
        last = dataclasses.replace(
            study,
            data=Pair(pair.train, reporting, pair.validation),
            methods={chosen.name: chosen.method},
        )
        reported = run(
            last, report_key,
            store=store, on_stage=on_stage, on_record=on_record, on_network=on_network,
        )  # fmt: skip
        records = tuple(reported)
    return Recommendation(
        *(chosen, candidates, trials.measured(ORIGINAL), trials.untouched()),
        *(trials.measured(RETRAIN), records),
        alike=_alike(task.forget, pair.test),
        unmet=unmet,
        finished=finished,
    )


@dataclasses.dataclass
class _Trials:
    """The candidates as they are run, and their records.

    Attributes:
      declared: the study with the methods as declared.
      rule: of the choice.
      task: the question.
      budget: see `recommend`.
      methods: as the budget allows them.
      refused: why others are not run.
      records: by method, as they come.
    """

    declared: Study
    rule: Rule
    task: Task
    budget: float | None
    methods: Mapping[str, Unlearner]
    refused: Mapping[str, str]
    records: dict[str, list[Record]] = dataclasses.field(default_factory=dict)

    def study(self) -> Study:
        """Returns what is run."""
        audits = {"": Evaluation((HEADLINE_ATTACK,), optml=None)}
        return dataclasses.replace(self.declared, methods=self.methods, audits=audits)

    def measured(self, name: str) -> Measured | None:
        """Returns the averages over the seeds; None where one is missing."""
        rows = self.records.get(name, [])
        return average(rows) if len(rows) == self.declared.seeds else None

    def untouched(self) -> float:
        """Returns the score of the network that nothing was done to."""
        original = self.measured(ORIGINAL)
        if original is None:
            return math.nan
        return self.rule.score(original, original, self.measured(RETRAIN))

    def candidate(self, name: str) -> Candidate:
        """Returns how a method of the declared set did."""
        method, measured = self.methods.get(name, self.declared.methods[name]), self.measured(name)
        share, score = self._share(name), -math.inf
        refused, original = self.refused.get(name), self.measured(ORIGINAL)
        if refused is None and (measured is None or original is None):
            refused = "not run: the time was over"
        elif refused is None and self.budget is not None and share > self.budget * (1 + 1e-9):
            refused = f"it cost {100 * share:.3g} % of Retrain, more than the budget"
        if refused is None and measured is not None and original is not None:
            score = self.rule.score(measured, original, self.measured(RETRAIN))
            refused = self._why(name, measured) if score == -math.inf else None
        return Candidate(name, method, measured, score, share, refused)

    def choose(
        self, candidates: Sequence[Candidate], *, finished: bool
    ) -> tuple[Candidate | None, str | None]:
        """Returns the best candidate, or why there is none."""
        original = self.measured(ORIGINAL)
        may = [one for one in candidates if one.refused is None]
        if may and original is not None:
            return max(may, key=lambda one: one.score), None
        if not finished and original is None:
            return None, "the time was over before any candidate was done"
        if original is None:
            lost = [r.problem for rows in self.records.values() for r in rows if r.problem]
            return None, lost[0] if lost else "the networks to compare with could not be made"
        return None, f"no candidate {self.rule.refusal(original, self.measured(RETRAIN))}"

    def _share(self, name: str) -> float:
        (recipe,) = self.declared.named.recipes.values()
        taken = [record.cost.example_gradients for record in self.records.get(name, [])]
        full = recipe.example_gradients(self.task.retain.size)
        return float(np.mean(taken)) / full if taken else math.nan

    def _why(self, name: str, measured: Measured) -> str:
        lost = next((r.problem for r in self.records[name] if r.problem is not None), None)
        return lost or (
            f"it ruins the network: accuracy {measured.accuracy_retain:.3f} on retained and "
            f"{measured.accuracy:.3f} on unseen examples"
        )


def _only(study: Study) -> Pair:
    """Returns the data of a study of one question; refuses others."""
    named = study.named
    parts = (named.data, named.networks, named.recipes, named.forget)
    if any(len(part) != 1 for part in parts) or study.attacks or study.budgets:
        raise ValueError(
            "a recommendation is for one forget request on one dataset, network and recipe, "
            "without attacks; its budget is an argument"
        )
    if not study.methods:
        raise ValueError("methods must hold at least one candidate, got none")
    (pair,) = named.data.values()
    if pair.validation is None:
        raise ValueError(
            "the data need a validation set of their own, Pair(train, choosing, validation): "
            "what methods validate on must not choose them"
        )
    return pair


def _within(
    study: Study, task: Task, key: Key[Array, ""], budget: float | None
) -> tuple[dict[str, Unlearner], dict[str, str]]:
    """Returns the methods as the budget allows them, and why others are not run."""
    (model,), (recipe,) = study.named.networks.values(), study.named.recipes.values()
    told = {name: train_like(method, recipe) for name, method in study.methods.items()}
    if budget is None:
        return told, {}
    weights = next(iter(study.named.original.values()), None)
    allowed = budget * recipe.example_gradients(task.retain.size)
    methods, refused = dict[str, Unlearner](), dict[str, str]()
    for name, method in told.items():
        if not has_epochs(method):
            methods[name] = method
            continue
        epochs = _epochs_within(model, weights, task, method, key, allowed)
        if epochs == 0:
            refused[name] = f"one epoch costs more than {100 * budget:g} % of Retrain"
            continue
        methods[name] = with_epochs(method, min(epochs, epochs_of(method)))
    return methods, refused


def _epochs_within(
    model: Model,
    weights: Variables | None,
    task: Task,
    method: Unlearner,
    key: Key[Array, ""],
    allowed: float,
) -> int:
    variables = jax.jit(model.init)(jax.random.clone(key)) if weights is None else weights
    return price(key, model, variables, task, method).epochs_within(allowed)


def _alike(forget: Dataset, unseen: Dataset) -> float:
    """Returns the p-value that two sets of labels are drawn from one distribution."""
    labels = [np.asarray(part.y) for part in (forget, unseen)]
    classes = max(int(y.max()) for y in labels) + 1
    counts = np.stack([np.bincount(y, minlength=classes) for y in labels])
    counts = counts[:, counts.sum(axis=0) > 0]
    if counts.shape[1] < 2:
        return 1.0
    return float(stats.chi2_contingency(counts).pvalue)
