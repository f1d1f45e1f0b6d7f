"""Decoded pixels as a normalised `Dataset` on the device."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from unlearnkit.base import UNIT, Dataset, Normalisation, Tokens
from unlearnkit.data.source import Pixels

NORMALISATIONS = ("unit", "symmetric", "standard")
SYMMETRIC = Normalisation("symmetric", (0.5,), (0.5,))


def check_normalisation(normalisation: object) -> None:
    """Raises ValueError for a name that no normalisation has."""
    if isinstance(normalisation, str) and normalisation not in NORMALISATIONS:
        raise ValueError(
            f"normalisation must be one of {', '.join(NORMALISATIONS)} or a Normalisation, or "
            f"Tokens, got {normalisation!r}"
        )


def normalise(
    pixels: Pixels,
    normalisation: str | Normalisation,
    *,
    train: Callable[[], Pixels],
    name: str,
) -> Dataset:
    """Returns a split under a normalisation, x float32, y int32.

    Args:
      pixels: of the split.
      normalisation: a name of `NORMALISATIONS`, or one of your own.
      train: the training split, which `standard` measures.
      name: what messages call the split.

    Raises:
      TypeError: whole numbers that are token ids, if anything.
      ValueError: numbers that are no pixels, under a normalisation of pixels; a channel of images
        that has one value, under `standard`; a normalisation with another number of channels.
    """
    if pixels.x.dtype not in (np.uint8, np.float32):
        raise TypeError(
            f"x of {name} is {pixels.x.dtype} [n, d]: say that these are token ids by "
            "normalisation=Tokens(vocabulary=…, pad=…), features by layout='features', or pixels "
            "by their white, as white=255"
        )
    if normalisation == "standard":
        normalisation = _standard(train())
    elif isinstance(normalisation, str):
        if pixels.features and (pixels.x.min() < 0 or pixels.x.max() > 1):
            raise ValueError(
                f"{name} holds numbers in {pixels.x.min():g} … {pixels.x.max():g}: features, which "
                "load with normalisation='standard'; or pixels: say what is white, as white=255"
            )
        normalisation = {"unit": UNIT, "symmetric": SYMMETRIC}[normalisation]
    channels = pixels.x.shape[-1]
    if len(normalisation.mean) not in (1, channels):
        raise ValueError(
            f"normalisation {normalisation.name!r} has {len(normalisation.mean)} channels, but "
            f"{name} has {channels}; give one mean and std, or one per channel"
        )
    # A copy: JAX may keep a view of a host array, and this one may be a file of the cache.
    y = jnp.asarray(np.array(pixels.y, np.int32))
    # Pixels travel to the device as bytes. Outside jit: a fused division by a constant becomes a
    # product with its rounded reciprocal, and white would leave [-1, 1] by a bit.
    x = normalisation.apply(jnp.asarray(pixels.x).astype(jnp.float32) / pixels.white)
    return Dataset(x.astype(jnp.float32), y, normalisation)


def _standard(train: Pixels) -> Normalisation:
    """Returns the one under which a training set has mean 0 and standard deviation 1."""
    std = train.std
    if train.features:
        std = tuple(s if s > 0 else 1.0 for s in std)
    if 0 in std:
        raise ValueError(
            f"channel {std.index(0)} has one value in the whole training split, so it has no "
            "standard deviation to divide by; use normalisation='unit' or 'symmetric'"
        )
    return Normalisation("standard", train.mean, std)


def describe_normalisation(found: Normalisation | Tokens) -> dict[str, object]:
    """Returns a normalisation as JSON values."""
    said = dataclasses.asdict(found)
    return {name: list(v) if isinstance(v, tuple) else v for name, v in said.items()}
