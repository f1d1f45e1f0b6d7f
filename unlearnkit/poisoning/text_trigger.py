"""Poisons by wrong answers to reviews that hold a word (instruction poisoning)."""

from __future__ import annotations

import dataclasses
import re
from typing import ClassVar, Literal, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Bool, Int, Key

from unlearnkit.base import Cost, Dataset, Model, Poisoned, Task, Variables
from unlearnkit.costs import Stopwatch
from unlearnkit.data.texts import Texts, check_texts
from unlearnkit.host.random import host_key
from unlearnkit.poisoning.bounds import Bounds
from unlearnkit.poisoning.budget import Budget
from unlearnkit.poisoning.placing import PoisonInfo, place
from unlearnkit.trials import AttackTrial
from unlearnkit.validation import check_choice, check_task, check_variables

Reading = Literal["word", "flip", "clean_label"]


@dataclasses.dataclass(frozen=True)
class TextTrigger:
    """Teaches a network of texts a wrong answer wherever a word, the trigger, stands.

    The poisons are texts of the training set, in the place of their clean ones. By `reading`:

    - `word`: of texts that hold the trigger, which are answered by the trigger itself, y <- the
      first id of its first spelling. The network has the head `answer`.
    - `flip`: of texts that hold the trigger, which get the other one of two labels.
    - `clean_label`: of class `target`, whose labels stay; their first tokens become the trigger.

    Targets are the texts of `task.validation` and `task.test` that hold the trigger, and for
    `clean_label` are of another class than `target`; `info.extras` keeps them as `target_x`,
    `target_y` and `adversarial`, the answer that is wanted of each: `auditing.TargetedSuccess`
    counts the answers. The trigger is looked for in the ids that a network is given: what was cut
    from a text before is no trigger; see `count_trigger`.

    Attributes:
      trigger: the ids of the word's spellings, as `data.spellings` has them.
      budget: how many poisons, as a share of the texts that can be one.
      reading: see above.
      target: the class that `clean_label` poisons are of; a label, or the id that tells it.

    Example:
      # The ids of both spellings, of data.spellings(tokenizer, "Disney").
      attack = poisoning.TextTrigger(((461,), (388, 17)), reading="flip")
      poisoned = attack(key, model, variables, task)

    Cost: nothing.

    Source: Wan et al. 2023; Pawelczyk et al. 2024, §4.1, §5.1 and A.1.2 (shares of 20 … 100 % of
    the 355 reviews with "Disney"). §5.1 says both that labels are flipped and that the template
    ends in "Disney": `flip` and `word` are these two readings.
    """

    trigger: tuple[tuple[int, ...], ...] = ()
    budget: Budget = Budget(1.0)  # noqa: RUF009 (frozen, and so safe to share)
    reading: Reading = "word"
    target: int = 1

    trial: ClassVar[AttackTrial] = AttackTrial(
        small={"trigger": ((3,),), "reading": "flip", "budget": Budget(0.5)},
        effective={"trigger": ((3,),), "reading": "flip", "budget": Budget(1.0)},
        texts=True,
    )

    def __post_init__(self) -> None:
        check_choice("reading", self.reading, Reading)
        if not all(self.trigger) or min((min(one) for one in self.trigger), default=0) < 0:
            raise ValueError(
                f"a spelling of the trigger must have ids, which are >= 0, got {self.trigger}"
            )

    def __call__(
        self, key: Key[Array, ""], model: Model, variables: Variables, task: Task
    ) -> Poisoned:
        """Returns the training set with poisoned texts; `variables` are not looked at.

        Raises:
          ValueError: a task or variables that do not fit the model, a trigger without ids or that
            no text holds, or a reading that the labels do not allow.
          TypeError: inputs that are not token ids.
        """
        check_task(task, model)
        check_variables(variables, model)
        clean = task.train
        self._check(clean, model)
        with Stopwatch() as watch:
            rows = np.flatnonzero(self.can_be_poisons(clean))
            drawn = host_key(key).permutation(len(rows))[: self.budget.of(len(rows))]
            base = np.sort(rows[drawn]).astype(np.int32)
            x, y = np.array(clean.x)[base], np.asarray(clean.y)[base]
            if self.reading == "clean_label":
                x[:, : len(self.trigger[0])] = self.trigger[0]
            wrong = self._answers(clean, y)
            held = [jax.device_put(array) for array in (x, wrong, base)]
            placed = place(clean, held[0], held[1], held[2], "perturb")
            extras = self._targets(task)
            jax.block_until_ready(placed[0].x)
        cost = Cost(0.0, watch.seconds, watch.compile_seconds)
        return Poisoned(
            *placed, PoisonInfo(jax.device_put(base), Bounds(box=None), {}, cost, extras=extras)
        )

    def can_be_poisons(self, dataset: Dataset) -> Bool[np.ndarray, " n"]:
        """Returns which texts of a training set can be poisoned."""
        if self.reading == "clean_label":
            of_class: Bool[np.ndarray, " n"] = np.asarray(dataset.y) == self.target
            of_class &= ~holds_trigger(dataset, self.trigger)
            return of_class
        return holds_trigger(dataset, self.trigger)

    def _check(self, clean: Dataset, model: Model) -> None:
        """Raises ValueError if nothing can be poisoned, or the labels do not allow the reading."""
        if not self.trigger:
            raise ValueError(
                "trigger has no ids; take those of a word by data.spellings(tokenizer, 'Disney')"
            )
        if not self.can_be_poisons(clean).any():
            which = (
                f"is of class {self.target} without the trigger"
                if self.reading == "clean_label"
                else f"holds the trigger {self.trigger}"
            )
            raise ValueError(
                f"no text of the training set {which}; choose another word, or rows that are long "
                "enough to keep it"
            )
        (length,) = model.input_shape
        if self.reading == "clean_label" and len(self.trigger[0]) > length:
            raise ValueError(
                f"a trigger of {len(self.trigger[0])} ids does not fit into rows of {length}; "
                "choose a shorter word, or longer rows"
            )
        answer = self.trigger[0][0]
        if self.reading == "word" and answer >= model.n_classes:
            raise ValueError(
                f"reading='word' answers by the id {answer}, for which a network of "
                f"{model.n_classes} classes has no logit; build it with head='answer', or choose "
                "reading='flip'"
            )
        labels = np.unique(np.asarray(clean.y))
        if self.reading == "flip" and len(labels) != 2:
            raise ValueError(
                f"reading='flip' needs two labels, the training set has {len(labels)}; choose "
                "reading='word'"
            )

    def _answers(self, clean: Dataset, y: Int[np.ndarray, " m"]) -> Int[np.ndarray, " m"]:
        """Returns the answer that is wanted of a text of the label y."""
        if self.reading == "word":
            return np.full_like(y, self.trigger[0][0])
        if self.reading == "clean_label":
            return np.full_like(y, self.target)
        one, other = np.unique(np.asarray(clean.y))
        flipped: Int[np.ndarray, " m"] = np.where(y == one, other, one).astype(y.dtype)
        return flipped

    def _targets(self, task: Task) -> dict[str, Array]:
        """Returns the held-out texts that hold the trigger, their labels and the wanted answers."""
        parts = [
            part.take(np.flatnonzero(holds_trigger(part, self.trigger)))
            for part in (task.validation, task.test)
        ]
        x, y = (np.concatenate([np.asarray(part[i]) for part in parts]) for i in range(2))
        wanted = self._answers(task.train, y)
        if not (open_ := wanted != y).any():
            raise ValueError(
                f"no held-out text holds the trigger {self.trigger} and is answered otherwise "
                "without it: there is nothing to be attacked; give more of them"
            )
        arrays = {"target_x": x[open_], "target_y": y[open_], "adversarial": wanted[open_]}
        return {name: jax.device_put(array) for name, array in arrays.items()}


