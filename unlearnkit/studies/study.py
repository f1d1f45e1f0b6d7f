"""A study as it is declared: what meets what, how often, and how it is judged."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple, TypeVar

from unlearnkit.auditing import CaseAudit, Evaluation, PoisonEffects
from unlearnkit.base import (
    Attack,
    Audit,
    Dataset,
    Defence,
    Model,
    RobustTrainer,
    Unlearner,
    Variables,
)
from unlearnkit.data import ForgetRequest
from unlearnkit.records import NO_DEFENCE
from unlearnkit.training import Recipe
from unlearnkit.validation import check_choice, check_known, check_variables

T = TypeVar("T")

ORIGINAL = "original"
"""The row of the network that nothing was done to."""
RETRAIN = "retrained"
"""The row of the reference, which was retrained without what is to be forgotten, at full cost."""
ReferenceName = Literal["retrained", "clean", "none"]
EFFECT_PREFIXES = frozenset({"gaussian", "targets", "trigger"})
"""What begins metrics of `PoisonEffects`, and so may not name another audit beside it."""


class Pair(NamedTuple):
    """The sets of a dataset.

    Attributes:
      train: [n] training examples.
      test: held-out examples.
      validation: of each task; None takes half of the test set, another half for each seed.
    """

    train: Dataset
    test: Dataset
    validation: Dataset | None = None


class Named(NamedTuple):
    """Parts of a study by name, see `Study`."""

    data: Mapping[str, Pair]
    networks: Mapping[str, Model]
    recipes: Mapping[str, Recipe]
    forget: Mapping[str, ForgetRequest]
    attacks: Mapping[str, Attack]
    start: Mapping[str, Variables]
    original: Mapping[str, Variables]


@dataclasses.dataclass(frozen=True, eq=False)
class Study:
    """Any unlearners, on any questions, judged by any audits, over datasets, networks and seeds.

    A question is a forget request, or an attack: then the poisons are to be forgotten by a network
    that was trained on them, behind each of the defences. For each question and seed there are an
    original network, trained on everything, and a reference that is retrained without the forget
    set, which no method gets to see; each has a row of its own. Each method then runs as it is
    given, or, with budgets, for as many epochs as cost no more than each budget, a share of the
    example-gradients of retraining. All parts are given by name; a single one needs no name.

    Seeds, and what is appended to a mapping, leave the bits of everything else as they are: keys
    follow from the place in the mapping.

    Attributes:
      data: training and test set, by name.
      networks: by name.
      recipes: how every network is trained, by name.
      forget: requests by the name of the question.
      attacks: by the name of the question; each poisons the training set with a network trained on
        the clean data as its surrogate.
      defences: by name; `none` always comes first. A filter's network is trained on what it keeps,
        and methods forget what it left of the poisons.
      methods: unlearners by name; those without the recipe of the original training (`train_like`,
        or `recipe` of Retrain, is None) are given it.
      budgets: shares of Retrain's example-gradients, in (0, 1]; none runs methods as given. A
        method whose shorter run is the beginning of a longer one (`prefix_stable`) runs once for
        all of them, and its records say so (`one_run`).
      identified: of attacks: shares in (0, 1] of the poisons that methods are told of. What is not
        identified they are to retain. The original and the reference, which was retrained without
        any poison, stay the same; a share below 1 has a row of its own that was retrained without
        what is identified.
      audits: more of them by name; their metrics are named `<audit>_<metric>`. What is asked
        anyway has the name "", `Evaluation` of a forget request and `PoisonEffects` of an attack;
        give an audit that name to put it in their place.
      seeds: repetitions, each with its own split, poisons and networks.
      start: weights from which every training of a network begins, by the network's name; those
        that are not named begin from a fresh initialisation. All networks are then fine-tuned:
        originals, references, victims, defended ones, ensembles, and what methods train from the
        start that they ask for by a keyword `initial` (`Retrain`, `NtkScrub`).
      original: weights of the networks that are to forget, by the network's name, where they are
        trained already; they serve all seeds, which then differ in what is retrained and in the
        methods' own keys. Of forget requests alone: attacks train a network of their own.
      paired: whether all trainings of a seed share one key, and all its attacks another (common
        random numbers): what two networks then differ in is their data's doing, and an attack has
        the same bits whatever else is attacked by. Else each has a key of its own.
      reference: `retrained` trains the network without the forget set, or without the poisons. Of
        attacks alone `clean` takes the one that trained on the clean set, which costs nothing,
        suits attacks that are only compared, and leaves attacks free to poison every example. Of
        forget requests alone `none` retrains nothing: there is no row of the reference, and no
        distance to it; budgets are shares of what the recipe would cost.

    Example:
      study = studies.Study(
          data=studies.Pair(train, test),
          networks=model,
          recipes=training.Recipe(epochs=10),
          forget={"a tenth": data.RandomForget(fraction=0.1)},
          methods={"fine_tune": unlearning.FineTune(epochs=2), "scrub": unlearning.Scrub()},
          seeds=3,
      )
      records = list(studies.run(study, jax.random.key(0), store="runs/store"))
      print(reporting.to_markdown(records))
    """

    data: Mapping[str, Pair] | Pair
    networks: Mapping[str, Model] | Model
    recipes: Mapping[str, Recipe] | Recipe
    forget: Mapping[str, ForgetRequest] | ForgetRequest = dataclasses.field(default_factory=dict)
    attacks: Mapping[str, Attack] | Attack = dataclasses.field(default_factory=dict)
    defences: Mapping[str, Defence | RobustTrainer] = dataclasses.field(default_factory=dict)
    methods: Mapping[str, Unlearner] = dataclasses.field(default_factory=dict)
    budgets: Sequence[float] = ()
    identified: Sequence[float] = (1.0,)
    audits: Mapping[str, Audit | CaseAudit] = dataclasses.field(default_factory=dict)
    seeds: int = 1
    start: Mapping[str, Variables] | Variables | None = None
    original: Mapping[str, Variables] | Variables | None = None
    paired: bool = False
    reference: ReferenceName = "retrained"

    def __post_init__(self) -> None:
        """Checks names, kinds and numbers; nothing is computed.

        Raises:
          TypeError: a class in the place of an object, or an object that is not what is asked for.
          ValueError: a part without entries, a name that is taken, or a number outside its range.
        """
        for name in ("data", "networks", "recipes", "forget", "attacks"):
            object.__setattr__(self, name, _by_name(getattr(self, name)))
        for kind, contract in _CONTRACTS.items():
            for name, thing in getattr(self, kind).items():
                _check_kind(f"{kind}[{name!r}]", thing, contract)
        for name in ("data", "networks", "recipes"):
            if not getattr(self, name):
                raise ValueError(f"{name} must hold at least one entry, got none")
        if not self.forget and not self.attacks:
            raise ValueError("a study needs a question: give forget requests or attacks")
        if self.defences and not self.attacks:
            raise ValueError("defences need attacks; a forget request has no poisons to find")
        if both := self.named.forget.keys() & self.named.attacks.keys():
            raise ValueError(f"{sorted(both)} name a request and an attack; rename one")
        _refuse_names("methods", self.methods, {ORIGINAL, RETRAIN})
        _refuse_names("defences", self.defences, {NO_DEFENCE})
        if self.attacks and "" not in self.audits:
            _refuse_names("audits", self.audits, EFFECT_PREFIXES)
        if not all(0 < budget <= 1 for budget in self.budgets):
            raise ValueError(
                f"budgets must be shares of Retrain in (0, 1], got {tuple(self.budgets)}"
            )
        if not self.identified or not all(0 < share <= 1 for share in self.identified):
            raise ValueError(
                f"identified must be shares of the poisons in (0, 1], got {tuple(self.identified)}:"
                " of nothing there is nothing to forget"
            )
        if len(set(self.identified)) < len(self.identified):
            raise ValueError(f"identified has a share twice, got {tuple(self.identified)}")
        if tuple(self.identified) != (1.0,) and not self.attacks:
            raise ValueError("identified needs attacks; a forget request has no poisons to find")
        if self.seeds < 1:
            raise ValueError(f"seeds must be >= 1, got {self.seeds}")
        check_choice("reference", self.reference, ReferenceName)
        if self.reference == "none" and self.attacks:
            raise ValueError(
                "reference='none' is of forget requests; of attacks 'clean' retrains nothing"
            )
        if self.named.original and self.attacks:
            raise ValueError(
                "original is of forget requests: attacks poison the training set, and train a "
                "network on it; leave out one of the two"
            )
        for part in ("start", "original"):
            self._check_weights(part)

    def _check_weights(self, part: str) -> None:
        """Refuses weights without a network, or that do not fit it; puts them by name."""
        if isinstance(getattr(self, part), Variables) and len(self.named.networks) > 1:
            raise ValueError(
                f"{part} must be given by the name of its network, one of {[*self.named.networks]}"
            )
        by_name: Mapping[str, Variables] = getattr(self.named, part)
        object.__setattr__(self, part, by_name)
        for name, weights in by_name.items():
            check_known(f"network of {part}", name, self.named.networks)
            try:
                check_variables(weights, self.named.networks[name])
            except ValueError as error:
                raise ValueError(f"{part}{f'[{name!r}]' if name else ''}: {error}") from None

    @property
    def named(self) -> Named:
        """The parts that may be given without a name, by name."""
        networks = _by_name(self.networks)
        weights = []
        for given in (self.start, self.original):
            if given is None or isinstance(given, Variables):
                given = {} if given is None else dict.fromkeys(networks, given)
            weights.append(given)
        return Named(
            _by_name(self.data),
            networks,
            _by_name(self.recipes),
            _by_name(self.forget),
            _by_name(self.attacks),
            *weights,
        )

    def audits_of(self, question: str) -> dict[str, Audit | CaseAudit]:
        """Returns the audits of a question by name, those that are asked anyway first."""
        asked: CaseAudit = Evaluation() if question in self.named.forget else PoisonEffects()
        return {"": asked, **self.audits}


def _by_name(given: Mapping[str, T] | T) -> dict[str, T]:
    return dict(given) if isinstance(given, Mapping) else {"": given}


_CONTRACTS: Mapping[str, tuple[type, ...]] = {
    "data": (Pair,),
    "networks": (Model,),
    "recipes": (Recipe,),
    "forget": (ForgetRequest,),
    "attacks": (Attack,),
    "defences": (Defence, RobustTrainer),
    "methods": (Unlearner,),
    "audits": (Audit, CaseAudit),
}
"""What each part of a study must hold."""


def _check_kind(where: str, thing: object, contract: tuple[type, ...]) -> None:
    if isinstance(thing, type):
        raise TypeError(
            f"{where} is the class {thing.__name__}; give an object, as {thing.__name__}()"
        )
    if not isinstance(thing, contract):
        meant = " or ".join(kind.__name__ for kind in contract)
        raise TypeError(f"{where} must be of the kind {meant}, got {thing!r:.100}")


def _refuse_names(kind: str, names: Iterable[str], taken: Iterable[str]) -> None:
    if both := sorted(set(names) & set(taken)):
        raise ValueError(f"{both} have a meaning of their own in a study; rename these {kind}")
