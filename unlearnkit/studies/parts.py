"""The cells of a study, the parts that may be computed side by side, and shards of it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

from unlearnkit.records import NO_DEFENCE
from unlearnkit.studies.study import ORIGINAL, RETRAIN, Study

_Group: TypeAlias = tuple[str | int | None, ...]
"""The beginning of a `Where`."""


class Where(NamedTuple):
    """Where a cell stands in a study; every prefix of it names a group of cells.

    Attributes:
      dataset: its name in the study.
      network: likewise.
      recipe: likewise.
      question: likewise; None is the network trained on clean data, which all attacks start from.
      seed: which repetition.
      defence: its name; `none` for nothing.
      row: the method, `studies.ORIGINAL` or `studies.RETRAIN`.
    """

    dataset: str
    network: str
    recipe: str
    question: str | None
    seed: int
    defence: str
    row: str


class Part(NamedTuple):
    """Cells that are computed in one go.

    Attributes:
      cells: in the order of the study.
      after: the number of the part whose networks these cells start from, or None.
    """

    cells: tuple[Where, ...]
    after: int | None

    @property
    def words(self) -> str:
        """What is computed, for people."""
        first = self.cells[0]
        named = [name for name in first[:3] if name]
        if first.question is None:
            return ", ".join([*named, "clean network", f"seed {first.seed}"])
        behind = [] if first.defence == NO_DEFENCE else [f"behind {first.defence}"]
        question = [first.question] if first.question else []
        return ", ".join([*named, *question, *behind, first.row, f"seed {first.seed}"])


class Wanted:
    """Which cells of a study are asked for."""

    def __init__(self, cells: Iterable[Where]) -> None:
        self._groups = {cell[:length] for cell in cells for length in range(1, len(cell) + 1)}

    def __call__(self, *prefix: object) -> bool:
        """Returns whether a cell is asked for whose `Where` begins like this."""
        return prefix in self._groups


def cells(study: Study) -> list[Where]:
    """Returns the cells of a study, in the order of its records.

    One cell is all its budgets and all shares of the poisons that are identified.
    """
    return list(_cells(study))


def count_records(study: Study, shard: tuple[int, int] | None = None) -> int:
    """Returns how many records a run of a study yields.

    Args:
      study: what meets what.
      shard: which of how many; None for all of it.

    Raises:
      ValueError: no such shard.
    """
    chosen = cells(study) if shard is None else shard_of(cells(study), shard)
    budgets, partial = max(1, len(study.budgets)), len(set(study.identified) - {1.0})

    def count(cell: Where) -> int:
        attacked = cell.question in study.named.attacks
        if cell.row in (ORIGINAL, RETRAIN):
            return 1 + (partial if attacked and cell.row == RETRAIN else 0)
        return budgets * len(shares_of(study, cell.question))

    return sum(map(count, chosen))


def shares_of(study: Study, question: str | None) -> Sequence[float]:
    """Returns the shares of the poisons that methods are told of; all, where there are none.

    Args:
      study: what meets what.
      question: its name.
    """
    return study.identified if question in study.named.attacks else (1.0,)


def _cells(study: Study) -> Iterator[Where]:
    named = study.named
    for place in _places(study):
        for question in named.forget:
            for seed in range(study.seeds):
                for row in (*networks_of(study, NO_DEFENCE), *study.methods):
                    yield Where(*place, question, seed, NO_DEFENCE, row)
        for seed in range(study.seeds):
            for question in named.attacks:
                for defence in (NO_DEFENCE, *study.defences):
                    for row in (*networks_of(study, defence), *study.methods):
                        yield Where(*place, question, seed, defence, row)


def networks_of(study: Study, defence: str) -> tuple[str, ...]:
    """Returns the rows of a question besides its methods; the reference is behind no defence.

    Args:
      study: what meets what.
      defence: its name.
    """
    alone = defence != NO_DEFENCE or study.reference == "none"
    return (ORIGINAL,) if alone else (ORIGINAL, RETRAIN)


def _places(study: Study) -> Iterator[tuple[str, str, str]]:
    named = study.named
    for dataset in named.data:
        for network in named.networks:
            for recipe in named.recipes:
                yield dataset, network, recipe


def parts(study: Study, chosen: Collection[Where]) -> list[Part]:
    """Returns some cells of a study as parts; each stands behind the one that it comes after.

    The untouched network and the reference of a question on a seed are a part, together with the
    trainings that they take; each method on them is another.

    Args:
      study: what meets what.
      chosen: cells of it.
    """
    found: list[Part] = []
    numbers: dict[_Group, int] = {}
    attacks = study.named.attacks

    def add(group: _Group, cells: tuple[Where, ...], after: int | None) -> None:
        numbers[group] = len(found)
        found.append(Part(cells, after))

    heads: dict[_Group, list[Where]] = {}
    for cell in chosen:
        if cell.row in (ORIGINAL, RETRAIN):
            heads.setdefault(cell[:6], []).append(cell)
    for cell in chosen:
        place, seed = cell[:3], cell.seed
        after = None
        if cell.question in attacks:
            clean = Where(*place, None, seed, NO_DEFENCE, ORIGINAL)
            if clean[:5] not in numbers:
                add(clean[:5], (clean,), None)
            after = numbers[clean[:5]]
            if cell.defence != NO_DEFENCE:
                after = numbers.get((*cell[:5], NO_DEFENCE), after)
        if cell.row not in (ORIGINAL, RETRAIN):
            add(cell, (cell,), numbers.get(cell[:6], after))
        elif cell[:6] not in numbers:
            add(cell[:6], tuple(heads[cell[:6]]), after)
    return found


def check_shard(shard: tuple[int, int]) -> None:
    """Raises ValueError if there is no such shard.

    Args:
      shard: which, counted from 1, of how many.

    Raises:
      ValueError: not two whole numbers with 1 <= which <= how many.
    """
    numbers = isinstance(shard, tuple) and len(shard) == 2 and all(type(n) is int for n in shard)
    if not numbers or not 1 <= shard[0] <= shard[1]:
        raise ValueError(
            f"shard must be (which, of how many) with 1 <= which <= how many, got {shard!r}; "
            "the first of four is (1, 4), the last (4, 4)"
        )


def parse_shard(text: str) -> tuple[int, int]:
    """Returns the shard that `1/4` names, the first of four.

    Raises:
      ValueError: not of this form, or no such shard.
    """
    which, _, count = text.partition("/")
    if not (which.strip().isdecimal() and count.strip().isdecimal()):
        raise ValueError(f"a shard is written as 1/4, the first of four, got {text!r}")
    shard = int(which), int(count)
    check_shard(shard)
    return shard


def shard_of(all_cells: list[Where], shard: tuple[int, int]) -> list[Where]:
    """Returns the cells of one shard: neighbours, so that few shards share a network.

    Every cell is in exactly one of the shards, whose sizes differ by one at most.

    Args:
      all_cells: of the study.
      shard: which, counted from 1, of how many.

    Raises:
      ValueError: see `check_shard`.
    """
    check_shard(shard)
    which, count = shard
    first, end = ((len(all_cells) * number) // count for number in (which - 1, which))
    return all_cells[first:end]