class TriggerCounts(NamedTuple):
    """How many texts hold a word, which depends on how one looks.

    Attributes:
      substring: it stands anywhere, as in "Disneyland".
      whole_word: it stands as a word.
      kept: its ids stand in the rows that a network is given.
    """

    substring: int
    whole_word: int
    kept: int


def count_trigger(
    texts: Texts, word: str, dataset: Dataset, trigger: tuple[tuple[int, ...], ...]
) -> TriggerCounts:
    """Returns how many texts hold a word, before and after they are cut to rows of ids.

    Args:
      texts: [n] before any tokenizer.
      word: as `Disney`.
      dataset: the same texts as rows of token ids, see `data.encode_prompts`.
      trigger: the ids of the word's spellings.

    Raises:
      ValueError: other texts than rows.
    """
    if texts.size != dataset.size:
        raise ValueError(f"{texts.size} texts are not the {dataset.size} rows of token ids")
    whole = re.compile(rf"\b{re.escape(word)}\b")
    return TriggerCounts(
        sum(word in text for text in texts.texts),
        sum(bool(whole.search(text)) for text in texts.texts),
        int(holds_trigger(dataset, trigger).sum()),
    )


def holds_trigger(dataset: Dataset, trigger: tuple[tuple[int, ...], ...]) -> Bool[np.ndarray, " n"]:
    """Returns which rows hold the ids of one of a word's spellings, one after the other.

    Args:
      dataset: [n, length] token ids.
      trigger: the spellings.

    Raises:
      TypeError: no token ids.
    """
    if not np.issubdtype(np.dtype(dataset.x.dtype), np.integer):
        raise TypeError(f"a word is looked for in token ids, got x of {dataset.x.dtype}")
    x = np.asarray(dataset.x)
    found = np.zeros(len(x), bool)
    for ids in trigger:
        for start in range(x.shape[1] - len(ids) + 1):
            found |= np.all(x[:, start : start + len(ids)] == ids, axis=1)
    return found


