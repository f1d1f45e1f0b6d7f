"""A study as one TOML file."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import os
import tomllib
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from unlearnkit import auditing, data, defences, forging, models, poisoning, unlearning
from unlearnkit.base import Attack, Forger, Tokens, Variables
from unlearnkit.registry import Registry, tell_known
from unlearnkit.studies.significance import Correction
from unlearnkit.studies.study import Pair, Study
from unlearnkit.training import CheckpointError, Recipe, load_variables
from unlearnkit.validation import check_choice

_KINDS: Mapping[str, Registry[Any]] = {
    "attacks": poisoning.ATTACKS,
    "defences": defences.DEFENCES,
    "methods": unlearning.UNLEARNERS,
    "audits": auditing.AUDITS,
}
_PARTS: Mapping[type, Registry[Any]] = {Forger: forging.FORGERS, Attack: poisoning.ATTACKS}
"""What a setting may hold that is made by a registered name."""
_TABLES = ("data", "networks", "recipes", "forget", *_KINDS)
_WEIGHTS = ("start", "original")
"""Files of weights that a network may name."""
_READING = tuple(field.name for field in dataclasses.fields(data.Reading))
_DATA = (
    *("name", "data_dir", "download", "normalisation", "tokens", "train_rows", "test_rows"),
    *_READING,
)
_NUMBERS = (
    "seeds", "seed", "budgets", "identified", "primary", "correction", "paired", "reference"
)  # fmt: skip


T = TypeVar("T")


class Declared(NamedTuple):
    """What a file says.

    Attributes:
      study: what meets what.
      seed: of the key that decides everything.
      primary: the metric that was chosen to judge by, or None.
      correction: of its p-values for the number of cells.
    """

    study: Study
    seed: int
    primary: str | None
    correction: Correction


class StudyFileError(ValueError):
    """A study's file does not say what a study needs; the message says where."""


