"""`unlearnkit inspect`: what of a file of weights fits a network, and what does not."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from unlearnkit.cli.interruption import Interruption
from unlearnkit.io.text import escaped

if TYPE_CHECKING:
    from unlearnkit.base import Model
    from unlearnkit.weights import Container, Fit

_FITS, _DOES_NOT = 0, 1


@dataclasses.dataclass(frozen=True)
class Inspect:
    """Shows what a file of weights holds, and what of it fits a network.

    Our checkpoints, safetensors, .npz, flax's msgpack, orbax folders and PyTorch's state dicts are
    read. Exit code: 0 all fits, or no network was named, 1 something does not, 2 nothing could be
    read.

    Attributes:
      file: of the weights, or an orbax folder.
      model: a network with its settings, as resnet18:width=16, or package.module:factory.
      input_shape: of one example, as 32 32 3; 224 224 3 with an ImageNet stem and for others that
        need it.
      n_classes: the number of logits; by default that of the file's last layer, where its name
        tells it.
      part: the beginning of the names that count, as state_dict_ema.
      names: OLD=NEW for a beginning of names in the file and what the network calls it.
      by_order: match layers whose names tell nothing by the order in which they stand.
      json: print it as JSON.
      all: list each array that fits too.
    """

    file: Annotated[Path, tyro.conf.Positional]
    model: str | None = None
    input_shape: tuple[int, ...] = (32, 32, 3)
    n_classes: int | None = None
    part: str | None = None
    names: tuple[str, ...] = ()
    by_order: bool = False
    json: bool = False
    all: bool = False

    def __call__(self, interruption: Interruption) -> int:
        """Returns the exit code."""
        from unlearnkit.weights import fit, read_container

        container = read_container(self.file)
        if self.model is None:
            self._print_contents(container)
            return _FITS
        fitted = fit(
            container,
            self._network(container),
            part=self.part,
            names=dict(pair_of_names(text) for text in self.names),
            by_order=self.by_order,
        )
        if self.json:
            print(json.dumps(self._said(container, fitted)))
        else:
            self._print_fit(container, fitted)
        return _DOES_NOT if fitted.misfits else _FITS

    def _network(self, container: Container) -> Model:
        from unlearnkit import models
        from unlearnkit.cli.declaring import read_entry

        assert self.model is not None
        name, options = read_entry("model", self.model)
        n_classes = self.n_classes or _count_classes(container)
        return models.create(name, input_shape=self.input_shape, n_classes=n_classes, **options)

    def _print_contents(self, container: Container) -> None:
        said = _contents(container)
        if self.json:
            print(json.dumps({"file": str(self.file), "format": container.format, "arrays": said}))
            return
        print(f"{self.file}: {container.format}, {len(said)} arrays")
        for name, one in said.items():
            print(f"  {escaped(name)}  {one['dtype']} {one['shape']}")
        print("name a network to see what fits: --model resnet18")

    def _said(self, container: Container, fitted: Fit) -> dict[str, object]:
        return {
            "file": str(self.file),
            "format": container.format,
            "model": self.model,
            "fits": not fitted.misfits,
            "entries": [
                {"name": name, "in_file": "/".join(place), "layout": layout.told}
                for name, place, layout in fitted.entries
            ],
            "misfits": [misfit._asdict() for misfit in fitted.misfits],
            "notes": list(fitted.notes),
        }

    def _print_fit(self, container: Container, fitted: Fit) -> None:
        print(f"{self.file}: {container.format}, {len(container.arrays)} arrays")
        if self.all:
            for name, place, layout in fitted.entries:
                moved = f"  ({layout.told})" if layout.told else ""
                print(f"  {name} <- {escaped('/'.join(place))}{moved}")
        for note in fitted.notes:
            print(f"  {escaped(note)}")
        for kind, name, says in fitted.misfits:
            print(f"  {kind:8} {escaped(name)}: {says}")
        total = len(fitted.entries) + sum(misfit.kind != "extra" for misfit in fitted.misfits)
        print(f"{len(fitted.entries)} of the {total} arrays of {self.model} fit")


def _contents(container: Container) -> Mapping[str, dict[str, object]]:
    return {
        "/".join(place): {"shape": list(array.shape), "dtype": array.dtype.name}
        for place, array in container.arrays.items()
    }


def pair_of_names(text: str) -> tuple[str, str]:
    """Returns the two names of OLD=NEW.

    Raises:
      ValueError: it is no such pair.
    """
    old, equals, new = text.partition("=")
    if not equals or not old or not new:
        raise ValueError(f"--names takes OLD=NEW, got {text!r}")
    return old, new


_LAST = ("classifier", "fc", "head", "linear", "output", "logits")
_BIASES = ("bias", "b")


def _count_classes(container: Container) -> int:
    """Returns how many logits the file's last layer makes, by its bias.

    Raises:
      ValueError: no layer is called as the last one is.
    """
    from unlearnkit.weights.names import split_name

    split = {split_name("/".join(place)): array for place, array in container.arrays.items()}
    biases = [
        (parts, array)
        for parts, array in split.items()
        if parts[-1] in _BIASES and array.ndim == 1 and not set(parts).isdisjoint(_LAST)
    ]
    if not biases:
        raise ValueError(
            "the names of the file do not tell the number of classes; give --n-classes"
        )
    last = max(biases, key=lambda found: [_number(part) for part in found[0]])
    return int(last[1].shape[0])


def _number(part: str) -> int:
    return int(part) if part.isdecimal() else -1
