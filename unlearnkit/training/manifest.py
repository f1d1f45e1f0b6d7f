"""The manifest of a log of training, and the chain that binds every file to it.

    link_0 = SHA-256(header),   link_{i+1} = SHA-256(link_i, checkpoint_i)

The header holds the recipe, the network, the key, the digest of the first weights, the data's
digests, the environment and the digests of the batch order and of the examples' names; a checkpoint
is its step, its file's name and its file's digest, of which the manifest keeps the last. The last
link, the log's *head*, therefore changes with any byte of any file: publishing it commits to the
whole log. A manifest is read by rebuilding it from its values and comparing: no field is ignored,
and it cannot choose file names.

Version 1 kept only the half of the key that drives the run, so the initial weights could not be
checked. This release refuses such logs.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from unlearnkit.base import Normalisation, Tokens
from unlearnkit.training.claim import (
    Claim,
    DataClaim,
    NetworkClaim,
    StartClaim,
    TrajectoryError,
)
from unlearnkit.training.recipe import Recipe

Fields: TypeAlias = Mapping[str, Any]
"""A JSON object."""

FORMAT, VERSION = "unlearnkit-trajectory", 2
MANIFEST, BATCHES, EXAMPLES = "manifest.json", "batches.npy", "examples.npy"
MOST_CHECKPOINTS = 200_000
_MOST_BRACKETS = 1000
_NAME = re.compile(r"[A-Za-z0-9_]{1,50}")
_LARGEST_FLOAT32 = 3.4028234663852886e38
_MOST_STEPS = 2**31 - 1
_KEY_WORDS = {"threefry2x32": 2, "rbg": 4, "unsafe_rbg": 4}
_PRECISIONS = (*(None, "default", "high", "highest", "float32", "bfloat16", "tensorfloat32"),)


def state_file(step: int) -> str:
    """Returns the name of a checkpoint's file."""
    return f"state-{step:010d}.safetensors"


def encode(claim: Claim, digests: Sequence[str]) -> dict[str, Any]:
    """Returns the manifest as JSON values.

    Args:
      claim: of the run.
      digests: SHA-256 of each checkpoint's file so far.
    """
    header = _as_json(
        {
            "format": FORMAT,
            "version": VERSION,
            "recipe": dataclasses.asdict(claim.recipe),
            "network": claim.network._asdict(),
            "key": {"impl": claim.key_impl, "data": claim.key_data},
            "start": claim.start._asdict(),
            "every": claim.every,
            "steps": claim.steps,
            "matmul_precision": claim.matmul_precision,
            "data": {
                **claim.data._asdict(),
                "normalisation": dataclasses.asdict(claim.data.normalisation),
            },
            "environment": dict(claim.environment),
            "batches": {"file": BATCHES, "sha256": claim.batches_sha256},
            "examples": {"file": EXAMPLES, "sha256": claim.examples_sha256},
        }
    )
    link = _digest(header)
    for index, digest in enumerate(digests):
        step = claim.checkpoint_step(index)
        entry = {"step": step, "file": state_file(step), "sha256": digest}
        link = _digest({"previous": link, **entry})
    return {**header, "checkpoints": list(digests), "head": link}


def largest_size(checkpoints: int) -> int:
    """Returns the largest size in bytes of a manifest with so many checkpoints."""
    return 2**16 + 100 * min(checkpoints, MOST_CHECKPOINTS)


