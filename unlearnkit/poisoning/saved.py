"""Poisons on disk: safetensors for the arrays, a JSON manifest for the rest, checked when read.

The poisons themselves are kept, not their perturbations: base + δ rounds, and a poison would come
back a bit outside its bounds. The clean examples are not kept: whoever reads brings them along, and
the manifest's hash says whether they are the right ones.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from unlearnkit.base import FROM_SCRATCH, Cost, Dataset, Poisoned, Tokens
from unlearnkit.data.normalising import describe_normalisation
from unlearnkit.io.files import atomic_path, sha256_of_file, write_json
from unlearnkit.poisoning.bounds import Bounds
from unlearnkit.poisoning.placing import Placement, PoisonInfo, place
from unlearnkit.training import fingerprint
from unlearnkit.validation import check_finite, check_labels, check_tokens

_FORMAT = "unlearnkit-poison"
_VERSION = 1
_ARRAYS = "poison.safetensors"
_MANIFEST = "manifest.json"


class PoisonFileError(ValueError):
    """Saved poisons that are corrupt, foreign, or do not fit the clean data."""


def save_poisoned(folder: str | Path, poisoned: Poisoned, clean: Dataset) -> None:
    """Writes the poisons of a training set to a folder: `poison.safetensors`, `manifest.json`.

    The manifest goes last: a folder that has one is whole.

    Args:
      folder: is made where it does not exist.
      poisoned: what an attack with a `PoisonInfo` returned.
      clean: the clean training set that it was made of.

    Raises:
      ValueError: `poisoned` is not `clean` with the poisons that its info names, within its bounds.
    """
    info = poisoned.info
    placement: Placement = "add" if poisoned.dataset.size > clean.size else "perturb"
    x, y = (np.asarray(part)[np.asarray(poisoned.is_poison)] for part in poisoned.dataset[:2])
    if len(x) != info.base.shape[0]:
        raise ValueError(f"the info names {info.base.shape[0]} poisons, the dataset has {len(x)}")
    rebuilt = place(clean, jnp.asarray(x), jnp.asarray(y), info.base, placement)
    for ours, theirs in zip(rebuilt, (poisoned.dataset, poisoned.is_poison), strict=True):
        if not _same(ours, theirs):
            raise ValueError(
                "the dataset is not the clean one with its poisons in place: "
                "a clean example was changed, or `clean` is another training set"
            )
    _check_bounds(info.bounds, jnp.asarray(x), info.base, clean)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _MANIFEST).unlink(missing_ok=True)
    arrays = {"x": x, "y": y, "base": np.asarray(info.base)}
    arrays |= {f"extras/{name}": np.asarray(value) for name, value in info.extras.items()}
    arrays |= {f"history/{name}": np.asarray(value) for name, value in info.history.items()}
    with atomic_path(folder / _ARRAYS) as temporary:
        save_file({k: np.asarray(v, order="C") for k, v in arrays.items()}, temporary)
        digest = sha256_of_file(temporary)
    manifest = {
        "format": _FORMAT,
        "version": _VERSION,
        "sha256": digest,
        "placement": placement,
        "bounds": dataclasses.asdict(info.bounds),
        "normalisation": describe_normalisation(clean.normalisation),
        "clean": {"size": clean.size, "sha256": fingerprint(clean)},
        "cost": info.cost._asdict(),
    }
    write_json(folder / _MANIFEST, manifest)


def load_poisoned(folder: str | Path, clean: Dataset) -> Poisoned:
    """Returns the training set that `save_poisoned` wrote, built anew from the clean one.

    Clean rows are those of `clean`, bit for bit. The linear solves of the attack's info are not
    kept on disk.

    Args:
      folder: what `save_poisoned` wrote.
      clean: the clean training set; its bytes must have the recorded hash.

    Raises:
      FileNotFoundError: no saved poisons there.
      PoisonFileError: a file is corrupt, was exchanged, or says what cannot be; the clean data are
        not those the poisons were made of; or a poison is outside its bounds.
    """
    folder = Path(folder)
    manifest = _read_manifest(folder / _MANIFEST)
    _check_clean(manifest, clean, folder)
    arrays = _load_arrays(folder / _ARRAYS, manifest["sha256"])
    try:
        bounds = _read_bounds(manifest["bounds"])
        placement = manifest["placement"]
        x, y, base = _read_poisons(arrays, clean)
        dataset, is_poison = place(clean, x, y, base, placement)
        _check_bounds(bounds, x, base, clean)
        cost = Cost(**{name: float(value) for name, value in manifest["cost"].items()})
    except (ValueError, TypeError, AttributeError) as error:
        raise PoisonFileError(f"{folder} holds no sound poisons: {error}") from None
    info = PoisonInfo(
        base,
        bounds,
        _with_prefix(arrays, "history/"),
        cost,
        extras=_with_prefix(arrays, "extras/"),
    )
    return Poisoned(dataset, is_poison, info)


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"no saved poisons: {path} is not there") from None
    except (ValueError, RecursionError) as error:
        raise PoisonFileError(f"{path} is not readable as JSON: {error}") from None
    if not isinstance(manifest, dict) or manifest.get("format") != _FORMAT:
        raise PoisonFileError(f"{path} is not an {_FORMAT} manifest")
    if manifest.get("version") != _VERSION:
        raise PoisonFileError(
            f"{path} has format version {manifest.get('version')}; this release reads {_VERSION}"
        )
    wanted = {
        "sha256": str,
        "placement": str,
        "bounds": dict,
        "normalisation": dict,
        "clean": dict,
        "cost": dict,
    }
    wrong = [name for name, kind in wanted.items() if not isinstance(manifest.get(name), kind)]
    if wrong:
        raise PoisonFileError(f"{path} has no sound entry {', '.join(wrong)}")
    return manifest


def _check_clean(manifest: Mapping[str, Any], clean: Dataset, folder: Path) -> None:
    recorded, digest = manifest["clean"], fingerprint(clean)
    if recorded.get("sha256") != digest or recorded.get("size") != clean.size:
        raise PoisonFileError(
            f"the poisons in {folder} were made of other clean data: recorded are "
            f"{recorded.get('size')} examples with SHA-256 {str(recorded.get('sha256'))[:12]}…, "
            f"given are {clean.size} with {digest[:12]}…; load the training set that was attacked"
        )
    if manifest["normalisation"] != describe_normalisation(clean.normalisation):
        raise PoisonFileError(
            f"the poisons in {folder} are normalised as {manifest['normalisation']}, the clean "
            f"data as {describe_normalisation(clean.normalisation)}"
        )


def _load_arrays(path: Path, recorded: str) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise FileNotFoundError(f"no saved poisons: {path} is not there")
    digest = sha256_of_file(path)
    if digest != recorded:
        raise PoisonFileError(
            f"{path} is corrupt or was exchanged: SHA-256 {digest[:12]}…, "
            f"its manifest says {recorded[:12]}…"
        )
    try:
        return load_file(path)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise PoisonFileError(f"{path} is not readable as safetensors: {error}") from None


def _read_bounds(described: Mapping[str, Any]) -> Bounds:
    box = described.get("box")
    if box is not None:
        low, high = box
        described = {**described, "box": (float(low), float(high))}
    return Bounds(**described)


def _read_poisons(arrays: Mapping[str, np.ndarray], clean: Dataset) -> tuple[Any, Any, Any]:
    missing = sorted({"x", "y", "base"} - arrays.keys())
    if missing:
        raise ValueError(f"the arrays {', '.join(missing)} are missing")
    x, y, base = (arrays[name] for name in ("x", "y", "base"))
    if x.dtype != np.dtype(clean.x.dtype) or x.shape[1:] != clean.x.shape[1:]:
        raise ValueError(f"x is {x.dtype} {list(x.shape)}, which does not fit the clean data")
    if not len(x) == len(y) == len(base) <= clean.size or base.ndim != 1:
        raise ValueError(
            f"{len(x)} poisons, {len(y)} labels and {len(base)} bases of {clean.size} examples"
        )
    if isinstance(clean.normalisation, Tokens):
        check_tokens(x, clean.normalisation, name="the poisons")
    else:
        check_finite(x, name="the poisons")
    check_labels(y, name="the poisons")
    if y.dtype != np.dtype(clean.y.dtype) or base.dtype != np.int32:
        raise ValueError(
            f"labels must be {clean.y.dtype} and base int32, got {y.dtype} and {base.dtype}"
        )
    if len(base) and (base.min() < FROM_SCRATCH or base.max() >= clean.size):
        raise ValueError(f"base rows must be in -1 … {clean.size - 1}")
    return jnp.asarray(x), jnp.asarray(y), jnp.asarray(base)


def _check_bounds(bounds: Bounds, x: Any, base: Any, clean: Dataset) -> None:
    if isinstance(clean.normalisation, Tokens):
        if bounds.box is not None or bounds.radius is not None:
            raise ValueError(f"token ids have no box and no radius, got {bounds}")
        return
    origin = jnp.where((base < 0).reshape(-1, *(1,) * (x.ndim - 1)), x, clean.x[base])
    inside = np.asarray(bounds.region(origin, clean.normalisation).contains(x))
    if not inside.all():
        row = int(np.flatnonzero(~inside)[0])
        raise ValueError(f"poison {row} is outside its bounds {bounds} ({(~inside).sum()} such)")


def _with_prefix(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, Any]:
    return {
        name.removeprefix(prefix): jnp.asarray(value)
        for name, value in arrays.items()
        if name.startswith(prefix)
    }


def _same(one: Any, other: Any) -> bool:
    pairs = zip(one[:2], other[:2], strict=True) if isinstance(one, Dataset) else [(one, other)]
    return all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in pairs)
