"""Flax's msgpack, orbax folders and PyTorch's state dicts: nested containers of arrays."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import ml_dtypes
import numpy as np
from flax import serialization

from unlearnkit.io.files import atomic_path, write_bytes
from unlearnkit.io.tensor_files import WeightsError, check_size
from unlearnkit.weights.containers import (
    Container,
    Place,
    changed,
    nested_arrays,
    put_back,
)

if TYPE_CHECKING:
    import torch

_UNREADABLE = (ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError)
_ITEMS = ("default", "items", "params", "state")
"""What checkpoint managers of orbax call the folder of the arrays."""


def read_msgpack(path: Path) -> Container:
    """Returns the arrays of `flax.serialization.to_bytes`.

    Raises:
      WeightsError: another format, or a truncated file.
    """
    check_size(path, path.stat().st_size)
    try:
        tree = serialization.msgpack_restore(path.read_bytes())
        arrays = dict(nested_arrays(tree))
    except (*_UNREADABLE, MemoryError, RecursionError) as error:
        raise WeightsError(
            f"{path} is not readable as flax's msgpack ({error!r:.100}); it is truncated, damaged "
            "or of another format"
        ) from None
    if not arrays:
        raise WeightsError(f"{path} is a msgpack without arrays")
    return Container("msgpack", arrays, tree)


def write_msgpack(path: Path, container: Container, arrays: Mapping[Place, np.ndarray]) -> None:
    """Writes what `flax.serialization.msgpack_restore` reads.

    Args:
      path: the file.
      container: what was read.
      arrays: all of them, by place.
    """
    tree = put_back(container.rest, changed(container, arrays))
    # In place, or its keys would be sorted; what is changed is the tree that was just made.
    write_bytes(path, serialization.msgpack_serialize(tree, in_place=True))


class _Step(NamedTuple):
    """What an orbax folder held, and where in it the arrays stood."""

    tree: object
    inside: Path


def read_orbax(path: Path) -> Container:
    """Returns the arrays of an orbax folder, or of the last step of a checkpoint manager's.

    Raises:
      ImportError: orbax is not installed.
      WeightsError: a folder that orbax did not write, or that is damaged.
    """
    try:
        import orbax.checkpoint as ocp
    except ImportError as error:
        raise ImportError(
            f"{path} is a folder, which orbax reads; pip install 'unlearnkit[orbax]'"
        ) from error
    inside = _arrays_of(path)
    try:
        with warnings.catch_warnings(), ocp.PyTreeCheckpointer() as checkpointer:
            warnings.simplefilter("ignore")  # that sharding is restored from the file
            tree = checkpointer.restore(
                (path / inside).absolute(), restore_args=_as_numpy(path / inside)
            )
    except Exception as error:  # whatever orbax and what lies below it raise
        raise WeightsError(
            f"{path} is not readable as an orbax checkpoint ({type(error).__name__}: "
            f"{str(error).splitlines()[0] if str(error) else ''}); it is damaged or incomplete"
        ) from None
    arrays = dict(nested_arrays(tree))
    if not arrays:
        raise WeightsError(f"{path} holds no arrays")
    steps = [f"step {inside.parts[0]} of a checkpoint manager"] if str(inside)[:1].isdigit() else []
    return Container("orbax", arrays, _Step(tree, inside), tuple(steps))


def write_orbax(path: Path, container: Container, arrays: Mapping[Place, np.ndarray]) -> None:
    """Writes an orbax folder, with the arrays where they stood in the old one.

    Args:
      path: the folder, which must not exist.
      container: what was read.
      arrays: all of them, by place.

    Raises:
      FileExistsError: the folder is there.
    """
    import orbax.checkpoint as ocp

    if path.exists():
        raise FileExistsError(f"{path} exists; name a folder that does not")
    step = container.rest
    assert isinstance(step, _Step)
    with ocp.PyTreeCheckpointer() as checkpointer:
        checkpointer.save(
            (path / step.inside).absolute(), put_back(step.tree, changed(container, arrays))
        )


def _arrays_of(path: Path) -> Path:
    """Returns where in a folder the arrays are: in the last step, in the item of the arrays."""
    inside = Path()
    steps = sorted((int(p.name), p.name) for p in path.iterdir() if p.name.isdecimal())
    if steps and not _is_checkpoint(path):
        inside /= steps[-1][1]
    items = [name for name in _ITEMS if _is_checkpoint(path / inside / name)]
    if not _is_checkpoint(path / inside) and items:
        inside /= items[0]
    if not _is_checkpoint(path / inside):
        raise WeightsError(
            f"{path} is a folder, but orbax did not write it (no _METADATA); name a file"
        )
    return inside


def _is_checkpoint(path: Path) -> bool:
    return any((path / name).exists() for name in ("_METADATA", "checkpoint"))


def _as_numpy(path: Path) -> object:
    """Returns the arguments that restore each array to the host, whatever device it was on."""
    import jax
    import orbax.checkpoint as ocp

    with ocp.PyTreeCheckpointer() as checkpointer:
        metadata = checkpointer.metadata(path.absolute())
    tree = getattr(metadata, "item_metadata", metadata)
    tree = getattr(tree, "tree", tree)
    return jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)


def read_torch(path: Path) -> Container:
    """Returns the tensors of `torch.save`, by `torch.load(weights_only=True)` and nothing else.

    PyTorch's restricted unpickler makes tensors, sizes, types, devices and plain containers, and
    refuses all other names; no name is added to its list. A file with anything else in it, as a
    whole module or code, is refused.

    Raises:
      ImportError: PyTorch is not installed.
      WeightsError: a file that holds other than tensors, or is damaged.
    """
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            f"{path} is a file of PyTorch, whose own reader is needed; pip install "
            "'unlearnkit[torch]', or save it as safetensors where PyTorch is: "
            "safetensors.torch.save_file(net.state_dict(), 'weights.safetensors')"
        ) from error
    check_size(path, path.stat().st_size)
    if _is_script(path):
        raise WeightsError(
            f"{path} is a TorchScript program, which holds code, and is refused; save its "
            "state_dict() by torch.save"
        )
    try:
        tree = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path} is refused: it holds more than tensors, which could be code "
            f"({_first_sentence(error)}). Save the state dict alone where the file comes from: "
            "torch.save(net.state_dict(), 'weights.pt')"
        ) from None
    except (*_UNREADABLE, RuntimeError, EOFError, OSError) as error:
        raise WeightsError(
            f"{path} is not readable by torch.load ({_first_sentence(error)}); it is truncated or "
            "damaged"
        ) from None
    arrays = {place: _as_array(tensor) for place, tensor in _tensors(tree).items()}
    if not arrays:
        raise WeightsError(f"{path} holds no tensors; save net.state_dict()")
    return Container("torch", arrays, tree)


def write_torch(path: Path, container: Container, arrays: Mapping[Place, np.ndarray]) -> None:
    """Writes what `torch.load(weights_only=True)` reads, with all that the old file held besides.

    Args:
      path: the file.
      container: what was read.
      arrays: all of them, by place.
    """
    import torch

    with atomic_path(path) as temporary:
        torch.save(_replaced(container.rest, changed(container, arrays)), temporary)


def _tensors(tree: object, place: Place = ()) -> dict[Place, torch.Tensor]:
    import torch

    found: dict[Place, torch.Tensor] = {}
    if isinstance(tree, torch.Tensor):
        if tree.layout == torch.strided and not tree.is_quantized:
            found[place] = tree
    elif isinstance(tree, Mapping):
        for name, value in tree.items():
            found |= _tensors(value, (*place, str(name)))
    elif isinstance(tree, list | tuple):
        for number, value in enumerate(tree):
            found |= _tensors(value, (*place, str(number)))
    return found


def _as_array(tensor: torch.Tensor) -> np.ndarray:
    """Returns a tensor on the host; bfloat16, which PyTorch does not hand to NumPy, by its bits."""
    import torch

    tensor = tensor.detach()
    if tensor.dtype == torch.bfloat16:
        found: np.ndarray = tensor.contiguous().view(torch.int16).numpy().view(ml_dtypes.bfloat16)
        return found
    plain: np.ndarray = tensor.resolve_conj().resolve_neg().numpy()
    return plain


def _as_tensor(array: np.ndarray, like: torch.Tensor) -> torch.Tensor:
    import torch

    array = np.array(array, order="C")
    if like.dtype == torch.bfloat16:
        made = torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    else:
        made = torch.from_numpy(array)
    made = made.reshape(like.shape)
    return torch.nn.Parameter(made, like.requires_grad) if _is_parameter(like) else made


def _is_parameter(tensor: torch.Tensor) -> bool:
    import torch

    return isinstance(tensor, torch.nn.Parameter)


def _replaced(tree: object, arrays: Mapping[Place, np.ndarray], place: Place = ()) -> object:
    """Returns a tree of the same types with some tensors replaced."""
    import torch

    if isinstance(tree, torch.Tensor):
        return _as_tensor(arrays[place], tree) if place in arrays else tree
    if isinstance(tree, Mapping):
        made = type(tree)() if isinstance(tree, dict) else {}
        for name, value in tree.items():
            made[name] = _replaced(value, arrays, (*place, str(name)))
        if hasattr(tree, "_metadata"):  # the versions of modules, which state dicts carry
            vars(made)["_metadata"] = tree._metadata
        return made
    if isinstance(tree, list | tuple):
        return type(tree)(_replaced(v, arrays, (*place, str(n))) for n, v in enumerate(tree))
    return tree


def _is_script(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        check_size(path, sum(info.file_size for info in archive.infolist()))
        return any(name.split("/")[1:2] == ["code"] for name in archive.namelist())


def _first_sentence(error: BaseException) -> str:
    if named := re.search(r"GLOBAL (\S+)", str(error)):  # PyTorch goes on with how to allow it
        return f"it names {named[1]}"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0][:200]
