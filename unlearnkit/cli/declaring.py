"""A study that is declared by options, as the text of the file that would declare it."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence

_PLAIN = re.compile(r"[A-Za-z0-9_-]+")


def declare(
    *,
    data: Sequence[str],
    networks: Sequence[str],
    recipe: Sequence[str],
    forget: Sequence[str],
    parts: Mapping[str, Sequence[str]],
    numbers: Mapping[str, object],
) -> str:
    """Returns the TOML text of a study.

    An entry is `name`, or `name:setting=value,setting=value`, with values as TOML has them; a value
    that is no TOML is text, and a dotted setting one within a table.

    Args:
      data: datasets.
      networks: by name.
      recipe: `setting=value` of the training.
      forget: requests in their short form, which are their own names.
      parts: entries of attacks, defences, methods and audits.
      numbers: seeds, seed, budgets, primary, correction.

    Raises:
      ValueError: an entry that cannot be read, or one that stands there twice.

    Example:
      declare(
          data=["digits"],
          networks=["mlp"],
          recipe=["epochs=40"],
          forget=["random:0.1"],
          parts={"methods": ["fine_tune:epochs=4"]},
          numbers={"seeds": 3},
      )
    """
    said: dict[str, object] = dict(numbers)
    for table, entries in (("data", data), ("networks", networks)):
        said[table] = _entries(table, entries)
    said["recipes"] = {"recipe": read_settings("recipe", recipe)}
    said["forget"] = {request: request for request in forget}
    said |= {table: _entries(table, entries) for table, entries in parts.items()}
    return to_toml({name: value for name, value in said.items() if value not in ({}, None)})


def to_toml(said: Mapping[str, object]) -> str:
    """Returns numbers and text, then tables with what is in them, as a TOML text."""
    plain = {name: value for name, value in said.items() if not isinstance(value, Mapping)}
    lines = [f"{_name(name)} = {_value(value)}" for name, value in plain.items()]
    for table, entries in said.items():
        if not isinstance(entries, Mapping):
            continue
        if any(not isinstance(entry, Mapping) for entry in entries.values()):
            lines.append(f"[{_name(table)}]")
            lines += [f"{_name(name)} = {_value(value)}" for name, value in entries.items()]
            continue
        for name, entry in entries.items():
            lines.append(f"[{_name(table)}.{_name(name)}]")
            lines += [f"{_name(setting)} = {_value(value)}" for setting, value in entry.items()]
    return "\n".join(lines) + "\n"


def _entries(table: str, entries: Iterable[str]) -> dict[str, dict[str, object]]:
    """Returns entries by name; one that is there already is told apart by its settings."""
    made: dict[str, dict[str, object]] = {}
    for text in entries:
        name, settings = _name_and_settings(text, bare_modules=table == "networks")
        found = read_settings(f"{table} {name}", split(settings))
        label = name if name not in made else f"{name} ({settings})"
        if not name and "use" not in found:
            raise ValueError(f"--{table} lacks a name, got {text!r}")
        if label in made:
            raise ValueError(f"--{table} has {text!r} twice")
        if label != name:
            found = {"use": name, **found}
        made[label] = found
    return made


def read_entry(what: str, text: str) -> tuple[str, dict[str, object]]:
    """Returns the name and the settings of an entry `name:setting=value,setting=value`.

    Args:
      what: it is, for the message.
      text: of the entry; its name may be `package.module:factory`.

    Raises:
      ValueError: settings that cannot be read.
    """
    name, settings = _name_and_settings(text, bare_modules=True)
    return name, read_settings(f"{what} {name}", split(settings))


def _name_and_settings(text: str, *, bare_modules: bool) -> tuple[str, str]:
    """Returns what stands before the settings; `package.module:factory` is one name.

    Without `bare_modules` it needs the dot, so that `scrub:epochs` is a setting without a value.
    """
    name, _, rest = text.partition(":")
    factory, _, settings = rest.partition(":")
    is_factory = factory.isidentifier() and (bare_modules or "." in name)
    return (f"{name}:{factory}", settings) if is_factory else (name, rest)


def read_settings(where: str, pairs: Iterable[str]) -> dict[str, object]:
    """Returns the table of `name=value` pairs; a dotted name is one within a table of its own.

    Args:
      where: what messages call it.
      pairs: with values as TOML has them; what is no TOML is text.

    Raises:
      ValueError: a pair that is none, or a name that is both a value and a table.
    """
    made: dict[str, object] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name.strip():
            raise ValueError(f"{where}: a setting must read name=value, got {pair!r}")
        *path, last = name.strip().split(".")
        table = made
        for part in path:
            inner = table.setdefault(part, {})
            if not isinstance(inner, dict):
                raise ValueError(f"{where}: {part} is a value already, so it has no {last}")
            table = inner
        table[last] = _read(text.strip())
    return made


def _read(text: str) -> object:
    try:
        value: object = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    return value


def split(text: str) -> list[str]:
    """Returns the parts between commas that stand in no bracket and no quotation marks."""
    parts, depth, quote = [""], 0, ""
    for one in text:
        if quote:
            quote = "" if one == quote else quote
        elif one in "\"'":
            quote = one
        elif one in "[{(":
            depth += 1
        elif one in "]})":
            depth -= 1
        elif one == "," and not depth:
            parts.append("")
            continue
        parts[-1] += one
    return [part for part in parts if part.strip()]


def _name(name: str) -> str:
    return name if _PLAIN.fullmatch(name) else json.dumps(name, ensure_ascii=False)


def _value(value: object) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_name(n)} = {_value(v)}" for n, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return repr(value)
