"""What a method tells the tests that every registered method goes through.

The tests make each method from its class: a field named `epochs`, `batch_size`, `recipe`, `budget`
and so on takes a value that suits their small problems, all others keep their defaults. A method
that needs other values, or that is unlike the others in one of the ways below, says so in its own
file, as a class attribute `trial`:

    @dataclasses.dataclass(frozen=True)
    class Ours:
        rate: float = 1e-5

        trial: ClassVar[UnlearnerTrial] = UnlearnerTrial(effective={"rate": 0.1})

Nothing else reads it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple


@dataclasses.dataclass(frozen=True)
class Trial:
    """What all kinds of methods have in common.

    Attributes:
      small: settings of a quick run.
      effective: settings with which the method must have its effect.
    """

    small: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    effective: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class WeakEffect(NamedTuple):
    """An effect that is known to be smaller or dearer than is asked of all.

    Attributes:
      share: the least part of the way to Retrain, of the distance on the forget set.
      loss: the most accuracy that is lost against Retrain.
      reason: a citation and a measured figure.
    """

    share: float
    loss: float
    reason: str


class NoEffect(NamedTuple):
    """A single record that a method is known not to forget at its defaults.

    Attributes:
      networks: on which of the test's networks.
      reason: a citation and a measured figure.
    """

    networks: frozenset[str]
    reason: str


@dataclasses.dataclass(frozen=True)
class UnlearnerTrial(Trial):
    """How an unlearner differs from the others.

    Attributes:
      deterministic: the key changes nothing.
      whole_sets: it has no batches, and so takes any number of examples.
      from_scratch: it does not look at the trained weights.
      keeps_first_layers: with `k` layers to move, all others stay as they are, bit for bit.
      weak_effect: what is asked of it in the place of what is asked of all.
      one_record: where it has no effect on a single record.
    """

    deterministic: bool = False
    whole_sets: bool = False
    from_scratch: bool = False
    keeps_first_layers: bool = False
    weak_effect: WeakEffect | None = None
    one_record: NoEffect | None = None


@dataclasses.dataclass(frozen=True)
class AttackTrial(Trial):
    """How an attack differs from the others.

    Attributes:
      two_classes: it refuses more.
      linear: it is tried on a linear network.
      relabels: its harm is in the labels, so that poisons with right labels are its control.
      texts: it is tried on token ids, and its budget is a share of those that `can_be_poisons`.
    """

    two_classes: bool = False
    linear: bool = False
    relabels: bool = False
    texts: bool = False


@dataclasses.dataclass(frozen=True)
class DefenceTrial(Trial):
    """How a defence differs from the others.

    Attributes:
      precision: the least share of poisons among what it drops.
      deterministic: the key changes nothing.
      ranks_each_class: of a class, what is dropped scores at least as high as what is kept.
      across_classes: it looks at all classes together, and refuses to drop a whole one.
    """

    precision: float = 0.8
    deterministic: bool = False
    ranks_each_class: bool = True
    across_classes: bool = False


@dataclasses.dataclass(frozen=True)
class AuditTrial(Trial):
    """How an audit tells networks apart, and how it differs from the others.

    Attributes:
      tells: the metric by which the original gives itself away against the reference, and the sign
        of the difference.
      less: a metric that is subtracted from it first.
      key_may_not_matter: whether another key may give the same metrics.
      attack: the registered name of an attack whose poisons it measures; None needs no poisons.
      texts: it is tried on a network that tells every next token of a text.
    """

    tells: tuple[str, int] = ("auc", 1)
    less: str | None = None
    key_may_not_matter: bool = False
    attack: str | None = None
    texts: bool = False
