"""Which array of a file is which of a network's."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple, TypeAlias

import jax
import numpy as np

from unlearnkit.base import Model
from unlearnkit.io.tensor_files import WeightsError
from unlearnkit.validation import named_leaves
from unlearnkit.weights.containers import Container, Place, told
from unlearnkit.weights.flattening import flattened_maps
from unlearnkit.weights.layouts import Layout, layout_of
from unlearnkit.weights.names import (
    BOOKKEEPING,
    KINDS,
    RENAMES,
    UNUSED,
    Tokens,
    is_averaged,
    rename,
    split_name,
    without_collections,
)

_DEEPEST = 4
"""How many parts a prefix, as `state_dict/model._orig_mod`, may have."""
_Key: TypeAlias = tuple[Tokens, str]


class Entry(NamedTuple):
    """An array of the network that the file has.

    Attributes:
      name: in the network, as `params/stem/conv/kernel`.
      place: in the file.
      layout: how the one becomes the other.
    """

    name: str
    place: Place
    layout: Layout


class Misfit(NamedTuple):
    """An array that the file lacks, or has too much, or of another shape.

    Attributes:
      kind: which of the three.
      name: in the network if it is missing, in the file otherwise.
      says: what is wrong, in words.
    """

    kind: Literal["missing", "extra", "shape"]
    name: str
    says: str


class Fit(NamedTuple):
    """How a file and a network fit.

    Attributes:
      entries: what fits.
      misfits: what does not; empty where the whole file fits the whole network.
      notes: what was left out or chosen, in words.
    """

    entries: tuple[Entry, ...]
    misfits: tuple[Misfit, ...]
    notes: tuple[str, ...]


class _Target(NamedTuple):
    """An array of the network."""

    name: str
    leaf: str
    shape: tuple[int, ...]
    dtype: np.dtype


def fit(
    container: Container,
    model: Model,
    *,
    part: str | None = None,
    names: Mapping[str, str] | None = None,
    by_order: bool = False,
) -> Fit:
    """Returns which array of a file is which of the network's, and which have no partner.

    Args:
      container: what the file holds.
      model: the network.
      part: the beginning of the names that count, as `state_dict_ema`; None takes the beginning
        after which most names fit.
      names: beginnings of names in the file, with what the network calls them instead.
      by_order: whether layers whose names tell nothing are taken in the order in which they stand.

    Raises:
      WeightsError: several parts of the file fit equally well, or none is called `part`.
    """
    targets = _targets(model)
    index = {_key(without_collections(target.name)): target for target in targets.values()}
    if len(index) < len(targets):
        index = {_key(target.name): target for target in targets.values()}
    renames = [(f"^{re.escape(a)}(?=[./]|$)", b) for a, b in (names or {}).items()]
    renames += RENAMES.get(model.origin[0], ()) if model.origin else ()
    spelt = {place: _spelt(place) for place in container.arrays}
    prefix, notes = _choose_prefix(spelt.values(), index, renames, part)
    inside = {
        place: parts[len(prefix) :]
        for place, parts in spelt.items()
        if parts[: len(prefix)] == prefix
    }
    notes += _tell_outside([place for place in spelt if place not in inside])
    found, extra = _by_name(inside, index, targets, renames)
    if by_order:
        more, extra = _by_order(extra, found, targets, container)
        notes += [f"{len(more)} arrays matched by their order"] if more else []
        found |= more
    extra, unused = _set_aside(extra)
    notes += unused
    entries, misfits = _lay_out(found, targets, container, model)
    notes += _tell_types(entries, targets, container)
    misfits += [
        Misfit("missing", name, f"the network has {list(target.shape)}")
        for name, target in targets.items()
        if name not in found
    ]
    misfits += [
        Misfit("extra", told(place), f"the file has {list(container.arrays[place].shape)}")
        for place in extra
    ]
    return Fit(tuple(entries), tuple(misfits), (*container.notes, *notes))


def _targets(model: Model) -> dict[str, _Target]:
    shapes = named_leaves(jax.eval_shape(model.init, jax.random.key(0)))
    paths = ["/".join(path) for group in model.layers for path in group]

    def place(name: str) -> int:
        """Returns which layer an array belongs to: a tree of JAX is in the order of its names."""
        module = without_collections(name).rpartition("/")[0]
        return paths.index(module) if module in paths else len(paths)

    return {
        name: _Target(
            name, name.split("/")[-1], tuple(shapes[name].shape), np.dtype(shapes[name].dtype)
        )
        for name in sorted(shapes, key=place)
    }


def _spelt(place: Place) -> Tokens:
    """Returns the parts of a place between dots and slashes; `_orig_mod` of compilation goes."""
    parts = re.split(r"[/.]", "/".join(place))
    return tuple(part for part in parts if part != "_orig_mod")


def _key(name: str) -> _Key:
    """Returns what two names of one array share."""
    *modules, leaf = re.split(r"[/.]", name)
    return split_name("/".join(modules)), KINDS.get(leaf, leaf)


def _keys(parts: Tokens, renames: Sequence[tuple[str, str]]) -> tuple[_Key, ...]:
    """Returns what an array of the file may be: its own name, and what it is renamed to."""
    name = ".".join(parts)
    plain = without_collections(name)
    return tuple(dict.fromkeys(_key(n) for n in (rename(plain, renames), plain, name)))


def _choose_prefix(
    spelt: Iterable[Tokens],
    index: Mapping[_Key, _Target],
    renames: Sequence[tuple[str, str]],
    part: str | None,
) -> tuple[Tokens, list[str]]:
    """Returns the beginning of the names after which most of them are the network's."""
    names = list(spelt)
    asked = () if part is None else tuple(re.split(r"[/.]", part))
    names = [name for name in names if name[: len(asked)] == asked]
    if not names:
        raise WeightsError(f"no array of the file is called {part}…" if part else "no array at all")
    counts: Counter[Tokens] = Counter()
    for name in names:
        for length in range(len(asked), min(len(asked) + _DEEPEST, len(name) - 1) + 1):
            if any(key in index for key in _keys(name[length:], renames)):
                counts[name[:length]] += 1
    if not counts:
        return asked, []
    most = max(counts.values())
    best = [prefix for prefix, count in counts.items() if count == most]
    plain = [prefix for prefix in best if not is_averaged(prefix)] or best
    shortest = min(len(prefix) for prefix in plain)
    chosen = sorted(prefix for prefix in plain if len(prefix) == shortest)
    if len(chosen) > 1:
        raise WeightsError(
            f"{' and '.join('.'.join(prefix) for prefix in chosen)} fit equally well; "
            f"say which with part={'.'.join(chosen[0])!r}"
        )
    notes = [f"names begin with {'.'.join(chosen[0])}"] if chosen[0] else []
    others = [prefix for prefix in best if is_averaged(prefix) and prefix != chosen[0]]
    if others:
        notes.append(
            f"{'.'.join(others[0])} would fit as well; part={'.'.join(others[0])!r} takes it"
        )
    return chosen[0], notes


