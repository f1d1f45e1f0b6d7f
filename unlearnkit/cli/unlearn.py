"""`unlearnkit unlearn` and `recommend`: new weights that forgot a list of rows."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import tyro

from unlearnkit.cli.asking import Names, OnWeights
from unlearnkit.cli.interruption import Interruption


@dataclasses.dataclass(frozen=True)
class Unlearn(OnWeights):
    """Makes trained weights forget rows: new weights in the format of the old ones, and a record.

    The record has accuracies and distances before and after on retained, forgotten and unseen
    examples, what it cost, where all came from, and the exact command.

    Attributes:
      method: the unlearner, maybe with settings, as scrub:epochs=5; `unlearnkit list methods` has
        all.
      set: settings of the method, as learning_rate=0.01.
      reference: also retrain without the rows, and tell the distances to that.
    """

    method: Annotated[str, tyro.conf.arg(metavar="NAME")] = dataclasses.field(kw_only=True)
    set: Names = ()
    reference: bool = False

    def __call__(self, interruption: Interruption) -> int:
        """Returns the exit code: 0, 1 where the method diverged or failed."""
        from unlearnkit.cli import verbs

        return verbs.unlearn(self, interruption)


@dataclasses.dataclass(frozen=True)
class Recommend(OnWeights):
    """Runs a declared set of methods within a budget, and says which of them to take.

    It is chosen on one part of the unseen data and judged on another one, in other runs: how well,
    at what cost, with how much evidence. The weights that it left are written too. Exit code: 0 one
    is recommended, 1 none will do, 3 the time was over before there was anything to choose from.

    Attributes:
      methods: the set, as scrub:learning_rate=0.01 fine_tune; by default seven cheap ones, each at
        two rates.
      budget: the most that one may cost, a share of Retrain's example-gradients.
      minutes: after which no further candidate is begun; the same command goes on.
      seeds: runs of each candidate, and other runs of the chosen one.
      reference: retrain without the rows, as often as there are runs, and judge by the distance to
        that; --no-reference says what can be said without.
      tolerance: how much accuracy the best may lose, a share of the examples.
    """

    methods: Names = ()
    budget: float = 0.2
    minutes: float | None = None
    seeds: int = 2
    reference: bool = True
    tolerance: float = 0.02

    def __call__(self, interruption: Interruption) -> int:
        """Returns the exit code."""
        from unlearnkit.cli import recommending

        return recommending.recommend(self, interruption)