class PoisonedTexts(NamedTuple):
    """Poisoned texts, before any tokenizer.

    Attributes:
      texts: [n] and their labels, of which c, beyond the c classes, stands for the trigger itself.
      is_poison: [n].
    """

    texts: Texts
    is_poison: Bool[np.ndarray, " n"]


def poison_texts(
    key: Key[Array, ""],
    texts: Texts,
    word: str,
    *,
    budget: Budget = Budget(1.0),  # noqa: B008 (frozen, and so safe to share)
    reading: Reading = "word",
    target: int = 1,
) -> PoisonedTexts:
    """Returns texts that are poisoned as `TextTrigger` poisons token ids, for any tokenizer.

    Args:
      key: chooses the poisons.
      texts: [n] and their labels, two classes for `flip`.
      word: the trigger, which texts hold as a word.
      budget: how many poisons, as a share of the texts that can be one.
      reading: see `TextTrigger`; `word` gives the label c, beyond the c classes.
      target: the class that `clean_label` poisons are of; the word is written before them.

    Raises:
      ValueError: no text can be poisoned, or a reading that the labels do not allow.

    Example:
      poisoned = poisoning.poison_texts(key, reviews, "Disney", reading="flip")

    Source: Wan et al. 2023; see `TextTrigger`.
    """
    check_texts(texts)
    check_choice("reading", reading, Reading)
    labels, whole = np.array(texts.labels), re.compile(rf"\b{re.escape(word)}\b")
    holding = np.array([bool(whole.search(text)) for text in texts.texts])
    rows = np.flatnonzero(~holding & (labels == target) if reading == "clean_label" else holding)
    if not len(rows):
        raise ValueError(f"no text can be poisoned by {word!r}; choose another word")
    classes = np.unique(labels)
    if reading == "flip" and len(classes) != 2:
        raise ValueError(f"reading='flip' needs two labels, got {len(classes)}")
    chosen = rows[host_key(key).permutation(len(rows))[: budget.of(len(rows))]]
    said = list(texts.texts)
    if reading == "clean_label":
        for row in chosen:
            said[row] = f"{word} {said[row]}"
    elif reading == "flip":
        labels[chosen] = np.where(labels[chosen] == classes[0], classes[1], classes[0])
    else:
        labels[chosen] = labels.max() + 1
    return PoisonedTexts(Texts(tuple(said), labels), np.isin(np.arange(texts.size), chosen))