def _tell_outside(places: Sequence[Place]) -> list[str]:
    firsts = Counter(re.split(r"[/.]", told(place))[0] for place in places)
    return [f"not used: {count} arrays of {first}" for first, count in firsts.items()]


def _by_name(
    inside: Mapping[Place, Tokens],
    index: Mapping[_Key, _Target],
    targets: Mapping[str, _Target],
    renames: Sequence[tuple[str, str]],
) -> tuple[dict[str, Place], list[Place]]:
    """Returns the places of the network's arrays by name, and those of all others."""
    found: dict[str, Place] = {}
    extra = []
    for place, parts in inside.items():
        exact = "/".join(parts)
        if exact in targets:
            name = exact
        else:
            keys = [key for key in _keys(parts, renames) if key in index]
            name = index[keys[0]].name if keys else ""
        if not name or name in found:
            extra.append(place)
        else:
            found[name] = place
    return found, extra


def _by_order(
    extra: Sequence[Place],
    found: Mapping[str, Place],
    targets: Mapping[str, _Target],
    container: Container,
) -> tuple[dict[str, Place], list[Place]]:
    """Returns the arrays of each kind in the order of the file, where shapes allow it.

    Safetensors are sorted by name in their files, so that numbers in names decide there.

    Weights are matched with weights, biases with biases, running means with running means. An array
    whose shape does not fit the next one of its kind ends the matching of that kind.
    """
    more: dict[str, Place] = {}
    waiting = [name for name in targets if name not in found]
    by_name = container.format in ("safetensors", "unlearnkit")
    for place in sorted(extra, key=_numbered) if by_name else extra:
        leaf = re.split(r"[/.]", told(place))[-1]
        kind = KINDS.get(leaf)
        name = next((n for n in waiting if KINDS.get(targets[n].leaf) == kind), None)
        if kind is None or name is None:
            continue
        shape = tuple(container.arrays[place].shape)
        try:
            layout_of(leaf, shape, targets[name].leaf, targets[name].shape)
        except WeightsError:
            waiting = [n for n in waiting if KINDS.get(targets[n].leaf) != kind]
            continue
        more[name] = place
        waiting.remove(name)
    taken = set(more.values())
    return more, [place for place in extra if place not in taken]