def decode(content: bytes) -> tuple[Claim, tuple[str, ...]]:
    """Parses a manifest strictly; returns the claim and the checkpoints' digests.

    Raises:
      TrajectoryError: no manifest of this format and version, or one that was tampered with.
    """
    manifest = _parse(content)
    try:
        claim = _read_claim(manifest)
        _check_bounds(claim, len(manifest["checkpoints"]))
        digests = tuple(_sha256(digest) for digest in manifest["checkpoints"])
        odd = _first_odd(manifest, encode(claim, digests))
    except (KeyError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise TrajectoryError(f"the manifest is malformed: {error!r:.300}") from None
    except RecursionError:
        raise TrajectoryError("the manifest is malformed: nested too deeply") from None
    if odd is not None:
        raise TrajectoryError(odd)
    return claim, digests


def _parse(content: bytes) -> dict[str, Any]:
    if content.count(b"{") + content.count(b"[") > _MOST_BRACKETS:
        raise TrajectoryError("the manifest is not readable as JSON: it holds too many objects")
    try:
        manifest = json.loads(content, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise TrajectoryError(f"the manifest is not readable as JSON: {error!s:.300}") from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise TrajectoryError(f"the manifest is not of the format {FORMAT}")
    if manifest.get("version") != VERSION:
        remedy = (
            ", which says where a run began; version 1 does not: train again, the same key gives "
            "the same weights"
            if manifest.get("version") == 1
            else ""
        )
        raise TrajectoryError(
            f"the log has format version {manifest.get('version')!r:.50}; "
            f"this release reads {VERSION}{remedy}"
        )
    return manifest


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a name stands twice in one object")
    return dict(pairs)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _read_claim(manifest: Fields) -> Claim:
    network, data, key = manifest["network"], manifest["data"], manifest["key"]
    return Claim(
        Recipe(**_recipe_values(manifest["recipe"])),
        NetworkClaim(
            None if network["name"] is None else _text(network["name"]),
            {_name(k): _option(v) for k, v in network["options"].items()},
            _integers(network["input_shape"]),
            _integer(network["n_classes"]),
        ),
        _text(key["impl"]),
        _integers(key["data"], most=2**32 - 1),
        StartClaim(_boolean(manifest["start"]["derived"]), _sha256(manifest["start"]["sha256"])),
        _integer(manifest["every"]),
        manifest["matmul_precision"],
        DataClaim(
            _integer(data["examples"]),
            _integers(data["shape"]),
            _sha256(data["x_sha256"]),
            _sha256(data["y_sha256"]),
            _read_normalisation(data["normalisation"]),
        ),
        {_name(name): _text(value, 4096) for name, value in manifest["environment"].items()},
        _sha256(manifest["batches"]["sha256"]),
        _sha256(manifest["examples"]["sha256"]),
    )


def _read_normalisation(fields: Fields) -> Normalisation | Tokens:
    if "vocabulary" in fields:
        return Tokens(_integer(fields["vocabulary"]), _integer(fields["pad"]))
    return Normalisation(
        _text(fields["name"]),
        tuple(_number(m) for m in fields["mean"]),
        tuple(_number(s) for s in fields["std"]),
    )


def _check_bounds(claim: Claim, checkpoints: int) -> None:
    """Raises ValueError if a size exceeds its bound, before anything is built."""
    recipe = claim.recipe
    if claim.key_impl not in _KEY_WORDS or len(claim.key_data) != _KEY_WORDS[claim.key_impl]:
        raise ValueError(f"unknown key {claim.key_impl!r:.50}")
    if claim.matmul_precision not in _PRECISIONS:
        raise ValueError(f"unknown matmul_precision {claim.matmul_precision!r:.50}")
    if claim.every < 1 or not 1 <= claim.data.examples <= _MOST_STEPS:
        raise ValueError("every and the number of examples must be >= 1")
    if claim.steps > _MOST_STEPS or max(recipe.milestones, default=0) > _MOST_STEPS // max(
        claim.steps_per_epoch, 1
    ):
        raise ValueError(f"more than {_MOST_STEPS} steps")
    if claim.network.input_shape != claim.data.shape:
        raise ValueError("the network takes examples of another shape than the data's")
    if recipe.augmentation != "none" and (
        len(claim.data.shape) != 3 or recipe.shift > max(claim.data.shape)
    ):
        raise ValueError("the augmentation does not suit the data")
    most = min(-(-claim.steps // claim.every) + 1, MOST_CHECKPOINTS)
    if not 1 <= checkpoints <= most:
        raise ValueError(f"{checkpoints} checkpoints, where 1 to {most} belong")


def _recipe_values(values: Fields) -> dict[str, Any]:
    """Returns a recipe's fields, each of the type of its default."""
    checked: dict[str, Any] = {}
    for field in dataclasses.fields(Recipe):
        value, default = values[field.name], field.default
        if isinstance(default, bool | str):
            if type(value) is not type(default):
                raise TypeError(f"recipe.{field.name} is {value!r:.50}")
            checked[field.name] = value
        elif isinstance(default, int):
            checked[field.name] = _integer(value)
        elif isinstance(default, tuple):
            checked[field.name] = _integers(value)
        else:
            checked[field.name] = None if value is None and default is None else _number(value)
    if len(checked) != len(values):
        raise ValueError("the recipe has unknown fields")
    return checked


def _option(value: Any) -> Any:
    """Returns an option of a network: short text, a number, or a short list of these."""
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, list):
        if len(value) > 64:
            raise ValueError("an option of the network has more than 64 values")
        return tuple(_option(item) for item in value)
    if value is not None and not isinstance(value, bool | int | float):
        raise TypeError(f"an option of the network is {value!r:.50}")
    return value


def _text(value: Any, at_most: int = 200) -> str:
    if not isinstance(value, str) or len(value) > at_most:
        raise TypeError(f"not text of at most {at_most} characters: {value!r:.50}")
    return value


def _name(value: str) -> str:
    if _NAME.fullmatch(value) is None:
        raise ValueError(f"not a name: {value!r:.50}")
    return value


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"neither true nor false: {value!r:.50}")
    return value


def _integer(value: Any, *, most: int = _MOST_STEPS) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError(f"not an integer in 0 … {most}: {value!r:.50}")
    return value


def _integers(values: Any, *, most: int = _MOST_STEPS) -> tuple[int, ...]:
    if not isinstance(values, list) or len(values) > 64:
        raise ValueError(f"not a list of at most 64 integers: {values!r:.50}")
    return tuple(_integer(value, most=most) for value in values)


def _number(value: Any) -> float:
    if type(value) not in (int, float) or not abs(value) <= _LARGEST_FLOAT32:
        raise ValueError(f"not a finite number: {value!r:.50}")
    number: float = value
    return number


def _sha256(value: Any) -> str:
    if not isinstance(value, str) or len(value) != 64 or set(value) - set("0123456789abcdef"):
        raise ValueError(f"not a SHA-256: {value!r:.80}")
    return value


def _first_odd(found: Fields, expected: Fields) -> str | None:
    """Returns the first difference from the manifest that this release would write, or None."""
    if _canonical(found) == _canonical(expected):
        return None
    for name in sorted((found.keys() | expected.keys()) - {"head"}):
        if _canonical(found.get(name)) != _canonical(expected.get(name)):
            return f"the manifest's {name!r:.50} is not what its other fields imply"
    return (
        "the chain of the manifest does not end at its head: a digest or a value of the header was "
        "exchanged"
    )


def _as_json(value: Any) -> Any:
    return json.loads(_canonical(value))


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _digest(value: Any) -> str:
    return hashlib.sha256(_canonical(value).encode()).hexdigest()