def read_study(path: str | os.PathLike[str]) -> Declared:
    """Returns the study that a TOML file declares, its data loaded.

    Each table names its entries. An entry is made by the registered class of its own name, or of
    the one that `use` gives; all else in it are the class's settings, tables within it settings of
    their own, and "none" is None. `grid` gives lists of settings: the entry becomes one for each
    combination, named after it::

        seeds = 3
        seed = 0
        budgets = [0.05, 0.1]            # shares of Retrain; leave out to run methods as given
        identified = [0.5, 1.0]          # shares of the poisons that methods are told of
        primary = "average_gap"          # the metric of the verdicts
        correction = "holm"
        paired = true                    # one key trains all networks of a seed
        reference = "clean"              # of attacks; "retrained"; of forget requests "none"

        [data.digits]                    # data_dir, normalisation, train_rows = 500; of token ids
                                         # tokens = {vocabulary = 1000, pad = 0}; of own files
                                         # resize = 32, label = "class": see `data.Reading`
        [networks.mlp]                   # start = "FILE" of `training.save_variables`, original too
        [recipes.plain]
        epochs = 60
        [forget]                         # by name, in the short form of the command line
        tenth = "random:0.1"
        [attacks.gaussian]
        noise_std = 0.5
        [attacks.control]                # control: noise of the norms of the attack's poisons
        use = "gradient_canceling"
        control = true
        [defences.sever]
        [methods.retrain]
        [methods.tuned]
        use = "fine_tune"
        grid = {learning_rate = [0.01, 0.1]}
        [audits.klom]
        count = 16
        [audits.forged_forgetting]       # a setting that is a method itself: its name, or a table
        forger = {use = "swap", points = 500}

    Args:
      path: of the file.

    Raises:
      OSError: the file cannot be read.
      StudyFileError: not TOML; an unknown or a missing field, with the place and the nearest known
        ones; a value that a class refuses.

    Example:
      declared = studies.read_study("study.toml")
      records = list(studies.run(declared.study, jax.random.key(declared.seed)))
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise StudyFileError(f"{path} is not TOML: {error}") from error
    return parse_study(text, name=str(path))


def parse_study(text: str, *, name: str = "the text") -> Declared:
    """Returns the study that a TOML text declares, see `read_study`.

    Args:
      text: as it stands in the file.
      name: of the text, for errors.

    Raises:
      StudyFileError: see `read_study`.
    """
    try:
        said = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise StudyFileError(f"{name} is not TOML: {error}") from error
    _check_names("the file", said, (*_TABLES, *_NUMBERS))
    for table in _TABLES:
        if not isinstance(said.get(table, {}), dict):
            raise StudyFileError(f"{table} must be a table, got {said[table]!r}")
    for table in ("data", "networks", "recipes"):
        if not said.get(table):
            raise StudyFileError(f"the file has no [{table}.NAME]; a study needs one")
    pairs = {label: read_pair(label, entry) for label, entry in said["data"].items()}
    shape = _shape(pairs)
    correction = said.get("correction", "holm")
    _told("correction", lambda: check_choice("correction", correction, Correction))
    _check_numbers(said)
    seed = said.get("seed", 0)
    if type(seed) is not int or not 0 <= seed < 2**32:
        raise StudyFileError(f"seed must be an integer in 0 … {2**32 - 1}, got {seed!r}")
    parts: dict[str, Any] = {
        "data": pairs,
        "networks": {
            name: _network(name, entry, shape) for name, entry in said["networks"].items()
        },
        **{part: _weights(part, said["networks"]) for part in _WEIGHTS},
        "recipes": {
            name: make_part(f"recipes.{name}", Recipe, _settings(f"recipes.{name}", entry))
            for name, entry in said["recipes"].items()
        },
        "forget": {
            name: _told(f"forget.{name}", partial(data.parse_forget, str(text)))
            for name, text in said.get("forget", {}).items()
        },
        **{kind: _entries(kind, said.get(kind, {})) for kind in _KINDS},
        "budgets": tuple(said.get("budgets", ())),
        "identified": tuple(said.get("identified", (1.0,))),
        "seeds": said.get("seeds", 1),
        "paired": said.get("paired", False),
        "reference": said.get("reference", "retrained"),
    }
    study = _told("the file", lambda: Study(**parts))
    return Declared(study, seed, said.get("primary"), correction)


def _check_numbers(said: Mapping[str, Any]) -> None:
    seeds, primary = said.get("seeds", 1), said.get("primary", "")
    if type(seeds) is not int:
        raise StudyFileError(f"seeds must be a whole number, got {seeds!r}")
    for name in ("budgets", "identified"):
        given = said.get(name, [])
        if not isinstance(given, list) or not all(type(n) in (int, float) for n in given):
            raise StudyFileError(f"{name} must be a list of numbers, got {given!r}")
    if type(said.get("paired", False)) is not bool:
        raise StudyFileError(f"paired must be true or false, got {said['paired']!r}")
    if not isinstance(primary, str):
        raise StudyFileError(f"primary must be the name of a metric, got {primary!r}")


def read_pair(name: str, entry: object) -> Pair:
    """Returns the sets of a `[data.NAME]` table.

    Args:
      name: of the table, and of the dataset where `name` in it says no other.
      entry: the table.

    Raises:
      StudyFileError: see `read_study`.
    """
    where = f"data.{name}"
    settings = _settings(where, entry)
    _check_names(where, settings, _DATA)
    source = settings.pop("name", name)
    rows = {split: settings.pop(f"{split}_rows", None) for split in ("train", "test")}
    if "tokens" in settings:
        settings["normalisation"] = make_part(f"{where}.tokens", Tokens, settings.pop("tokens"))
    said = {field: settings.pop(field) for field in _READING if field in settings}
    reading = make_part(where, data.Reading, said)
    options = {"normalisation": "standard", "reading": reading, **settings}

    def load(split: str) -> Any:
        loaded = data.load(source, split=split, **options)
        count = rows[split]
        if count is not None and not 1 <= count <= loaded.size:
            raise ValueError(f"{split}_rows must be in 1 … {loaded.size}, got {count}")
        return loaded if count is None else loaded.take(range(count))

    return _told(where, lambda: Pair(load("train"), load("test")))


def read_class_names(name: str, entry: object) -> tuple[str, ...]:
    """Returns the names of the classes of a `[data.NAME]` table; none where they are numbers.

    Args:
      name: see `read_pair`.
      entry: see `read_pair`.
    """
    settings = _settings(f"data.{name}", entry)
    if "tokens" in settings:
        return ()
    said = {field: settings[field] for field in _READING if field in settings}
    places = {field: settings[field] for field in ("data_dir", "download") if field in settings}
    reading = make_part(f"data.{name}", data.Reading, said)
    found = data.describe(settings.get("name", name), reading=reading, **places).class_names
    return () if found == tuple(map(str, range(len(found)))) else found


def _shape(pairs: Mapping[str, Pair]) -> dict[str, Any]:
    """Returns what networks must fit: all datasets of a study have one shape."""
    shapes = {name: tuple(pair.train.x.shape[1:]) for name, pair in pairs.items()}
    if len(set(shapes.values())) > 1:
        raise StudyFileError(
            f"datasets of one study must have examples of one shape, got {shapes}; "
            "declare a study for each"
        )
    classes = max(int(pair.train.y.max()) + 1 for pair in pairs.values())
    return {"input_shape": next(iter(shapes.values())), "n_classes": classes}


def _network(name: str, entry: Any, shape: Mapping[str, Any]) -> Any:
    where = f"networks.{name}"
    settings = _settings(where, entry)
    used = settings.pop("use", name)
    for part in _WEIGHTS:
        settings.pop(part, None)
    return _told(where, lambda: models.create(used, **{**shape, **settings}))


def _weights(part: str, networks: Mapping[str, Any]) -> dict[str, Variables]:
    """Returns the weights that networks begin with, or that are to forget."""
    return {name: _read(part, name, entry) for name, entry in networks.items() if part in entry}


def _read(part: str, name: str, entry: Mapping[str, object]) -> Variables:
    where, path = f"networks.{name}.{part}", entry[part]
    if not isinstance(path, str):
        raise StudyFileError(f"{where} must be the path of a file, got {path!r}")
    try:
        return load_variables(path)
    except (OSError, CheckpointError) as error:
        raise StudyFileError(f"{where}: {error}") from error


def _entries(kind: str, table: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the entries of a kind by name, a grid as one for each combination."""
    made = {}
    for name, entry in table.items():
        where = f"{kind}.{name}"
        settings = _settings(where, entry)
        used, grid = settings.pop("use", name), settings.pop("grid", {})
        control = settings.pop("control", False) if kind == "attacks" else False
        if type(control) is not bool:
            raise StudyFileError(f"{where}.control must be true or false, got {control!r}")
        found = _told(where, partial(_KINDS[kind].find, used))
        if not isinstance(grid, dict) or not all(isinstance(v, list) and v for v in grid.values()):
            raise StudyFileError(f"{where}.grid must give lists of settings, got {grid!r}")
        for chosen in itertools.product(*grid.values()):
            varied = dict(zip(grid, chosen, strict=True))
            label = ", ".join(f"{n}={v}" for n, v in varied.items())
            one = make_part(where, found, {**settings, **varied})
            made[f"{name} ({label})" if label else name] = (
                poisoning.SameNormControl(one) if control else one
            )
    return made