def _numbered(place: Place) -> list[tuple[int, str]]:
    """Returns what sorts `10.weight` after `9.weight`."""
    return [
        (int(part), "") if part.isdecimal() else (-1, part)
        for part in re.split(r"(\d+)", told(place))
    ]


def _set_aside(extra: Sequence[Place]) -> tuple[list[Place], list[str]]:
    """Returns what really has no place, and what is said of the rest."""
    left, counts = [], Counter[str]()
    for place in extra:
        parts = re.split(r"[/.]", told(place))
        if parts[-1] in UNUSED:
            counts[parts[-1]] += 1
        elif parts[0] in BOOKKEEPING:
            counts[parts[0]] += 1
        else:
            left.append(place)
    return left, [f"not used: {count} arrays {name}" for name, count in counts.items()]


def _lay_out(
    found: Mapping[str, Place],
    targets: Mapping[str, _Target],
    container: Container,
    model: Model,
) -> tuple[list[Entry], list[Misfit]]:
    entries: list[Entry] = []
    misfits: list[Misfit] = []
    for name, place in found.items():
        array, target = container.arrays[place], targets[name]
        leaf = re.split(r"[/.]", told(place))[-1]
        try:
            _check_type(array.dtype, target.dtype)
            layout = layout_of(leaf, tuple(array.shape), target.leaf, target.shape)
        except WeightsError as error:
            misfits.append(Misfit("shape", told(place), f"{name}: {error}"))
            continue
        entries.append(Entry(name, place, layout))
    if any(len(entry.layout.axes or ()) == 2 for entry in entries):
        maps = flattened_maps(model)
        entries = [_with_map(entry, maps) for entry in entries]
    return entries, misfits


def _tell_types(
    entries: Sequence[Entry], targets: Mapping[str, _Target], container: Container
) -> list[str]:
    kinds = Counter(
        (container.arrays[entry.place].dtype, targets[entry.name].dtype) for entry in entries
    )
    return [
        f"{count} arrays are {stored.name} in the file and {used.name} in the network"
        for (stored, used), count in kinds.items()
        if stored != used
    ]


def _with_map(entry: Entry, maps: Mapping[str, tuple[int, int, int]]) -> Entry:
    if len(entry.layout.axes or ()) != 2 or entry.name not in maps:
        return entry
    return entry._replace(layout=Layout(entry.layout.axes, maps[entry.name]))


def _check_type(given: np.dtype, wanted: np.dtype) -> None:
    kinds = [
        "float" if jax.numpy.issubdtype(dtype, np.floating) else "other"
        for dtype in (given, wanted)
    ]
    if kinds[0] != kinds[1]:
        raise WeightsError(f"the file has {given.name}; the network has {wanted.name}")
