"""Names of what a study is made of: this library's, and those that other packages add."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar, cast

T = TypeVar("T")


def tell_known(name: str, known: Collection[str]) -> str:
    """Returns which names are known, and which of them may be meant by an unknown one."""
    near = difflib.get_close_matches(name, known, n=3)
    meant = f"; did you mean {' or '.join(near)}?" if near else ""
    return f"known: {', '.join(known)}{meant}"


class Registry(Mapping[str, Callable[..., T]], Generic[T]):
    """The classes, or other factories, of one kind by name.

    As a mapping it holds what this library has. Other packages add to it by an entry point in the
    group `unlearnkit.<kind>s`; these are looked up, and their code imported, only where a name is
    asked for that the library does not have.

    Example:
      # pyproject.toml of another package, after which unlearning.create("ours") finds it
      [project.entry-points."unlearnkit.unlearners"]
      ours = "our_package:OurMethod"
    """

    def __init__(self, kind: str, own: Mapping[str, Callable[..., T]]) -> None:
        """Makes a registry.

        Args:
          kind: in the singular, as `unlearner`.
          own: what this library has.
        """
        self.kind = kind
        self._own = dict(own)

    @property
    def group(self) -> str:
        """The group of entry points by which other packages add to it."""
        return f"unlearnkit.{self.kind}s"

    def __getitem__(self, name: str) -> Callable[..., T]:
        return self._own[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._own)

    def __len__(self) -> int:
        return len(self._own)

    def known(self) -> tuple[str, ...]:
        """Returns all names, those of other packages last."""
        return tuple(dict.fromkeys([*self._own, *(point.name for point in self._added())]))

    def find(self, name: str) -> Callable[..., T]:
        """Returns the class of a name.

        Raises:
          ValueError: nobody knows the name; the nearest ones are told, or what another package
            registered cannot be imported or called.
        """
        if name in self._own:
            return self._own[name]
        for point in self._added():
            if point.name == name:
                return self._load(point)
        raise ValueError(f"unknown {self.kind} {name!r}; {tell_known(name, self.known())}")

    def create(self, name: str, **settings: Any) -> T:
        """Returns the named one with these settings.

        Raises:
          ValueError: an unknown name, or a setting outside its range.
          TypeError: a setting that it does not have, or lacks.
        """
        return self.find(name)(**settings)

    def _added(self) -> tuple[EntryPoint, ...]:
        return tuple(entry_points(group=self.group))

    def _load(self, point: EntryPoint) -> Callable[..., T]:
        try:
            found = point.load()
        except Exception as error:  # whatever another package's import raises
            raise ValueError(
                f"{self.kind} {point.name!r} is registered as {point.value}, which cannot be "
                f"imported: {type(error).__name__}: {error}"
            ) from error
        if not callable(found):
            raise ValueError(
                f"{self.kind} {point.name!r} is registered as {point.value}, which is no class "
                f"but {found!r:.100}"
            )
        return cast(Callable[..., T], found)
