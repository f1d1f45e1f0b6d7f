"""What a study says of the poisons themselves: their size, their transfer, how well they are found.

All of it is the same for every network that is judged on a question.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Array, Key

from unlearnkit.auditing.accuracy_drop import is_untouched, poisons_of, train_another
from unlearnkit.auditing.case import Case, NotApplicable, Subject
from unlearnkit.auditing.evaluate import accuracy
from unlearnkit.base import FROM_SCRATCH, Audited, Model
from unlearnkit.kernels.filter_score import score_defence
from unlearnkit.validation import check_continuous


@dataclasses.dataclass(frozen=True)
class PoisonSize:
    """How many poisons there are, and how far they are from what they were made of.

    Metrics:
      poisons: their number
      change: mean over the poisons of max |x_i - x_base(i)|, in pixels of [0, 1]; of attacks that
        make poisons of clean examples
      norm: mean of ‖x_i - x_base(i)‖₂ likewise
      largest: the largest |pixel| of any poison, where 1 is white; it may be beyond where the
        attack has no box
      residual: ‖b - A x‖ / ‖b‖ of the attack's last linear solve; of attacks that solve

    Example:
      study = studies.Study(
          data=studies.Pair(train, test),
          networks=model,
          recipes=training.Recipe(),
          attacks=poisoning.GaussianPoison(),
          audits={"size": auditing.PoisonSize()},
      )

    Source: Lu et al. 2022, Figure 5, for the change.
    """

    def judge(self, key: Key[Array, ""], case: Case, subject: Subject) -> Audited:
        """Returns the metrics above.

        Raises:
          NotApplicable: the training set was not poisoned.
          ValueError: poisons of what has no pixels.
        """
        poisoned, clean = poisons_of(case)
        metrics = {"poisons": float(np.sum(poisoned.is_poison))}
        history: Mapping[str, Array] = getattr(poisoned.info, "history", {})
        if "solve_steps" in history:
            metrics["residual"] = float(history["residual"][-1])
        base = np.asarray(getattr(poisoned.info, "base", [FROM_SCRATCH]))
        if not np.any(base == FROM_SCRATCH):
            pixels = check_continuous(clean, method="PoisonSize").invert
            x, before = poisoned.dataset.x[np.flatnonzero(poisoned.is_poison)], clean.x[base]
            away = np.abs(np.asarray(pixels(x)) - np.asarray(pixels(before)))
            away = away.reshape(len(base), -1)
            metrics["change"] = float(away.max(1).mean())
            metrics["norm"] = float(np.linalg.norm(away, axis=1).mean())
            metrics["largest"] = float(np.abs(np.asarray(pixels(x))).max())
        return Audited(metrics)


@dataclasses.dataclass(frozen=True)
class PoisonTransfer:
    """What the poisons made for one network do to others that train on them.

    Each other network trains on the clean and on the poisoned set, by the recipe and by the key of
    the network that was attacked. Metrics, by the names of the others: `accuracy_<name>` after the
    poisons and `accuracy_clean_<name>`, on the test set, and `drop_<name>`, their difference.

    Attributes:
      networks: the others by name.

    Example:
      study = studies.Study(
          data=studies.Pair(train, test),
          networks=model,
          recipes=training.Recipe(),
          attacks=poisoning.LabelFlip(),
          audits={"transfer": auditing.PoisonTransfer({"mlp": other})},
      )

    Source: Lu et al. 2022, Table 9.
    """

    networks: Mapping[str, Model]

    def judge(self, key: Key[Array, ""], case: Case, subject: Subject) -> Audited:
        """Returns the metrics above for the network that nothing was done to.

        Raises:
          NotApplicable: the training set was not poisoned; another network, or one behind a
            defence, which has no part in the transfer.
          DivergedError: a network diverged.
        """
        poisoned, clean = poisons_of(case)
        if not is_untouched(case, subject):
            raise NotApplicable("the transfer of poisons is told of the untouched network alone")
        metrics = {}
        for name, model in self.networks.items():
            after, before = (
                accuracy(model, train_another(case, model, data, 0), case.task.test)
                for data in (poisoned.dataset, clean)
            )
            metrics[f"accuracy_clean_{name}"], metrics[f"accuracy_{name}"] = before, after
            metrics[f"drop_{name}"] = before - after
        return Audited(metrics)


@dataclasses.dataclass(frozen=True)
class FilterScore:
    """How well the filter before a network finds the poisons, see `score_defence` for the metrics.

    Example:
      study = studies.Study(
          data=studies.Pair(train, test),
          networks=model,
          recipes=training.Recipe(),
          attacks=poisoning.LabelFlip(),
          defences={"sever": defences.Sever()},
          audits={"filter": auditing.FilterScore()},
      )
    """

    def judge(self, key: Key[Array, ""], case: Case, subject: Subject) -> Audited:
        """Returns the metrics.

        Raises:
          NotApplicable: there is no filter before the network.
        """
        if case.defended is None or case.poisoned is None:
            raise NotApplicable("there is no filter before this network")
        return Audited(score_defence(case.defended, case.poisoned.is_poison))
