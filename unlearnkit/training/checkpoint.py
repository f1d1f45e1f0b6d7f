"""Saves and loads weights and training state: safetensors for arrays, JSON for the rest."""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from unlearnkit.base import Dataset, Variables
from unlearnkit.io.files import sha256_of_array, sha256_of_file, write_bytes, write_json
from unlearnkit.validation import named_leaves

_FORMAT = "unlearnkit-checkpoint"
_VERSION = 1
_PROGRESS_VERSION = 2
_SIDECAR = "checkpoint.json"


class CheckpointError(ValueError):
    """A checkpoint that is corrupt, truncated, foreign or of another version."""


class CheckpointWarning(UserWarning):
    """A checkpoint could not be written; training continues."""


def save_variables(
    path: str | Path, variables: Variables, metadata: Mapping[str, Any] | None = None
) -> None:
    """Writes weights as `path` (safetensors) with a JSON sidecar `path`.json.

    Args:
      path: the file, as `model.safetensors`.
      variables: nested dicts of arrays with string keys.
      metadata: JSON values that go into the sidecar.
    """
    write_checkpoint(Path(path), flatten(variables._asdict()), metadata or {})


def write_checkpoint(
    path: Path, arrays: dict[str, np.ndarray], metadata: Mapping[str, object]
) -> None:
    """Writes named arrays as `save_variables` does.

    Args:
      path: the file, as `model.safetensors`.
      arrays: by name, as `params/conv/kernel`.
      metadata: JSON values that go into the sidecar.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = save_arrays(path, arrays)
    write_json(_sidecar(path), {**_header(path, digest), "metadata": dict(metadata)})


def load_variables(path: str | Path) -> Variables:
    """Returns the weights that `save_variables` wrote.

    Raises:
      FileNotFoundError: no such file.
      CheckpointError: the file is not what its sidecar says it is.
    """
    arrays, _ = read_checkpoint(Path(path))
    tree: dict[str, Any] = {"params": {}, "state": {}}
    for name, array in arrays.items():
        *parents, leaf = name.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = jnp.asarray(array)
    return Variables(tree["params"], tree["state"])


def is_checkpoint(path: Path) -> bool:
    """Returns whether a file has a sidecar as `write_checkpoint` writes it, damaged or not."""
    try:
        said = json.loads(_sidecar(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return False
    except ValueError:
        return True
    return isinstance(said, dict) and said.get("format") == _FORMAT


def read_checkpoint(path: Path) -> tuple[dict[str, np.ndarray], Mapping[str, object]]:
    """Returns the arrays of `write_checkpoint` by name, and its metadata.

    Raises:
      FileNotFoundError: no such file.
      CheckpointError: the file is not what its sidecar says it is.
    """
    sidecar = _read_sidecar(_sidecar(path))
    metadata = sidecar.get("metadata")
    return _load_arrays(path, sidecar), metadata if isinstance(metadata, dict) else {}


class Progress(NamedTuple):
    """The state of a training run.

    Attributes:
      state: weights, optimiser memory and step, of one run or of several.
      epoch: epochs completed.
      history: metrics per epoch, by name.
      seconds: run and compile seconds so far.
      planned: total epochs of the run when this was saved.
    """

    state: PyTree
    epoch: int
    history: dict[str, list[float]]
    seconds: tuple[float, float]
    planned: int


def save_progress(folder: Path, progress: Progress, run: Mapping[str, Any]) -> None:
    """Saves the state of a run; if that fails, warns and keeps the previous checkpoint.

    The arrays are written first, under a new name; the sidecar that refers to them is replaced
    last, so it always refers to a complete file.

    Args:
      folder: of the run.
      progress: to save.
      run: identity of the run, as JSON; see `unlearnkit.training.identity`.
    """
    path = folder / f"state-{progress.epoch:06d}.safetensors"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        digest = save_arrays(path, flatten(progress.state))
        sidecar = {
            **_header(path, digest, _PROGRESS_VERSION),
            "run": dict(run),
            "epoch": progress.epoch,
            "planned": progress.planned,
            # JSON has no NaN and no infinity; their names read back as what they are.
            "history": {
                name: [value if math.isfinite(value) else str(value) for value in values]
                for name, values in progress.history.items()
            },
            "seconds": list(progress.seconds),
        }
        write_json(folder / _SIDECAR, sidecar)
    except OSError as error:
        warnings.warn(
            f"checkpoint of epoch {progress.epoch} not written to {folder} ({error}); "
            "training goes on, the last good checkpoint stays",
            CheckpointWarning,
            stacklevel=2,
        )
        return
    for old in folder.glob("state-*.safetensors"):
        if old != path:
            old.unlink(missing_ok=True)


def load_progress(folder: Path, like: PyTree, run: Mapping[str, Any]) -> Progress | None:
    """Loads the state of the run in `folder`, or returns None if there is none.

    Args:
      folder: what `save_progress` wrote to.
      like: a state of the same structure, shapes and dtypes.
      run: identity of the run; must match that of the checkpoint.

    Raises:
      CheckpointError: the checkpoint is corrupt or belongs to another run.
    """
    sidecar_path = folder / _SIDECAR
    if not sidecar_path.exists():
        return None
    sidecar = _read_sidecar(sidecar_path, _PROGRESS_VERSION)
    theirs = sidecar.get("run")
    if not isinstance(theirs, dict) or not isinstance(theirs.get("recipe"), dict):
        raise CheckpointError(f"{sidecar_path} does not say which run it belongs to")
    if differing := differences(_without_epochs(run), _without_epochs(theirs)):
        raise CheckpointError(
            f"{folder} holds the checkpoint of another run (differs in {', '.join(differing)}); "
            "choose another folder, or remove this one"
        )
    try:
        epoch, planned = int(sidecar["epoch"]), int(sidecar["planned"])
        history = {
            name: [float(value) for value in values] for name, values in sidecar["history"].items()
        }
        run_seconds, compile_seconds = (float(value) for value in sidecar["seconds"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{sidecar_path} is malformed: {error!r:.100}") from None
    arrays = _load_arrays(folder / str(sidecar["file"]), sidecar)
    state = jax.tree.map(jnp.asarray, match_arrays(like, arrays, folder))
    return Progress(state, epoch, history, (run_seconds, compile_seconds), planned)


def _without_epochs(run: Mapping[str, Any]) -> dict[str, Any]:
    recipe = {name: value for name, value in run["recipe"].items() if name != "epochs"}
    return {**run, "recipe": recipe}


def differences(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Returns the dotted name of the first difference within each entry of two descriptions."""
    found = (
        _first_difference(mine.get(name), theirs.get(name), name)
        for name in (*mine, *(name for name in theirs if name not in mine))
    )
    return [name for name in found if name is not None]


