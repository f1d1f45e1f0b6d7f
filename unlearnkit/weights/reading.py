"""Reads weights from anywhere into a network's variables, and writes them back as they were."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from unlearnkit.base import Model, Variables
from unlearnkit.io.tensor_files import WeightsError
from unlearnkit.validation import named_leaves
from unlearnkit.weights.containers import Container, Format, Place, format_of
from unlearnkit.weights.fitting import Entry, Fit, fit
from unlearnkit.weights.flat_files import (
    read_npz,
    read_own,
    read_safetensors,
    write_npz,
    write_own,
    write_safetensors,
)
from unlearnkit.weights.trees import (
    read_msgpack,
    read_orbax,
    read_torch,
    write_msgpack,
    write_orbax,
    write_torch,
)

_SHOWN = 5
_Writer: TypeAlias = Callable[[Path, Container, Mapping[Place, np.ndarray]], None]
_READERS: Mapping[Format, Callable[[Path], Container]] = {
    "unlearnkit": read_own,
    "safetensors": read_safetensors,
    "npz": read_npz,
    "msgpack": read_msgpack,
    "orbax": read_orbax,
    "torch": read_torch,
}
_WRITERS: Mapping[Format, _Writer] = {
    "unlearnkit": write_own,
    "safetensors": write_safetensors,
    "npz": write_npz,
    "msgpack": write_msgpack,
    "orbax": write_orbax,
    "torch": write_torch,
}


class WeightFile(NamedTuple):
    """Weights as they were read, and what is needed to write others in their place.

    Attributes:
      variables: in the network's layout and types.
      format: of the file, as `safetensors`.
      container: what the file holds.
      entries: which of its arrays is which of the network's.
      notes: what was left out or chosen, in words.
    """

    variables: Variables
    format: Format
    container: Container
    entries: tuple[Entry, ...]
    notes: tuple[str, ...] = ()


def read_weights(
    path: str | Path,
    model: Model,
    *,
    part: str | None = None,
    names: Mapping[str, str] | None = None,
    by_order: bool = False,
) -> WeightFile:
    """Returns the weights of a file, in the network's layout.

    The format is found out from what the file holds: our checkpoints, any `safetensors`, `.npz`,
    flax's msgpack, an orbax folder (extra `orbax`), or a state dict of `torch.save` (extra
    `torch`). Names are matched by rule: `.`, `/` and `_0` separate alike; `weight` is `kernel`,
    `scale` or `embedding`; running statistics are found under either library's names; and what
    torchvision and timm call the arrays of our networks is known. A prefix that all names share, as
    `module.` or `state_dict/model._orig_mod.`, is removed.

    Only PyTorch's own files are pickles, and they are read by `torch.load(weights_only=True)`
    alone, which makes nothing but tensors and plain containers; a `.npz` with Python objects is
    refused.

    Args:
      path: a file, or an orbax folder.
      model: the network.
      part: see `fit`; as `state_dict_ema` for the averaged weights of a timm checkpoint.
      names: beginnings of names in the file, with what the network calls them, as
        `{"conv1": "stem/conv"}`.
      by_order: whether layers whose names tell nothing are taken in the order in which they stand.

    Raises:
      FileNotFoundError: no such file.
      ImportError: the format needs a package that is not installed; the message says which.
      WeightsError: the file cannot be read, is refused, or does not fit; the first five arrays that
        are missing, extra or of another shape are named.

    Example:
      model = models.create("resnet18", input_shape=(32, 32, 3), n_classes=10)
      found = weights.read_weights("resnet18.pt", model)
      weights.write_weights("unlearned.pt", forgotten.variables, like=found)
    """
    path = Path(path)
    container = read_container(path)
    return weights_of(container, model, path=path, part=part, names=names, by_order=by_order)


def weights_of(
    container: Container,
    model: Model,
    *,
    path: Path,
    part: str | None = None,
    names: Mapping[str, str] | None = None,
    by_order: bool = False,
) -> WeightFile:
    """Returns the weights of what was read from a file, see `read_weights`.

    Args:
      container: of `read_container`.
      model: the network.
      path: of the file, for messages.
      part: see `read_weights`.
      names: likewise.
      by_order: likewise.

    Raises:
      WeightsError: they do not fit.
    """
    try:
        fitted = fit(container, model, part=part, names=names, by_order=by_order)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from None
    if fitted.misfits:
        raise WeightsError(_refusal(path, fitted))
    return WeightFile(
        _variables(container, fitted.entries, model),
        container.format,
        container,
        fitted.entries,
        fitted.notes,
    )


def read_container(path: Path) -> Container:
    """Returns what a file holds, of whatever format.

    Raises:
      FileNotFoundError: no such file.
      ImportError: the format needs a package that is not installed.
      WeightsError: the file cannot be read, or is refused.
    """
    return _READERS[format_of(path)](path)


def write_weights(path: str | Path, variables: Variables, like: WeightFile) -> None:
    """Writes weights in the format of the file that `like` was read from.

    Names, layouts, types and all that the file holds besides stay as they were; an array whose
    values did not change keeps every bit. The file is written under a temporary name first.

    Args:
      path: the new file, or folder for orbax.
      variables: of the same network.
      like: of `read_weights`.

    Raises:
      ValueError: variables of another network.
    """
    old, new = named_leaves(like.variables), named_leaves(variables)
    wrong = sorted(
        name
        for name in old.keys() | new.keys()
        if name not in old or name not in new or old[name].shape != new[name].shape
    )
    if wrong:
        raise ValueError(
            f"the weights are not those of the network that the file was read for: {wrong[0]} is "
            f"missing or of another shape ({len(wrong)} arrays differ)"
        )
    arrays = dict(like.container.arrays)
    for name, place, layout in like.entries:
        before, after = np.asarray(old[name]), np.asarray(new[name])
        if before.tobytes() != after.tobytes():
            arrays[place] = layout.to_file(after).astype(arrays[place].dtype)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _WRITERS[like.format](path, like.container, arrays)


def _variables(container: Container, entries: tuple[Entry, ...], model: Model) -> Variables:
    shapes: Variables = jax.eval_shape(model.init, jax.random.key(0))
    read = {entry.name: entry.layout.to_network(container.arrays[entry.place]) for entry in entries}
    named = named_leaves(shapes)
    leaves = [jnp.asarray(read[name].astype(leaf.dtype)) for name, leaf in named.items()]
    found: Variables = jax.tree.unflatten(jax.tree.structure(shapes), leaves)
    return found


def _refusal(path: Path, fitted: Fit) -> str:
    kinds = {"missing": "missing", "extra": "extra", "shape": "of another shape or type"}
    counts = [
        f"{count} {words}"
        for kind, words in kinds.items()
        if (count := sum(misfit.kind == kind for misfit in fitted.misfits))
    ]
    first = "; ".join(f"{m.kind} {m.name}: {m.says}" for m in fitted.misfits[:_SHOWN])
    more = "" if len(fitted.misfits) <= _SHOWN else f"; and {len(fitted.misfits) - _SHOWN} more"
    return (
        f"{path} does not fit the network ({len(fitted.entries)} arrays fit, {', '.join(counts)}): "
        f"{first}{more}. `unlearnkit inspect` shows all; part=, names= or by_order= help where "
        "only names differ"
    )