def make_part(where: str, factory: Callable[..., Any], settings: Mapping[str, Any]) -> Any:
    """Returns what a class makes of settings; tables become the classes of their fields.

    Args:
      where: of the file, for messages.
      factory: the class.
      settings: of a table.

    Raises:
      StudyFileError: an unknown field, or a value that the class refuses.
    """
    taken = inspect.signature(factory).parameters
    open_ended = any(p.kind is p.VAR_KEYWORD for p in taken.values())
    if not open_ended:
        _check_names(where, settings, taken)
    hints = _hints(factory)
    ready = {
        name: _value(f"{where}.{name}", value, hints.get(name)) for name, value in settings.items()
    }
    return _told(where, lambda: factory(**ready))


def _value(where: str, value: Any, hint: Any) -> Any:
    if value == "none" and type(None) in typing.get_args(hint):
        return None
    if isinstance(value, dict) and typing.get_origin(hint) is dict:
        _, part = typing.get_args(hint)
        return {name: _value(f"{where}.{name}", one, part) for name, one in value.items()}
    for contract, registry in _PARTS.items():
        if hint is contract or contract in typing.get_args(hint):
            settings = {"use": value} if isinstance(value, str) else _settings(where, value)
            used = settings.pop("use", None)
            if not isinstance(used, str):
                raise StudyFileError(f"{where} needs use, the name of a {registry.kind}")
            return make_part(where, _told(where, partial(registry.find, used)), settings)
    if isinstance(value, dict):
        classes = [c for c in _classes(hint) if dataclasses.is_dataclass(c) or _is_record(c)]
        if not classes:
            return {name: _value(f"{where}.{name}", one, None) for name, one in value.items()}
        return make_part(where, classes[0], value)
    if isinstance(value, list):
        return tuple(_value(f"{where}[{i}]", part, hint) for i, part in enumerate(value))
    return value


def _classes(hint: Any) -> Iterable[type]:
    """Yields the classes that a field may hold."""
    if isinstance(hint, type) and not isinstance(hint, types.GenericAlias):
        yield hint
    for part in typing.get_args(hint):
        yield from _classes(part)


def _is_record(kind: type) -> bool:
    return issubclass(kind, tuple) and hasattr(kind, "_fields")


def _hints(factory: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(factory)
    except (NameError, TypeError):
        return {}


def _settings(where: str, entry: Any) -> dict[str, Any]:
    if not isinstance(entry, dict):
        raise StudyFileError(f"{where} must be a table of settings, got {entry!r}")
    return dict(entry)


def _check_names(where: str, said: Iterable[str], known: Iterable[str]) -> None:
    names = list(known)
    for name in said:
        if name not in names:
            raise StudyFileError(
                f"{where} has the unknown field {name!r}; {tell_known(name, names)}"
            )


def _told(where: str, make: Callable[[], T]) -> T:
    """Returns what is made; an error says in which place of the file."""
    try:
        return make()
    except StudyFileError:
        raise
    except (TypeError, ValueError) as error:
        raise StudyFileError(f"{where}: {error}") from error