def _first_difference(mine: Any, theirs: Any, name: str) -> str | None:
    if isinstance(mine, Mapping) and isinstance(theirs, Mapping):
        if mine.keys() != theirs.keys():
            return name
        parts = (_first_difference(mine[part], theirs[part], f"{name}.{part}") for part in mine)
        return next((part for part in parts if part is not None), None)
    if isinstance(mine, list) and isinstance(theirs, list) and len(mine) == len(theirs) == 1:
        return _first_difference(mine[0], theirs[0], name)
    return None if json.dumps(mine) == json.dumps(theirs) else name


def fingerprint(dataset: Dataset) -> str:
    """Returns a SHA-256 over shapes, dtypes and every byte of a dataset's arrays."""
    digests = [sha256_of_array(np.asarray(array)) for array in (dataset.x, dataset.y)]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _header(path: Path, digest: str, version: int = _VERSION) -> dict[str, Any]:
    return {"format": _FORMAT, "version": version, "file": path.name, "sha256": digest}


def flatten(tree: Any) -> dict[str, np.ndarray]:
    """Returns the leaves of a pytree on the host, by their path."""
    return {name: np.asarray(leaf) for name, leaf in named_leaves(tree).items()}


def same_bits(one: Any, other: Any) -> bool:
    """Returns whether two pytrees have the same names and, bit for bit, the same values."""
    mine, theirs = flatten(one), flatten(other)
    return mine.keys() == theirs.keys() and all(
        mine[name].tobytes() == theirs[name].tobytes() for name in mine
    )


def save_arrays(path: Path, arrays: dict[str, np.ndarray]) -> str:
    """Writes arrays as safetensors, atomically; returns the SHA-256 of the file.

    The bytes are written by us: safetensors' own writer leaves a file behind when it is killed.
    """
    content = save({k: np.asarray(v, order="C") for k, v in arrays.items()})
    write_bytes(path, content)
    return hashlib.sha256(content).hexdigest()


def _read_sidecar(path: Path, version: int = _VERSION) -> dict[str, Any]:
    try:
        sidecar = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"no checkpoint sidecar at {path}") from None
    except ValueError as error:
        raise CheckpointError(f"{path} is not readable as JSON: {error}") from None
    if not isinstance(sidecar, dict) or sidecar.get("format") != _FORMAT:
        raise CheckpointError(f"{path} is not an {_FORMAT} sidecar")
    if sidecar.get("version") != version:
        raise CheckpointError(
            f"{path} has format version {sidecar.get('version')}; this release reads {version}"
        )
    name = sidecar.get("file")
    if not isinstance(name, str) or Path(name).name != name:
        raise CheckpointError(f"{path} names the file {name!r}, which is no plain file name")
    return sidecar


def _load_arrays(path: Path, sidecar: Mapping[str, Any]) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    digest = sha256_of_file(path)
    if digest != sidecar.get("sha256"):
        raise CheckpointError(
            f"{path} is corrupt or was exchanged: SHA-256 {digest[:12]}…, "
            f"its sidecar says {str(sidecar.get('sha256'))[:12]}…"
        )
    try:
        return load_file(path)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is not readable as safetensors: {error}") from None


def match_arrays(like: Any, arrays: Mapping[str, np.ndarray], where: Path) -> Any:
    """Returns `arrays` in the structure of `like`.

    Args:
      like: a pytree of arrays, or of their shapes and dtypes.
      arrays: by name, as `flatten` returns them.
      where: where they come from, for the error message.

    Raises:
      CheckpointError: an array that is missing, extra, or of another shape or dtype.
    """
    expected = _shapes(like)
    found = {name: (array.shape, array.dtype.name) for name, array in arrays.items()}
    if found != expected:
        wrong = sorted(
            name for name in expected.keys() | found if expected.get(name) != found.get(name)
        )
        raise CheckpointError(
            f"the checkpoint in {where} does not fit this model and optimiser: "
            f"{len(wrong)} arrays differ, first {wrong[0]} "
            f"(expected {expected.get(wrong[0])}, found {found.get(wrong[0])})"
        )
    return jax.tree.unflatten(jax.tree.structure(like), [arrays[name] for name in expected])


def _shapes(tree: Any) -> dict[str, tuple[tuple[int, ...], str]]:
    return {name: (leaf.shape, leaf.dtype.name) for name, leaf in named_leaves(tree).items()}
