"""The studies behind the tables and the figures."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Key

from experiments.frame import Data
from experiments.sg_unlearn.settings import Kind, Setting
from unlearnkit import auditing
from unlearnkit.auditing import Case, CaseAudit, Subject
from unlearnkit.base import Audit, Audited, Unlearner
from unlearnkit.studies import ORIGINAL, RETRAIN, Course, Followed, Pair, Record, Study

ATTACK = auditing.MembershipInference("loss", "logistic")
"""The attack of section 6.2: ten folds, balanced, on the cross-entropy losses."""
WATCHED = ("accuracy_test", "mia_loss_logistic_accuracy", "wasserstein", "ks_statistic")
ALPHAS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0)
"""Of Figure 2, in units of the alpha of the tables."""
COURSE = "course"


@dataclasses.dataclass(frozen=True)
class TrainingLoss:
    """The loss of every epoch of the reference, as a curve."""

    def judge(self, key: Key[Array, ""], case: Case, subject: Subject) -> Audited:
        """Returns the curve `loss`."""
        if not subject.is_reference:
            raise auditing.NotApplicable("only the losses of Retrain are drawn")
        return Audited({}, {"loss": np.asarray(case.retrained.info.history["loss"])})


def tables_study(
    setting: Setting, kind: Kind, data: Data, methods: Mapping[str, Unlearner], seeds: int
) -> Study:
    """Returns the study of a table, whose row of Retrain is the reference.

    Args:
      setting: says how networks are trained and what they forget.
      kind: of forgetting.
      data: network and examples.
      methods: all rows but Retrain's.
      seeds: repetitions.
    """
    return Study(
        data=Pair(data.train, data.test),
        networks=data.model,
        recipes=setting.recipe,
        forget=setting.forgetting(kind),
        methods={name: method for name, method in methods.items() if name != "retrain"},
        audits={"": auditing.Evaluation((ATTACK,), optml=None), "training": TrainingLoss()},
        seeds=seeds,
    )


def table_of(records: list[Record]) -> tuple[list[Record], list[list[float]]]:
    """Returns the rows of a table, and Retrain's losses by seed and epoch."""
    rows, losses = [], []
    for record in records:
        curves = dict(record.curves)
        name = "retrain" if record.method == RETRAIN else record.method
        if "training_loss" in curves:
            losses.append([float(loss) for loss in curves.pop("training_loss")])
        rows.append(record._replace(method=name, curves=curves, left_out={}))
    return rows, losses


class Ablation(NamedTuple):
    """What the auditor does to random forgetting.

    Attributes:
      traces: by alpha (`0` and `1`) and metric, [seeds, 1 + epochs]; epoch 0 is the original.
      sweep: by alpha of Figure 2 and metric, [seeds].
      retrain: by metric, [seeds].
    """

    traces: dict[str, dict[str, list[list[float]]]]
    sweep: dict[str, dict[str, list[float]]]
    retrain: dict[str, list[float]]


def ablation_study(table: Study, game: Any, seeds: int) -> Study:
    """Returns SG at each alpha, followed at 0 and 1.

    Args:
      table: of random forgetting; the networks are its own.
      game: SG at the alpha of the table.
      seeds: repetitions.
    """
    alphas = {f"{share:g}": share * game.alpha for share in (0.0, 1.0, *ALPHAS)}
    games = {name: dataclasses.replace(game, alpha=alpha) for name, alpha in alphas.items()}
    methods: dict[str, Unlearner] = {
        name: Followed(game, WATCHED) if name in ("0", "1") else game
        for name, game in games.items()
    }
    audits: dict[str, Audit | CaseAudit] = {"": table.audits[""], COURSE: Course()}
    return dataclasses.replace(table, methods=methods, audits=audits, seeds=seeds)


def ablation_of(records: list[Record]) -> Ablation:
    """Returns what is drawn and judged of `ablation_study`."""
    rows: dict[str, list[Record]] = {}
    for record in records:
        rows.setdefault(record.method, []).append(record)

    def ends(name: str) -> dict[str, list[float]]:
        return {metric: [record.metrics[metric] for record in rows[name]] for metric in WATCHED}

    def course(name: str, starts: Mapping[str, list[float]]) -> dict[str, list[list[float]]]:
        return {
            metric: [
                [start, *np.asarray(record.curves[f"{COURSE}_{metric}"]).tolist()]
                for start, record in zip(starts[metric], rows[name], strict=True)
            ]
            for metric in WATCHED
        }

    traces = {alpha: course(alpha, ends(ORIGINAL)) for alpha in ("0", "1")}
    return Ablation(traces, {f"{alpha:g}": ends(f"{alpha:g}") for alpha in ALPHAS}, ends(RETRAIN))
