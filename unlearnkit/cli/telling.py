"""What commands about trained weights share: their study, their files, their figures."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import numpy as np

from unlearnkit.auditing import Evaluation, FromOriginal
from unlearnkit.auditing.evaluate import HEADLINE_ATTACK
from unlearnkit.base import Cost, Unlearner, Variables
from unlearnkit.cli.answering import (
    Network,
    read_rows,
)
from unlearnkit.data import IndexForget
from unlearnkit.records import Record
from unlearnkit.studies import (
    Study,
)
from unlearnkit.weights import WeightFile, write_weights

if TYPE_CHECKING:
    from unlearnkit.cli.asking import OnWeights

_WIDTH, LABEL = 79, 24
SETS = ("retain", "forget", "test")
AUC = f"mia_{HEADLINE_ATTACK.feature}_{HEADLINE_ATTACK.attacker}_auc"


def forget_rows(options: OnWeights, network: Network) -> np.ndarray:
    """Returns the rows to forget, which the seed draws where they are random.

    Args:
      options: of the command.
      network: whose training set they are of.
    """
    key = jax.random.fold_in(jax.random.key(options.seed), 1)
    return read_rows(options.forget, network.pair.train, key)


def study_of(
    network: Network, rows: np.ndarray, methods: Mapping[str, Unlearner], *, reference: bool
) -> Study:
    """Returns the study of forgetting rows by trained weights.

    Args:
      network: with its weights.
      rows: to forget.
      methods: unlearners by name.
      reference: whether to retrain without the rows.

    Raises:
      ValueError: a recipe whose batch is larger than what is retained.
    """
    assert network.weights is not None
    network.recipe.steps_per_epoch(network.pair.train.size - len(rows))
    return Study(
        data=network.pair,
        networks=network.model,
        recipes=network.recipe,
        forget=IndexForget(rows),
        methods=methods,
        audits={"": Evaluation((HEADLINE_ATTACK,)), "moved": FromOriginal()},
        original=network.weights.variables,
        reference="retrained" if reference else "none",
    )


def write_new(out: Path, old: Path, like: WeightFile | None, variables: Variables) -> Path:
    """Writes new weights in the format of the old ones; returns the file.

    Args:
      out: the folder.
      old: the file of the old weights.
      like: what was read there.
      variables: the new weights.

    Raises:
      ValueError: it would be in the place of the old ones.
    """
    assert like is not None
    file = out / old.name
    if file.resolve() == old.resolve():
        raise ValueError(f"--out {out} is where the old weights are; choose another folder")
    write_weights(file, variables, like)
    return file


def settings_of(name: str, method: Unlearner) -> dict[str, object]:
    """Returns a method's name and its plain settings.

    Args:
      name: of the method.
      method: as it was run.
    """
    names: Iterable[str] = getattr(method, "__dataclass_fields__", {})
    settings: dict[str, object] = {n: getattr(method, n) for n in names}
    plain = {n: v for n, v in settings.items() if isinstance(v, int | float | str | bool)}
    return {"name": name, "settings": plain}


def metrics_of(record: Record) -> dict[str, float]:
    """Returns the metrics of a record, none of which is of a single example by itself."""
    return dict(record.metrics)


def share_of_retrain(record: Record, network: Network, rows: np.ndarray) -> float:
    """Returns what a run cost, as a share of Retrain's example-gradients.

    Args:
      record: of the run.
      network: whose recipe says what Retrain costs.
      rows: that were forgotten.
    """
    retain = network.pair.train.size - len(rows)
    return record.cost.example_gradients / network.recipe.example_gradients(retain)


def tell_cost(cost: Cost) -> str:
    """Returns a cost in words."""
    compiled = f" + {cost.compile_seconds:.1f} s of compilation" if cost.compile_seconds else ""
    return f"{cost.example_gradients:,.0f} example-gradients, {cost.seconds:.1f} s{compiled}"


def cell(value: float | None) -> str:
    """Returns a figure as wide as a column."""
    return f"{'-' if value is None else f'{value:.3f}':>11}"


def folded(text: str) -> str:
    """Returns a paragraph in lines that fit a terminal."""
    return textwrap.fill(text, _WIDTH)
